"""The data of the pages of views, services, entities and sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from feature_store._formatting import shown_duration
from feature_store.definitions import (
    Entity,
    FeatureService,
    FeatureView,
    Field,
    KafkaSource,
    OnDemandFeatureView,
)
from feature_store.definitions.batch_source import BatchSource
from feature_store.definitions.definition_set import find
from feature_store.definitions.graph import AnyView, Feature
from feature_store.definitions.pruning import Pruning
from feature_store.registry.catalog import Source, kind_of, own_attributes, unknown
from feature_store.ui.snapshot import Snapshot

# The most rows of a table.
MOST_ROWS = 1000


@dataclass(frozen=True)
class ViewPage:
    """The page of a view.

    Attributes:
        view: its definition.
        kind: its kind in the catalog.
        features: its features.
        facts: other properties, as names and values.
        source: the name of its source; None: rows are pushed, or it is an on-demand view.
        inputs: the inputs of an on-demand view, `(view or request source, name, type)`.
        services, on_demand: the services and on-demand views that read it.
    """

    view: AnyView
    kind: str
    features: tuple[Feature, ...]
    facts: tuple[tuple[str, str], ...]
    source: str | None
    inputs: tuple[tuple[str, str, str], ...]
    services: tuple[str, ...]
    on_demand: tuple[str, ...]

    @property
    def is_stored(self) -> bool:
        """Whether the online store holds its values."""
        return self.kind != "on-demand"


def view_page(snapshot: Snapshot, name: str) -> ViewPage:
    """The page of a view.

    Raises:
        NotFoundError: there is none with that name.
    """
    if name not in snapshot.views:
        raise unknown(name, "a view", snapshot.views)
    view = snapshot.views[name]
    features = tuple(snapshot.features[f"{name}:{field.name}"] for field in view.fields)
    return ViewPage(
        view,
        kind_of(view),
        features,
        tuple(_facts(view)),
        view.source.name if not isinstance(view, OnDemandFeatureView) and view.source is not None else None,
        tuple(_inputs(snapshot, view)) if isinstance(view, OnDemandFeatureView) else (),
        tuple(dict.fromkeys(service for feature in features for service, _ in feature.consumers)),
        tuple(dict.fromkeys(one for feature in features for one in feature.inputs_of)),
    )


def _facts(view: AnyView) -> list[tuple[str, str]]:
    if isinstance(view, OnDemandFeatureView):
        return [("function", view.function)]
    facts = []
    if isinstance(view, FeatureView) and view.ttl:
        facts.append(("ttl", shown_duration(view.ttl)))
    if isinstance(view, FeatureView) and view.schedule is not None:
        facts.append(("schedule", f"{view.schedule} (UTC)"))
    if view.freshness is not None:
        facts.append(("declared freshness", shown_duration(view.freshness)))
    if isinstance(view.source, KafkaSource):
        facts.append(("topic", view.source.topic))
    if sql := getattr(view, "sql", None):
        facts.append(("SQL", sql))
    return facts


def _inputs(snapshot: Snapshot, view: OnDemandFeatureView) -> list[tuple[str, str, str]]:
    taken = [(one.view, one.feature, str(one.field.dtype)) for one in snapshot.graph.inputs(view.name)]
    return taken + [(one.name, field.name, str(field.dtype)) for one in view.requests for field in one.fields]


@dataclass(frozen=True)
class ServicePage:
    """The page of a service.

    Attributes:
        service: its definition.
        columns: `(name as served, feature, whether a prune plan drops it)`, in order.
        request: the names and types that a request must have.
        pruning: the applied pruning; None: there is none.
    """

    service: FeatureService
    columns: tuple[tuple[str, Feature, bool], ...]
    request: tuple[tuple[str, str], ...]
    pruning: Pruning | None


def service_page(snapshot: Snapshot, name: str) -> ServicePage:
    """The page of a service.

    Raises:
        NotFoundError: there is none with that name.
    """
    definitions = snapshot.definitions
    if name not in definitions.feature_services:
        raise unknown(name, "a service", definitions.feature_services)
    service, pruning = definitions.feature_services[name], definitions.prunings.get(name)
    dropped = {one.name for one in pruning.dropped} if pruning is not None else set()
    columns = tuple(
        (column.name, snapshot.features[column.reference], column.name in dropped)
        for column in snapshot.graph.columns(name)
    )
    return ServicePage(service, columns, tuple(snapshot.graph.request_of_service(name).items()), pruning)


@dataclass(frozen=True)
class EntityPage:
    """The page of an entity, with its views as `(kind, name, number of features)`."""

    entity: Entity
    views: tuple[tuple[str, str, int], ...]


def entity_page(snapshot: Snapshot, name: str) -> EntityPage:
    """The page of an entity.

    Raises:
        NotFoundError: there is none with that name.
    """
    entity = find(snapshot.definitions.entities, name[:100], "entity")
    views = tuple(
        (kind_of(view), view.name, len(view.fields))
        for view in snapshot.views.values()
        if name in snapshot.graph.entities_of[view.name]
    )
    return EntityPage(entity, views)


@dataclass(frozen=True)
class SourcePage:
    """The page of a source.

    Attributes:
        name: its name, or its path.
        first: its first declaration.
        facts: its properties, as names and values.
        columns: the columns that it declares.
        readers: `(kind, name)` of the definitions that read it.
        history: the source of a topic's history; None: there is none.
    """

    name: str
    first: Source
    facts: tuple[tuple[str, str], ...]
    columns: tuple[Field, ...]
    readers: tuple[tuple[str, str], ...]
    history: str | None


def source_page(snapshot: Snapshot, name: str) -> SourcePage:
    """The page of a source.

    Raises:
        NotFoundError: there is none with that name.
    """
    if name not in snapshot.sources:
        raise unknown(name, "a source", snapshot.sources)
    declared, readers = snapshot.sources[name]
    first = declared[0]
    facts = [("kind", type(first).__name__)]
    if isinstance(first, KafkaSource):
        facts += [("topic", first.topic), ("event timestamp", f"{first.event_timestamp} ({first.timestamp_unit})")]
        facts += [("format", first.format.kind), *first.format.facts().items()]
        facts += [("metadata", f"{name}: {part}") for name, part in first.metadata.items()]
    if isinstance(first, BatchSource):
        facts += [("event timestamp", first.event_timestamp)]
        facts += [("created timestamp", first.created_timestamp)] if first.created_timestamp else []
        facts += [(name.replace("_", " "), _shown(value)) for name, value in own_attributes(first).items()]
    fields = {field.name: field for source in declared for field in source.fields}
    kinds = [("sources" if one in snapshot.sources else kind_of(snapshot.views[one]), one) for one in readers]
    history = first.history.name if isinstance(first, KafkaSource) and first.history is not None else None
    return SourcePage(name, first, tuple(facts), tuple(fields.values()), tuple(kinds), history)


def _shown(value: Any) -> str:
    return ", ".join(f"{old} → {new}" for old, new in value.items()) if isinstance(value, dict) else str(value)
