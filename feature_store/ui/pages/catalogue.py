"""The catalogue: all definitions, searched and filtered."""

from __future__ import annotations

from starlette.requests import Request

from feature_store.ui.catalogue import CatalogueQuery, catalogue as searched
from feature_store.ui.pages import Content, page
from feature_store.ui.site import Site


@page("/catalogue", "catalogue.html", menu="Catalogue")
def catalogue(site: Site, request: Request) -> Content:
    """The data of the page."""
    snapshot = site.snapshot()
    results = searched(snapshot, CatalogueQuery.of(request.query_params))
    return Content(snapshot, {"page": results, "query": results.query})
