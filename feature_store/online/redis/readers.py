"""Which server of a shard answers a read: its primary, or one of its replicas.

A replica may be behind. It is seen by its epoch: when a replica answers with another epoch than that of the request's
plan, the primary is asked. Plans are always read from primaries.
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

# A replica that did not answer is not asked for so long.
_AVOIDED_S = 1.0
# How much a new measurement of a round trip counts, and how often a server is chosen by chance, to be measured again.
_WEIGHT, _CHANCE = 0.1, 0.02


class Readers:
    """Chooses servers.

    Args:
        read_from: `primary`, `replica` or `nearest`.
    """

    def __init__(self, read_from: str) -> None:
        self._read_from = read_from
        self._avoided: dict[Endpoint, float] = {}
        self._round_trips: dict[Endpoint, float] = {}

    @property
    def measures(self) -> bool:
        """Whether `took` is to be called."""
        return self._read_from == NEAREST

    def choose(self, shard: Shard, command: Command) -> Endpoint:
        """The server that is asked."""
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
        """Whether a complete reply counts. That of a replica must have the epoch of the request's plan."""
        return not server.is_replica or command.parser.saw_only(command.epoch)

    def avoid(self, server: Endpoint) -> None:
        """Do not choose a replica for a while."""
        self._avoided[server] = time.monotonic() + _AVOIDED_S

    def took(self, server: Endpoint, seconds: float) -> None:
        """Note how long a server needed."""
        before = self._round_trips.get(server)
        self._round_trips[server] = seconds if before is None else before + _WEIGHT * (seconds - before)
