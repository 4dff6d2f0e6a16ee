"""The values of a near-cache: look-ups, and the rules by which values that were read are kept.

Four rules make every value of the cache as good as a read of Redis some milliseconds ago:

1. Values are served only while the *lease* runs. A probe on the connection that receives invalidations renews it,
   counted from the time when the probe was sent. When its reply comes, the invalidations of all writes that were
   acknowledged before that time have been taken. A lease lasts `bound_s`: an old value is served for at most this time
   after the acknowledgement of the write that replaced it. If several servers have the keys, each has a lease, and the
   first that ends counts.
2. A value that was read is kept only if no invalidation of its key came since the request began: the value may have
   changed while the reply was on its way.
3. When the connection is lost, all entries are dropped. A value that was read before the next connection is not kept.
4. A caller who has seen a value gets no older value afterwards. If a reply and an entry were read at about the same
   time and differ, both are dropped. A reply is dropped too if its request began before a read that was not kept.

Plans are not cached. A request always reads the epoch from Redis, so that no answer mixes two plans.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from feature_store.online.layout import RowLayout
from feature_store.online.near.found import Found, Hits
from feature_store.online.near.space import CacheStats, Counts, Moments, Space, prefixes_of
from feature_store.online.tile_layout import TileValueLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from feature_store.online.entity_rows import EntityKeys
    from feature_store.online.group_reads import GroupRead
    from feature_store.online.layout import ValueLayout
    from feature_store.registry.serving_plan import ServingPlan

# Invalidations that are taken at once, while requests wait: 0.2 ms.
_AT_ONCE = 512
_NEVER = float("-inf")
# Round trips of the connection that are kept for the quantiles of its lag.
_LAGS = 1024
# What makes values the same values under two plans: their keys, and their bytes.
_Identity = tuple[tuple[bytes, ...], bytes, int]


class CachedValues:
    """The cached values of chosen row groups and stream views, shared by all threads of a client.

    Args:
        budgets: bytes by the name of a row group or stream view.
        bound_s: how long after the acknowledgement of a write the old value may still be served, in seconds.
        clock: returns the time in seconds.
    """

    def __init__(self, budgets: Mapping[str, int], bound_s: float, clock: Callable[[], float]) -> None:
        self.budgets, self.bound_s, self.clock = dict(budgets), bound_s, clock
        self._lock = threading.Lock()
        self._spaces: dict[_Identity, Space] = {}
        self._by_prefix: dict[bytes, Space] = {}
        self._lengths: list[int] = []
        self._counts = {name: Counts() for name in budgets}
        self._moments = Moments()
        # The lease of each server that must be heard, and the first that ends, which counts.
        self._leases: dict[Hashable, float] = {None: _NEVER}
        self._lease_ends = _NEVER
        self._renewed: set[Hashable] = set()
        self.lags: deque[float] = deque(maxlen=_LAGS)
        self.losses = self.renewals = 0

    # -- requests ------------------------------------------------------------------------------------------------

    @property
    def is_active(self) -> bool:
        """Whether the lease runs."""
        return self.clock() <= self._lease_ends

    def spaces(self, plan: ServingPlan, groups: Sequence[GroupRead]) -> list[tuple[int, Space]]:
        """The groups of a service that are cached: their indexes, and the values.

        Raises:
            ConfigError: a budget is more than this machine has.
        """
        cached = [(i, group) for i, group in enumerate(groups) if group.layout.name in self.budgets]
        with self._lock:
            return [(i, self._space(plan, group.layout)) for i, group in cached]

    def look_up(
        self, spaces: Sequence[tuple[int, Space]], groups: Sequence[GroupRead], asked: list[EntityKeys]
    ) -> Hits:
        """What is known of the keys of a request: nothing unless the lease runs."""
        with self._lock:
            if self._lease_ends == _NEVER:
                return Hits(asked, {}, self._moments.now, is_deaf=True)
            is_active = self.is_active
            found = {
                i: Found(space, groups[i].variables, asked[i], is_active=is_active)
                for i, space in spaces
                if asked[i].size and space.is_open
            }
            unread = list(asked)
            for i, of_keys in found.items():
                unread[i] = of_keys.unread
                if is_active:
                    counts, missed = of_keys.space.counts, of_keys.unread.size
                    counts.misses += missed
                    counts.hits += asked[i].size - missed
            return Hits(unread, found, self._moments.now, is_deaf=False)

    def keep(self, hits: Hits) -> None:
        """Keep the values that a request has read."""
        with self._lock:
            if hits.is_deaf and self._lease_ends != _NEVER:
                # Its caller may have seen newer values than those that were kept since the server is heard.
                self._forget_all()
            for found in hits.found.values():
                found.keep(hits.moment)

    def begin_in_child(self) -> None:
        """In a forked child, where another thread of the parent may have held the lock: begin without values."""
        self._lock = threading.Lock()
        for space in self._spaces.values():
            space.close()
        self._spaces, self._by_prefix, self._lengths = {}, {}, []
        self._leases = {None: _NEVER}
        self.suspend()

    # -- plans ---------------------------------------------------------------------------------------------------

    def follow(self, plan: ServingPlan) -> None:
        """Close what a new plan does not have, or has with other keys or another layout."""
        layouts: list[ValueLayout] = [
            *(RowLayout(group) for group in plan.groups if group.name in self.budgets),
            *(TileValueLayout(tiles) for tiles in plan.tiles if tiles.view in self.budgets),
        ]
        known = {_identity(plan, layout) for layout in layouts}
        with self._lock:
            for identity in [one for one in self._spaces if one not in known]:
                self._spaces.pop(identity).close()
            self._place()

    def _space(self, plan: ServingPlan, layout: ValueLayout) -> Space:
        identity = _identity(plan, layout)
        space = self._spaces.get(identity)
        if space is None:
            space = Space(plan, layout, self.budgets[layout.name], self._counts[layout.name], self._moments)
            self._spaces[identity] = space
            self._place()
        return space

    def _place(self) -> None:
        """Note what the keys of each space start with."""
        self._by_prefix = {prefix: space for space in self._spaces.values() for prefix in space.prefixes}
        self._lengths = sorted({len(prefix) for prefix in self._by_prefix})

    # -- calls of the listener -------------------------------------------------------------------------------------

    def hear(self, servers: Sequence[Hashable]) -> None:
        """All entries are dropped, and none is served until each of these servers has renewed its lease."""
        with self._lock:
            self.losses += self._lease_ends != _NEVER
            self._leases = dict.fromkeys(servers, _NEVER)
            self._drop()

    def renew(self, sent_at: float, is_over: Callable[[], bool] = lambda: False, server: Hashable = None) -> None:
        """A server has answered a probe: all its invalidations of writes acknowledged before `sent_at` have come.

        Args:
            sent_at: the time of `clock` when the probe was sent.
            is_over: whether the values were taken from the caller meanwhile, who then has no say any more.
            server: the server, one of those of `hear`.
        """
        with self._lock:
            if is_over():
                return
            self._leases[server] = sent_at + self.bound_s
            first = min(self._leases.values())
            if first != _NEVER and self._lease_ends == _NEVER:
                # Values that requests have read so far may have changed before the servers were heard.
                self._forget_all()
            self._lease_ends = first
            self._renewed.add(server)
            if len(self._renewed) == len(self._leases):
                self._renewed.clear()
                self.renewals += 1
            for space in self._spaces.values():
                space.settle()
        self.lags.append(self.clock() - sent_at)

    def suspend(self, is_over: Callable[[], bool] = lambda: False, server: Hashable = None) -> None:
        """The connection to a server is lost: drop all entries, and serve none until its lease is renewed.

        The other values are dropped too: after a fail-over, keys of one server may belong to another.
        """
        with self._lock:
            if is_over():
                return
            self._leases[server] = _NEVER
            self.losses += 1
            self._drop()

    def _drop(self) -> None:
        self._lease_ends = _NEVER
        self._renewed.clear()
        self._forget_all()

    def invalidate(self, changed: Sequence[bytes] | None) -> None:
        """Drop the values of keys that Redis reports as changed; None means all keys."""
        if changed is None:
            with self._lock:
                self._forget_all()
            return
        for start in range(0, len(changed), _AT_ONCE):
            by_space: dict[Space, list[bytes]] = {}
            with self._lock:
                for key in changed[start : start + _AT_ONCE]:
                    for length in self._lengths:
                        space = self._by_prefix.get(key[:length])
                        if space is not None:
                            by_space.setdefault(space, []).append(key[length:])
                for changed_space, of_space in by_space.items():
                    changed_space.forget(of_space)

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


def _identity(plan: ServingPlan, layout: ValueLayout) -> _Identity:
    return prefixes_of(plan, layout), layout.fingerprint, layout.size
