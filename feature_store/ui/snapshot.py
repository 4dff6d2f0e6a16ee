"""One version of the applied definitions, with all that pages derive from it, computed once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from feature_store._extras import requires_extra
from feature_store.definitions import DefinitionSet
from feature_store.definitions.graph import AnyView, DefinitionGraph, Feature, graph_of
from feature_store.errors import NotFoundError
from feature_store.project.store import FeatureStore
from feature_store.registry.catalog import Source, sources
from feature_store.registry.lineage import Lineage, lineage_of
from feature_store.registry.store import Version
from feature_store.ui.background import Background

if TYPE_CHECKING:
    from feature_store.registry.search import SearchIndex

T = TypeVar("T")
# Seconds between checks for a newer version.
_CHECK_S = 1.0


# Values of the tag `pii` of features that are not personal.
_NOT_PII = frozenset({"", "no", "false", "none", "0"})


def is_hidden(feature: Feature) -> bool:
    """Whether pages hide a feature's values: it or its view has the tag `pii`, or `ui: hide`."""
    tags = {name.casefold(): value.casefold() for name, value in feature.tags.items()}
    return tags.get("pii", "no") not in _NOT_PII or tags.get("ui") == "hide"


class Snapshot:
    """One version of the definitions.

    Args:
        version: the version in the registry.
        models: the known models of each service.
    """

    def __init__(self, version: Version, models: Mapping[str, Sequence[str]] | None = None) -> None:
        self.version, self._models = version, models
        self.definitions: DefinitionSet = version.definitions()
        self._derived: dict[Any, Any] = {}

    @property
    def graph(self) -> DefinitionGraph:
        """How the definitions relate."""
        return graph_of(self.definitions)

    @property
    def views(self) -> dict[str, AnyView]:
        """All views by name: batch, stream, on-demand."""
        return self.graph.views

    @property
    def features(self) -> dict[str, Feature]:
        """All features by reference `view:feature`."""
        return self.graph.features

    @cached_property
    def served_views(self) -> dict[str, AnyView]:
        """The served views, without features that prune plans drop."""
        return graph_of(self.version.served_definitions()).views

    @cached_property
    def sources(self) -> dict[str, tuple[list[Source], list[str]]]:
        """The declarations and the readers of each source, by name."""
        return sources(self.definitions)

    @cached_property
    def search(self) -> SearchIndex:
        """The search index of all definitions."""
        with requires_extra("registry", "search"):
            from feature_store.registry.search import SearchIndex
        return SearchIndex(self.definitions)

    @cached_property
    def lineage(self) -> Lineage:
        """The lineage of all definitions."""
        return lineage_of(self.definitions, self._models)

    def derived(self, make: Callable[[Snapshot], T]) -> T:
        """`make(self)`, computed on the first call with this function and kept for later calls."""
        if make not in self._derived:
            self._derived[make] = make(self)
        derived: T = self._derived[make]
        return derived

    def prepared(self, pages: Iterable[Callable[[Snapshot], Any]] = ()) -> Snapshot:
        """The same snapshot, after computing the properties that several pages use and what `pages` derive."""
        _ = self.features, self.search, self.lineage, self.sources
        for make in pages:
            self.derived(make)
        return self


class Snapshots:
    """The newest snapshot of a project.

    Args:
        store: the project.
        background: reads a newer version while the older one is shown.
        pages: functions that derive data of pages, called for each version before it is shown.
    """

    def __init__(
        self, store: FeatureStore, background: Background, pages: Sequence[Callable[[Snapshot], Any]] = ()
    ) -> None:
        self._store, self._background, self._pages = store, background, pages
        self._lock = threading.Lock()
        self._checked = 0.0
        self._newest: Snapshot | None = None
        self._head: tuple[int, str] | None = None

    def newest(self) -> Snapshot:
        """The newest version, from at most a second after it was applied, once it is read.

        Raises:
            NotFoundError: nothing is applied.
            RegistryError: the registry cannot be read.
        """
        with self._lock:
            if time.monotonic() - self._checked > _CHECK_S:
                self._head = self._store.registry.head()
                self._checked = time.monotonic()
            if self._head is None:
                self._newest = None
                raise NotFoundError(
                    f"project {self._store.project}", problem="nothing is applied yet", hint="run `feature-store apply`"
                )
            version, digest = self._head
            if self._newest is None:
                self._newest = self._read(version)
            elif self._newest.version.digest != digest:
                read = self._background.ask(("snapshot", digest), lambda: self._read(version))
                self._newest = read.value or self._newest
            return self._newest

    def _read(self, version: int) -> Snapshot:
        return Snapshot(self._store.registry.version(version), self._store.models()).prepared(self._pages)
