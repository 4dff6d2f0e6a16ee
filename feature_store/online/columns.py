"""The kinds of columns: stored, a window, computed by an on-demand function, pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.online.codec import decode_variables, python_values, unbiased, variable_pieces
from feature_store.online.column import NO_TIME, ServedColumn
from feature_store.online.request_fields import request_column, request_nulls
from feature_store.online.status import Status
from feature_store.online.transforms import decides_absence, run_transform, shown_input

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from feature_store.aggregates.windows import Window
    from feature_store.definitions.dtypes import DType
    from feature_store.functions import Column, Mask
    from feature_store.online.answer import Answer, RequestAnswer, Statuses
    from feature_store.online.codec import Pieces
    from feature_store.online.column import A_co, JoinedRows, MatrixColumns
    from feature_store.online.layout import FieldLayout, SegmentLayout
    from feature_store.online.transforms import CompiledTransform, TransformInput


class StoredColumn(ServedColumn):
    """A column whose values are fields of stored rows.

    Args:
        group: the index of the row group.
        segment: the view's segment of the row.
        field: the field in the segment.
    """

    __slots__ = ("_group", "field", "segment")

    def __init__(self, group: int, segment: SegmentLayout, field: FieldLayout) -> None:
        super().__init__(field.dtype, field.default, group)
        self._group, self.segment, self.field = group, segment, field

    def values(self, answer: Answer) -> Column | list[Any]:
        """See ServedColumn."""
        if self.dtype.width is None:
            return answer.each(self._variable_values)
        return answer.fixed_values(self._group, self.segment, self.field)

    def status(self, answer: Answer) -> Statuses:
        """See ServedColumn."""
        return answer.statuses(self._group, self.segment)[:, self.field.index]

    def event_times(self, answer: Answer) -> Column:
        """See ServedColumn."""
        return unbiased(answer.stored(self._group).event_times(self.segment))

    def uniform(self, answer: Answer) -> Status | None:
        """See ServedColumn."""
        return answer.uniform(self._group, self.segment)

    @property
    def source(self) -> Hashable:
        """See ServedColumn."""
        return self._group, self.segment.view

    def statuses(self, answer: Answer, columns: Sequence[StoredColumn]) -> Statuses:
        """See ServedColumn."""
        return answer.statuses(self._group, self.segment)[:, [column.field.index for column in columns]]

    @property
    def together(self) -> Hashable:
        """See ServedColumn."""
        # A fixed-size array is as wide as a block, so it is read alone.
        return self if self.dtype.length is not None else (self._group, self.segment.view, self.dtype)

    def absent_together(self, answer: RequestAnswer, columns: Sequence[StoredColumn]) -> Mask:
        """See ServedColumn."""
        rows = answer.absent_rows(self._group, self.segment)
        return (
            super().absent_together(answer, columns)
            if rows is None
            else np.broadcast_to(rows, (len(columns), rows.size))
        )

    def reader(self, columns: Sequence[StoredColumn]) -> Callable[[RequestAnswer], Column | list[list[Any]]]:
        """See ServedColumn."""
        group, segment, fields = self._group, self.segment, [column.field for column in columns]
        if self.dtype.width is None:
            return lambda answer: decode_variables(answer.variables(group, segment), segment, fields)
        if self.dtype.length is not None:
            return super().reader(columns)
        dtype, first = self.dtype.numpy, min(field.offset for field in fields)
        chosen = [(field.offset - first) // dtype.itemsize for field in fields]
        whole = slice(0, len(fields))
        index = whole if chosen == list(range(len(fields))) else chosen
        return lambda answer: answer.fixed_block(group, segment, first, dtype, index)

    def pieces_reader(self, columns: Sequence[StoredColumn]) -> Callable[[RequestAnswer], Pieces] | None:
        """See ServedColumn."""
        if self.dtype.width is not None or self.dtype.element is not None:
            return None
        group, segment, fields = self._group, self.segment, [column.field for column in columns]
        return lambda answer: variable_pieces(answer.variables(group, segment), segment, fields)

    @property
    def needs(self) -> list[tuple[str, str]]:
        """See ServedColumn."""
        return [(self.segment.view, self.field.name)]

    def from_join(self, joined: JoinedRows[A_co]) -> A_co:
        """See ServedColumn."""
        return joined.field(self.segment.view, self.field.name)

    def add_to(self, matrix: MatrixColumns, name: str, target: int) -> None:
        """See ServedColumn."""
        matrix.add_stored(self._group, self.segment, self.field, target)

    def _variable_values(self, answer: RequestAnswer) -> list[Any]:
        return decode_variables(answer.variables(self._group, self.segment), self.segment, [self.field])[0]


class WindowColumn(ServedColumn):
    """A column that is computed from tiles when it is read.

    Args:
        group: the index of the stream view among the service's groups.
        view: the name of the stream view.
        window: the window.
        dtype, default: as in ServedColumn.
    """

    __slots__ = ("_group", "view", "window")

    def __init__(self, group: int, view: str, window: Window, dtype: DType, default: Any) -> None:
        super().__init__(dtype, default, group)
        self._group, self.view, self.window = group, view, window

    def values(self, answer: Answer) -> Column | list[Any]:
        """See ServedColumn."""
        if self.dtype.width is not None:
            return answer.each(lambda one: one.tiles(self._group).values(self.window))
        return answer.each(self._lists)

    def lists(self, answer: RequestAnswer) -> Column | list[Any]:
        """See ServedColumn."""
        return answer.tiles(self._group).values(self.window)

    def status(self, answer: Answer) -> Statuses:
        """See ServedColumn."""
        return answer.each(self._status)

    def absent(self, answer: Answer) -> Mask:
        """See ServedColumn."""
        return answer.each(lambda one: one.tiles(self._group).absent(self.window))

    def event_times(self, answer: Answer) -> Column:
        """See ServedColumn."""
        times = answer.each(lambda one: one.tiles(self._group).event_times)
        return np.where(times == 0, NO_TIME, times)

    def uniform(self, answer: Answer) -> Status | None:
        """See ServedColumn."""
        if not answer.is_read(self._group):
            return Status.SKIPPED if answer.is_skipped(self._group) else None
        return None if self.absent(answer).any() else Status.PRESENT

    @property
    def needs(self) -> list[tuple[str, str]]:
        """See ServedColumn."""
        return [(self.view, self.window.name)]

    def from_join(self, joined: JoinedRows[A_co]) -> A_co:
        """See ServedColumn."""
        return joined.field(self.view, self.window.name)

    def add_to(self, matrix: MatrixColumns, name: str, target: int) -> None:
        """See ServedColumn."""
        if self.dtype.length is None:
            matrix.add_window(self._group, self.window.name, name, self.dtype, self.default, target)
        else:
            super().add_to(matrix, name, target)

    def _lists(self, answer: RequestAnswer) -> list[Any]:
        values = answer.tiles(self._group).values(self.window)
        element = self.dtype.element
        if element is None:
            return python_values(self.dtype, values)
        return [python_values(element, np.asarray(value)) for value in values]

    def _status(self, answer: RequestAnswer) -> Statuses:
        if answer.is_skipped(self._group):
            return np.full(answer.stored(self._group).count, Status.SKIPPED, np.uint8)
        return answer.tiles(self._group).status(self.window)


class ComputedColumn(ServedColumn):
    """A column that an on-demand function returns. Its values belong to the rows of the request.

    Args:
        transform: the on-demand view.
        output: the name of the output.
        dtype, default: as in ServedColumn.
    """

    __slots__ = ("output", "transform")

    def __init__(self, transform: CompiledTransform, output: str, dtype: DType, default: Any) -> None:
        super().__init__(dtype, default)
        self.transform, self.output = transform, output

    def values(self, answer: Answer) -> Column | list[Any]:
        """See ServedColumn."""
        if self.dtype.width is None:
            return answer.each(self._objects)
        return answer.each(self._output)

    def status(self, answer: Answer) -> Statuses:
        """See ServedColumn."""
        status = np.zeros(answer.count, np.uint8)
        for column, is_strict in self._deciding(answer):
            found = column.status(answer)
            if not is_strict:  # it decides only where it was not read
                found = np.where(found == Status.SKIPPED, found, np.uint8(Status.PRESENT))
            np.maximum(status, answer.per_row(column.group, found), out=status)
        return status

    def event_times(self, answer: Answer) -> Column | None:
        """See ServedColumn."""
        times = []
        for item in self.transform.inputs:
            if item.column is not None:
                of_keys = item.column.event_times(answer)
                if of_keys is not None:
                    times.append(answer.per_row(item.column.group, of_keys))
        return np.min(times, axis=0) if times else None

    def uniform(self, answer: Answer) -> Status | None:
        """See ServedColumn."""
        if all(column.uniform(answer) is Status.PRESENT for column, _ in self._deciding(answer)):
            return Status.PRESENT
        return None

    @property
    def source(self) -> Hashable:
        """See ServedColumn."""
        return self.transform.plan.name

    @property
    def needs(self) -> list[tuple[str, str]]:
        """See ServedColumn."""
        return [needed for item in self.transform.inputs if item.column is not None for needed in item.column.needs]

    def from_join(self, joined: JoinedRows[A_co]) -> A_co:
        """See ServedColumn."""
        return joined.output(self.transform.plan.name, self.output, self.dtype)

    def _deciding(self, answer: Answer) -> list[tuple[ServedColumn, bool]]:
        """The inputs that decide the status of the results, and whether an input decides also where it was read."""
        deciding = []
        for item in self.transform.inputs:
            column = item.column
            if column is None:
                continue
            is_strict = decides_absence(self.transform.plan, item)
            if is_strict or (column.group is not None and not answer.is_read(column.group)):
                deciding.append((column, is_strict))
        return deciding

    def _output(self, answer: RequestAnswer) -> Column:
        return answer.once(self.transform.plan.name, lambda: self._run(answer))[self.output]

    def _objects(self, answer: RequestAnswer) -> list[Any]:
        return python_values(self.dtype, self._output(answer))

    def _run(self, answer: RequestAnswer) -> dict[str, Column]:
        inputs, nulls = {}, {}
        for item in self.transform.inputs:
            inputs[item.name] = _input(item, answer)
            if self.transform.plan.nulls == "shown":
                nulls[item.name] = _nulls(item, answer)
        return run_transform(self.transform, inputs, nulls, answer.count)


class PrunedColumn(ServedColumn):
    """A column that a prune plan dropped and that is still served, as its default."""

    __slots__ = ()

    def values(self, answer: Answer) -> Column | list[Any]:
        """See ServedColumn."""
        if self.dtype.width is None:
            return [None] * answer.count
        shape = (answer.count,) if self.dtype.length is None else (answer.count, self.dtype.length)
        return np.zeros(shape, self.dtype.numpy)

    def status(self, answer: Answer) -> Statuses:
        """See ServedColumn."""
        return np.full(answer.count, Status.PRUNED, np.uint8)

    def uniform(self, answer: Answer) -> Status:
        """See ServedColumn."""
        return Status.PRUNED

    @property
    def source(self) -> Hashable:
        """See ServedColumn."""
        return PrunedColumn

    def from_join(self, joined: JoinedRows[A_co]) -> A_co:
        """See ServedColumn."""
        return joined.nothing(self.dtype)

    def add_to(self, matrix: MatrixColumns, name: str, target: int) -> None:
        """See ServedColumn."""
        matrix.add_constant(self.dtype, self.default, target)


def _input(item: TransformInput, answer: RequestAnswer) -> Column:
    if item.column is None:
        return request_column(item, answer.values, answer.count)
    values, group = item.column.values(answer), item.column.group
    return shown_input(item, answer.per_row(group, values), answer.per_row(group, item.column.absent(answer)))


def _nulls(item: TransformInput, answer: RequestAnswer) -> Column:
    if item.column is None:
        return request_nulls(item, answer.values, answer.count)
    return answer.per_row(item.column.group, item.column.absent(answer))
