"""Many answered requests of one service as columns: what each row was served, with the status of every value.

The stored rows of all requests are put one after the other and decoded at once, so that a request costs a few slices;
decoding each alone costs some 10 µs for each column. What was computed at read, windows and on-demand features, is
taken from each response, which keeps it once somebody asked for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feature_store.online import keys
from feature_store.online.columns import ComputedColumn, PrunedColumn, StoredColumn, WindowColumn
from feature_store.online.response import Status
from feature_store.online.rows import StoredRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.definitions.dtypes import DType
    from feature_store.online.batch import Column
    from feature_store.online.columns import Column as ServedColumn
    from feature_store.online.decode import Decoder
    from feature_store.online.layout import RowLayout, SegmentLayout
    from feature_store.online.response import OnlineResponse
    from feature_store.online.tile_layout import TileValueLayout

    Statuses = np.ndarray[Any, np.dtype[np.uint8]]


class RowValues(NamedTuple):
    """One column of n rows.

    Attributes:
        dtype: its type.
        values: (n,) of the type's numpy dtype, (n, length) of fixed-size arrays; a list of n Python values of what has
            no fixed width. Whatever where the status is not PRESENT.
        default: what was served there; None: nothing.
        status: (n,) Status codes.
    """

    dtype: DType
    values: Column | list[Any]
    default: Any
    status: Statuses


class ServedRows:
    """The rows of responses, response after response.

    Args:
        responses: at least one, all of the same `service` (the same object).

    Attributes:
        service: the service.
        sizes: rows of each response.
        count: rows of all.

    Raises:
        CorruptRowError, TransformError: as OnlineResponse.to_numpy.
    """

    def __init__(self, responses: Sequence[OnlineResponse]) -> None:
        self.service = responses[0].service
        self._decoders: list[Decoder] = [response._decoder for response in responses]
        self.sizes = [decoder.count for decoder in self._decoders]
        self.count = sum(self.sizes)
        self._groups: dict[int, _Group] = {}

    def times_us(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """(n,) the time that each row is of, microseconds since 1970."""
        return np.repeat(np.array([decoder.now_us for decoder in self._decoders], np.int64), self.sizes)

    def join_keys(self) -> dict[str, tuple[DType, Column | list[Any]]]:
        """Per join key its type and n values."""
        found: dict[str, tuple[DType, Column | list[Any]]] = {}
        for index, group in enumerate(self.service.groups):
            if any(name not in found for name, _ in group.join_keys):
                columns = self._group(index).keys(group.dtypes)
                found |= {
                    name: (dtype, column)
                    for (name, dtype), column in zip(group.join_keys, columns, strict=True)
                    if name not in found
                }
        return found

    def request_fields(self) -> dict[str, tuple[DType, Column]]:
        """Per field that requests carried its type and n values."""
        wanted = {
            item.name: item
            for transform in self.service.transforms.values()
            for item in transform.inputs
            if item.stored is None
        }
        return {
            name: (
                item.dtype,
                np.concatenate(
                    [self.service.request_column(item, one.request.values, one.count) for one in self._decoders]
                ),
            )
            for name, item in wanted.items()
        }

    def columns(self) -> dict[str, RowValues]:
        """Per feature its values."""
        return {name: self._column(name, column) for name, column in self.service.columns.items()}

    def _column(self, name: str, column: ServedColumn) -> RowValues:
        if isinstance(column, PrunedColumn):
            blank = np.zeros((self.count, column.dtype.size), column.dtype.numpy)
            values: Column | list[Any] = (
                [None] * self.count if column.dtype.width is None else blank if column.dtype.length else blank[:, 0]
            )
            return RowValues(column.dtype, values, column.default, np.full(self.count, Status.PRUNED, np.uint8))
        if column.dtype.width is None:
            values = [value for one in self._decoders for value in one.python_column(name)]
        elif isinstance(column, StoredColumn):
            group = self._group(column.group)
            values = group.rows.values(column.segment, column.field)[group.places]
        elif isinstance(column, WindowColumn):
            values = np.concatenate(
                [one.per_row(column.group, one.stored_tiles(column).values(column)) for one in self._decoders]
            )
        else:
            values = np.concatenate([one.computed(column) for one in self._decoders])
        return RowValues(column.dtype, values, column.default, self._status(name, column))

    def _status(self, name: str, column: ServedColumn) -> Statuses:
        if isinstance(column, StoredColumn):
            return self._group(column.group).status(column)
        if isinstance(column, ComputedColumn):
            inputs = [item.stored for item in self.service.transforms[column.transform].inputs]
            if all(isinstance(item, StoredColumn) for item in inputs if item is not None):
                return self._computed_status(column)
        return np.concatenate([one.status(name) for one in self._decoders])

    def _computed_status(self, column: ComputedColumn) -> Statuses:
        """As Decoder.status, of a function whose inputs are stored."""
        status = np.zeros(self.count, np.uint8)
        for item in self.service.transforms[column.transform].inputs:
            if isinstance(item.stored, StoredColumn):
                found = self._group(item.stored.group).status(item.stored)
                if item.default is not None:  # it decides only where it was not read
                    found = np.where(found == Status.SKIPPED, found, np.uint8(Status.PRESENT))
                np.maximum(status, found, out=status)
        return status

    def _group(self, index: int) -> _Group:
        if index not in self._groups:
            self._groups[index] = _Group(self._decoders, index)
        return self._groups[index]


class _Group:
    """What is stored of the keys that all the requests asked of one group.

    Attributes:
        rows: key after key, request after request.
        places: (n,) for each row of the responses, which of them.
    """

    def __init__(self, decoders: Sequence[Decoder], index: int) -> None:
        self._decoders, self._asked = decoders, [one.request.asked[index] for one in decoders]
        self.layout = decoders[0].service.groups[index].layout
        stored = [one.rows[index] for one in decoders]
        buffer = np.concatenate(
            [rows.part(0, self.layout.size) for rows in stored if rows.count] or [_empty(self.layout)]
        )
        self.rows = StoredRows(self.layout, buffer, sum(rows.count for rows in stored), 0, self.layout.size)  # type: ignore[arg-type]
        self._counts = [asked.size for asked in self._asked]
        self.places = np.concatenate(
            [
                _places(asked.inverse, asked.size, one.count) + first
                for asked, one, first in zip(self._asked, decoders, _starts(self._counts), strict=True)
            ]
        )
        self._skipped = np.repeat([index in one.request.skipped for one in decoders], [one.count for one in decoders])
        self._statuses: dict[str, Statuses] = {}

    def status(self, column: StoredColumn) -> Statuses:
        """(n,) Status codes of a stored column."""
        segment = column.segment
        if segment.view not in self._statuses:
            self._statuses[segment.view] = self._segment_status(segment)
        found: Statuses = self._statuses[segment.view][:, column.field.index]
        return found

    def keys(self, dtypes: Sequence[DType]) -> list[Column | list[Any]]:
        """Per join key n values."""
        if keys.fixed_width(dtypes) is not None:
            record = np.dtype([(str(i), dtype.numpy.newbyteorder(">")) for i, dtype in enumerate(dtypes)])
            packed = np.frombuffer(b"".join([asked.packed for asked in self._asked]), record)[self.places]
            return [packed[str(i)].astype(dtype.numpy) for i, dtype in enumerate(dtypes)]
        decoded = [keys.decode(dtypes, key) for asked in self._asked for key in asked.each()]
        rows = [decoded[place] for place in self.places.tolist()]
        return [[row[i] for row in rows] for i in range(len(dtypes))]

    def _segment_status(self, segment: SegmentLayout) -> Statuses:
        oldest = np.repeat(np.array([one.oldest(segment) for one in self._decoders], np.uint64), self._counts)
        status: Statuses = self.rows.status(segment, list(segment.fields.values()), oldest)[self.places]
        status[self._skipped] = Status.SKIPPED
        return status


def _empty(layout: RowLayout | TileValueLayout) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A row that is not looked at: numpy takes no view of nothing."""
    return np.frombuffer(layout.empty, np.uint8)[None, :]


def _starts(counts: Sequence[int]) -> list[int]:
    ends: list[int] = np.cumsum(counts).tolist()
    return [end - count for end, count in zip(ends, counts, strict=True)]


def _places(inverse: Column | None, size: int, count: int) -> Column:
    """For each of a response's rows, which of its keys it is of."""
    if inverse is not None:
        return inverse
    return np.arange(count) if size == count else np.zeros(count, np.intp)
