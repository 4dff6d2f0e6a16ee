"""What the pages share: the project, the newest definitions, and what is computed beside the pages."""

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

# How old what a page says of the online store may be, in seconds.
PLAN_S, SAMPLE_S, WORTH_S = 5.0, 60.0, 30.0
_STATUS: dict[type[FeatureStoreError], int] = {
    NotFoundError: 404,
    RequestError: 400,
    DataError: 400,
    OnlineStoreError: 503,
    RegistryError: 503,
}


class Site:
    """What the pages share. It knows no page.

    Args:
        store: the project.

    Attributes:
        store: the project; its online store may not be open yet, see `opened`.
        background: computes what takes longer than a page may.
        history: which versions changed a feature.
    """

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self.background = Background()
        self.history = FeatureHistory(store.registry)
        self._snapshots = Snapshots(store, self.background, (entries, choices, lineage_nodes, whole_lineage))
        self._opening = threading.Lock()
        self._importing = threading.Lock()  # around what imports the folder's files; two threads would meet
        self._reader: tuple[str, OnlineClient] | None = None
        # So that the first visitor does not wait. If it fails, the pages say why.
        with contextlib.suppress(FeatureStoreError):
            self._snapshots.newest()

    def close(self) -> None:
        """Stop what is being computed."""
        self.background.close()
        if self._reader is not None:
            self._reader[1].close()

    def snapshot(self) -> Snapshot:
        """The newest applied definitions."""
        return self._snapshots.newest()

    def opened(self) -> FeatureStore:
        """The project, with its online store opened: of two requests at once, one starts the embedded server."""
        with self._opening:
            _ = self.store.online
        return self.store

    def client(self, snapshot: Snapshot) -> OnlineClient:
        """A client with the functions that the folder held when the version was first seen; where the folder's files
        are broken, what is stored can be read all the same."""
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
        """What needs attention in the folder as it is now."""
        store = self.opened()
        with self._importing, contextlib.suppress(FeatureStoreError):  # the doctor tells why it cannot be read
            store.reload()
            _ = store.definitions
        found = attention(store)
        store.reload()  # of a large project, 200,000 objects to look through for garbage
        return found

    def plan(self) -> ServingPlan:
        """The published plan."""
        return self.opened().online.require_published().plan

    def shown_url(self) -> str:
        """The address of the online store, without secrets."""
        try:
            return self.opened().online.shown_url
        except FeatureStoreError:  # an embedded server that does not start: what needs it says so
            return "redis://…"

    def sample(self, snapshot: Snapshot, view: str) -> Computed[Sample]:
        """A sample of a stored view's entities."""

        def compute() -> Sample:
            client = self.client(snapshot)
            hidden = {one.field.name for one in snapshot.features.values() if one.view.name == view and is_hidden(one)}
            return sample(self.opened().online, client, view, datetime.now(UTC), hidden)

        return self.background.ask(("sample", snapshot.version.digest, view), compute, max_age_s=SAMPLE_S)

    def service(self, snapshot: Snapshot, name: str) -> PrunableService:
        """A service of the version that is shown, with its newest importances."""
        return Pruner(self.store).service(name, snapshot.definitions)

    def worth(self, snapshot: Snapshot, service: str) -> Computed[Worth]:
        """What the features of a service are worth and cost."""
        key = ("worth", snapshot.version.digest, service)
        return self.background.ask(key, lambda: worth_of(self.service(snapshot, service)), max_age_s=WORTH_S)


def status_of(error: FeatureStoreError) -> int:
    """The HTTP status of an error."""
    return next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
