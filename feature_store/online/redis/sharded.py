"""A topology of shards: `Shards` with the connections of clients to all servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_store.online.redis.shard_pool import ShardPool
from feature_store.online.redis.shards import Shards

if TYPE_CHECKING:
    from feature_store.online.observer import Observers
    from feature_store.online.redis.async_shard_pool import AsyncShardPool


class Sharded(Shards):
    """A topology of shards; see Topology and Shards."""

    def pool(self, observers: Observers, most: int | None) -> ShardPool:
        """See Topology. There are at most `most` connections to each server."""
        return ShardPool(self, observers, self.location.most(most))

    def async_pool(self, observers: Observers, most: int | None) -> AsyncShardPool:
        """See Topology. There are at most `most` connections to each server."""
        from feature_store.online.redis.async_shard_pool import AsyncShardPool  # asyncio, which threads do not need

        return AsyncShardPool(self, observers, self.location.most(most))
