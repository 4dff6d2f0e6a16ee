"""The page of a feature: definition, distribution of values, importance and cost, consumers, code to read it."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request

from feature_store.ui.background import Computed
from feature_store.ui.feature import find_feature, reading_code, served
from feature_store.ui.pages import Content, page
from feature_store.ui.samples import Sample
from feature_store.ui.site import Site
from feature_store.ui.snapshot import is_hidden


@page("/feature/{view}/{name}", "feature.html")
def feature(site: Site, request: Request) -> Content:
    """The data of the page."""
    snapshot = site.snapshot()
    found = find_feature(snapshot, request.path_params["view"], request.path_params["name"])
    is_stored = found.view.name not in snapshot.definitions.on_demand_feature_views
    sampled = site.sample(snapshot, found.view.name) if is_stored else Computed[Sample]()
    worth = {service: site.worth(snapshot, service) for service, _ in found.consumers}
    known = {service: one.value for service, one in worth.items() if one.value is not None}
    newest = snapshot.version
    history = site.background.ask(("history", newest.digest), lambda: site.history.up_to(newest))
    changes = (history.value or {}).get((found.view.name, found.field.name), [])
    data = {
        "feature": found,
        "is_hidden": is_hidden(found),
        "is_stored": is_stored,
        "sample": sampled,
        "distribution": sampled.value.features.get(found.field.name) if sampled.value is not None else None,
        "served": served(snapshot, found, known),
        "history": history,
        "changes": changes[::-1],
        "code": reading_code(snapshot, found, site.store.project, site.shown_url()),
        "now": datetime.now(UTC),
    }
    return Content(snapshot, data, waiting=[sampled, history, *worth.values()])
