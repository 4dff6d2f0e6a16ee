"""The near-cache of a client: its values, and the listener that keeps them in step with Redis."""

from __future__ import annotations

import os
import re
import threading
import time
import weakref
from typing import TYPE_CHECKING, NamedTuple

from feature_store.errors import ConfigError
from feature_store.online import keys
from feature_store.online.near.listener import Listener
from feature_store.online.near.values import CachedValues

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from feature_store.errors import FeatureStoreError
    from feature_store.online.entity_rows import EntityKeys
    from feature_store.online.group_reads import GroupRead
    from feature_store.online.near.found import Hits
    from feature_store.online.near.sources import Source
    from feature_store.online.near.space import CacheStats, Space
    from feature_store.registry.serving_plan import ServingPlan

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB)", re.IGNORECASE)
_UNITS = {"KB": 1000, "MB": 1000**2, "GB": 1000**3}
_MOST_PREFIXES = 64
_SHOWN = "bytes, or a text such as 64MB"


class CacheState(NamedTuple):
    """The state of a near-cache.

    Attributes:
        is_active: whether its values are used now.
        error: why Redis cannot be heard; None when it is heard.
        losses: how often the values were dropped since the client was made, mostly because the connection was lost.
        renewals: how often the lease was renewed. Before each renewal, all earlier invalidations were received.
        lag_ms: the p99 of the last thousand round trips of the connection, in milliseconds. It is the usual upper bound
            of a value's age. None before the first round trip.
        groups: counts by the name of the row group or stream view.
    """

    is_active: bool
    error: FeatureStoreError | None
    losses: int
    renewals: int
    lag_ms: float | None
    groups: dict[str, CacheStats]


class NearCache:
    """Values of chosen row groups and stream views in the process of a client.

    Args:
        budgets: bytes, or texts such as `64MB`, by the name of a row group or stream view.
        source: where the client reads from.
        bound_ms: how long after the acknowledgement of a write the old value may still be served, in milliseconds.

    Raises:
        ConfigError: a budget or the bound cannot be read.
    """

    def __init__(self, budgets: Mapping[str, int | str], source: Source, bound_ms: float) -> None:
        bound_s = _seconds(bound_ms)
        self._values = CachedValues({name: size_in_bytes(size, name) for name, size in budgets.items()}, bound_s, _now)
        self._source, self._listener = source, Listener(self._values, source)
        # The version of the source when its servers were looked up last.
        self._heard_version = -1
        self._plan: ServingPlan | None = None
        self._lock = threading.Lock()
        _caches.add(self)

    def follow(self, plan: ServingPlan) -> None:
        """Drop the values whose keys a plan does not have, and listen to the keys that it has.

        Raises:
            ConfigError: it is the first plan, and it has no row group or stream view with the name of a budget.
        """
        with self._lock:
            if self._plan is None:
                self._refuse_unknown(plan)
            self._plan = plan
            self._values.follow(plan)
            self._listen()

    def spaces(self, plan: ServingPlan, groups: Sequence[GroupRead]) -> list[tuple[int, Space]]:
        """The groups of a service of a plan that are cached, by their indexes.

        Raises:
            ConfigError: a budget is more than this machine has.
        """
        if plan is not self._plan:  # two threads have read two plans
            self.follow(plan)
        return self._values.spaces(plan, groups)

    def look_up(
        self, spaces: Sequence[tuple[int, Space]], groups: Sequence[GroupRead], asked: list[EntityKeys]
    ) -> Hits:
        """What is known of the keys of a request."""
        hits = self._values.look_up(spaces, groups, asked)
        # Checked afterwards: a value that was read from a new server must not be given before that server is heard.
        if self._source.version == self._heard_version and self._listener.is_listening:
            return hits
        with self._lock:
            if self._plan is not None:
                self._listen()
        return self._values.look_up(spaces, groups, asked)

    def keep(self, hits: Hits) -> None:
        """Keep the values that a request has read, unless they may have changed since."""
        self._values.keep(hits)

    @property
    def state(self) -> CacheState:
        """The state of the near-cache now."""
        lags = sorted(self._values.lags)
        return CacheState(
            self._values.is_active,
            self._listener.error,
            self._values.losses,
            self._values.renewals,
            1000 * lags[int(0.99 * (len(lags) - 1))] if lags else None,
            self._values.stats,
        )

    def close(self) -> None:
        """Drop all values and end the connection. The next request begins anew."""
        self._listener.close()

    def forget(self) -> None:
        """In a forked child: begin without values. The next request starts a thread."""
        self._lock = threading.Lock()
        self._listener.forget()
        self._values.begin_in_child()

    def _listen(self) -> None:
        assert self._plan is not None
        project, buckets = self._plan.project, self._plan.buckets
        self._heard_version = self._source.version  # before the servers, which may change meanwhile
        servers = self._source.servers(project, buckets)
        named = [prefix for name in self._values.budgets for prefix in keys.value_prefixes(project, buckets, name)]
        # Redis compares each written key with every prefix. Above so many, it says all keys of the project.
        self._listener.listen(servers, named if len(named) <= _MOST_PREFIXES else [keys.project_prefix(project)])

    def _refuse_unknown(self, plan: ServingPlan) -> None:
        known = {*(group.name for group in plan.groups), *(tiles.view for tiles in plan.tiles)}
        for name in self._values.budgets:
            if name not in known:
                raise ConfigError(
                    f"cache[{name!r}]",
                    expected=f"a row group or stream view of project {plan.project}: {', '.join(sorted(known))}",
                    got=name,
                )


def size_in_bytes(size: int | str, name: str) -> int:
    """A budget as bytes.

    Raises:
        ConfigError: `size` is neither a number of bytes greater than 0 nor a text such as `64MB`.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    match = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    bytes_ = round(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if bytes_ <= 0:
        raise ConfigError(f"cache[{name!r}]", expected=_SHOWN, got=repr(size))
    return bytes_


def _now() -> float:
    """Seconds, on a clock that goes on while the machine sleeps, where there is one: a lease must not outlast that."""
    return time.clock_gettime(_CLOCK)


_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _seconds(bound_ms: float) -> float:
    if not isinstance(bound_ms, (int, float)) or isinstance(bound_ms, bool) or not 1 <= bound_ms < float("inf"):
        raise ConfigError("cache_bound_ms", expected="milliseconds, at least 1", got=repr(bound_ms))
    return bound_ms / 1000


_caches: weakref.WeakSet[NearCache] = weakref.WeakSet()


def _begin_in_child() -> None:
    for cache in list(_caches):
        cache.forget()


os.register_at_fork(after_in_child=_begin_in_child)
