"""The cached values of one group, and what requests have read of it that is to be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from feature_store.errors import ConfigError
from feature_store.online import keys
from feature_store.online.layout import RowLayout
from feature_store.online.near.hashing import Keys
from feature_store.online.near.table import UNREAD, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.online.layout import ValueLayout
    from feature_store.online.near.table import Variables
    from feature_store.online.rows import Bytes
    from feature_store.registry.serving_plan import ServingPlan

# Values that were read enter a table together: when there are so many, when their bytes are this part of the budget, or
# when the lease is renewed.
_TOGETHER, _SHARE_THAT_WAITS = 1024, 16


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


class Counts:
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
    """The cached values of one group.

    Args:
        plan: the serving plan.
        layout: the layout of the group's values.
        budget: bytes that they take at most.
        counts: of the group's name.
        moments: of the cache.

    Attributes:
        prefixes: what the keys of the values start with, in each bucket, and of their variable values.
        views: the views whose fields have variable values.
        table: the values.
        is_open: whether the plan has the group. A closed space gives nothing and keeps nothing: nobody tells it of
            changes any more.

    Raises:
        ConfigError: the budget is more than this machine has.
    """

    def __init__(self, plan: ServingPlan, layout: ValueLayout, budget: int, counts: Counts, moments: Moments) -> None:
        self.name, self.counts, self._moments, self._budget = layout.name, counts, moments, budget
        self.views = variable_views(layout)
        self.prefixes = prefixes_of(plan, layout)
        self._width = keys.fixed_width([dtype for _, dtype in layout.join_keys])
        try:
            self.table = Table(layout.size, self._width, len(self.views), budget)
        except MemoryError:
            raise ConfigError(f"cache[{self.name!r}]", problem=f"{budget:,} bytes are more than there is") from None
        self.is_open = True
        self._unread: Variables = (UNREAD,) * len(self.views)
        self.forget_all()

    def close(self) -> None:
        """Give up all values for good."""
        self.forget_all()
        self.is_open = False

    def variables_of(
        self, views: Sequence[str], values: Sequence[Sequence[bytes | None]], count: int
    ) -> list[Variables]:
        """The variable values of `count` keys, as the table has them.

        Args:
            views: the views that were read.
            values: per view the values of the keys.
        """
        columns: list[Sequence[bytes | None]] = [self._unread[:1] * count] * len(self.views)
        for view, of_view in zip(views, values, strict=True):
            columns[self.views.index(view)] = of_view
        return list(zip(*columns, strict=True))

    def forget_all(self) -> None:
        """Give up all values, and those that requests have begun to read."""
        self.table.clear()
        self.table.forget_reads(self._moments.next())
        self._reads: list[Read] = []
        self._waiting = self._waiting_bytes = 0
        self._settled_at = self._moments.now

    def forget(self, changed: list[bytes]) -> None:
        """Give up the values of keys, and those that requests have begun to read."""
        if self._width is None:
            of_table = self.table.keys(b"", changed)
        else:
            of_table = self.table.keys(b"".join([key for key in changed if len(key) == self._width]), None)
        self.counts.invalidated += self.table.forget(of_table, self._moments.next())

    def add(self, read: Read, *, is_unchecked: bool) -> None:
        """Take what a request has read, to keep it together with what others have read.

        Whoever saw these values must not get older ones from the cache afterwards. So entries that differ go: other
        requests have read them at about the same time, and nothing says which are newer.

        Args:
            read: what was read.
            is_unchecked: whether the entries that there were when the request began were not looked at.
        """
        if is_unchecked or self._settled_at > read.moment:
            differs = self.table.differs(read.keys, read.values, read.variables)
            if differs.any():
                self.table.forget(read.keys.some(differs), self._moments.next())
        self._reads.append(read)
        self._waiting += len(read.values)
        self._waiting_bytes += read.values.size
        if self._waiting >= _TOGETHER or self._waiting_bytes > self._budget // _SHARE_THAT_WAITS:
            self.settle()

    def settle(self) -> None:
        """Keep what waits: the table takes many keys in the time of a few."""
        reads, self._reads = self._reads, []
        self._waiting = self._waiting_bytes = 0
        if not reads:
            return
        of_table = Keys(*(np.concatenate(parts) for parts in zip(*(read.keys for read in reads), strict=True)))
        since = np.repeat([read.moment for read in reads], [len(read.values) for read in reads])
        variables = [one for read in reads for one in read.variables or ()] if self.views else None
        values = np.concatenate([read.values for read in reads])
        self._settled_at = self._moments.next()
        self.counts.kept += self.table.keep(of_table, values, variables, since, self._settled_at)


class Read(NamedTuple):
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


def variable_views(layout: ValueLayout) -> tuple[str, ...]:
    """The views of a group whose fields have variable values."""
    if not isinstance(layout, RowLayout):
        return ()
    return tuple(view for view, segment in layout.segments.items() if segment.variable_fields)


def prefixes_of(plan: ServingPlan, layout: ValueLayout) -> tuple[bytes, ...]:
    """What the keys of a group's values and of their variable values start with, in each bucket."""
    prefixes = []
    for bucket in range(plan.buckets):
        prefixes.append(layout.prefix(plan.project, bucket))
        if isinstance(layout, RowLayout):
            views = variable_views(layout)
            prefixes += [keys.variable_prefix(plan.project, bucket, layout.group, view) for view in views]
    return tuple(prefixes)
