"""The lineage: what definitions are made from, as a whole or around one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse

from feature_store.ui.lineage import lineage_around, whole_lineage
from feature_store.ui.pages import Content, page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from feature_store.ui.site import Site


@page("/lineage", "lineage.html", menu="Lineage")
def lineage(site: Site, request: Request) -> Content | Response:
    """The data of the page; the page itself of the whole graph, which is large and the same for all of a version."""
    snapshot = site.snapshot()
    kind, name, direction = (request.query_params.get(one, "") for one in ("kind", "name", "direction"))
    if not name:
        whole = Content(snapshot, {"page": snapshot.derived(whole_lineage), "direction": ""})
        return HTMLResponse(site.once_per_version("lineage", snapshot, lambda: site.render("lineage.html", whole)))
    return Content(snapshot, {"page": lineage_around(snapshot, kind, name, direction), "direction": direction})
