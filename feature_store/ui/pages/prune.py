"""The pruning page: the importance–cost curve of a service, and its prune plans."""

from __future__ import annotations

from starlette.requests import Request

from feature_store.ui.background import Computed
from feature_store.ui.definition_pages import service_page
from feature_store.ui.pages import Content, page
from feature_store.ui.prune import WhatIf, chosen, plans_of, read_request, what_if
from feature_store.ui.rendering import query_url
from feature_store.ui.site import WORTH_S, Site


@page("/prune", "prune.html", menu="Pruning")
def prune(site: Site, request: Request) -> Content:
    """The data of the page."""
    snapshot, given = site.snapshot(), request.query_params
    service = given.get("service", "")
    if not service:
        plans = plans_of(site.store, snapshot, None)
        return Content(snapshot, {"service": "", "what_if": Computed[WhatIf](), "plans": plans})
    name = service_page(snapshot, service).service.name
    plans = plans_of(site.store, snapshot, name)
    counts = read_request(snapshot, name, given, plans[0].plan.request if plans else {})

    def compute() -> WhatIf | None:
        return what_if(site.service(snapshot, name), counts)

    def point_url(point: int) -> str:
        return query_url("/prune", {"service": name, **{f"n_{one}": n for one, n in counts.items()}, "point": point})

    found = site.background.ask(("what-if", snapshot.version.digest, name, *counts.items()), compute, max_age_s=WORTH_S)
    data = {
        "service": name,
        "what_if": found,
        "plans": plans,
        "request": counts,
        "point": chosen(found.value, given) if found.value is not None else 0,
        "point_url": point_url,
    }
    return Content(snapshot, data, waiting=[found])
