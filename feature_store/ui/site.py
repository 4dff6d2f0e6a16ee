"""What the pages share: the project, the newest definitions, and values computed in the background."""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime

from feature_store.errors import (
    DataError,
    FeatureStoreError,
    NotFoundError,
    OnlineStoreError,
    RegistryError,
    RequestError,
)
from feature_store.monitoring.checks import Finding
from feature_store.online import OnlineClient
from feature_store.project.pruner import Pruner
from feature_store.project.store import FeatureStore
from feature_store.pruning.service import PrunableService
from feature_store.registry.serving_plan import ServingPlan
from feature_store.ui.background import Background, Computed
from feature_store.ui.catalogue import choices, entries
from feature_store.ui.lineage import lineage_nodes, whole_lineage
from feature_store.ui.overview import attention
from feature_store.ui.samples import Sample, sample
from feature_store.ui.snapshot import Snapshot, Snapshots, is_hidden
from feature_store.ui.versions import FeatureHistory
from feature_store.ui.worth import Worth, worth_of

# The greatest age of values that pages show of the online store, in seconds.
PLAN_S, SAMPLE_S, WORTH_S = 5.0, 60.0, 30.0
_STATUS: dict[type[FeatureStoreError], int] = {
    NotFoundError: 404,
    RequestError: 400,
    DataError: 400,
    OnlineStoreError: 503,
    RegistryError: 503,
}


class Site:
    """What the pages share.

    Args:
        store: the project.

    Attributes:
        store: the project. Its online store may not be open yet, see `opened`.
        background: computes values that take longer than a page may.
        history: the versions that changed each feature.
    """

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self.background = Background()
        self.history = FeatureHistory(store.registry)
        self._snapshots = Snapshots(store, self.background, (entries, choices, lineage_nodes, whole_lineage))
        self._opening = threading.Lock()
        self._importing = threading.Lock()  # held while the folder's files are imported, by one thread at a time
        self._reader: tuple[str, OnlineClient] | None = None
        # Read the definitions now, so that the first visitor does not wait. If this fails, the pages show the error.
        with contextlib.suppress(FeatureStoreError):
            self._snapshots.newest()

    def close(self) -> None:
        """Stop the background computations, and close the client."""
        self.background.close()
        if self._reader is not None:
            self._reader[1].close()

    def snapshot(self) -> Snapshot:
        """The newest applied definitions."""
        return self._snapshots.newest()

    def opened(self) -> FeatureStore:
        """The project with its online store open. The lock lets only one of two requests start the embedded server."""
        with self._opening:
            _ = self.store.online
        return self.store

    def client(self, snapshot: Snapshot) -> OnlineClient:
        """A client with the folder's on-demand functions, read once per version.

        If the folder's files cannot be imported, it has none, so that stored features can still be read.
        """
        store, digest = self.opened(), snapshot.version.digest
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

    def attention(self) -> list[Finding]:
        """The findings that need attention, with the folder's current files."""
        store = self.opened()
        with self._importing, contextlib.suppress(FeatureStoreError):  # the doctor reports why
            store.reload()
            _ = store.definitions
        findings = attention(store)
        store.reload()  # frees up to 200,000 objects, which garbage collection would have to scan
        return findings

    def plan(self) -> ServingPlan:
        """The published plan."""
        return self.opened().online.require_published().plan

    def shown_url(self) -> str:
        """The address of the online store, without secrets."""
        try:
            return self.opened().online.shown_url
        except FeatureStoreError:  # the embedded server does not start; pages that need it show why
            return "redis://…"

    def sample(self, snapshot: Snapshot, view: str) -> Computed[Sample]:
        """A sample of a stored view's entities."""

        def compute() -> Sample:
            client = self.client(snapshot)
            hidden = {one.field.name for one in snapshot.features.values() if one.view.name == view and is_hidden(one)}
            return sample(self.opened().online, client, view, datetime.now(UTC), hidden)

        return self.background.ask(("sample", snapshot.version.digest, view), compute, max_age_s=SAMPLE_S)

    def service(self, snapshot: Snapshot, name: str) -> PrunableService:
        """A service of the shown version, with its newest importances."""
        return Pruner(self.store).service(name, snapshot.definitions)

    def worth(self, snapshot: Snapshot, service: str) -> Computed[Worth]:
        """The importances and costs of a service's features."""
        key = ("worth", snapshot.version.digest, service)
        return self.background.ask(key, lambda: worth_of(self.service(snapshot, service)), max_age_s=WORTH_S)


def status_of(error: FeatureStoreError) -> int:
    """The HTTP status of an error."""
    return next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
