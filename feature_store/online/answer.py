"""Answers of Redis to one request, or to many joined requests. The columns of a service read their values from them.

An answer holds the stored values of each *group* (a row group, or the tiles of a stream view): one value for each
distinct entity key of the request. `per_row` spreads the values of the keys over the rows of the response. So a request
for one user and 200 candidates decodes a feature of the user once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from feature_store.errors import CorruptRowError
from feature_store.online.group_reads import TilesRead
from feature_store.online.layout import encode_time
from feature_store.online.rows import StoredRows
from feature_store.online.status import Status
from feature_store.online.stored_tiles import StoredTiles

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from feature_store.functions import Column, Mask
    from feature_store.online.group_reads import GroupRead
    from feature_store.online.layout import FieldLayout, SegmentLayout
    from feature_store.online.near.found import Hits
    from feature_store.online.redis.reply_shape import ReplyShape
    from feature_store.online.redis.resp import ReplyParser
    from feature_store.online.request import Places, Request

    Statuses = np.ndarray[Any, np.dtype[np.uint8]]

_NOTHING: frozenset[int] = frozenset()
T = TypeVar("T")
V = TypeVar("V", "np.ndarray[Any, Any]", "list[Any]", "np.ndarray[Any, Any] | list[Any]")


class Answer(ABC):
    """The answer to one request, or to several, response after response.

    Groups are named by their index in the service. `m` is the number of a group's keys, `n` the number of rows.

    Attributes:
        count: n.
    """

    __slots__ = ()

    count: int

    @abstractmethod
    def stored(self, group: int) -> StoredRows:
        """The stored values of a group: m of them."""

    @abstractmethod
    def fixed_values(self, group: int, segment: SegmentLayout, field: FieldLayout) -> Column:
        """A field of fixed width: (m,), or (m, length) for arrays. Undefined where the status is not PRESENT."""

    @abstractmethod
    def statuses(self, group: int, segment: SegmentLayout) -> Statuses:
        """(m, fields of the segment) Status codes."""

    @abstractmethod
    def uniform(self, group: int, segment: SegmentLayout) -> Status | None:
        """The common status of all values of a segment, PRESENT or SKIPPED; None when each value must be checked."""

    @abstractmethod
    def is_read(self, group: int) -> bool:
        """Whether the values of a group were read for every row."""

    @abstractmethod
    def is_skipped(self, group: int) -> bool:
        """Whether the deadline passed before any value of a group was read."""

    @abstractmethod
    def per_row(self, group: int | None, values: V) -> V:
        """Values of a group's m keys → values of the n rows. With group None, the values belong to the rows already."""

    @abstractmethod
    def each(self, read: Callable[[RequestAnswer], V]) -> V:
        """The results of `read` for the answer to each request, joined.

        It serves values that depend on a request's own time or rows.
        """


class RequestAnswer(Answer):
    """The answer to one request.

    Args:
        request: the request. The parsers of its commands hold the replies. A group is skipped when one of its commands
            has no reply.
        now_us: the time that ttls count from and windows end at, microseconds since 1970.

    Attributes:
        count: rows of the response.
        values: the entity rows of the request.
        groups: how the service reads its groups.
        asked: per group its distinct entity keys.
        now_us: as given.
        rows: per group its stored values.
        skipped: the groups that were not, or not all, read before the deadline. Their rows have no data, so that every
            form of the answer has their defaults.

    Raises:
        CorruptRowError: a stored row has another size or fingerprint than its layout.
    """

    __slots__ = (
        "_kept",
        "_request",
        "_unread",
        "_variables",
        "asked",
        "count",
        "groups",
        "now_us",
        "rows",
        "skipped",
        "values",
    )

    def __init__(self, request: Request, now_us: int) -> None:
        self.count, self.values, self.groups, self.asked = request.size, request.values, request.groups, request.asked
        self.now_us = now_us
        self._request, self._unread = request, request.unread
        self._kept: dict[Hashable, Any] = {}
        self._variables: dict[tuple[int, str], Sequence[bytes | None]] = {}
        commands = request.commands
        parser = commands[0].parser
        if parser.fixed and parser.shape is not None and len(commands) == 1:
            self.skipped: frozenset[int] = _NOTHING
            self.rows = self._rows_in_place(parser, parser.shape)
        else:
            replies = [command.parser if command.parser.is_complete else None for command in commands]
            self.skipped = _NOTHING.union(
                *(places for places, reply in zip(request.places, replies, strict=True) if reply is None)
            )
            if request.hits is not None and not any(replies):
                # No epoch was read: what the near-cache has may be of another plan.
                self.skipped = self.skipped.union(request.hits.found)
            self.rows = self._rows_of(replies, request.places)
        if request.hits is not None:
            self._join(request.hits)

    def traffic(self) -> tuple[int, int, int]:
        """Distinct keys that were read, bytes sent, bytes received."""
        commands = self._request.commands
        return (
            sum([keys.size for group, keys in enumerate(self._unread) if group not in self.skipped]),
            sum([len(command.data) for command in commands]),
            sum([command.parser.bytes_received for command in commands]),
        )

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of `make`, which is called once for each key. The answer keeps the result."""
        if key not in self._kept:
            self._kept[key] = make()
        kept: T = self._kept[key]
        return kept

    # -- see Answer ---------------------------------------------------------------------------------------------

    def stored(self, group: int) -> StoredRows:
        """See Answer."""
        return self.rows[group]

    def fixed_values(self, group: int, segment: SegmentLayout, field: FieldLayout) -> Column:
        """See Answer."""
        return self.rows[group].values(segment, field)

    def statuses(self, group: int, segment: SegmentLayout) -> Statuses:
        """See Answer."""
        return self.once((group, segment.view), lambda: self._statuses(group, segment))

    def uniform(self, group: int, segment: SegmentLayout) -> Status | None:
        """See Answer."""
        if group in self.skipped:
            return Status.SKIPPED
        return Status.PRESENT if self.rows[group].all_present(segment, oldest(segment, self.now_us)) else None

    def is_read(self, group: int) -> bool:
        """See Answer."""
        return group not in self.skipped

    def is_skipped(self, group: int) -> bool:
        """See Answer."""
        return group in self.skipped

    def per_row(self, group: int | None, values: V) -> V:
        """See Answer."""
        if group is None:
            return values
        inverse = self.asked[group].inverse
        if isinstance(values, list):
            if inverse is not None:
                return [values[i] for i in inverse.tolist()]
            return values if len(values) == self.count else values * self.count
        if inverse is not None:
            return values[inverse]
        return values if len(values) == self.count else np.repeat(values, self.count, axis=0)

    def each(self, read: Callable[[RequestAnswer], V]) -> V:
        """See Answer."""
        return read(self)

    # -- only for the answer to one request ------------------------------------------------------------------------

    def tiles(self, group: int) -> StoredTiles:
        """The tiles of a stream view."""
        return self.once(group, lambda: self._tiles(group))

    def variable(self, group: int, row: int, segment: SegmentLayout) -> bytes:
        """The variable value that belongs to a stored row.

        Raises:
            CorruptRowError: there is none, or its times are not those of the row.
        """
        value, width = self._variables[group, segment.view][row], segment.times_bytes
        times = self.rows[group].part(segment.offset, width)[row].tobytes()
        if value is None or value[:width] != times:
            raise CorruptRowError(
                self._key_name(group, row, segment.view),
                expected=f"the variable value of the row's times, {times.hex()}",
                got="none" if value is None else value[:width].hex(),
                hint="delete the entity and materialize it again",
            )
        return value

    def fixed_block(
        self, group: int, segment: SegmentLayout, first: int, dtype: np.dtype[Any], chosen: slice | list[int]
    ) -> Column:
        """Fields of one type: (chosen, m), a copy, column by column.

        Args:
            group: the index of the group.
            segment: the segment of the fields.
            first: bytes from the start of the segment to the first of the fields.
            dtype: the numpy type of the fields.
            chosen: the elements of this type to copy, counted from `first`.
        """
        last = chosen.stop if isinstance(chosen, slice) else max(chosen) + 1
        part = self.rows[group].part(segment.offset + first, last * dtype.itemsize)
        # The copy pays: contiguous values become a list 1.3 times as fast.
        return part.view(dtype).T[chosen].copy("C")

    def variables(self, group: int, segment: SegmentLayout) -> list[bytes]:
        """The m variable values of the stored rows. A row whose values in the segment are all absent gets a variable
        value with empty fields.

        Raises:
            CorruptRowError: as `variable`.
        """
        return self.once(("variables", group, segment.view), lambda: self._checked_variables(group, segment))

    def absent_rows(self, group: int, segment: SegmentLayout) -> Mask | None:
        """(m,) bool, True where a row's segment is missing or expired. None when a field of the segment is null in some
        row: then each status must be computed, which takes 40 µs for 25 fields of 200 rows instead of 5 µs."""
        rows = self.rows[group]
        return rows.is_older(segment, oldest(segment, self.now_us)) if rows.has_no_nulls(segment) else None

    def columns_per_row(self, group: int | None, block: Column) -> Column:
        """As `per_row`, for many columns at once: (f, m, …) → (f, n, …)."""
        if group is None:
            return block
        inverse = self.asked[group].inverse
        if inverse is not None:
            return block.take(inverse, axis=1)  # C-contiguous, which `block[:, inverse]` is not
        return block if block.shape[1] == self.count else np.repeat(block, self.count, axis=1)

    def _checked_variables(self, group: int, segment: SegmentLayout) -> list[bytes]:
        width = segment.times_bytes
        # A group without a requested key has no reply.
        values = self._variables.get((group, segment.view), [None] * self.rows[group].count)
        times = self.rows[group].part(segment.offset, width).tobytes()
        if self.uniform(group, segment) is Status.PRESENT:
            needed = [True] * len(values)
        else:
            needed = (self.statuses(group, segment) == Status.PRESENT).any(axis=1).tolist()
        nothing = bytes(width + 4 * len(segment.variable_fields))
        checked: list[bytes] = []
        for row, (value, is_needed) in enumerate(zip(values, needed, strict=True)):
            if not is_needed:
                checked.append(nothing)
            elif value is not None and value.startswith(times[row * width : (row + 1) * width]):
                checked.append(value)
            else:
                checked.append(self.variable(group, row, segment))
        return checked

    def _statuses(self, group: int, segment: SegmentLayout) -> Statuses:
        rows, fields = self.rows[group], segment.fields.values()
        if group in self.skipped:
            return np.full((rows.count, len(fields)), Status.SKIPPED, np.uint8)
        return rows.status(segment, fields, oldest(segment, self.now_us))

    def _tiles(self, group: int) -> StoredTiles:
        read = self.groups[group]
        assert isinstance(read, TilesRead)
        return StoredTiles(read.layout, self.rows[group], read.reader, self.now_us)

    def _key_name(self, group: int, row: int, view: str = "") -> str:
        return self.groups[group].key_name(self.asked[group].each()[row], view)

    # -- from the replies to rows --------------------------------------------------------------------------------

    def _rows_in_place(self, parser: ReplyParser, shape: ReplyShape) -> list[StoredRows]:
        runs = iter(shape.runs)
        rows = []
        for group, unread in zip(self.groups, self._unread, strict=True):
            if unread.size:
                run = next(runs)
                rows.append(StoredRows(group.layout, parser.reply, run.count, run.at, run.stride))
            else:
                rows.append(_no_rows(group))
        return rows

    def _rows_of(self, replies: Sequence[ReplyParser | None], places: Sequence[Places]) -> list[StoredRows]:
        """The rows of each group, from one or several replies. A group that is skipped has rows without data, also when
        some of its replies came."""
        pieces: list[list[tuple[StoredRows, list[int] | None]]] = [[] for _ in self.groups]
        for parser, chosen in zip(replies, places, strict=True):
            if parser is None:
                continue
            if parser.fixed and parser.shape is not None:
                for (group, indexes), run in zip(chosen.items(), parser.shape.runs, strict=True):
                    layout = self.groups[group].layout
                    pieces[group].append((StoredRows(layout, parser.reply, run.count, run.at, run.stride), indexes))
            else:
                self._add_values(pieces, parser.replies[0], chosen)
        return [
            StoredRows.joined(read.layout, [] if group in self.skipped else pieces[group], self._unread[group].size)
            if self._unread[group].size
            else _no_rows(read)
            for group, read in enumerate(self.groups)
        ]

    def _add_values(
        self,
        pieces: list[list[tuple[StoredRows, list[int] | None]]],
        reply: Sequence[bytes | None],
        chosen: Places,
    ) -> None:
        """Add the rows of a reply that is split into values, and keep its variable values."""
        at = 0
        for group, indexes in chosen.items():
            read = self.groups[group]
            size = self._unread[group].size if indexes is None else len(indexes)
            key_of = partial(self._key_name_at, group, indexes)
            pieces[group].append((StoredRows.from_values(read.layout, reply[at : at + size], key_of), indexes))
            for view in read.variables:
                at += size
                self._keep_variables((group, view), reply[at : at + size], indexes)
            at += size

    def _keep_variables(
        self, place: tuple[int, str], values: Sequence[bytes | None], indexes: list[int] | None
    ) -> None:
        if indexes is None:
            self._variables[place] = values
            return
        kept = self._variables.setdefault(place, [None] * self._unread[place[0]].size)
        assert isinstance(kept, list)
        for i, value in zip(indexes, values, strict=True):
            kept[i] = value

    def _key_name_at(self, group: int, indexes: list[int] | None, row: int) -> str:
        key = self._unread[group].each()[row if indexes is None else indexes[row]]
        return self.groups[group].key_name(key)

    def _join(self, hits: Hits) -> None:
        """Merge the rows of the near-cache with the rows that were read. A group that is skipped has no data."""
        for group, found in hits.found.items():
            views = self.groups[group].variables
            if group in self.skipped:
                self.rows[group] = StoredRows.joined(self.groups[group].layout, [], self.asked[group].size)
                for view in views:
                    self._variables.pop((group, view), None)
                continue
            nothing = [None] * self._unread[group].size
            read = [self._variables.get((group, view), nothing) for view in views]
            self.rows[group], variables = found.joined(self.rows[group], read)
            for view, of_view in zip(views, variables, strict=True):
                self._variables[group, view] = of_view


def _no_rows(group: GroupRead) -> StoredRows:
    return StoredRows(group.layout, group.layout.empty, 0, 0, group.layout.size)


def oldest(segment: SegmentLayout, now_us: int) -> int:
    """The oldest event time that has not expired, as stored; at least 1, so that 0, the absent time, is older."""
    if segment.ttl_us is None:
        return 1
    time = encode_time(now_us - segment.ttl_us)
    return time if 0 < time < 1 << 64 else 1 if time <= 0 else (1 << 64) - 1
