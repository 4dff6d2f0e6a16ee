"""The near-cache: stored values that a client keeps in its own process. Redis invalidates them.

`table` holds values within a budget of bytes. `values` finds them and decides which values may be kept. `listener`
receives the changed keys from Redis. `near_cache` joins the three for a client. docs/decisions/0018-near-cache.md
explains why no value is older than the bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_store.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_store.online.near.near_cache import NearCache
    from feature_store.online.redis.topology import Topology


def near_cache(budgets: Mapping[str, int | str] | None, topology: Topology, bound_ms: float) -> NearCache | None:
    """The near-cache of a client, or None without budgets. Its modules are imported only if there are budgets.

    Raises:
        ConfigError: a budget or the bound cannot be read, or the store is a Cluster or has Sentinels.
    """
    if not budgets:
        return None
    from feature_store.online.near.near_cache import NearCache

    server = topology.only_server
    if server is None:
        raise ConfigError(
            "cache",
            problem=f"{topology.shown} may answer from another server later, which a near-cache does not follow",
            hint="a near-cache needs one server: redis://, rediss:// or unix://",
        )
    return NearCache(budgets, server, bound_ms)
