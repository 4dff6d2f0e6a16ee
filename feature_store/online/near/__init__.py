"""The near-cache: stored values that a client keeps in its own process, and that Redis itself invalidates.

`table` holds values within a budget of bytes, `values` finds them and says what may be kept, `listener` hears from
Redis which keys have changed, `near_cache` is what a client has. docs/decisions/0018-near-cache.md says why no value is
older than the bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_store.online.near.near_cache import NearCache
    from feature_store.online.redis.topology import Topology


def near_cache(budgets: Mapping[str, int | str] | None, topology: Topology, bound_ms: float) -> NearCache | None:
    """The near-cache of a client, or None without budgets. It is imported only when it is wanted."""
    if not budgets:
        return None
    from feature_store.online.near.near_cache import NearCache

    return NearCache(budgets, topology, bound_ms)
