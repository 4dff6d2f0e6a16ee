"""Page data → HTML: the templates, the addresses of things, and how numbers and times are written."""

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

# What a page shows of one text at most: an entity's key or a value may be as long as somebody made it.
MOST_SHOWN = 400
_PATHS = {
    "views": "/view/",
    "streams": "/view/",
    "on-demand": "/view/",
    "services": "/service/",
    "entities": "/entity/",
}


def url_of(kind: str, name: str) -> str:
    """The page of a thing; kinds are the catalog's, and `models`, which have only their lineage."""
    if kind == "features":
        view, _, feature = name.partition(":")
        return f"/feature/{quote(view, safe='')}/{quote(feature, safe='')}"
    if kind == "sources":
        return f"/source?{urlencode({'name': name})}"
    if kind in _PATHS:
        return _PATHS[kind] + quote(name, safe="")
    return lineage_url(kind, name)


def lineage_url(kind: str, name: str) -> str:
    """The lineage around a thing."""
    return f"/lineage?{urlencode({'kind': kind, 'name': name})}"


def query_url(path: str, values: Mapping[str, Any]) -> str:
    """A path with the values that are not empty."""
    query = urlencode({name: value for name, value in values.items() if value not in ("", None)})
    return f"{path}?{query}" if query else path


def time_or_never(time: datetime | None) -> str:
    """A time in UTC, to the second; None is "never"."""
    return "never" if time is None else shown_time(time)


def ago_or_never(time: datetime | None, now: datetime | None = None) -> str:
    """How long ago a time is, counted from `now`; None is "never"."""
    return "never" if time is None else shown_ago(((now or datetime.now(UTC)) - time).total_seconds())


def shown_value(value: Any) -> str:
    """A served value, exact but for its length."""
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
    """At most so many characters of a text."""
    whole = str(text)
    return whole if len(whole) <= most else f"{whole[: most - 1]}…"


class Templates:
    """The pages' templates.

    Args:
        always: what all of them are given.
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
        """A page."""
        return HTMLResponse(self._environment.get_template(template).render(**data), status)
