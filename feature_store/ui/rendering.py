"""Renders page data as HTML: templates, addresses of pages, formats of numbers and times."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from feature_store._formatting import (
    counted,
    shown_ago,
    shown_bytes,
    shown_duration,
    shown_number,
    shown_share,
    shown_time,
)
from feature_store.definitions.scalars import json_form
from feature_store.online.status import Status
from feature_store.registry.catalog import KINDS

# The most characters that a page shows of a text, such as an entity key or a value.
MOST_SHOWN = 400
_PATHS = {
    "views": "/view/",
    "streams": "/view/",
    "on-demand": "/view/",
    "services": "/service/",
    "entities": "/entity/",
}


def url_of(kind: str, name: str) -> str:
    """The address of a definition's page. Kinds are those of the catalog, and `models`, whose page is their lineage."""
    if kind == "features":
        view, _, feature = name.partition(":")
        return f"/feature/{quote(view, safe='')}/{quote(feature, safe='')}"
    if kind == "sources":
        return f"/source?{urlencode({'name': name})}"
    if kind in _PATHS:
        return _PATHS[kind] + quote(name, safe="")
    return lineage_url(kind, name)


def lineage_url(kind: str, name: str) -> str:
    """The address of the lineage around a definition."""
    return f"/lineage?{urlencode({'kind': kind, 'name': name})}"


def query_url(path: str, values: Mapping[str, Any]) -> str:
    """A path with a query of the values that are not empty."""
    query = urlencode({name: value for name, value in values.items() if value not in ("", None)})
    return f"{path}?{query}" if query else path


def time_or_never(time: datetime | None) -> str:
    """A time in UTC, to the second; None is "never"."""
    return "never" if time is None else shown_time(time)


def ago_or_never(time: datetime | None, now: datetime | None = None) -> str:
    """How long ago a time is, counted from `now`; None is "never"."""
    return "never" if time is None else shown_ago(((now or datetime.now(UTC)) - time).total_seconds())


def shown_value(value: Any) -> str:
    """A served value as text, exact up to its length."""
    match value:
        case None:
            return "–"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}Z"
        case list():
            text = f"[{', '.join(map(shown_value, value[:100]))}{', …' if len(value) > 100 else ''}]"
        case float():
            text = repr(value)
        case bytes():
            text = json_form(value)
        case _:
            text = str(value)
    return shortened(text, MOST_SHOWN)


def shortened(text: Any, most: int = MOST_SHOWN) -> str:
    """A text, cut to a number of characters."""
    whole = str(text)
    return whole if len(whole) <= most else f"{whole[: most - 1]}…"


class Templates:
    """The templates of the pages.

    Args:
        always: variables of all templates.
    """

    def __init__(self, **always: Any) -> None:
        self._environment = Environment(
            loader=PackageLoader("feature_store.ui"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {
            **always,
            "url_of": url_of,
            "lineage_url": lineage_url,
            "query_url": query_url,
            "counted": counted,
            "kind_names": {**KINDS, "models": "model"},
            "Status": Status,
        }
        self._environment.filters |= {
            "time": time_or_never,
            "ago": ago_or_never,
            "number": shown_number,
            "bytes": shown_bytes,
            "share": shown_share,
            "value": shown_value,
            "short": shortened,
            "seconds": lambda seconds: shown_duration(timedelta(seconds=seconds)),
        }

    def page(self, template: str, *, status: int = 200, **data: Any) -> HTMLResponse:
        """Render a template."""
        return HTMLResponse(self._environment.get_template(template).render(**data), status)
