"""The applied definitions as pages see them: one version, and what is derived from it once."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from feature_store._formatting import counted
from feature_store.definitions import FeatureView, OnDemandFeatureView, StreamFeatureView
from feature_store.definitions.definition import Definition
from feature_store.definitions.graph import aggregated_as, feature_description
from feature_store.errors import NotFoundError, extra
from feature_store.registry.catalog import kind_of, sources
from feature_store.registry.lineage import lineage_of
from feature_store.ui.catalogue import Choices, choices
from feature_store.ui.lineage import LineagePage, whole_lineage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from feature_store.definitions import DefinitionSet, Field
    from feature_store.project.store import FeatureStore
    from feature_store.registry.catalog import Source
    from feature_store.registry.lineage import Lineage, Node
    from feature_store.registry.search import SearchIndex
    from feature_store.registry.store import Version
    from feature_store.ui.background import Background

AnyView = FeatureView | StreamFeatureView | OnDemandFeatureView
# How often to look whether something was applied.
_CHECK_S = 1.0


# Values of the tag `pii` that say that a feature is none.
_NOT_PII = frozenset({"", "no", "false", "none", "0"})


@dataclass(frozen=True)
class Feature:
    """One feature, and who reads it.

    Attributes:
        view, field: what it is.
        entities: what it describes; of an on-demand view's, what its inputs describe.
        consumers: `(service, name it is served by)`.
        inputs_of: the on-demand views that compute from it.
    """

    view: AnyView
    field: Field
    entities: tuple[str, ...]
    consumers: tuple[tuple[str, str], ...]
    inputs_of: tuple[str, ...]

    @property
    def reference(self) -> str:
        """`view:feature`."""
        return f"{self.view.name}:{self.field.name}"

    @property
    def owner(self) -> str:
        """Its own, or its view's."""
        return self.field.owner or self.view.owner

    @property
    def tags(self) -> dict[str, str]:
        """Its view's, and its own, which win."""
        return {**self.view.tags, **self.field.tags}

    @property
    def is_hidden(self) -> bool:
        """Whether pages show none of its values: it, its view, is tagged `pii`, or `ui: hide`."""
        tags = {name.casefold(): value.casefold() for name, value in self.tags.items()}
        return tags.get("pii", "no") not in _NOT_PII or tags.get("ui") == "hide"

    @property
    def description(self) -> str:
        """Its own, or what it is computed of."""
        return feature_description(self.view, self.field)

    @property
    def aggregation(self) -> dict[str, str]:
        """How it is made of events: function, column, filter, window, hop; empty where it is not."""
        return aggregated_as(self.view, self.field.name)


@dataclass(frozen=True)
class Entry:
    """A thing as the catalogue lists it.

    Attributes:
        kind: of the catalog's KINDS.
        name: a feature's is `view:feature`.
        about: its type, or how many features it has.
        entities: what it describes.
    """

    kind: str
    name: str
    about: str
    entities: tuple[str, ...]
    owner: str
    tags: Mapping[str, str]
    description: str


class Snapshot:
    """One version of the definitions.

    Args:
        version: as the registry holds it.
        models: that are known to be served by each service.
    """

    def __init__(self, version: Version, models: Mapping[str, Sequence[str]] | None = None) -> None:
        self.version, self._models = version, models
        self.definitions: DefinitionSet = version.definitions()

    @cached_property
    def views(self) -> dict[str, AnyView]:
        """All views by name: batch, stream, on-demand."""
        found = self.definitions
        listed: list[AnyView] = [*found.stored_views, *found.on_demand_feature_views.values()]
        return {view.name: view for view in listed}

    @cached_property
    def stored_views(self) -> frozenset[str]:
        """The views whose values the online store holds."""
        return frozenset(view.name for view in self.definitions.stored_views)

    @cached_property
    def served_views(self) -> dict[str, AnyView]:
        """The views as they are served: without what prune plans drop."""
        found = self.version.served_definitions() if self.definitions.prunings else self.definitions
        return {view.name: view for view in (*found.stored_views, *found.on_demand_feature_views.values())}

    @cached_property
    def features(self) -> dict[str, Feature]:
        """All features by reference, those of a view together."""
        consumers: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for service in self.definitions.feature_services.values():
            for projection in service.features:
                for feature, served in projection.columns:
                    consumers.setdefault((projection.view, feature), []).append((service.name, served))
        inputs: dict[tuple[str, str], list[str]] = {}
        for computed in self.definitions.on_demand_feature_views.values():
            for projection in computed.projections:
                for feature, _ in projection.columns:
                    inputs.setdefault((projection.view, feature), []).append(computed.name)
        features = (
            Feature(
                view,
                field,
                self.entities_of[view.name],
                tuple(consumers.get((view.name, field.name), ())),
                tuple(inputs.get((view.name, field.name), ())),
            )
            for view in self.views.values()
            for field in view.fields
        )
        return {feature.reference: feature for feature in features}

    @cached_property
    def entities_of(self) -> Mapping[str, tuple[str, ...]]:
        """Per view the entities that it is about."""
        found = {view.name: tuple(entity.name for entity in view.entities) for view in self.definitions.stored_views}
        for computed in self.definitions.on_demand_feature_views.values():
            of_inputs = (entity for projection in computed.projections for entity in found[projection.view])
            found[computed.name] = tuple(dict.fromkeys(of_inputs))
        return found

    @cached_property
    def sources(self) -> dict[str, tuple[list[Source], list[str]]]:
        """The sources by name, as they are declared, and what reads them."""
        return sources(self.definitions)

    @cached_property
    def entries(self) -> dict[tuple[str, str], Entry]:
        """All there is to find, by kind and name, in the order in which it is listed."""
        return {(entry.kind, entry.name): entry for entry in _entries(self)}

    @cached_property
    def choices(self) -> Choices:
        """What the catalogue can be filtered by."""
        return choices(self.entries.values())

    @cached_property
    def search(self) -> SearchIndex:
        """The index of all that is defined."""
        with extra("registry", "search"):
            from feature_store.registry.search import SearchIndex
        return SearchIndex(self.definitions)

    @cached_property
    def lineage(self) -> Lineage:
        """What comes from what."""
        return lineage_of(self.definitions, self._models)

    @cached_property
    def lineage_nodes(self) -> frozenset[Node]:
        """The nodes of the lineage, to look them up."""
        return frozenset(self.lineage.nodes)

    def request_of(self, view: str) -> dict[str, str]:
        """What a request for a view's features must carry: `{join key or request field: type}`."""
        keys = {
            self.definitions.entities[entity].join_key: str(self.definitions.entities[entity].dtype)
            for entity in self.entities_of[view]
        }
        computed = self.definitions.on_demand_feature_views.get(view)
        requests = computed.requests if computed is not None else ()
        return keys | {field.name: str(field.dtype) for request in requests for field in request.fields}

    def request_of_service(self, service: str) -> dict[str, str]:
        """The same for all the features of a service."""
        found: dict[str, str] = {}
        for projection in self.definitions.service(service).features:
            found |= self.request_of(projection.view)
        return found

    @cached_property
    def whole_lineage(self) -> LineagePage:
        """The graph of all views, drawn."""
        return whole_lineage(self.lineage)

    def prepared(self) -> Snapshot:
        """Itself, once all that pages derive is derived."""
        _ = (
            self.whole_lineage,
            self.lineage_nodes,
            self.features,
            self.entries,
            self.choices,
            self.search,
            self.lineage,
            self.sources,
        )
        return self


def _entries(snapshot: Snapshot) -> Iterator[Entry]:
    definitions = snapshot.definitions
    for service in definitions.feature_services.values():
        count = sum(len(projection.columns) for projection in service.features)
        views = (projection.view for projection in service.features)
        entities = tuple(dict.fromkeys(entity for view in views for entity in snapshot.entities_of[view]))
        yield _entry("services", service, counted(count, "feature"), entities)
    for view in snapshot.views.values():
        about = counted(len(view.fields), "feature")
        yield _entry(kind_of(view), view, about, snapshot.entities_of[view.name])
    for entity in definitions.entities.values():
        yield _entry("entities", entity, f"{entity.join_key}: {entity.dtype}", (entity.name,))
    for name, (declared, readers) in snapshot.sources.items():
        about = f"read by {', '.join(readers[:3])}{' …' if len(readers) > 3 else ''}"
        first = declared[0]
        if isinstance(first, Definition):
            yield Entry("sources", name, about, (), first.owner, first.tags, first.description)
        else:
            yield Entry("sources", name, about, (), "", {}, "")
    for feature in snapshot.features.values():
        yield Entry(
            "features",
            feature.reference,
            str(feature.field.dtype),
            feature.entities,
            feature.owner,
            feature.tags,
            feature.description,
        )


def _entry(kind: str, item: Definition, about: str, entities: tuple[str, ...]) -> Entry:
    return Entry(kind, item.name, about, entities, item.owner, item.tags, item.description)


class Snapshots:
    """The newest snapshot of a project.

    Args:
        store: the project.
        background: where a newer version is read while the older one is shown.
    """

    def __init__(self, store: FeatureStore, background: Background) -> None:
        self._store, self._background = store, background
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
        return Snapshot(self._store.registry.version(version), self._store.models()).prepared()
