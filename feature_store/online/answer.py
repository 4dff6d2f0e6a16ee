"""What Redis answered to a request, or to many joined ones: what the columns of a service read themselves from.

An answer holds the stored values of each *group* (a row group, or the tiles of a stream view): one value for each
distinct entity key that was asked for. `per_row` gives the rows of a response the values of their keys. So of one user
and 200 candidates, a feature of the user is decoded once.
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

    from feature_store.functions import Column
    from feature_store.online.layout import FieldLayout, SegmentLayout
    from feature_store.online.redis.resp import ReplyParser
    from feature_store.online.request import GroupRequest, Places, Request, RequestByGroup

    Statuses = np.ndarray[Any, np.dtype[np.uint8]]

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
        """A field of fixed width: (m,), or (m, length) of arrays; undefined where the status is not PRESENT."""

    @abstractmethod
    def statuses(self, group: int, segment: SegmentLayout) -> Statuses:
        """(m, fields of the segment) Status codes."""

    @abstractmethod
    def uniform(self, group: int, segment: SegmentLayout) -> Status | None:
        """The status of all values of a segment: PRESENT or SKIPPED; None when each must be looked at."""

    @abstractmethod
    def is_read(self, group: int) -> bool:
        """Whether every row's values of a group were read."""

    @abstractmethod
    def is_skipped(self, group: int) -> bool:
        """Whether no row's values of a group were read before the deadline."""

    @abstractmethod
    def per_row(self, group: int | None, values: V) -> V:
        """Values of a group's m keys → values of the n rows. Of no group (None), the values are those of the rows."""

    @abstractmethod
    def each(self, read: Callable[[RequestAnswer], V]) -> V:
        """`read` of the answer to each request, joined: for values that depend on a request's own time or rows."""


class RequestAnswer(Answer):
    """The answer to one request.

    Args:
        request: the request. Its parser holds the reply.
        now_us: the time that ttls count from and windows end at, microseconds since 1970.

    Attributes:
        count: rows of the response.
        values: the entity rows of the request.
        groups: how the service reads its groups.
        asked: per group its distinct entity keys.
        now_us: as given.
        rows: per group its stored values.
        skipped: the groups that were not read before the deadline.

    Raises:
        CorruptRowError: a stored row has another size or fingerprint than its layout.
    """

    __slots__ = ("_kept", "_request", "_variables", "asked", "count", "groups", "now_us", "rows", "skipped", "values")

    def __init__(self, request: Request, now_us: int) -> None:
        self.count, self.values, self.groups, self.asked = request.size, request.values, request.groups, request.asked
        self.now_us = now_us
        self.skipped: frozenset[int] = frozenset()
        self._request = request
        self._kept: dict[Hashable, Any] = {}
        self._variables: dict[tuple[int, str], list[bytes | None]] = {}
        parser = request.parser
        self.rows = self._rows_in_place(parser) if parser.fixed else self._rows_of(parser.replies, request.places)

    def traffic(self) -> tuple[int, int, int]:
        """Distinct keys asked for, bytes sent, bytes received."""
        request = self._request
        return sum([keys.size for keys in self.asked]), len(request.command), request.parser.bytes_received

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns. It is called for the first caller with this key; the answer keeps the result."""
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

    # -- what only the answer to one request can be asked ----------------------------------------------------------

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

    # -- from the reply to rows ---------------------------------------------------------------------------------

    def _rows_in_place(self, parser: ReplyParser) -> list[StoredRows]:
        runs = iter(parser.runs)
        rows = []
        for group, asked in zip(self.groups, self.asked, strict=True):
            if asked.size:
                run = next(runs)
                rows.append(StoredRows(group.layout, parser.reply, run.count, run.at, run.stride))
            else:
                rows.append(StoredRows(group.layout, group.layout.empty, 0, 0, group.layout.size))
        return rows

    def _rows_of(self, replies: Sequence[Sequence[bytes | None]], places: Places | None) -> list[StoredRows]:
        values: list[list[list[bytes | None]]] = [
            [[None] * asked.size for _ in range(1 + len(group.variables))]
            for group, asked in zip(self.groups, self.asked, strict=True)
        ]
        if places is None:
            places = [[list(range(asked.size)) for asked in self.asked]]
        for reply, chosen in zip(replies, places, strict=True):
            unread = iter(reply)
            for of_group, indexes in zip(values, chosen, strict=True):
                for of_prefix in of_group:
                    for i in indexes:
                        of_prefix[i] = next(unread)
        rows = []
        for i, (group, of_group) in enumerate(zip(self.groups, values, strict=True)):
            for view, of_prefix in zip(group.variables, of_group[1:], strict=True):
                self._variables[i, view] = of_prefix
            rows.append(StoredRows.from_values(group.layout, of_group[0], partial(self._key_name, i)))
        return rows


class PartialAnswer(RequestAnswer):
    """The answer to a request that a deadline may have ended early.

    Args:
        request: the request.
        answered: its reads that were answered. The values of the other groups are SKIPPED.
        now_us: as in RequestAnswer.
    """

    __slots__ = ("_answered",)

    def __init__(self, request: RequestByGroup, answered: Sequence[GroupRequest], now_us: int) -> None:
        self.count, self.values, self.groups, self.asked = request.size, request.values, request.groups, request.asked
        self.now_us = now_us
        self.skipped = frozenset(range(len(request.groups))).difference([read.group for read in answered])
        self._answered = answered
        self._kept, self._variables = {}, {}
        replies = [reply for read in answered for reply in read.parser.replies]
        self.rows = self._rows_of(replies, [place for read in answered for place in read.places])

    def traffic(self) -> tuple[int, int, int]:
        """See RequestAnswer."""
        return (
            sum([keys.size for group, keys in enumerate(self.asked) if group not in self.skipped]),
            sum([len(read.command) for read in self._answered]),
            sum([read.parser.bytes_received for read in self._answered]),
        )


def oldest(segment: SegmentLayout, now_us: int) -> int:
    """The oldest event time that has not expired, as stored; at least 1, so that 0, the absent time, is older."""
    if segment.ttl_us is None:
        return 1
    time = encode_time(now_us - segment.ttl_us)
    return time if 0 < time < 1 << 64 else 1 if time <= 0 else (1 << 64) - 1
