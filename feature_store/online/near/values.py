"""The values of a near-cache: found in the process or left to read, and kept unless they may have changed.

Four rules make every value that the cache gives as good as a read of Redis some milliseconds ago:

1. Values are given only while the *lease* runs. Each PING on the connection that Redis sends invalidations to renews
   it, from the time when the PING was sent: when its reply comes, the invalidations of all writes that were
   acknowledged before that time have been taken. A lease lasts `bound_s`: a value is that old at most, counted from the
   acknowledgement of the write that replaced it.
2. A value that was read is kept only if no invalidation of its key came since the request began: the reply may have
   been on its way when the value changed.
3. When the connection is lost, all entries go. Nothing is kept that was read before there is another.
4. Nobody who has seen a value gets an older one afterwards. A reply and an entry that were read at about the same time
   and differ are both given up, as are replies that began before a read whose values were not kept.

Plans are not cached. A request reads the epoch from Redis as always, so that no answer mixes two plans.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from feature_store.online import keys
from feature_store.online.entity_rows import EntityKeys
from feature_store.online.near.table import Keys, Table, are_all
from feature_store.online.rows import StoredRows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from feature_store.functions import Mask
    from feature_store.online.group_reads import GroupRead
    from feature_store.online.near.table import Variables
    from feature_store.online.rows import Bytes
    from feature_store.registry.serving_plan import ServingPlan

# Values that were read enter a table together: when there are so many, or when the lease is renewed.
_TOGETHER = 1024
# Invalidations that are taken at once, while requests wait: 0.2 ms.
_AT_ONCE = 512
_NEVER = float("-inf")
# Round trips of the connection that are kept for the quantiles of its lag.
_LAGS = 1024
_NO_KEYS = EntityKeys(0, b"", None, None)


class CacheStats(NamedTuple):
    """Counts of the near-cache for one row group or stream view, since the client was made.

    Attributes:
        hits: keys whose value came from the cache.
        misses: keys that were read from Redis although the cache was in use.
        entries: how many values it holds now, and `bytes`: how many bytes they take.
        kept: values that entered.
        invalidated: values that went because Redis said that they changed.
    """

    hits: int
    misses: int
    entries: int
    bytes: int
    kept: int
    invalidated: int


class _Counts:
    """See CacheStats."""

    __slots__ = ("hits", "invalidated", "kept", "misses")

    def __init__(self) -> None:
        self.hits = self.misses = self.kept = self.invalidated = 0


class Moments:
    """Counts what happens to cached values, so that it can be said what happened before what."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = 0

    def next(self) -> int:
        """A new moment."""
        self.now += 1
        return self.now


class Space:
    """The cached values of one group, with the variable values that a service reads with them.

    Args:
        group: how the values are read.
        counts: of the group's name.
        moments: of the cache.

    Attributes:
        name: the name of the row group or stream view.
        table: the values.
    """

    def __init__(self, group: GroupRead, counts: _Counts, moments: Moments) -> None:
        self.name, self.group, self.counts, self._moments = group.layout.name, group, counts, moments
        self._width = keys.fixed_width(group.dtypes)
        self.begin(0)

    def begin(self, budget: int) -> None:
        """Begin anew without values."""
        self.table = Table(self.group.layout.size, self._width, len(self.group.variables), budget)
        self.forget_all()

    def forget_all(self) -> None:
        """Give up all values, and those that requests have begun to read."""
        self.table.clear()
        self.table.forget_reads(self._moments.next())
        self._reads: list[_Read] = []
        self._waiting = 0
        self._settled_at = self._moments.now

    def forget(self, changed: list[bytes]) -> None:
        """Give up the values of keys, and those that requests have begun to read."""
        if self._width is None:
            of_table = self.table.keys(b"", changed)
        else:
            of_table = self.table.keys(b"".join([key for key in changed if len(key) == self._width]), None)
        self.counts.invalidated += self.table.forget(of_table, self._moments.next())

    def add(self, read: _Read, *, is_unchecked: bool) -> None:
        """Take what a request has read, to keep it together with what others have read.

        Whoever saw these values must not get older ones from the cache afterwards. So entries that differ go: other
        requests have read them at about the same time, and nothing says which are newer.
        """
        if is_unchecked or self._settled_at > read.moment:
            differs = self.table.differs(read.keys, read.values, read.variables)
            if differs.any():
                self.table.forget(read.keys.some(differs), self._moments.next())
        self._reads.append(read)
        self._waiting += len(read.values)
        if self._waiting >= _TOGETHER:
            self.settle()

    def settle(self) -> None:
        """Keep what waits: the table takes many keys in the time of a few."""
        reads, self._reads, self._waiting = self._reads, [], 0
        if not reads:
            return
        of_table = Keys(*(np.concatenate(parts) for parts in zip(*(read.keys for read in reads), strict=True)))
        since = np.repeat([read.moment for read in reads], [len(read.values) for read in reads])
        variables = [one for read in reads for one in read.variables or ()] if self.group.variables else None
        values = np.concatenate([read.values for read in reads])
        self._settled_at = self._moments.next()
        self.counts.kept += self.table.keep(of_table, values, variables, since, self._settled_at)


class _Read(NamedTuple):
    """Values that were read.

    Attributes:
        keys: their keys.
        values: (n, size) uint8.
        variables: (n,) the variable values, or None.
        moment: when the request began.
    """

    keys: Keys
    values: Bytes
    variables: list[Variables] | None
    moment: int


class Found:
    """What the cache knows of the keys that a request asks of one group.

    Args:
        space: the cached values of the group.
        asked: the keys.
        is_active: whether values may be given; else all keys must be read.

    Attributes:
        space: as given; `table` is the table that was asked.
        unread: the keys that must be read.
    """

    __slots__ = ("_cells", "_is_missing", "_is_unchecked", "_keys", "_read", "_variables", "space", "table", "unread")

    def __init__(self, space: Space, asked: EntityKeys, *, is_active: bool) -> None:
        self.space, self.table = space, space.table
        table = self.table
        self._keys = table.keys(asked.packed, asked.listed)
        self._cells, is_hit, slots = table.find(self._keys)
        self._is_unchecked = not is_active
        if not is_active:
            is_hit = np.zeros(asked.size, np.bool_)
        # (n,) bool; None: the cache has all.
        self._is_missing: Mask | None = None if are_all(is_hit) else ~is_hit
        self._variables = table.variables(slots[is_hit]) if space.group.variables else None
        self.unread = _NO_KEYS if self._is_missing is None else _some_of(asked, self._is_missing)
        self._read: tuple[Bytes, list[Variables] | None] | None = None

    def joined(
        self, read: StoredRows, variables: Sequence[Sequence[bytes | None]], *, may_keep: bool
    ) -> tuple[StoredRows, Sequence[Sequence[bytes | None]]]:
        """The values of all keys, and per view their variable values.

        Args:
            read: the values of the keys that were read.
            variables: per view the variable values of these keys.
            may_keep: whether they were read, rather than skipped.
        """
        layout, cells, at = read.layout, self._cells, self.table.at
        if self._is_missing is not None:
            values = read.part(0, layout.size)
            cells[self._is_missing, at : at + layout.size] = values
            if may_keep:
                self._read = values, list(zip(*variables, strict=True)) if variables else None
        rows = StoredRows(layout, cells.reshape(-1).data, len(cells), at, cells.shape[1])
        return rows, self._joined_variables(variables)

    def _joined_variables(self, variables: Sequence[Sequence[bytes | None]]) -> Sequence[Sequence[bytes | None]]:
        if self._variables is None:
            return variables
        cached = iter(self._variables)
        if self._is_missing is None:
            return [list(of_view) for of_view in zip(*cached, strict=True)]
        read = zip(*variables, strict=True)
        rows = [next(read) if is_missing else next(cached) for is_missing in self._is_missing.tolist()]
        return [list(of_view) for of_view in zip(*rows, strict=True)]

    def keep(self, moment: int) -> None:
        """Give the space what was read, by a request that began in this moment. The caller holds the lock."""
        if self._read is None or self._is_missing is None:
            return
        if self.table is not self.space.table:
            self.space.forget_all()
            return
        values, variables = self._read
        read = _Read(self._keys.some(self._is_missing), values.copy(), variables, moment)
        self.space.add(read, is_unchecked=self._is_unchecked)


class Hits:
    """What the cache knows of the keys of a request.

    Attributes:
        unread: per group of the service the keys that must be read.
        found: per group that is cached what is known of its keys.
        moment: the invalidations that had come when the request began.
    """

    __slots__ = ("found", "moment", "unread")

    def __init__(self, unread: list[EntityKeys], found: dict[int, Found], moment: int) -> None:
        self.unread, self.found, self.moment = unread, found, moment


class CachedValues:
    """The cached values of chosen row groups and stream views, shared by all threads of a client.

    Args:
        budgets: bytes by the name of a row group or stream view.
        bound_s: seconds after the acknowledgement of a write within which its old value may still be given.
        clock: the time in seconds.
    """

    def __init__(self, budgets: Mapping[str, int], bound_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.budgets, self.bound_s, self._clock = dict(budgets), bound_s, clock
        self._lock = threading.Lock()
        self._spaces: dict[tuple[bytes, ...], Space] = {}
        self._counts = {name: _Counts() for name in budgets}
        self._moments = Moments()
        self._lease_ends = _NEVER
        self._place()
        self.lags: deque[float] = deque(maxlen=_LAGS)
        self.losses = self.renewals = 0

    # -- requests ------------------------------------------------------------------------------------------------

    @property
    def is_active(self) -> bool:
        """Whether the lease runs."""
        return self._clock() <= self._lease_ends

    def spaces(self, groups: Sequence[GroupRead]) -> list[tuple[int, Space]]:
        """The groups of a service that are cached: their indexes, and the values."""
        with self._lock:
            return [(i, self._space(group)) for i, group in enumerate(groups) if group.layout.name in self.budgets]

    def look_up(self, spaces: Sequence[tuple[int, Space]], asked: list[EntityKeys]) -> Hits:
        """What is known of the keys of a request: nothing unless the lease runs."""
        with self._lock:
            is_active = self.is_active
            found = {i: Found(space, asked[i], is_active=is_active) for i, space in spaces if asked[i].size}
            unread = list(asked)
            for i, of_keys in found.items():
                unread[i] = of_keys.unread
                if is_active:
                    counts = of_keys.space.counts
                    counts.misses += of_keys.unread.size
                    counts.hits += asked[i].size - of_keys.unread.size
            return Hits(unread, found, self._moments.now)

    def keep(self, hits: Hits) -> None:
        """Keep what a request has read."""
        with self._lock:
            for found in hits.found.values():
                found.keep(hits.moment)

    def begin_in_child(self) -> None:
        """In a forked child, where another thread of the parent may have held the lock: begin without entries."""
        self._lock = threading.Lock()
        self.suspend()

    # -- plans ---------------------------------------------------------------------------------------------------

    def follow(self, plan: ServingPlan) -> None:
        """Give up the values whose keys a new plan does not have."""
        prefixes = {
            *(keys.row_prefix(plan.project, 0, group) for group in plan.groups),
            *(keys.tiles_prefix(plan.project, 0, tiles) for tiles in plan.tiles),
        }
        with self._lock:
            for identity, space in list(self._spaces.items()):
                if identity[0] not in prefixes:
                    del self._spaces[identity]
                    space.begin(0)
            self._place()

    def _space(self, group: GroupRead) -> Space:
        identity = tuple(group.prefixes(0))
        space = self._spaces.get(identity)
        if space is None:
            name = group.layout.name
            space = self._spaces[identity] = Space(group, self._counts[name], self._moments)
            # Services that read different variable values of one group share its budget.
            same = [other for other in self._spaces.values() if other.name == name]
            for other in same:
                other.begin(self.budgets[name] // len(same))
            self._place()
        return space

    def _place(self) -> None:
        """Note what the keys of each space start with."""
        self._by_prefix: dict[bytes, list[Space]] = {}
        for space in self._spaces.values():
            for prefix in space.group.all_prefixes():
                self._by_prefix.setdefault(prefix, []).append(space)
        self._lengths = sorted({len(prefix) for prefix in self._by_prefix})

    # -- what the listener hears -----------------------------------------------------------------------------------

    def renew(self, sent_at: float) -> None:
        """The server has answered a PING: all invalidations of what was acknowledged before `sent_at` have come."""
        with self._lock:
            if self._lease_ends == _NEVER:
                # What requests have read so far may have changed before the server was heard.
                self._forget_all()
            self._lease_ends = sent_at + self.bound_s
            self.renewals += 1
            for space in self._spaces.values():
                space.settle()
        self.lags.append(self._clock() - sent_at)

    def suspend(self) -> None:
        """The connection is lost: give up all entries, and use none until the lease is renewed."""
        with self._lock:
            self._lease_ends = _NEVER
            self.losses += 1
            self._forget_all()

    def invalidate(self, changed: Sequence[bytes] | None) -> None:
        """Redis says that keys have changed, or all of them: None."""
        if changed is None:
            with self._lock:
                self._forget_all()
            return
        for start in range(0, len(changed), _AT_ONCE):
            by_space: dict[Space, list[bytes]] = {}
            with self._lock:
                for key in changed[start : start + _AT_ONCE]:
                    for length in self._lengths:
                        for space in self._by_prefix.get(key[:length], ()):
                            by_space.setdefault(space, []).append(key[length:])
                for space, of_space in by_space.items():
                    space.forget(of_space)

    def _forget_all(self) -> None:
        for space in self._spaces.values():
            space.forget_all()

    @property
    def stats(self) -> dict[str, CacheStats]:
        """Counts by the name of the row group or stream view."""
        with self._lock:
            return {name: self._stats(name) for name in self.budgets}

    def _stats(self, name: str) -> CacheStats:
        counts = self._counts[name]
        tables = [space.table for space in self._spaces.values() if space.name == name]
        return CacheStats(
            counts.hits,
            counts.misses,
            sum([len(table) for table in tables]),
            sum([table.size_bytes for table in tables]),
            counts.kept,
            counts.invalidated,
        )


def _some_of(asked: EntityKeys, chosen: Mask) -> EntityKeys:
    """Some of the keys that are asked for."""
    count = int(np.count_nonzero(chosen))
    if asked.listed is not None:
        return asked._replace(size=count, listed=list(compress(asked.listed, chosen.tolist())), inverse=None)
    packed = np.frombuffer(asked.packed, np.uint8).reshape(asked.size, -1)[chosen].tobytes()
    return asked._replace(size=count, packed=packed, inverse=None)
