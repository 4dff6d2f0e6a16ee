"""The near-cache: stored values that a client keeps in its own process. Redis invalidates them.

`table` holds values within a budget of bytes, by the hashes of `hashing`. `values` finds them and decides which values
may be kept. `sources` names the servers that must be heard, and `listener` receives the changed keys from them.
`near_cache` joins all of these for a client. docs/decisions/0018-near-cache.md explains why no value is older than the
bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_store.online.near.near_cache import NearCache
    from feature_store.online.redis.topology import Topology


def near_cache(budgets: Mapping[str, int | str] | None, topology: Topology, bound_ms: float) -> NearCache | None:
    """The near-cache of a client, or None without budgets. Its modules are imported only if there are budgets.

    Raises:
        ConfigError: a budget or the bound cannot be read, or replicas answer reads.
    """
    if not budgets:
        return None
    from feature_store.online.near.near_cache import NearCache
    from feature_store.online.near.sources import source_of

    return NearCache(budgets, source_of(topology), bound_ms)
