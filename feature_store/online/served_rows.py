"""Many answered requests of one service as columns: what each row was served, with the status of every value.

The stored rows of all requests are put one after the other and decoded at once, so that a request costs a few slices;
decoding each alone costs some 10 µs for each column. Values stay those of the entity keys, with the place that each row
takes its value from: of one user and 200 candidates, one number instead of 200. What was computed at read, windows and
on-demand features, is taken from each response, which keeps it once somebody asked for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feature_store.online import keys
from feature_store.online.columns import ComputedColumn, PrunedColumn, StoredColumn
from feature_store.online.rows import StoredRows
from feature_store.online.status import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.aggregates.arrays import Column
    from feature_store.definitions.dtypes import DType
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
        values: (m,) of the type's numpy dtype, (m, length) of fixed-size arrays; a list of m Python values of what has
            no fixed width. Whatever where the status is not PRESENT.
        default: what was served there; None: nothing.
        status: (m,) Status codes; None: all are PRESENT.
        places: (n,) for each row which of the m it has; None: row i has i.
    """

    dtype: DType
    values: Column | list[Any]
    default: Any
    status: Statuses | None
    places: Column | None = None

    def row_status(self) -> Statuses | None:
        """(n,) Status codes; None: all are PRESENT."""
        return self.status if self.status is None or self.places is None else self.status[self.places]


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
            return self._pruned(column)
        if isinstance(column, ComputedColumn) or column.dtype.width is None:
            values = (
                [value for one in self._decoders for value in one.python_column(name)]
                if column.dtype.width is None
                else np.concatenate([one.computed(column) for one in self._decoders])  # type: ignore[arg-type]
            )
            return RowValues(column.dtype, values, column.default, self._row_status(name, column))
        group = self._group(column.group)
        if isinstance(column, StoredColumn):
            return RowValues(column.dtype, group.values(column), column.default, group.status(column), group.places)
        tiles = [one.stored_tiles(column) for one in self._decoders]
        values = np.concatenate([one.values(column) for one in tiles])
        status = group.with_skipped(np.concatenate([one.status(column) for one in tiles]))
        return RowValues(column.dtype, values, column.default, status, group.places)

    def _pruned(self, column: PrunedColumn) -> RowValues:
        status = np.full(self.count, Status.PRUNED, np.uint8)
        if column.dtype.width is None:
            return RowValues(column.dtype, [None] * self.count, column.default, status)
        shape = (self.count,) if column.dtype.length is None else (self.count, column.dtype.length)
        return RowValues(column.dtype, np.zeros(shape, column.dtype.numpy), column.default, status)

    def _row_status(self, name: str, column: ServedColumn) -> Statuses:
        if isinstance(column, StoredColumn):
            found = self._rows_status_of(column)
            return np.zeros(self.count, np.uint8) if found is None else found
        if isinstance(column, ComputedColumn):
            inputs = [item.stored for item in self.service.transforms[column.transform].inputs]
            if all(isinstance(item, StoredColumn) for item in inputs if item is not None):
                return self._computed_status(column)
        return np.concatenate([one.status(name) for one in self._decoders])

    def _computed_status(self, column: ComputedColumn) -> Statuses:
        """As Decoder.status, of a function whose inputs are stored."""
        status = np.zeros(self.count, np.uint8)
        for item in self.service.transforms[column.transform].inputs:
            found = self._rows_status_of(item.stored) if isinstance(item.stored, StoredColumn) else None
            if found is None:
                continue
            if item.default is not None:  # it decides only where it was not read
                found = np.where(found == Status.SKIPPED, found, np.uint8(Status.PRESENT))
            np.maximum(status, found, out=status)
        return status

    def _rows_status_of(self, column: StoredColumn) -> Statuses | None:
        group = self._group(column.group)
        status = group.status(column)
        return status if status is None or group.places is None else status[group.places]

    def _group(self, index: int) -> _Group:
        if index not in self._groups:
            self._groups[index] = _Group(self._decoders, index)
        return self._groups[index]


class _Group:
    """What is stored of the keys that all the requests asked of one group.

    Attributes:
        rows: key after key, request after request.
        places: (n,) for each row of the responses, which of them; None: row i has key i.
    """

    def __init__(self, decoders: Sequence[Decoder], index: int) -> None:
        self._decoders, self._asked = decoders, [one.request.asked[index] for one in decoders]
        self.layout = decoders[0].service.groups[index].layout
        stored = [one.rows[index] for one in decoders]
        parts = [rows.part(0, self.layout.size) for rows in stored if rows.count]
        self._buffer = np.concatenate(parts or [_empty(self.layout)])
        self.rows = StoredRows(self.layout, self._buffer, sum(rows.count for rows in stored), 0, self.layout.size)  # type: ignore[arg-type]
        self._counts = [asked.size for asked in self._asked]
        self.places = self._places()
        self._skipped = [index in one.request.skipped for one in decoders]
        self._statuses: dict[str, Statuses | None] = {}
        self._blocks: dict[tuple[str, str], tuple[int, Column]] = {}

    def values(self, column: StoredColumn) -> Column:
        """(m,) or (m, length) of a column of fixed width, whatever the status."""
        dtype, segment = column.field.dtype, column.segment
        if dtype.length is not None:
            return self.rows.values(segment, column.field)
        place = segment.view, dtype.name
        if place not in self._blocks:
            self._blocks[place] = self._block(segment, dtype)
        first, block = self._blocks[place]
        found: Column = block[(column.field.offset - first) // dtype.numpy.itemsize]
        return found

    def status(self, column: StoredColumn) -> Statuses | None:
        """(m,) Status codes of a stored column; None: all are PRESENT."""
        segment = column.segment
        if segment.view not in self._statuses:
            self._statuses[segment.view] = self._segment_status(segment)
        found = self._statuses[segment.view]
        return None if found is None else found[:, column.field.index]

    def with_skipped(self, status: Statuses) -> Statuses:
        """Status codes of the keys, or rows of them, with those that were not read told."""
        if any(self._skipped):
            status[np.repeat(self._skipped, self._counts)] = Status.SKIPPED
        return status

    def keys(self, dtypes: Sequence[DType]) -> list[Column | list[Any]]:
        """Per join key n values."""
        if keys.fixed_width(dtypes) is not None:
            record = np.dtype([(str(i), dtype.numpy.newbyteorder(">")) for i, dtype in enumerate(dtypes)])
            packed = np.frombuffer(b"".join([asked.packed for asked in self._asked]), record)
            packed = packed if self.places is None else packed[self.places]
            return [packed[str(i)].astype(dtype.numpy) for i, dtype in enumerate(dtypes)]
        decoded = [keys.decode(dtypes, key) for asked in self._asked for key in asked.each()]
        rows = decoded if self.places is None else [decoded[place] for place in self.places.tolist()]
        return [[row[i] for row in rows] for i in range(len(dtypes))]

    def _block(self, segment: SegmentLayout, dtype: DType) -> tuple[int, Column]:
        """The segment from the first to the last field of a type: where it starts, and (elements, m), column by column.

        One copy for all of them: a tenth of the time of one for each, which reads every row anew.
        """
        offsets = [field.offset for field in segment.fields.values() if field.dtype == dtype]
        first, size = min(offsets), dtype.numpy.itemsize
        shape = ((max(offsets) - first) // size + 1, self.rows.count)
        place = segment.offset + first
        view: Column = np.ndarray(shape, dtype.numpy, self._buffer, place, (size, self.layout.size))
        return first, np.ascontiguousarray(view)

    def _segment_status(self, segment: SegmentLayout) -> Statuses | None:
        each = [one.oldest(segment) for one in self._decoders]
        if not any(self._skipped) and self.rows.all_present(segment, max(each)):
            return None
        oldest = np.repeat(np.array(each, np.uint64), self._counts)
        return self.with_skipped(self.rows.status(segment, list(segment.fields.values()), oldest))

    def _places(self) -> Column | None:
        if all(
            asked.inverse is None and asked.size == one.count
            for asked, one in zip(self._asked, self._decoders, strict=True)
        ):
            return None
        each = zip(self._asked, self._decoders, _starts(self._counts), strict=True)
        return np.concatenate([_places(asked.inverse, asked.size, one.count) + first for asked, one, first in each])


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
