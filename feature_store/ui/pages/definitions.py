"""The pages of a view, a service, an entity and a source."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request

from feature_store.ui.background import Computed
from feature_store.ui.definition_pages import entity_page, service_page, source_page, view_page
from feature_store.ui.pages import Content, page
from feature_store.ui.samples import Sample
from feature_store.ui.site import Site


@page("/view/{name}", "view.html")
def view(site: Site, request: Request) -> Content:
    """A view of any kind."""
    snapshot = site.snapshot()
    shown = view_page(snapshot, request.path_params["name"])
    sampled = site.sample(snapshot, shown.view.name) if shown.is_stored else Computed[Sample]()
    return Content(snapshot, {"page": shown, "sample": sampled, "now": datetime.now(UTC)}, waiting=[sampled])


@page("/service/{name}", "service.html")
def service(site: Site, request: Request) -> Content:
    """A service."""
    snapshot = site.snapshot()
    shown = service_page(snapshot, request.path_params["name"])
    worth = site.worth(snapshot, shown.service.name)
    return Content(snapshot, {"page": shown, "worth": worth}, waiting=[worth])


@page("/entity/{name}", "entity.html")
def entity(site: Site, request: Request) -> Content:
    """An entity."""
    snapshot = site.snapshot()
    return Content(snapshot, {"page": entity_page(snapshot, request.path_params["name"])})


@page("/source", "source.html")
def source(site: Site, request: Request) -> Content:
    """A source."""
    snapshot = site.snapshot()
    return Content(snapshot, {"page": source_page(snapshot, request.query_params.get("name", ""))})
