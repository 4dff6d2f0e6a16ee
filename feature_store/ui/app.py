"""The application: routes, what pages are given, and what goes wrong."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import yaml
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from feature_store.errors import (
    DataError,
    FeatureStoreError,
    NotFoundError,
    OnlineStoreError,
    RegistryError,
    RequestError,
)
from feature_store.online import OnlineClient
from feature_store.registry.catalog import KINDS
from feature_store.ui.background import Background, Outcome
from feature_store.ui.catalogue import Query, catalogue
from feature_store.ui.definition_pages import MOST_ROWS, entity_page, service_page, source_page, view_page
from feature_store.ui.feature import find_feature, reading_code, served
from feature_store.ui.lineage import lineage_around
from feature_store.ui.lookup import asked, look_up
from feature_store.ui.overview import attention, coverage, freshness
from feature_store.ui.prune import WhatIf, chosen, plans_of, read_request, what_if
from feature_store.ui.rendering import Templates, query_url, shortened
from feature_store.ui.samples import Sample, sample
from feature_store.ui.security import Guard
from feature_store.ui.snapshot import Snapshots
from feature_store.ui.versions import FeatureHistory
from feature_store.ui.worth import Worth, worth_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

    from feature_store.monitoring.checks import Finding
    from feature_store.project.store import FeatureStore
    from feature_store.registry.serving_plan import ServingPlan
    from feature_store.ui.snapshot import Snapshot

# How old what a page says of the online store may be.
_PLAN_S, _SAMPLE_S, _WORTH_S = 5.0, 60.0, 30.0
# While something is being counted, the browser looks again after so many seconds.
_AGAIN_S = 1
_STATUS: dict[type[FeatureStoreError], int] = {
    NotFoundError: 404,
    RequestError: 400,
    DataError: 400,
    OnlineStoreError: 503,
    RegistryError: 503,
}


def create_app(store: FeatureStore, *, token: str | None = None, loopback: bool = True) -> ASGIApp:
    """The pages of a project, as an ASGI application.

    Args:
        store: the project; it is not closed.
        token: what a visitor must show; None: nothing.
        loopback: whether the pages are for this machine alone; see `security.Guard`.
    """
    site = Site(store)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        site.close()

    pages: dict[str, Callable[[Request], Response]] = {
        "/": site.overview,
        "/catalogue": site.catalogue,
        "/feature/{view}/{name}": site.feature,
        "/view/{name}": site.view,
        "/service/{name}": site.service,
        "/entity/{name}": site.entity,
        "/source": site.source,
        "/lineage": site.lineage,
        "/lookup": site.lookup,
        "/prune": site.prune,
    }
    routes: list[Route | Mount] = [Route(path, page, methods=["GET"]) for path, page in pages.items()]
    static = Mount("/static", StaticFiles(packages=[("feature_store.ui", "static")]))
    app = Starlette(
        routes=[*routes, static],
        exception_handlers={
            FeatureStoreError: site.failed,
            HTTPException: site.refused,
            Exception: site.broken,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # it would make an address of the Host that the browser names
    return Guard(app, token=token, loopback=loopback)


class Site:
    """The pages.

    Args:
        store: the project.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._background = Background()
        self._snapshots = Snapshots(store, self._background)
        self._history = FeatureHistory(store.registry)
        self._templates = Templates(project=store.project, again_s=_AGAIN_S, most_rows=MOST_ROWS)
        self._opening = threading.Lock()
        self._importing = threading.Lock()  # around what imports the folder's files; two threads would meet
        self._reader: tuple[str, OnlineClient] | None = None
        self._graph = "", b""  # of which version, the page
        # So that the first visitor does not wait; what is wrong, the pages tell.
        with contextlib.suppress(FeatureStoreError):
            self._snapshots.newest()

    def close(self) -> None:
        """Stop what is being counted."""
        self._background.close()
        if self._reader is not None:
            self._reader[1].close()

    # -- pages --------------------------------------------------------------------------------------------------

    def overview(self, _request: Request) -> Response:
        """What is served, how fresh and how complete it is, and what needs attention."""
        snapshot, store = self._snapshots.newest(), self._store
        plan = self._background.ask("plan", self._plan, max_age_s=_PLAN_S)
        covered = self._background.ask("coverage", lambda: coverage(self._opened(), self._plan()), max_age_s=_SAMPLE_S)
        fresh = self._background.ask(
            "freshness", lambda: freshness(self._opened().monitoring.freshness()), max_age_s=_SAMPLE_S
        )
        findings = self._background.ask("attention", self._attention, max_age_s=_SAMPLE_S)
        counts = Counter(kind for kind, _ in snapshot.entries)
        return self._page(
            "overview.html",
            snapshot,
            waiting=[plan, covered, fresh, findings],
            plan=plan,
            coverage=covered,
            freshness=fresh,
            attention=findings,
            counts={kind: counts[kind] for kind in KINDS if counts[kind]},
            stored=len(snapshot.definitions.stored_views),
            shown_url=self._shown_url() if plan.value is not None else "",
            configuration=yaml.safe_dump(store.config.shown(), sort_keys=False, allow_unicode=True),
            now=datetime.now(UTC),
        )

    def catalogue(self, request: Request) -> Response:
        """All there is, searched and filtered."""
        snapshot = self._snapshots.newest()
        page = catalogue(snapshot, Query.of(request.query_params))
        return self._page("catalogue.html", snapshot, page=page, query=page.query)

    def feature(self, request: Request) -> Response:
        """One feature."""
        snapshot = self._snapshots.newest()
        feature = find_feature(snapshot, request.path_params["view"], request.path_params["name"])
        is_stored = feature.view.name not in snapshot.definitions.on_demand_feature_views
        found = self._sample(snapshot, feature.view.name) if is_stored else Outcome[Sample]()
        worth = {service: self._worth(snapshot, service) for service, _ in feature.consumers}
        known = {service: one.value for service, one in worth.items() if one.value is not None}
        newest = snapshot.version
        history = self._background.ask(("history", newest.digest), lambda: self._history.up_to(newest))
        changes = (history.value or {}).get((feature.view.name, feature.field.name), [])
        return self._page(
            "feature.html",
            snapshot,
            waiting=[found, history, *worth.values()],
            feature=feature,
            is_stored=is_stored,
            sample=found,
            distribution=found.value.features.get(feature.field.name) if found.value is not None else None,
            served=served(snapshot, feature, known),
            history=history,
            changes=changes[::-1],
            code=reading_code(snapshot, feature, self._store.project, self._shown_url()),
            now=datetime.now(UTC),
        )

    def view(self, request: Request) -> Response:
        """One view of any kind."""
        snapshot = self._snapshots.newest()
        page = view_page(snapshot, request.path_params["name"])
        found = self._sample(snapshot, page.view.name) if page.is_stored else Outcome[Sample]()
        return self._page("view.html", snapshot, waiting=[found], page=page, sample=found, now=datetime.now(UTC))

    def service(self, request: Request) -> Response:
        """One service."""
        snapshot = self._snapshots.newest()
        page = service_page(snapshot, request.path_params["name"])
        worth = self._worth(snapshot, page.service.name)
        return self._page("service.html", snapshot, waiting=[worth], page=page, worth=worth)

    def entity(self, request: Request) -> Response:
        """One entity."""
        snapshot = self._snapshots.newest()
        return self._page("entity.html", snapshot, page=entity_page(snapshot, request.path_params["name"]))

    def source(self, request: Request) -> Response:
        """One source."""
        snapshot = self._snapshots.newest()
        return self._page("source.html", snapshot, page=source_page(snapshot, request.query_params.get("name", "")))

    def lineage(self, request: Request) -> Response:
        """What comes from what: all of it, or around one thing."""
        snapshot = self._snapshots.newest()
        kind, name, direction = (request.query_params.get(one, "") for one in ("kind", "name", "direction"))
        if not name:
            return HTMLResponse(self._whole_lineage(snapshot))
        page = lineage_around(snapshot, kind, name, direction)
        return self._page("lineage.html", snapshot, page=page, direction=direction)

    def _whole_lineage(self, snapshot: Snapshot) -> bytes:
        """The page of the whole graph, which is large, and the same until something is applied."""
        digest, page = self._graph
        if digest != snapshot.version.digest:
            page = bytes(self._page("lineage.html", snapshot, page=snapshot.whole_lineage, direction="").body)
            self._graph = snapshot.version.digest, page
        return page

    def lookup(self, request: Request) -> Response:
        """What one entity is served now, and why."""
        snapshot, now = self._snapshots.newest(), datetime.now(UTC)
        wanted = asked(snapshot, request.query_params)
        found = problem = None
        if wanted.is_complete:
            try:
                found = look_up(self._opened().online, self._client(snapshot), snapshot, wanted, now)
            except FeatureStoreError as error:
                problem = error
        status = 200 if problem is None else _status_of(problem)
        return self._page("lookup.html", snapshot, status=status, asked=wanted, found=found, problem=problem)

    def prune(self, request: Request) -> Response:
        """What a service could do without, and the plans that are kept."""
        snapshot, given = self._snapshots.newest(), request.query_params
        service = given.get("service", "")
        if not service:
            plans = plans_of(self._store, snapshot, None)
            return self._page("prune.html", snapshot, service="", what_if=Outcome[WhatIf](), plans=plans)
        name = service_page(snapshot, service).service.name
        plans = plans_of(self._store, snapshot, name)
        counts = read_request(snapshot, name, given, plans[0].plan.request if plans else {})

        def compute() -> WhatIf | None:
            return what_if(self._store, snapshot, name, counts)

        key = ("what-if", snapshot.version.digest, name, *counts.items())
        found = self._background.ask(key, compute, max_age_s=_WORTH_S)
        return self._page(
            "prune.html",
            snapshot,
            waiting=[found],
            service=name,
            what_if=found,
            plans=plans,
            request=counts,
            point=chosen(found.value, given) if found.value is not None else 0,
            point_url=lambda point: query_url(
                "/prune", {"service": name, **{f"n_{one}": count for one, count in counts.items()}, "point": point}
            ),
        )

    # -- what goes wrong ----------------------------------------------------------------------------------------

    def failed(self, _request: Request, error: Exception) -> Response:
        """An error of the library: what it says, and what to do."""
        assert isinstance(error, FeatureStoreError)
        status = _status_of(error)
        return self._templates.page(
            "error.html",
            status=status,
            title="Not found" if status == 404 else "This cannot be shown",
            reason=shortened(error.reason),
            hint=shortened(error.hint),
            **_NO_PAGE,
        )

    def refused(self, _request: Request, error: Exception) -> Response:
        """An address that leads nowhere."""
        assert isinstance(error, HTTPException)
        title = "Not found" if error.status_code == 404 else error.detail
        hint = "the catalogue lists all there is"
        return self._templates.page(
            "error.html", status=error.status_code, title=title, reason="There is no such page.", hint=hint, **_NO_PAGE
        )

    def broken(self, _request: Request, _error: Exception) -> Response:
        """A fault of these pages: the log has it, the browser is told nothing of it."""
        reason = "Something is wrong with this page."
        return self._templates.page(
            "error.html", status=500, title="This cannot be shown", reason=reason, hint="see the log", **_NO_PAGE
        )

    # -- what pages are given -----------------------------------------------------------------------------------

    def _page(
        self, template: str, snapshot: Snapshot, *, waiting: Iterable[Outcome[Any]] = (), **data: Any
    ) -> Response:
        is_waiting = any(outcome.is_pending for outcome in waiting)
        return self._templates.page(template, snapshot=snapshot, is_waiting=is_waiting, **data)

    def _opened(self) -> FeatureStore:
        """The project, with its online store opened: of two requests at once, one starts the embedded server."""
        with self._opening:
            _ = self._store.online
        return self._store

    def _client(self, snapshot: Snapshot) -> OnlineClient:
        """A client with the functions that the folder held when the version was first seen; where the folder's files
        are broken, what is stored can be read all the same."""
        store, digest = self._opened(), snapshot.version.digest
        with self._importing:
            if self._reader is None or self._reader[0] != digest:
                functions = {}
                with contextlib.suppress(FeatureStoreError):
                    store.reload()
                    functions = store.definitions.on_demand_feature_views
                timeout_s = store.config.online_store.timeout_ms / 1000
                client = OnlineClient(store.online_url, store.project, timeout_s=timeout_s, transforms=functions)
                if self._reader is not None:
                    self._reader[1].close()
                self._reader = digest, client
            return self._reader[1]

    def _attention(self) -> list[Finding]:
        """What needs attention in the folder as it is now."""
        store = self._opened()
        with self._importing, contextlib.suppress(FeatureStoreError):  # the doctor tells why it cannot be read
            store.reload()
            _ = store.definitions
        found = attention(store)
        store.reload()  # of a large project, 200,000 objects to look through for garbage
        return found

    def _plan(self) -> ServingPlan:
        """The published plan."""
        return self._opened().online.require_published().plan

    def _shown_url(self) -> str:
        try:
            return self._opened().online.shown_url
        except FeatureStoreError:  # an embedded server that does not start: what needs it says so
            return "redis://…"

    def _sample(self, snapshot: Snapshot, view: str) -> Outcome[Sample]:
        """A sample of a stored view's entities."""

        def compute() -> Sample:
            client = self._client(snapshot)
            hidden = {one.field.name for one in snapshot.features.values() if one.view.name == view and one.is_hidden}
            return sample(self._opened().online, client, view, datetime.now(UTC), hidden)

        return self._background.ask(("sample", snapshot.version.digest, view), compute, max_age_s=_SAMPLE_S)

    def _worth(self, snapshot: Snapshot, service: str) -> Outcome[Worth]:
        key = ("worth", snapshot.version.digest, service)
        return self._background.ask(key, lambda: worth_of(self._store, snapshot, service), max_age_s=_WORTH_S)


def _status_of(error: FeatureStoreError) -> int:
    return next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)


# What a page without a snapshot gives its layout.
_NO_PAGE: dict[str, Any] = {"snapshot": None, "is_waiting": False}
