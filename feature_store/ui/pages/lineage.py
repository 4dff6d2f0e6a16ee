"""The lineage of all definitions, or around one."""

from __future__ import annotations

from starlette.requests import Request

from feature_store.ui.lineage import lineage_around, whole_lineage
from feature_store.ui.pages import Content, page
from feature_store.ui.site import Site


@page("/lineage", "lineage.html", menu="Lineage")
def lineage(site: Site, request: Request) -> Content:
    """The data of the page."""
    snapshot = site.snapshot()
    kind, name, direction = (request.query_params.get(one, "") for one in ("kind", "name", "direction"))
    if not name:
        return Content(snapshot, {"page": snapshot.derived(whole_lineage), "direction": ""}, is_fixed=True)
    return Content(snapshot, {"page": lineage_around(snapshot, kind, name, direction), "direction": direction})
