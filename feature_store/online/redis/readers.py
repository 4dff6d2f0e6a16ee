"""Which server of a shard answers a read: its primary, or one of its replicas.

A replica may be behind. Its epoch shows this: if a replica answers with another epoch than that of the request's plan,
the primary is asked. Plans are always read from primaries.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from feature_store.online.redis.location import NEAREST, PRIMARY

if TYPE_CHECKING:
    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.resp import Command
    from feature_store.online.redis.shards import Shard

# A replica that did not answer is not asked again for this long.
_AVOIDED_S = 1.0
# The weight of a new measurement of a round trip, and how often a server is chosen at random, to be measured again.
_WEIGHT, _CHANCE = 0.1, 0.02


class Readers:
    """Chooses the server of a shard that answers a read.

    Args:
        read_from: `primary`, `replica` or `nearest`.
    """

    def __init__(self, read_from: str) -> None:
        self._read_from = read_from
        self._avoided: dict[Endpoint, float] = {}
        self._round_trips: dict[Endpoint, float] = {}

    @property
    def measures(self) -> bool:
        """Whether the caller must measure round trips and call `took`."""
        return self._read_from == NEAREST

    def choose(self, shard: Shard, command: Command) -> Endpoint:
        """The server of the shard that is asked."""
        if self._read_from == PRIMARY or not command.epoch or not shard.replicas:
            return shard.primary
        replicas = shard.replicas
        if self._avoided:
            now = time.monotonic()
            replicas = tuple(one for one in replicas if self._avoided.get(one, 0.0) < now)
            if not replicas:
                return shard.primary
        if self._read_from != NEAREST:
            return random.choice(replicas)
        servers = (shard.primary, *replicas)
        if random.random() < _CHANCE:
            return random.choice(servers)
        return min(servers, key=lambda server: self._round_trips.get(server, 0.0))

    def accepts(self, server: Endpoint, command: Command) -> bool:
        """Whether a complete reply counts. A replica's reply must have the epoch of the request's plan."""
        return not server.is_replica or command.parser.saw_only(command.epoch)

    def avoid(self, server: Endpoint) -> None:
        """Do not choose a replica for a while."""
        self._avoided[server] = time.monotonic() + _AVOIDED_S

    def took(self, server: Endpoint, seconds: float) -> None:
        """Record the seconds that a server needed for an answer."""
        before = self._round_trips.get(server)
        self._round_trips[server] = seconds if before is None else before + _WEIGHT * (seconds - before)
