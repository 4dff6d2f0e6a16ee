"""The serving plan: everything that a model server needs to know of a project, as one JSON document in Redis.

It is compiled from the definitions at `apply` and read by clients and writers; it holds names, types, layouts and
times, never code or secrets. `plan_document.py` writes and reads the JSON. This module is plain dataclasses, so that
serving loads no SQLAlchemy and, until it reads a plan, no pydantic.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from feature_store.aggregates.windows import Windows
from feature_store.errors import DamagedPlanError, NotFoundError, did_you_mean

FORMAT = 2


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """A stored or served feature. `dtype` is `str(DType)`; `default` is as of `DType.to_json`."""

    name: str
    dtype: str
    default: Any = None


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """One view's segment of a row.

    Attributes:
        view: its name.
        ttl_us: its ttl in microseconds; None: rows do not expire.
        fields: in the order of its schema.
        created: whether rows hold a created timestamp. Without one, the event timestamp is used.
    """

    view: str
    ttl_us: int | None
    fields: tuple[FieldPlan, ...]
    created: bool = True

    @property
    def layout(self) -> tuple[object, ...]:
        """Everything that decides the bytes of the view's segments."""
        return self.view, self.created, tuple((field.name, field.dtype) for field in self.fields)


@dataclass(frozen=True, slots=True)
class RowGroupPlan:
    """The views that share a row because they describe the same entities.

    Attributes:
        name: the entities' names, joined by `+`.
        entities: their names.
        join_keys: `(column, dtype)`, one per entity.
        generation: the number in its keys; the registry version that last changed the layout.
        segments: the views, in the order of the row.
        buckets: the number of hash tags that its keys are spread over. 0: that of the plan, which replaces it.
    """

    name: str
    entities: tuple[str, ...]
    join_keys: tuple[tuple[str, str], ...]
    generation: int
    segments: tuple[SegmentPlan, ...]
    buckets: int = 0

    @property
    def layout(self) -> tuple[object, ...]:
        """Everything that decides the bytes of the group's rows: groups of equal layouts can share stored rows."""
        return self.name, self.join_keys, tuple(segment.layout for segment in self.segments)

    def segment(self, view: str) -> SegmentPlan:
        """The segment of a view of the group."""
        return next(segment for segment in self.segments if segment.view == view)


@dataclass(frozen=True, slots=True)
class TilesPlan:
    """A stream view. Its tiles of one entity are one value in Redis.

    Attributes:
        view: its name.
        entities: the names of its entities.
        join_keys: `(column, dtype)`, one per entity.
        generation: the number in its keys. It changes when the windows change, and when a backfill fills the tiles
            again.
        topic: the topic of its events.
        windows: the windows that are stored and served.
        start_us: the stream merges no events before this time, because a backfill took them from the history.
            Microseconds since 1970; None: there was no history.
        event_time: the member of an event that holds its time, and its unit; None: plans of release 0.1 lack it.
        derived: `(column, expression)` for each derived column of the events that the windows are made of.
        mark: the mark that its fences in Redis hold (see online/publication.py); empty: a plan of before there were
            marks.
        buckets: as in RowGroupPlan.
    """

    view: str
    entities: tuple[str, ...]
    join_keys: tuple[tuple[str, str], ...]
    generation: int
    topic: str
    windows: Windows
    start_us: int | None = None
    event_time: tuple[str, str] | None = None
    derived: tuple[tuple[str, str], ...] = ()
    mark: str = field(default="", compare=False)
    buckets: int = 0

    @property
    def layout(self) -> tuple[object, ...]:
        """Everything that decides the bytes of the view's tiles, and the events that they are made of."""
        known = self.join_keys, self.topic, self.event_time, self.windows.rings
        return (*known, self.derived) if self.derived else known  # fences hold a digest of it since before `derived`


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
        function: the file and name of the applied function, for display only.
        digest: the digest of its code.
        inputs: its inputs, in order.
        outputs: the features that it returns.
        nulls: `shown` if the function also gets a mask of missing inputs, else `strict`; see OnDemandFeatureView.
        earlier: digests of functions applied before with the same inputs and outputs, the newest first. Model servers
            that run one of them go on serving.
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
    """A column of a service: its served name, and its view (stored or on-demand) and feature."""

    name: str
    view: str
    feature: str


@dataclass(frozen=True, slots=True)
class PrunedColumnPlan:
    """A column that a prune plan drops. `dtype` and `default` are as in FieldPlan."""

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
        stage: `shadow`: the service still has all its columns; `mask` or `drop`: it has the kept ones.
        answer: for requests of dropped columns: `error`, or `default`, which serves defaults in their places.
        columns: the names of the service's columns before pruning, in order.
        dropped: the columns that it drops.
        read_order: the views, by importance for their cost, the greatest first.
    """

    plan: str
    stage: str
    answer: str
    columns: tuple[str, ...]
    dropped: tuple[PrunedColumnPlan, ...]
    read_order: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """A service: the columns that are read, in order, and its pruning."""

    name: str
    columns: tuple[ColumnPlan, ...]
    pruning: PruningPlan | None = None

    def shadowed(self) -> ServicePlan:
        """The service without the columns that its prune plan drops."""
        dropped = {column.name for column in self.pruning.dropped} if self.pruning is not None else set()
        return ServicePlan(self.name, tuple(column for column in self.columns if column.name not in dropped))


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """Everything that is served of one project, at one version of its registry.

    Attributes:
        groups: the row groups of batch views.
        tiles: the stream views.
        transforms: the on-demand views.
        services: the feature services.
        filling: row groups of the next version while they are filled. Writers write them, readers do not read them.
        filling_tiles: generations of stream views that a backfill is filling. Only the backfill writes them.
        retired: row groups that are no longer served; their rows are being deleted.
        retired_tiles: stream views that are no longer served; their tiles are being deleted.
        unstored: views that prune plans left without features. If they come back, they are filled first.
        registry: the id of the registry that published the plan; empty: release 0.1 published it.
        definitions: the digest of the version's definitions, which tells copies of a registry apart. Empty: not stated.
        buckets: the number of hash tags that the keys of the served generations are spread over. Generations that are
            filled or retired have another number while it changes.
        expire_keys: whether Redis deletes a row once every view in it has expired.
        format: the format of the document.
        epoch: the mark of its publication; empty: not published, or published by release 0.1.
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

    def __post_init__(self) -> None:
        for name in ("groups", "tiles", "filling", "filling_tiles", "retired", "retired_tiles"):
            items: tuple[RowGroupPlan | TilesPlan, ...] = getattr(self, name)
            if any(item.buckets == 0 for item in items):  # as in plans of earlier releases
                stated = tuple(replace(item, buckets=item.buckets or self.buckets) for item in items)
                object.__setattr__(self, name, stated)

    @property
    def needed_buckets(self) -> int:
        """How many buckets must hold the plan's epoch: those of the generations that are read or written."""
        rows, tiles = (*self.groups, *self.filling), (*self.tiles, *self.filling_tiles)
        return max([self.buckets, *(group.buckets for group in rows), *(item.buckets for item in tiles)])

    @property
    def all_buckets(self) -> int:
        """How many buckets get the plan's epoch when it is published: those of all generations.

        So readers and writers of the plan before notice it in every bucket, before retired keys are deleted.
        """
        rows, tiles = self.retired, self.retired_tiles
        return max([self.needed_buckets, *(group.buckets for group in rows), *(item.buckets for item in tiles)])

    def group_of(self, view: str) -> RowGroupPlan:
        """The row group that holds a view.

        Raises:
            NotFoundError: no group has the view.
        """
        for group in self.groups:
            if any(segment.view == view for segment in group.segments):
                return group
        views = [segment.view for group in self.groups for segment in group.segments]
        known = ", ".join([*views, *(tiles.view for tiles in self.tiles)])
        raise NotFoundError(view, expected=f"a feature view: {known or 'none is applied'}", got=repr(view))

    def tiles_of(self, view: str) -> TilesPlan | None:
        """The tiles of a stream view; None: no stream view has that name."""
        return next((tiles for tiles in self.tiles if tiles.view == view), None)

    def service(self, name: str) -> ServicePlan:
        """The service of that name.

        Raises:
            NotFoundError: no service has that name.
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
        """A sentence that names the prune plan that drops a feature, and its service; None: no plan drops it."""
        for service in self.services:
            for column in service.pruning.dropped if service.pruning is not None else ():
                if (column.view, column.feature) == (view, feature):
                    assert service.pruning is not None
                    return f"dropped by prune plan {service.pruning.plan} of service {service.name}"
        return None

    def refuse_other_epoch(self, project: str, epoch: bytes) -> None:
        """Raise a DamagedPlanError unless the plan is of this project and was published with this epoch."""
        if self.project == project and self.epoch in ("", epoch.decode(errors="replace")):
            return
        raise DamagedPlanError(
            f"serving plan of {project}",
            problem="plan and epoch are of two publications: one of the keys comes from an older copy",
            hint="run `feature-store apply`: it publishes the plan again and keeps what is stored",
        )
