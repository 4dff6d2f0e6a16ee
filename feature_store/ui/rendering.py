"""Page data → HTML: the templates, the addresses of things, and how numbers and times are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from feature_store.definitions.duration import shown_duration
from feature_store.numerals import counted, shown_bytes, shown_number
from feature_store.online.status import Status
from feature_store.registry.catalog import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def shown_time(time: datetime | None) -> str:
    """A time in UTC, to the second."""
    return "never" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def shown_ago(time: datetime | None, now: datetime | None = None) -> str:
    """How long ago: `2 h ago`; the largest unit of which there are two or more."""
    if time is None:
        return "never"
    seconds = ((now or datetime.now(UTC)) - time).total_seconds()
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= 2 * length:
            return f"{abs(seconds) / length:,.0f} {unit} {'ago' if seconds > 0 else 'ahead'}"
    return "just now" if abs(seconds) < 2 else f"{abs(seconds):.0f} s {'ago' if seconds > 0 else 'ahead'}"


def shown_share(share: float | None) -> str:
    """A share in per cent; what is little is told from none."""
    if share is None:
        return "–"
    return (
        f"{share:.1%}"
        if share in (0, 1) or 0.001 <= share <= 0.999
        else f"{'<' if share < 0.5 else '>'}{0.1 if share < 0.5 else 99.9} %"
    )


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
            "time": shown_time,
            "ago": shown_ago,
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
