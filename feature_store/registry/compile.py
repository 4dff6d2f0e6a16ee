"""Compile definitions to the serving plan."""

from __future__ import annotations

from dataclasses import replace

from feature_store.aggregates.windows import compile_windows
from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.field import Field
from feature_store.definitions.graph import DefinitionGraph, graph_of
from feature_store.definitions.on_demand import OnDemandFeatureView
from feature_store.definitions.pruned import pruned
from feature_store.definitions.pruning import Pruning
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.registry.generations import numbered_rows, numbered_tiles
from feature_store.registry.serving_plan import (
    ColumnPlan,
    FieldPlan,
    InputPlan,
    PrunedColumnPlan,
    PruningPlan,
    RowGroupPlan,
    SegmentPlan,
    ServicePlan,
    ServingPlan,
    TilesPlan,
    TransformPlan,
)

# Functions of earlier versions that a plan accepts. During a rollout servers run two. A few more let a version be
# applied while another rollout is under way; the bound keeps a plan from growing with every version.
EARLIER_FUNCTIONS = 4


def compile_plan(
    definitions: DefinitionSet,
    *,
    project: str,
    version: int,
    previous: ServingPlan | None = None,
    registry: str = "",
    digest: str = "",
    buckets: int = 1,
    expire_keys: bool = False,
) -> ServingPlan:
    """The plan that serves these definitions, after pruning.

    A row group or stream view with an unchanged layout and number of buckets keeps its generation of `previous`: see
    `generations.numbered_rows` and `numbered_tiles`.
    """
    declared, definitions = definitions, pruned(definitions)
    graph = graph_of(definitions)
    stored = {view.name for view in definitions.stored_views}
    return ServingPlan(
        project=project,
        version=version,
        groups=tuple(numbered_rows(group, previous) for group in _groups(definitions, version, buckets)),
        tiles=tuple(
            numbered_tiles(tiles_plan(view, version, buckets), previous)
            for view in definitions.stream_feature_views.values()
        ),
        transforms=tuple(
            _keep_earlier(_transform(view, graph), previous) for view in definitions.on_demand_feature_views.values()
        ),
        services=tuple(
            ServicePlan(
                service.name,
                tuple(ColumnPlan(one.name, one.view, one.feature) for one in graph.columns(service.name)),
                _pruning(definitions.prunings.get(service.name)),
            )
            for service in definitions.feature_services.values()
        ),
        unstored=tuple(view.name for view in declared.stored_views if view.name not in stored),
        registry=registry,
        definitions=digest,
        buckets=buckets,
        expire_keys=expire_keys,
    )


def _pruning(pruning: Pruning | None) -> PruningPlan | None:
    if pruning is None:
        return None
    dropped = tuple(PrunedColumnPlan(**feature.model_dump()) for feature in pruning.dropped)
    return PruningPlan(
        pruning.plan, pruning.stage, pruning.answer, pruning.columns, dropped, read_order=pruning.read_order
    )


def segment_plan(view: FeatureView) -> SegmentPlan:
    """A view's segment of a row. Rows that are pushed to a view without a source may carry a created timestamp."""
    created = view.source is None or (view.source.created_timestamp is not None and not view.aggregations)
    return SegmentPlan(view.name, view.ttl_us, _fields(view.fields), created)


def row_group_views(definitions: DefinitionSet) -> dict[str, list[FeatureView]]:
    """The batch views of each row group by the group's name, sorted. Views of the same entities form a group."""
    members: dict[str, list[FeatureView]] = {}
    for view in definitions.feature_views.values():
        members.setdefault("+".join(entity.name for entity in view.entities), []).append(view)
    return dict(sorted(members.items()))


def _groups(definitions: DefinitionSet, version: int, buckets: int) -> list[RowGroupPlan]:
    return [
        RowGroupPlan(
            name=name,
            entities=tuple(entity.name for entity in views[0].entities),
            join_keys=tuple((entity.join_key, str(entity.dtype)) for entity in views[0].entities),
            generation=version,
            segments=tuple(segment_plan(view) for view in views),
            buckets=buckets,
        )
        for name, views in row_group_views(definitions).items()
    ]


def tiles_plan(view: StreamFeatureView, version: int, buckets: int = 0) -> TilesPlan:
    """The tiles of a stream view. The number of their generation is the version."""
    return TilesPlan(
        view=view.name,
        entities=tuple(entity.name for entity in view.entities),
        join_keys=tuple((entity.join_key, str(entity.dtype)) for entity in view.entities),
        generation=version,
        topic=view.source.topic,
        windows=compile_windows(view.aggregations, view.event_columns),
        event_time=(view.source.event_timestamp, view.source.timestamp_unit),
        derived=tuple(view.source.derivation.used_by(view.event_columns).items()),
        buckets=buckets,
    )


def _fields(fields: tuple[Field, ...]) -> tuple[FieldPlan, ...]:
    return tuple(FieldPlan(field.name, str(field.dtype), field.dtype.to_json(field.default)) for field in fields)


def _transform(view: OnDemandFeatureView, graph: DefinitionGraph) -> TransformPlan:
    stored = [
        InputPlan(one.name, one.view, one.feature, *_type_and_default(one.field)) for one in graph.inputs(view.name)
    ]
    requested = [
        InputPlan(field.name, "", field.name, *_type_and_default(field))
        for request in view.requests
        for field in request.fields
    ]
    return TransformPlan(
        view.name, view.function, view.digest, (*stored, *requested), _fields(view.fields), nulls=view.nulls
    )


def _keep_earlier(transform: TransformPlan, previous: ServingPlan | None) -> TransformPlan:
    """The transform with the digests of functions that servers may still run: those of the previous plan, if its inputs
    and outputs are the same."""
    before = next((one for one in previous.transforms if one.name == transform.name), None) if previous else None
    if before is None or _signature(before) != _signature(transform):
        return transform
    digests = dict.fromkeys([before.digest, *before.earlier])
    return replace(transform, earlier=tuple(one for one in digests if one != transform.digest)[:EARLIER_FUNCTIONS])


def _signature(transform: TransformPlan) -> tuple[object, ...]:
    return transform.inputs, transform.outputs, transform.nulls


def _type_and_default(field: Field) -> tuple[str, object]:
    return str(field.dtype), field.dtype.to_json(field.default)
