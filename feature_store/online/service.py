"""A service compiled from the serving plan: entity rows → one command, and where each column is in what comes back.

Everything that does not depend on the request is worked out here, once per plan.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from feature_store.aggregates.read import WindowReader
from feature_store.definitions.dtypes import DType
from feature_store.errors import DataError, ModelMismatchError, NotFoundError, RequestError
from feature_store.online import keys
from feature_store.online.codec import object_column
from feature_store.online.columns import ComputedColumn, PrunedColumn, StoredColumn, TransformInput, WindowColumn
from feature_store.online.entity_rows import EntityKeys, entity_keys, is_scalar, row_count
from feature_store.online.layout import RowLayout
from feature_store.online.matrix import MatrixPlan, bracketed_columns, matrix_columns
from feature_store.online.redis.resp import KeyWriter, ReplyParser, RowRun, argument
from feature_store.online.tile_layout import TileValueLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from feature_store.aggregates.arrays import Column
    from feature_store.online.columns import Column as ServedColumn
    from feature_store.online.layout import FieldLayout, SegmentLayout
    from feature_store.online.offered import Offered, Transform
    from feature_store.registry.serving_plan import (
        ColumnPlan,
        InputPlan,
        PrunedColumnPlan,
        ServicePlan,
        ServingPlan,
        TransformPlan,
    )


class CompiledTransform(NamedTuple):
    """An on-demand view with its function and inputs.

    Attributes:
        plan: what the plan says of it.
        function: the process's own function.
        inputs: where its inputs come from.
        digest: of the function, one of those that the plan lists.
    """

    plan: TransformPlan
    function: Transform
    inputs: list[TransformInput]
    digest: str


Layout = TypeVar("Layout", RowLayout, TileValueLayout)
_REFIT = "serve the model that was fitted for this plan; or roll the plan back (`feature-store prune rollback`)"
_NOBODY = EntityKeys(0, b"", None, None)
_NAMED = 5  # of features that are too few or too many, how many an error names
# Shapes kept per service; a server that ranks up to a thousand candidates sees a thousand.
MOST_SHAPES = 4096
# The same of a list of feature references, of which a client keeps hundreds.
MOST_SHAPES_OF_A_LIST = 128


class GroupRead:
    """How a service reads one row group, or one stream view.

    Attributes:
        layout: of the group's rows, or of the stream view's values.
        join_keys: the columns of its entity key.
        variables: the views whose variable values are read too.
    """

    def __init__(self, plan: ServingPlan, layout: RowLayout | TileValueLayout, variables: list[str]) -> None:
        self._plan, self.layout, self.variables = plan, layout, variables
        self.join_keys = layout.join_keys
        self.dtypes = [dtype for _, dtype in self.join_keys]
        width = keys.fixed_width(self.dtypes)
        self._writer = KeyWriter(layout.prefix(plan.project, 0), width) if width is not None else None

    @property
    def is_fixed(self) -> bool:
        """Whether keys and rows all have one width, so that command and reply are written and read at once."""
        return self._writer is not None and not self.variables and self._plan.buckets == 1

    def arguments(self, asked: EntityKeys) -> bytes:
        """The keys as arguments of a command, when the group is fixed."""
        assert self._writer is not None
        return self._writer.write(asked.size, asked.packed)

    def prefixes(self, bucket: int) -> list[bytes]:
        """What the keys of rows, then of each view's variable values, start with."""
        project, own = self._plan.project, self.layout.prefix(self._plan.project, bucket)
        if isinstance(self.layout, TileValueLayout):
            return [own]
        return [own, *(keys.variable_prefix(project, bucket, self.layout.group, view) for view in self.variables)]


class FixedShape(NamedTuple):
    """What requests for the same numbers of keys have in common: how the command starts, where the rows will be."""

    head: bytes
    runs: list[RowRun]


class Request(NamedTuple):
    """A request ready to be sent.

    Attributes:
        size: rows of the result.
        values: what the caller gave.
        asked: per group of the service, its distinct entity keys.
        command: the bytes to send.
        parser: takes what comes back.
        places: per command, per group, the indexes of the keys that it asks for; None when one command asks for all.
        skipped: the groups that were not read, to keep a deadline.
    """

    size: int
    values: Mapping[str, Any]
    asked: list[EntityKeys]
    command: bytes
    parser: ReplyParser
    places: list[list[list[int]]] | None
    skipped: frozenset[int] = frozenset()


class Part(NamedTuple):
    """What reads one group of a request: the bytes to send, what takes the replies, and as in Request the places."""

    group: int
    command: bytes
    parser: ReplyParser
    places: list[list[list[int]]]


class CompiledService:
    """A service of one serving plan.

    Args:
        plan: the serving plan.
        service: the service, one of the plan's or made of feature references.
        offered: the on-demand functions that this process offers.
        epoch: of the plan's publication.

    Raises:
        TransformError: an on-demand function is not offered, or differs from the applied ones.
    """

    def __init__(self, plan: ServingPlan, service: ServicePlan, offered: Offered, epoch: bytes) -> None:
        self.plan, self.name, self._epoch = plan, service.name, epoch
        # By the name of a row group, or of a stream view after a colon, which no group's name has.
        self._layouts: dict[str, RowLayout | TileValueLayout] = {}
        self.transforms: dict[str, CompiledTransform] = {}
        self._transform_plans = {transform.name: transform for transform in plan.transforms}
        self._offered = offered
        self.pruning = service.pruning
        self.is_shadowed = self.pruning is not None and self.pruning.stage == "shadow"
        self.prune_plan = self.pruning.plan if self.pruning is not None and not self.is_shadowed else ""
        self.columns = self._served_columns(service)
        self.names = list(self.columns)
        self.origins = {column.name: (column.view, column.feature) for column in service.columns}
        self.groups = [self._group(index) for index in range(len(self._layouts))]
        self._is_fixed = all(group.is_fixed for group in self.groups)
        self._shapes: dict[tuple[int, ...], FixedShape] = {}
        self._most_shapes = MOST_SHAPES if service.name else MOST_SHAPES_OF_A_LIST
        self._window_readers: dict[int, WindowReader] = {}
        self._epoch_argument = argument(keys.epoch_key(plan.project, 0))

    def prepare(self, values: Mapping[str, Any]) -> Request:
        """Check entity rows and write the command that reads them.

        Raises:
            RequestError: a join key or request field is missing, null, of a wrong type or length.
        """
        count = row_count(values)
        asked = [entity_keys(group.join_keys, values, count) for group in self.groups]
        if self._is_fixed:
            return self._prepare_fixed(count, values, asked)
        return self._prepare_varying(count, values, asked)

    def prepare_in_parts(self, values: Mapping[str, Any]) -> tuple[Request, list[Part]]:
        """A request in parts, the most important group first, to be read one after the other; see `joined`.

        Raises:
            RequestError: as `prepare`.
        """
        count = row_count(values)
        asked = [entity_keys(group.join_keys, values, count) for group in self.groups]
        request = Request(count, values, asked, b"", ReplyParser(0, []), [])
        parts = []
        for index in self._read_order:
            alone = [item if i == index else _NOBODY for i, item in enumerate(asked)]
            found = self._prepare_varying(count, values, alone)
            assert found.places is not None
            parts.append(Part(index, found.command, found.parser, found.places))
        return request, parts

    @cached_property
    def _read_order(self) -> list[int]:
        """The groups, as the prune plan ranks their views; without one, as the service names them."""
        ranked = self.pruning.read_order if self.pruning is not None else ()
        places = {view: i for i, view in enumerate(ranked)}

        def rank(index: int) -> tuple[int, int]:
            views = self._views_of(index)
            return min((places[view] for view in views if view in places), default=len(places)), index

        return sorted(range(len(self.groups)), key=rank)

    def _views_of(self, index: int) -> list[str]:
        layout = self.groups[index].layout
        return [layout.plan.view] if isinstance(layout, TileValueLayout) else list(layout.segments)

    def request_column(self, wanted: TransformInput, values: Mapping[str, Any], count: int) -> Column:
        """A field of the request as its function is shown it: (count,) of its numpy type; (count, length) for arrays of
        fixed width, (count,) object of lists for others. A single value stands for every row; of an array field, only
        its default does.

        Raises:
            RequestError: it is missing, null without a default, or of a wrong type.
        """
        if wanted.name not in values and wanted.default is None:
            got = ", ".join(values) or "nothing"
            raise RequestError(wanted.name, expected=f"the request field ({wanted.dtype})", got=got)
        given = values.get(wanted.name)
        if given is None or is_scalar(given):
            value = self._request_value(wanted, given, wanted.name)
            if wanted.dtype.width is None:
                return _request_array(wanted.dtype, [value] * count)
            return np.repeat(_request_array(wanted.dtype, [value]), count, axis=0)
        items = _items(given)
        fitted = [self._request_value(wanted, item, f"{wanted.name}[{i}]") for i, item in enumerate(items)]
        return _request_array(wanted.dtype, fitted)

    def request_nulls(self, wanted: TransformInput, values: Mapping[str, Any], count: int) -> Column:
        """(count,) bool, where a field of the request has no value of its own."""
        given = values.get(wanted.name)
        if given is None or is_scalar(given):
            return np.full(count, given is None)
        return np.array([item is None for item in given], bool)

    @cached_property
    def stored_parts(self) -> list[tuple[int, SegmentLayout, list[FieldLayout]]]:
        """The columns that are stored, by view: the index of its group, its segment, and the columns' fields."""
        parts: dict[tuple[int, str], tuple[int, SegmentLayout, list[FieldLayout]]] = {}
        for column in self.columns.values():
            if isinstance(column, StoredColumn):
                segment = column.segment
                part = parts.setdefault((column.group, segment.view), (column.group, segment, []))
                part[2].append(column.field)
        return list(parts.values())

    @cached_property
    def other_columns(self) -> list[WindowColumn | ComputedColumn | PrunedColumn]:
        """The columns that are not stored."""
        return [column for column in self.columns.values() if not isinstance(column, StoredColumn)]

    @cached_property
    def matrix_plan(self) -> MatrixPlan:
        """How to fill the service's matrix.

        Raises:
            RequestError: a column has no place in a float matrix.
        """
        return MatrixPlan(self.columns)

    def matrix_columns(self) -> list[str]:
        """The names of the matrix's columns."""
        return list(self._matrix_columns)

    @cached_property
    def _matrix_columns(self) -> list[str]:
        return matrix_columns(self._types)

    @cached_property
    def _bracketed_columns(self) -> list[str]:
        return bracketed_columns(self._types)

    @property
    def _types(self) -> dict[str, DType]:
        return {name: column.dtype for name, column in self.columns.items()}

    def _request_value(self, wanted: TransformInput, item: Any, where: str) -> Any:
        if item is None:
            if wanted.default is None:
                raise RequestError(where, expected=f"a value of {wanted.dtype}", got="null")
            return wanted.default
        try:
            return wanted.dtype.fit(item, where)
        except DataError as error:
            raise RequestError(error.where, expected=error.expected, got=error.got) from None

    def _prepare_fixed(self, size: int, values: Mapping[str, Any], asked: list[EntityKeys]) -> Request:
        counts = tuple([item.size for item in asked])
        shape = self._shapes.get(counts)
        if shape is None:
            shape = self._shapes[counts] = self._shape(counts)
        parts = [shape.head]
        for group, item in zip(self.groups, asked, strict=True):
            if item.size:
                parts.append(group.arguments(item))
        parts.append(self._epoch_argument)
        return Request(size, values, asked, b"".join(parts), ReplyParser(1, shape.runs, self._epoch), None)

    def _shape(self, counts: tuple[int, ...]) -> FixedShape:
        if len(self._shapes) >= self._most_shapes:
            self._shapes.clear()
        runs: list[RowRun] = []
        at = len(b"*%d\r\n" % (sum(counts) + 1))
        for group, count in zip(self.groups, counts, strict=True):
            if count:
                runs.append(RowRun(group.layout, count, at))
                at = runs[-1].end
        # MGET itself is one more element of the command than of the reply.
        return FixedShape(b"*%d\r\n$4\r\nMGET\r\n" % (sum(counts) + 2), runs)

    def _prepare_varying(self, count: int, values: Mapping[str, Any], asked: list[EntityKeys]) -> Request:
        commands: list[bytes] = []
        places: list[list[list[int]]] = []
        each = [item.each() for item in asked]
        buckets = [keys.buckets_of(group_keys, self.plan.buckets) for group_keys in each]
        # The first command is always bucket 0's: a request without keys still learns the epoch.
        for bucket in sorted({0}.union(*buckets)):
            chosen = [[i for i, at in enumerate(of_group) if at == bucket] for of_group in buckets]
            arguments = [
                argument(prefix + group_keys[i])
                for group, group_keys, indexes in zip(self.groups, each, chosen, strict=True)
                for prefix in group.prefixes(bucket)
                for i in indexes
            ]
            epoch = argument(keys.epoch_key(self.plan.project, bucket))
            commands.append(b"".join([b"*%d\r\n$4\r\nMGET\r\n" % (len(arguments) + 2), *arguments, epoch]))
            places.append(chosen)
        return Request(count, values, asked, b"".join(commands), ReplyParser(len(commands), []), places)

    def functions(self) -> dict[str, str]:
        """Per on-demand view the digest of its function."""
        return {name: transform.digest for name, transform in self.transforms.items()}

    def is_for(self, model_features: Sequence[str] | None, prune_plan: str | None) -> bool:
        """Whether the service serves what a model was made for.

        Args:
            model_features: the names of the model's features in order, or of its matrix's columns, of which those of
                arrays may be written `name_0` or `name[0]`; None: whatever.
            prune_plan: the id of the prune plan that the model was made for, empty: none; None: whatever.
        """
        return prune_plan in (None, self.prune_plan) and (
            model_features is None
            or list(model_features) in (self.names, self._matrix_columns, self._bracketed_columns)
        )

    def refuse_unless_for(self, model_features: Sequence[str] | None, prune_plan: str | None) -> None:
        """Raise a ModelMismatchError unless `is_for`."""
        if self.is_for(model_features, prune_plan):
            return
        where = f"service {self.name}, served by version {self.plan.version}"
        if prune_plan not in (None, self.prune_plan):
            expected, got = f"prune plan {prune_plan or 'none'}, as the model", self.prune_plan or "none"
        else:
            expected, got = "the model's features, in their order", self._difference(model_features or ())
        raise ModelMismatchError(where, expected=expected, got=got, hint=_REFIT)

    def _difference(self, model_features: Sequence[str]) -> str:
        known = {*self.names, *self._matrix_columns, *self._bracketed_columns}
        lacking = [name for name in model_features if name not in known]
        beyond = [name for name in self.names if name not in model_features]
        found = [
            f"{what} {', '.join(names[:_NAMED])}" + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
            for what, names in (("without", lacking), ("with", beyond))
            if names
        ]
        under = f"; prune plan {self.prune_plan} is applied" if self.prune_plan else ""
        return (" and ".join(found) or "another order") + under

    def _served_columns(self, service: ServicePlan) -> dict[str, ServedColumn]:
        read: dict[str, ServedColumn] = {column.name: self._column(column) for column in service.columns}
        pruning = service.pruning
        if pruning is None or pruning.stage == "shadow" or pruning.answer != "default":
            return read
        dropped = {column.name: column for column in pruning.dropped}
        return {name: _pruned(dropped[name]) if name in dropped else read[name] for name in pruning.columns}

    def _column(self, column: ColumnPlan) -> ServedColumn:
        try:
            return self._read_column(column)
        except (NotFoundError, RequestError):
            dropped = self.plan.dropped_by(column.view, column.feature)
            if dropped is None:
                raise
        expected = "a feature that is stored"
        hint = "roll the plan back (`feature-store prune rollback`) to have it again"
        raise NotFoundError(f"{column.view}:{column.feature}", expected=expected, got=dropped, hint=hint)

    def _read_column(self, column: ColumnPlan) -> ServedColumn:
        transform = self._transform_plans.get(column.view)
        if transform is None:
            return self._stored(column.view, column.feature)
        if transform.name not in self.transforms:
            chosen = self._offered.choose(transform)
            inputs = [self._input(item) for item in transform.inputs]
            self.transforms[transform.name] = CompiledTransform(transform, chosen.function, inputs, chosen.digest)
        output = next((field for field in transform.outputs if field.name == column.feature), None)
        if output is None:
            raise RequestError(
                f"{column.view}:{column.feature}", expected=f"a feature of {column.view}", got=column.feature
            )
        dtype = DType.parse(output.dtype)
        return ComputedColumn(transform.name, output.name, dtype, dtype.from_json(output.default))

    def _stored(self, view: str, feature: str) -> StoredColumn | WindowColumn:
        tiles = self.plan.tiles_of(view)
        if tiles is not None:
            place, _ = self._place(f":{view}", lambda: TileValueLayout(tiles))
            windows = {window.name: window for window in tiles.windows.features}
            window = windows[_known(view, feature, windows)]
            dtype = DType.parse(window.dtype)
            return WindowColumn(place, window, dtype, dtype.from_json(window.default))
        group = self.plan.group_of(view)
        place, layout = self._place(group.name, lambda: RowLayout(group))
        segment = layout.segments[view]
        return StoredColumn(place, segment, segment.fields[_known(view, feature, segment.fields)])

    def _place(self, name: str, make: Callable[[], Layout]) -> tuple[int, Layout]:
        """The index of a group among those that the service reads, and its layout."""
        if name not in self._layouts:
            self._layouts[name] = make()
        return list(self._layouts).index(name), self._layouts[name]  # type: ignore[return-value]

    def _input(self, plan: InputPlan) -> TransformInput:
        dtype = DType.parse(plan.dtype)
        stored = self._stored(plan.view, plan.feature) if plan.view else None
        return TransformInput(plan.name, stored, dtype, dtype.from_json(plan.default))

    def window_reader(self, group: int) -> WindowReader:
        """Reads what the service takes of a stream view, by the index of its group."""
        if group not in self._window_readers:
            layout = self.groups[group].layout
            assert isinstance(layout, TileValueLayout)
            read = [*self.columns.values(), *(item.stored for item in self._transform_inputs())]
            windows = [column for column in read if isinstance(column, WindowColumn) and column.group == group]
            reader = WindowReader(layout.tiles, [column.window.name for column in windows])
            self._window_readers[group] = reader
        return self._window_readers[group]

    def _transform_inputs(self) -> list[TransformInput]:
        return [item for transform in self.transforms.values() for item in transform.inputs]

    def _group(self, index: int) -> GroupRead:
        read = [*self.columns.values(), *(item.stored for item in self._transform_inputs())]
        stored = [column for column in read if isinstance(column, StoredColumn)]
        variables = {column.segment.view for column in stored if column.group == index and column.field.slot >= 0}
        return GroupRead(self.plan, list(self._layouts.values())[index], sorted(variables))


def joined(request: Request, parts: Sequence[Part], answered: int) -> Request:
    """A request of which the first so many parts were answered, and the others skipped."""
    parser, command = ReplyParser(0, []), b"".join([part.command for part in parts[:answered]])
    parser.replies = [reply for part in parts[:answered] for reply in part.parser.replies]
    parser.earlier = sum([part.parser.bytes_received for part in parts[:answered]])
    places = [place for part in parts[:answered] for place in part.places]
    skipped = frozenset([part.group for part in parts[answered:]])
    return request._replace(command=command, parser=parser, places=places, skipped=skipped)


def _request_array(dtype: DType, values: list[Any]) -> Column:
    """Canonical values of a request field → the array that a function is shown."""
    if dtype.width is None:
        # Rows that share a value would share a list.
        return object_column(values if dtype.element is None else [list(value) for value in values])
    if not dtype.scalar.is_stored_as_is:
        values = [dtype.to_stored(value) for value in values]
    array = np.array(values, dtype.numpy)
    return array if dtype.length is None else array.reshape(len(values), dtype.length)


def _pruned(column: PrunedColumnPlan) -> PrunedColumn:
    dtype = DType.parse(column.dtype)
    return PrunedColumn(dtype, dtype.from_json(column.default))


def _known(view: str, feature: str, features: Mapping[str, object]) -> str:
    """Return `feature` when the view has it.

    Raises:
        RequestError: it has not.
    """
    if feature not in features:
        expected = f"a feature of {view}: {', '.join(features)}"
        raise RequestError(f"{view}:{feature}", expected=expected, got=repr(feature))
    return feature


def _items(given: Any) -> list[Any]:
    """The values of a request field, as Python has them; times to the microsecond, which a list of numpy's is not."""
    if not isinstance(given, np.ndarray):
        return list(given)
    items: list[Any] = given.astype("M8[us]").tolist() if given.dtype.kind == "M" else given.tolist()
    return items
