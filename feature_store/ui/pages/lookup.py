"""The look-up page: the values that one entity is served now, and why."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request

from feature_store.errors import FeatureStoreError
from feature_store.ui.lookup import look_up, lookup_request
from feature_store.ui.pages import Content, page
from feature_store.ui.site import Site, status_of


@page("/lookup", "lookup.html", menu="Look up")
def lookup(site: Site, request: Request) -> Content:
    """The data of the page."""
    snapshot, now = site.snapshot(), datetime.now(UTC)
    wanted = lookup_request(snapshot, request.query_params)
    result = problem = None
    if wanted.is_complete:
        try:
            result = look_up(site.opened().online, site.client(snapshot), snapshot, wanted, now)
        except FeatureStoreError as error:
            problem = error
    status = 200 if problem is None else status_of(problem)
    return Content(snapshot, {"asked": wanted, "found": result, "problem": problem}, status=status)
