"""The applied definitions as pages see them: one version, and what is derived from it once."""

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
# How often to look whether something was applied.
_CHECK_S = 1.0


# Values of the tag `pii` that say that a feature is not personal.
_NOT_PII = frozenset({"", "no", "false", "none", "0"})


def is_hidden(feature: Feature) -> bool:
    """Whether pages show none of a feature's values: it or its view is tagged `pii`, or `ui: hide`."""
    tags = {name.casefold(): value.casefold() for name, value in feature.tags.items()}
    return tags.get("pii", "no") not in _NOT_PII or tags.get("ui") == "hide"


class Snapshot:
    """One version of the definitions.

    Args:
        version: as the registry holds it.
        models: that are known to be served by each service.
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
        """The views as they are served: without what prune plans drop."""
        return graph_of(self.version.served_definitions()).views

    @cached_property
    def sources(self) -> dict[str, tuple[list[Source], list[str]]]:
        """The sources by name, as they are declared, and what reads them."""
        return sources(self.definitions)

    @cached_property
    def search(self) -> SearchIndex:
        """The index of all that is defined."""
        with requires_extra("registry", "search"):
            from feature_store.registry.search import SearchIndex
        return SearchIndex(self.definitions)

    @cached_property
    def lineage(self) -> Lineage:
        """What comes from what."""
        return lineage_of(self.definitions, self._models)

    def derived(self, make: Callable[[Snapshot], T]) -> T:
        """`make(self)`, computed on the first call with this function and kept: what a page derives of a version."""
        if make not in self._derived:
            self._derived[make] = make(self)
        found: T = self._derived[make]
        return found

    def prepared(self, pages: Iterable[Callable[[Snapshot], Any]] = ()) -> Snapshot:
        """Itself, once all that several pages use is computed, and what `pages` derive."""
        _ = self.features, self.search, self.lineage, self.sources
        for make in pages:
            self.derived(make)
        return self


class Snapshots:
    """The newest snapshot of a project.

    Args:
        store: the project.
        background: where a newer version is read while the older one is shown.
        pages: what pages derive of each version, computed before it is shown.
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
        """The newest version, seen a second after it was applied at the latest, and once it is read.

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
                    f"project {self._store.project}", expected="applied definitions", hint="run `feature-store apply`"
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
