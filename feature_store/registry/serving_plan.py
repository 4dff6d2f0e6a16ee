"""The serving plan: all that a model server has to know of a project, as one JSON document in Redis.

It is compiled from the definitions at `apply` and read by clients and writers; it holds names, types, layouts and
times, never code or secrets. `plan_document.py` writes and reads the JSON. This module is plain dataclasses, so that
serving loads no SQLAlchemy and, until it reads a plan, no pydantic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from feature_store.aggregates.windows import Windows
from feature_store.errors import DamagedPlanError, NotFoundError, did_you_mean

FORMAT = 2


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """A feature as it is stored and served: `dtype` as `str(DType)`, `default` as `DType.to_json`."""

    name: str
    dtype: str
    default: Any = None


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """One view's part of a row.

    Attributes:
        view: its name.
        ttl_us: its ttl in microseconds, or None: for ever.
        fields: in the order of its schema.
        created: whether rows keep when they were created. Where a source does not say it, rows count as created when
            they became true, so that nothing is lost.
    """

    view: str
    ttl_us: int | None
    fields: tuple[FieldPlan, ...]
    created: bool = True

    @property
    def layout(self) -> tuple[object, ...]:
        """What decides the bytes of the view's segments."""
        return self.view, self.created, tuple((field.name, field.dtype) for field in self.fields)


@dataclass(frozen=True, slots=True)
class RowGroupPlan:
    """The views that share a row because they describe the same entities.

    Attributes:
        name: the entities' names, joined by `+`.
        entities: their names.
        join_keys: `(column, dtype)`, one per entity.
        generation: which layout its keys carry; the registry version that last changed the layout.
        segments: the views, in the order of the row.
    """

    name: str
    entities: tuple[str, ...]
    join_keys: tuple[tuple[str, str], ...]
    generation: int
    segments: tuple[SegmentPlan, ...]

    @property
    def layout(self) -> tuple[object, ...]:
        """What decides the bytes of the group's rows: two groups of equal layouts can share stored rows."""
        return self.name, self.join_keys, tuple(segment.layout for segment in self.segments)

    def segment(self, view: str) -> SegmentPlan:
        """The segment of a view that is known to be in the group."""
        return next(segment for segment in self.segments if segment.view == view)


@dataclass(frozen=True, slots=True)
class TilesPlan:
    """A stream view, whose tiles of one entity are one value.

    Attributes:
        view: its name.
        entities: the names of the entities that it is of.
        join_keys: `(column, dtype)`, one per entity.
        generation: which layout its keys carry; another when the windows change, or when the tiles are filled again.
        topic: what events they are made of.
        windows: what is kept and served.
        start_us: events before are not merged from the stream: a backfill has filled them from the history.
        event_time: the member that says when an event happened, and its unit; None: a plan of before it said so.
        mark: what its fences in Redis hold (see online/publication.py); empty: a plan of before there were marks.
    """

    view: str
    entities: tuple[str, ...]
    join_keys: tuple[tuple[str, str], ...]
    generation: int
    topic: str
    windows: Windows
    start_us: int | None = None
    event_time: tuple[str, str] | None = None
    mark: str = field(default="", compare=False)

    @property
    def layout(self) -> tuple[object, ...]:
        """What decides the bytes of the view's values, and of which events they are made."""
        return self.join_keys, self.topic, self.event_time, self.windows.rings


@dataclass(frozen=True, slots=True)
class InputPlan:
    """An input of an on-demand function: a view's feature, or a field of the request when `view` is empty."""

    name: str
    view: str
    feature: str
    dtype: str
    default: Any = None


@dataclass(frozen=True, slots=True)
class TransformPlan:
    """An on-demand view. Clients call a function that their own process offers for the view's name.

    Attributes:
        name: the view's name.
        function: the file and name of the function that was applied, for people; nothing is looked up by it.
        digest: what its code hashes to.
        inputs: what it is given.
        outputs: what it returns.
        nulls: `strict`, or `shown`: whether it is told where inputs have no value; see OnDemandFeatureView.
        earlier: digests of functions that were applied before, with the same inputs and outputs, the newest first.
            Model servers that still run one of them go on serving.
    """

    name: str
    function: str
    digest: str
    inputs: tuple[InputPlan, ...]
    outputs: tuple[FieldPlan, ...]
    nulls: Literal["strict", "shown"] = "strict"
    earlier: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """A column of a service: the name it is served by, and the view (or on-demand view) and feature it comes from."""

    name: str
    view: str
    feature: str


@dataclass(frozen=True, slots=True)
class PrunedColumnPlan:
    """A column that a prune plan drops: what it was, with `dtype` and `default` as in FieldPlan."""

    name: str
    view: str
    feature: str
    dtype: str
    default: Any = None


@dataclass(frozen=True, slots=True)
class PruningPlan:
    """What a prune plan does to a service.

    Attributes:
        plan: its id.
        stage: `shadow`: the service's columns are those without it; `mask` or `drop`: those that it keeps.
        answer: `error`, or `default`: dropped columns are served in their places, as defaults.
        columns: the names of all columns without it, in order.
        dropped: the columns that it drops.
        read_order: the views, the most important for what they cost first.
    """

    plan: str
    stage: str
    answer: str
    columns: tuple[str, ...]
    dropped: tuple[PrunedColumnPlan, ...]
    read_order: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """A service's columns that are read, in order; and what a prune plan does to it."""

    name: str
    columns: tuple[ColumnPlan, ...]
    pruning: PruningPlan | None = None

    def shadowed(self) -> ServicePlan:
        """The service as its plan in the stage `shadow` would leave it."""
        dropped = {column.name for column in self.pruning.dropped} if self.pruning is not None else set()
        return ServicePlan(self.name, tuple(column for column in self.columns if column.name not in dropped))


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """Everything served of one project, at one version of its registry.

    Attributes:
        groups: the row groups of batch views.
        tiles: the stream views.
        filling: row groups of the next version while they are filled; writers write them too, readers do not read them.
        filling_tiles: generations of stream views that are being filled, by whoever fills them alone.
        retired: row groups that are served no more and whose rows are being deleted.
        retired_tiles: the same of stream views.
        unstored: views that prune plans left without a feature: should they come back, they are filled first.
        registry: the id of the registry that published it; empty: a release before ids did.
        definitions: the digest of that version's definitions; copies of one registry differ in it. Empty: not stated.
        buckets: how many hash tags the project's keys are spread over.
        expire_keys: whether Redis drops a row once every view in it has expired.
        epoch: that it was published with; empty: not published, or by a version of the library that did not say it.
    """

    project: str
    version: int
    groups: tuple[RowGroupPlan, ...] = ()
    tiles: tuple[TilesPlan, ...] = ()
    transforms: tuple[TransformPlan, ...] = ()
    services: tuple[ServicePlan, ...] = ()
    filling: tuple[RowGroupPlan, ...] = ()
    filling_tiles: tuple[TilesPlan, ...] = ()
    retired: tuple[RowGroupPlan, ...] = ()
    retired_tiles: tuple[TilesPlan, ...] = ()
    unstored: tuple[str, ...] = ()
    registry: str = ""
    definitions: str = field(default="", compare=False)
    buckets: int = 1
    expire_keys: bool = False
    format: int = field(default=FORMAT)
    epoch: str = field(default="", compare=False)

    def group_of(self, view: str) -> RowGroupPlan:
        """The row group that holds a view.

        Raises:
            NotFoundError: no group does.
        """
        for group in self.groups:
            if any(segment.view == view for segment in group.segments):
                return group
        views = [segment.view for group in self.groups for segment in group.segments]
        known = ", ".join([*views, *(tiles.view for tiles in self.tiles)])
        raise NotFoundError(view, expected=f"a feature view: {known or 'none is applied'}", got=repr(view))

    def tiles_of(self, view: str) -> TilesPlan | None:
        """The tiles of a stream view; None when no stream view has that name."""
        return next((tiles for tiles in self.tiles if tiles.view == view), None)

    def service(self, name: str) -> ServicePlan:
        """The service of that name.

        Raises:
            NotFoundError: there is none.
        """
        for service in self.services:
            if service.name == name:
                return service
        known = ", ".join(service.name for service in self.services)
        raise NotFoundError(
            f"project {self.project}",
            expected=f"a feature service: {known or 'none is applied'}",
            got=repr(name),
            hint=did_you_mean(name, [service.name for service in self.services]),
        )

    def dropped_by(self, view: str, feature: str) -> str | None:
        """The prune plan that drops a feature, and its service, in words; None when none does."""
        for service in self.services:
            for column in service.pruning.dropped if service.pruning is not None else ():
                if (column.view, column.feature) == (view, feature):
                    assert service.pruning is not None
                    return f"dropped by prune plan {service.pruning.plan} of service {service.name}"
        return None

    def refuse_other_epoch(self, project: str, epoch: bytes) -> None:
        """Raise a DamagedPlanError unless the plan is this project's, and was published with this epoch."""
        if self.project == project and self.epoch in ("", epoch.decode(errors="replace")):
            return
        raise DamagedPlanError(
            f"serving plan of {project}",
            problem="the plan and the epoch are of two publications: one of the keys comes from an older copy",
            hint="run `feature-store apply`: it publishes the plan again and keeps what is stored",
        )
