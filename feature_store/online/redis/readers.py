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
    from collections.abc import Container, Sequence

    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.hedging import Hedges
    from feature_store.online.redis.resp import Command
    from feature_store.online.redis.shards import Shard

# A server that did not answer is not chosen for this long, while another server of its shard can be. Each further
# failure doubles the time, since a server that hangs costs a request half of its limit.
_AVOIDED_S, _LONGEST_AVOIDED_S = 1.0, 16.0
_NEVER = (0.0, _AVOIDED_S / 2)
# The weight of a new measurement of a round trip, and how often a server is chosen at random, to be measured again.
_WEIGHT, _CHANCE = 0.1, 0.02


class Readers:
    """Chooses the server of a shard that answers a read.

    Args:
        read_from: `primary`, `replica` or `nearest`.
        hedges: the hedges of the client; None when it sends none.
    """

    def __init__(self, read_from: str, hedges: Hedges | None = None) -> None:
        self._read_from, self.hedges = read_from, hedges
        # Per server that did not answer: until when it is avoided, and the seconds of that time.
        self._avoided: dict[Endpoint, tuple[float, float]] = {}
        self._round_trips: dict[Endpoint, float] = {}

    def choose(self, shard: Shard, command: Command) -> Endpoint:
        """The server of the shard that is asked."""
        if self._read_from == PRIMARY or not command.epoch or not shard.replicas:
            return shard.primary
        servers = (shard.primary, *shard.replicas) if self._read_from == NEAREST else shard.replicas
        if self._avoided:
            now = time.monotonic()
            servers = tuple(one for one in servers if self._avoided.get(one, _NEVER)[0] < now)
            if not servers:
                return shard.primary
        if self._read_from != NEAREST:
            return random.choice(servers)
        if random.random() < _CHANCE:
            return random.choice(servers)
        return min(servers, key=lambda server: self._round_trips.get(server, 0.0))

    def others(self, shards: Sequence[Shard], server: Endpoint) -> list[Endpoint]:
        """The servers that hold the keys of all shards and may answer reads in place of one of them, the best first."""
        common = [one for one in (*shards[0].replicas, shards[0].primary) if one is not server]
        for shard in shards[1:]:
            common = [one for one in common if one is shard.primary or one in shard.replicas]
        now = time.monotonic()
        well = [one for one in common if self._avoided.get(one, _NEVER)[0] < now]
        if self._read_from == NEAREST:
            well.sort(key=lambda one: self._round_trips.get(one, 0.0))
        return well

    def may_leave(self, server: Endpoint, shard: Shard | None) -> bool:
        """Whether another server of a shard can be chosen than one that did not answer."""
        if server.is_replica or self._read_from != NEAREST or shard is None:
            return server.is_replica
        now = time.monotonic()
        return any(self._avoided.get(one, _NEVER)[0] < now for one in shard.replicas)

    def accepts(self, server: Endpoint, command: Command) -> bool:
        """Whether a complete reply counts. A replica's reply must have the epoch of the request's plan."""
        return not server.is_replica or command.parser.saw_only(command.epoch)

    def keep(self, servers: Container[Endpoint]) -> None:
        """Forget the other servers."""
        for server in [one for one in [*self._avoided, *self._round_trips] if one not in servers]:
            self._avoided.pop(server, None)
            self._round_trips.pop(server, None)
        if self.hedges is not None:
            self.hedges.keep(servers)

    def avoid(self, server: Endpoint) -> None:
        """Do not choose a server for a while, as long as another server of its shard can be chosen."""
        now = time.monotonic()
        until, seconds = self._avoided.get(server, _NEVER)
        if until < now:  # else it is another request of those that failed together
            seconds = min(2 * seconds, _LONGEST_AVOIDED_S)
            self._avoided[server] = now + seconds, seconds

    def answered(self, server: Endpoint, began: float) -> None:
        """Record that a server answered commands that were sent at `began` (`time.monotonic`)."""
        if self._avoided:
            self._avoided.pop(server, None)
        if self._read_from == NEAREST or self.hedges is not None:
            self.measured(server, time.monotonic() - began)

    def measured(self, server: Endpoint, seconds: float) -> None:
        """Record the time of an answer, or the time after which a hedge won."""
        if self.hedges is not None:
            self.hedges.answered(server, seconds)
        before = self._round_trips.get(server)
        self._round_trips[server] = seconds if before is None else before + _WEIGHT * (seconds - before)
