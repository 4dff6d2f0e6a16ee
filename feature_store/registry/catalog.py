"""Definitions as documents to browse: a list of each kind, a single definition in full, the consumers of a feature.

Documents are JSON types. A definition is found by its name, a feature by `view:feature`, a batch source by its path.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from feature_store._formatting import shown_duration
from feature_store.definitions.batch_source import BatchSource
from feature_store.definitions.definition import Definition
from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.entity import Entity
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.graph import aggregated_as, feature_description, graph_of
from feature_store.definitions.on_demand import OnDemandFeatureView
from feature_store.definitions.service import FeatureService
from feature_store.definitions.source import KafkaSource, RequestSource
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.errors import NotFoundError

Document = dict[str, Any]
View = FeatureView | StreamFeatureView | OnDemandFeatureView
Source = BatchSource | KafkaSource | RequestSource

# The kinds that can be listed, in the order of display, with their singular.
KINDS: Mapping[str, str] = {
    "entities": "entity",
    "sources": "source",
    "views": "view",
    "streams": "stream view",
    "on-demand": "on-demand view",
    "services": "service",
    "features": "feature",
}
# The most characters of a typed name that an error shows.
_SHOWN = 80


def listed(definitions: DefinitionSet, kind: str) -> list[Document]:
    """A document for each definition, source or feature of a kind (of KINDS), sorted by name.

    Raises:
        NotFoundError: there is no such kind.
    """
    rows: dict[str, Callable[[DefinitionSet], list[Document]]] = {
        "entities": lambda all_: [_entity_row(entity) for entity in all_.entities.values()],
        "sources": lambda all_: [_source_row(name, *about) for name, about in sources(all_).items()],
        "views": lambda all_: [_view_row(view) for view in all_.feature_views.values()],
        "streams": lambda all_: [_stream_row(view) for view in all_.stream_feature_views.values()],
        "on-demand": lambda all_: [_on_demand_row(view) for view in all_.on_demand_feature_views.values()],
        "services": lambda all_: [_service_row(service) for service in all_.feature_services.values()],
        "features": _feature_rows,
    }
    if kind not in rows:
        raise unknown(kind, "a kind", KINDS)
    return rows[kind](definitions)


def described(definitions: DefinitionSet, name: str) -> Document:
    """The document of a definition, a source, or a feature `view:feature`.

    If a source has the same name as a definition, its document is nested under `source_of_that_name`.

    Raises:
        NotFoundError: nothing has that name; the error suggests similar names.
    """
    by_name: dict[str, Definition] = {item.name: item for item in definitions}
    known_sources = sources(definitions)
    source = _source_document(name, *known_sources[name]) if name in known_sources else None
    if name in by_name:
        document = _definition_document(by_name[name], definitions)
        return document if source is None else document | {"source_of_that_name": source}
    if source is not None:
        return source
    view, colon, feature = name.partition(":")
    if colon and view in by_name and isinstance(by_name[view], (FeatureView, StreamFeatureView, OnDemandFeatureView)):
        return _feature_document(definitions, view, feature)
    raise unknown(name, "a definition, a source or view:feature", names(definitions))


def names(definitions: DefinitionSet) -> list[str]:
    """The names that `described` takes."""
    references = graph_of(definitions).features
    return [*dict.fromkeys([item.name for item in definitions] + [*sources(definitions), *references])]


def kind_of(definition: Definition) -> str:
    """The kind of a definition, of KINDS."""
    kinds = {
        Entity: "entities",
        FeatureView: "views",
        StreamFeatureView: "streams",
        OnDemandFeatureView: "on-demand",
        FeatureService: "services",
    }
    return kinds[type(definition)]


def sources(definitions: DefinitionSet) -> dict[str, tuple[list[Source], list[str]]]:
    """The sources by name, sorted: `(declarations, names of readers)`. Views may declare one table in several ways.

    The reader of a topic's history is the topic's source.
    """
    declared: dict[str, list[Source]] = defaultdict(list)
    readers: dict[str, list[str]] = defaultdict(list)

    def add(source: Source | None, reader: str) -> None:
        if source is None:
            return
        name = source.name
        if source not in declared[name]:
            declared[name].append(source)
        if reader not in readers[name]:
            readers[name].append(reader)

    for view in definitions.feature_views.values():
        add(view.source, view.name)
    for stream in definitions.stream_feature_views.values():
        add(stream.source, stream.name)
        add(stream.source.history, stream.source.name)
    for computed in definitions.on_demand_feature_views.values():
        for request in computed.requests:
            add(request, computed.name)
    return {name: (declared[name], readers[name]) for name in sorted(declared)}


def own_attributes(source: BatchSource) -> Document:
    """The field mapping and the attributes of a batch source's kind, without unset ones and its name."""
    shared, left_out = {"kind", *BatchSource.model_fields} - {"field_mapping"}, (None, source.name)
    attributes = source.location().items()
    return {name: value for name, value in attributes if name not in shared and value not in left_out}


def consumers(definitions: DefinitionSet, reference: str) -> list[Document]:
    """The consumers of a feature `view:feature`.

    Returns:
        A document for each name under which it is served: `service`, `name`, `through` (the on-demand view whose
        input it is; None: it is served directly), `pruned_by` (the prune plan that drops that name; None: none does).
        An input of an on-demand view that no service reads has `service` None and the input's name.

    Raises:
        NotFoundError: there is no such feature.
    """
    view, _, feature = reference.partition(":")
    graph = graph_of(definitions)
    if graph.field(view, feature) is None:
        raise _unknown_feature(definitions, reference)
    return [consumer._asdict() for consumer in graph.consumers(view, feature)]


def unknown(name: str, what: str, known: Iterable[str]) -> NotFoundError:
    """The error for a name that is not among the known ones. It suggests similar ones."""
    from feature_store.registry.spelling import near  # an extra, which the catalog does not need otherwise

    similar = near(name, known)
    hint = f"did you mean {' or '.join(similar)}?" if similar else "`feature-store list` shows what there is"
    return NotFoundError(repr(_short(name)), problem=f"there is no such name; expected {what}", hint=hint)


# -- rows of lists ----------------------------------------------------------------------------------------------


def _about(definition: Definition) -> Document:
    return {"owner": definition.owner or None, "description": definition.description or None}


def _entity_row(entity: Entity) -> Document:
    return {"name": entity.name, "join_key": entity.join_key, "dtype": str(entity.dtype)} | _about(entity)


def _source_row(name: str, declared: list[Source], readers: list[str]) -> Document:
    first = declared[0]
    about = _about(first) if isinstance(first, Definition) else {"owner": None, "description": None}
    topic = first.topic if isinstance(first, KafkaSource) else None
    return {"name": name, "type": type(first).__name__, "topic": topic, "read_by": readers} | about


def _view_row(view: FeatureView) -> Document:
    return {
        "name": view.name,
        "entities": [entity.name for entity in view.entities],
        "features": len(view.fields),
        "ttl": shown_duration(view.ttl) if view.ttl is not None else None,
        "source": view.source.name if view.source is not None else None,
    } | _about(view)


def _stream_row(view: StreamFeatureView) -> Document:
    return {
        "name": view.name,
        "entities": [entity.name for entity in view.entities],
        "features": len(view.fields),
        "topic": view.source.topic,
        "history": view.source.history.name if view.source.history is not None else None,
    } | _about(view)


def _on_demand_row(view: OnDemandFeatureView) -> Document:
    inputs = [*(one.view for one in view.projections), *(request.name for request in view.requests)]
    return {"name": view.name, "features": len(view.fields), "inputs": inputs} | _about(view)


def _service_row(service: FeatureService) -> Document:
    return {
        "name": service.name,
        "features": sum(len(projection.columns) for projection in service.features),
        "views": list(dict.fromkeys(projection.view for projection in service.features)),
    } | _about(service)


def _feature_rows(definitions: DefinitionSet) -> list[Document]:
    graph = graph_of(definitions)
    rows: list[Document] = []
    for reference, feature in graph.features.items():
        services = (consumer.service for consumer in graph.consumers(feature.view.name, feature.field.name))
        row = {
            "name": reference,
            "dtype": str(feature.field.dtype),
            "services": [service for service in dict.fromkeys(services) if service],
            "owner": feature.owner or None,
            "description": feature.description or None,
        }
        rows.append(row)
    return sorted(rows, key=lambda row: str(row["name"]))


# -- documents --------------------------------------------------------------------------------------------------


def _definition_document(definition: Definition, definitions: DefinitionSet) -> Document:
    document: Document = {"kind": type(definition).__name__, "name": definition.name}
    document |= _about(definition) | {"tags": dict(definition.tags)}
    match definition:
        case Entity():
            users = [view.name for view in definitions.stored_views if definition in view.entities]
            return document | {"join_key": definition.join_key, "dtype": str(definition.dtype), "views": users}
        case FeatureView():
            row = _view_row(definition)
            document |= {name: row[name] for name in ("entities", "ttl", "source")}
            document |= {"freshness": _freshness(definition), "schedule": definition.schedule, "sql": definition.sql}
        case StreamFeatureView():
            row = _stream_row(definition)
            document |= {"entities": row["entities"], "source": definition.source.name}
            document |= {"topic": row["topic"], "history": row["history"], "freshness": _freshness(definition)}
        case OnDemandFeatureView():
            document |= {"function": definition.function, "inputs": _inputs(definition, definitions)}
        case FeatureService():
            return document | _service_features(definition, definitions)
    return document | {"fields": _fields(definition), "read_by": _readers(definition.name, definitions)}  # type: ignore[arg-type]


def _service_features(service: FeatureService, definitions: DefinitionSet) -> Document:
    columns = graph_of(definitions).columns(service.name)
    features = [{"name": column.name, "feature": column.reference} for column in columns]
    pruning = definitions.prunings.get(service.name)
    if pruning is None:
        return {"features": features}
    dropped = [feature.name for feature in pruning.dropped]
    return {"prune_plan": pruning.plan, "stage": pruning.stage, "dropped": dropped, "features": features}


def _source_document(name: str, declared: list[Source], readers: list[str]) -> Document:
    first = declared[0]
    tags = dict(first.tags) if isinstance(first, Definition) else {}
    row = _source_row(name, declared, readers)
    document: Document = {"kind": row["type"], "name": name, "owner": row["owner"], "description": row["description"]}
    document |= {"tags": tags}
    if isinstance(first, KafkaSource):
        history = first.history.name if first.history is not None else None
        document |= {"topic": first.topic, "timestamp_unit": first.timestamp_unit, "history": history}
        document |= {"format": {"kind": first.format.kind} | first.format.facts()}
        document |= {"derive": dict(first.derive)} if first.derive else {}
        document |= {"metadata": dict(first.metadata)} if first.metadata else {}
    if isinstance(first, BatchSource):
        document |= own_attributes(first)
    for times in ("event_timestamp", "created_timestamp"):
        columns_named = dict.fromkeys(getattr(source, times, None) for source in declared)
        document[times] = ", ".join(time for time in columns_named if time) or None
    fields = {field.name: field for source in declared for field in source.fields}
    columns = [{"name": field.name, "dtype": str(field.dtype)} for field in fields.values()]
    return document | {"columns": columns, "read_by": readers}


def _feature_document(definitions: DefinitionSet, name: str, feature: str) -> Document:
    reference = f"{name}:{feature}"
    view = definitions.servable_view(name)
    field = graph_of(definitions).field(name, feature)
    if field is None:
        raise _unknown_feature(definitions, reference)
    document: Document = {
        "kind": "Feature",
        "name": reference,
        "feature": feature,
        "view": name,
        "dtype": str(field.dtype),
        "default": field.dtype.to_json(field.default),
        "expected": field.expectation or None,
        "description": feature_description(view, field) or None,
        "owner": field.owner or view.owner or None,
        "tags": dict(view.tags) | dict(field.tags),
    }
    match view:
        case FeatureView():
            row = _view_row(view)
            document |= {name: row[name] for name in ("entities", "ttl", "source")}
            document |= {"freshness": _freshness(view)}
        case StreamFeatureView():
            row = _stream_row(view)
            document |= {"entities": row["entities"], "source": view.source.name, "topic": row["topic"]}
            document |= {"freshness": _freshness(view)}
        case OnDemandFeatureView():
            document |= {"source": None, "function": view.function, "inputs": _inputs(view, definitions)}
    return document | aggregated_as(view, feature) | {"consumers": consumers(definitions, reference)}


def _freshness(view: FeatureView | StreamFeatureView) -> str | None:
    return shown_duration(view.freshness) if view.freshness is not None else None


def _fields(view: View) -> list[Document]:
    return [
        {
            "name": field.name,
            "dtype": str(field.dtype),
            "default": field.dtype.to_json(field.default),
            "expected": field.expectation or None,
            "description": feature_description(view, field) or None,
            "tags": dict(field.tags),
        }
        for field in view.fields
    ]


def _inputs(view: OnDemandFeatureView, definitions: DefinitionSet) -> list[str]:
    return [
        *(one.reference for one in graph_of(definitions).inputs(view.name)),
        *(f"{one.name}:{field.name}" for one in view.requests for field in one.fields),
    ]


def _readers(name: str, definitions: DefinitionSet) -> list[str]:
    computed = definitions.on_demand_feature_views.values()
    return [
        *(view.name for view in computed if name in {one.view for one in view.projections}),
        *(
            service.name
            for service in definitions.feature_services.values()
            if name in {one.view for one in service.features}
        ),
    ]


def _unknown_feature(definitions: DefinitionSet, reference: str) -> NotFoundError:
    return unknown(reference, "a feature, as view:feature", graph_of(definitions).features)


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[: _SHOWN - 1]}…"
