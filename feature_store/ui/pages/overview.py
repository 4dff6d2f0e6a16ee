"""The overview: the served version, freshness, coverage, and findings that need attention."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import yaml
from starlette.requests import Request

from feature_store.registry.catalog import KINDS
from feature_store.ui.catalogue import entries
from feature_store.ui.overview import coverage, freshness
from feature_store.ui.pages import Content, page
from feature_store.ui.site import PLAN_S, SAMPLE_S, Site


@page("/", "overview.html", menu="Overview")
def overview(site: Site, _request: Request) -> Content:
    """The data of the page."""
    snapshot, ask = site.snapshot(), site.background.ask
    plan = ask("plan", site.plan, max_age_s=PLAN_S)
    covered = ask("coverage", lambda: coverage(site.opened(), site.plan()), max_age_s=SAMPLE_S)
    fresh = ask("freshness", lambda: freshness(site.opened().monitoring.freshness()), max_age_s=SAMPLE_S)
    findings = ask("attention", site.attention, max_age_s=SAMPLE_S)
    counts = Counter(kind for kind, _ in snapshot.derived(entries))
    data = {
        "plan": plan,
        "coverage": covered,
        "freshness": fresh,
        "attention": findings,
        "counts": {kind: counts[kind] for kind in KINDS if counts[kind]},
        "stored": len(snapshot.definitions.stored_views),
        "shown_url": site.shown_url() if plan.value is not None else "",
        "configuration": yaml.safe_dump(site.store.config.shown(), sort_keys=False, allow_unicode=True),
        "now": datetime.now(UTC),
    }
    return Content(snapshot, data, waiting=[plan, covered, fresh, findings])
