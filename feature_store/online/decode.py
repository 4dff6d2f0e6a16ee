"""The answer to a request → values: a matrix at once, or columns with the status of each value."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feature_store.online.answer import oldest
from feature_store.online.codec import python_values
from feature_store.online.quantities import default_elements, quantities
from feature_store.online.request_fields import request_column
from feature_store.online.status import STATUSES, Status

if TYPE_CHECKING:
    from feature_store.definitions.dtypes import DType
    from feature_store.functions import Column, Mask
    from feature_store.online.answer import Answer, RequestAnswer, Statuses
    from feature_store.online.column import ServedColumn
    from feature_store.online.column_blocks import AnswerPlan, ColumnBlock
    from feature_store.online.joined_answers import JoinedAnswers
    from feature_store.online.matrix import MatrixPlan, ViewPlan
    from feature_store.online.rows import StoredRows
    from feature_store.online.service import CompiledService
    from feature_store.online.transforms import TransformInput


def matrix(plan: MatrixPlan, answer: RequestAnswer) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(n, f) float32. See OnlineResponse.to_numpy."""
    if answer.count == 1 and plan.pieces is not None and _is_whole(plan, answer):
        # One entity without absent values: joined bytes avoid numpy's cost per operation, 2.5 µs less.
        pieces = [answer.rows[group].bytes_of_first(start, end) for group, start, end in plan.pieces]
        return np.frombuffer(bytearray().join(pieces), np.float32).reshape(1, plan.width)
    out = np.empty((answer.count, plan.width), np.float32)
    raw = out.view(np.uint8)
    for view in plan.views:
        _fill(view, answer, out, raw)
    for windows in plan.windows:
        windows.fill(answer, out)
    for name, column, place in plan.computed:
        # Convert before keys become rows: for one user and 200 candidates, one number instead of 200.
        out[:, place] = answer.per_row(column.group, _numbers(name, column, answer))
    for columns, values in plan.constant:
        out[:, columns] = values
    return out


def python_columns(plan: AnswerPlan, answer: RequestAnswer) -> dict[str, list[Any]]:
    """Per column, n exact Python values; the default, or None without a default, where there is no value."""
    columns: dict[str, list[Any]] = {}
    for block in plan.blocks:
        columns.update(zip(block.names, block_lists(block, answer), strict=True))
    return columns if plan.is_ordered else {name: columns[name] for name in plan.columns}


def block_lists(block: ColumnBlock, answer: RequestAnswer) -> list[list[Any]]:
    """f lists of n Python values."""
    count = answer.count
    uniform = block.uniform(answer)
    if uniform is not None and uniform is not Status.PRESENT:
        return [_repeated(default, count) for default in block.defaults]
    inverse = None if block.group is None else answer.asked[block.group].inverse
    values = block.values(answer)
    if isinstance(values, list):
        lists = values if inverse is None else [[of_keys[i] for i in inverse.tolist()] for of_keys in values]
    else:
        lists = _python(block.dtype, values if inverse is None else values.take(inverse, axis=1))
    if uniform is None:
        absent = block.absent(answer)
        _fill_in(lists, absent if inverse is None else absent.take(inverse, axis=1), block.defaults)
    # For one user and 200 candidates, each feature of the user becomes one Python value.
    return lists if not lists or len(lists[0]) == count else [of_keys * count for of_keys in lists]


def _python(dtype: DType, values: Column) -> list[list[Any]]:
    # One call for the block. A call of python_values for each column takes 0.4 µs more per column.
    if dtype.scalar.is_stored_as_is:
        lists: list[list[Any]] = values.tolist()
        return lists
    return [python_values(dtype, column) for column in values]


def _fill_in(lists: list[list[Any]], absent: Mask, defaults: list[Any]) -> None:
    """Put the default of each column where its value is absent."""
    # 500 of 10,000 values: 40 µs. A comprehension over all of them takes 400 µs.
    columns, rows = absent.nonzero()
    if any(isinstance(default, list) for default in defaults):
        for column, row in zip(columns.tolist(), rows.tolist(), strict=True):
            [lists[column][row]] = _repeated(defaults[column], 1)
    else:
        for column, row in zip(columns.tolist(), rows.tolist(), strict=True):
            lists[column][row] = defaults[column]


def _repeated(default: Any, count: int) -> list[Any]:
    """The default for each row. Each list is a copy, so that a caller may change it without changing the default."""
    return [list(default) for _ in range(count)] if isinstance(default, list) else [default] * count


def row_status(column: ServedColumn, answer: Answer) -> Statuses:
    """(n,) Status codes."""
    return answer.per_row(column.group, column.status(answer))


def row_event_times(column: ServedColumn, answer: Answer) -> Column | None:
    """(n,) int64, microseconds since 1970, NO_TIME where the value is missing; None without a stored value."""
    times = column.event_times(answer)
    return None if times is None else answer.per_row(column.group, times)


def status_counts(service: CompiledService, answer: Answer) -> list[int]:
    """The number of values with each Status, by its code. Columns whose values all have one status cost one check."""
    counts = [0] * len(STATUSES)
    for columns in service.columns_by_source:
        first = columns[0]
        uniform = first.uniform(answer)
        if uniform is not None:
            counts[uniform] += answer.count * len(columns)
            continue
        status = answer.per_row(first.group, first.statuses(answer, columns))
        for code, count in enumerate(np.bincount(status.ravel()).tolist()):
            counts[code] += count
    return counts


class RowValues(NamedTuple):
    """One column of n rows, as m values and the index of each row's value.

    Attributes:
        dtype: the column's type.
        values: (m,) of the type's numpy dtype, or (m, length) for fixed-size arrays; a list of m Python values for a
            type without fixed width. Undefined where the status is not PRESENT.
        default: the value that was served where the status is not PRESENT; None for null.
        status: (m,) Status codes; None when all are PRESENT.
        places: (n,) int, the index of each row's value; None when row i has value i.
    """

    dtype: DType
    values: Column | list[Any]
    default: Any
    status: Statuses | None
    places: Column | None

    def row_status(self) -> Statuses | None:
        """(n,) Status codes; None when all are PRESENT."""
        return self.status if self.status is None or self.places is None else self.status[self.places]


def served_columns(service: CompiledService, answers: JoinedAnswers) -> dict[str, RowValues]:
    """Per feature, the values that were served."""
    return {
        name: RowValues(
            column.dtype,
            column.values(answers),
            column.default,
            None if column.uniform(answers) is Status.PRESENT else column.status(answers),
            answers.places(column.group),
        )
        for name, column in service.columns.items()
    }


def request_values(service: CompiledService, answers: JoinedAnswers) -> dict[str, tuple[DType, Column]]:
    """Per request field, its type and n values."""
    inputs = [item for transform in service.transforms.values() for item in transform.inputs if item.column is None]
    return {
        name: (item.dtype, answers.each(partial(_request_column, item)))
        for name, item in {item.name: item for item in inputs}.items()
    }


def _request_column(item: TransformInput, answer: RequestAnswer) -> Column:
    return request_column(item, answer.values, answer.count)


def _is_whole(plan: MatrixPlan, answer: RequestAnswer) -> bool:
    for view in plan.views:
        if not answer.rows[view.group].all_present(view.segment, oldest(view.segment, answer.now_us)):
            return False
    return True


def _fill(view: ViewPlan, answer: RequestAnswer, out: np.ndarray[Any, Any], raw: np.ndarray[Any, Any]) -> None:
    rows = answer.rows[view.group]
    inverse = answer.asked[view.group].inverse
    oldest_time = oldest(view.segment, answer.now_us)
    clean = rows.all_present(view.segment, oldest_time)
    for block in view.blocks:
        part = rows.part(block.offset, block.width)
        if block.raw and inverse is None:
            raw[:, block.raw_target] = part
            continue
        values = np.ascontiguousarray(part).view(block.code)
        if block.source is not None:
            values = values[:, block.source]
        if block.dtype is not None:
            values = quantities(block.names, block.dtype, values)
        with np.errstate(over="ignore"):  # a float64 beyond float32 is inf
            out[:, block.target] = values if inverse is None else values[inverse]
    if not clean:
        _fill_in_defaults(view, rows, oldest_time, inverse, out)


def _fill_in_defaults(
    view: ViewPlan, rows: StoredRows, oldest_time: int, inverse: Column | None, out: np.ndarray[Any, Any]
) -> None:
    if rows.has_no_nulls(view.segment):
        # Whole rows are absent (missing or expired): 8 µs for 200 rows of 25 columns. Each value's status takes 60 µs.
        absent = rows.is_older(view.segment, oldest_time)
        if absent.all():  # such as one absent key for all rows of the response
            out[:, view.target] = view.defaults
            return
        (places,) = (absent if inverse is None else absent[inverse]).nonzero()
        out[places if isinstance(view.target, slice) else places[:, None], view.target] = view.defaults
        return
    empty = rows.status(view.segment, view.fields, oldest_time) != Status.PRESENT
    out[:, view.target] = np.where(empty if inverse is None else empty[inverse], view.defaults, out[:, view.target])


def _numbers(name: str, column: ServedColumn, answer: RequestAnswer) -> Column:
    """Values as float32 for a matrix, with the default where they are absent."""
    values, absent = column.values(answer), column.absent(answer)
    assert isinstance(values, np.ndarray)  # a matrix has no lists
    with np.errstate(over="ignore"):
        numbers: Column = quantities([name], column.dtype, values).astype(np.float32)
    if absent.any():
        elements = default_elements(column.dtype, column.default)
        numbers[absent] = elements if column.dtype.length is not None else elements[0]
    return numbers
