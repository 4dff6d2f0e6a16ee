"""The servers that a near-cache must hear, and the probe that tells whether each still has its keys.

Redis invalidates values on the server that takes the writes. So the values of a key may be used only while the server
that is heard is the one that has the key. Each heartbeat asks for that with a probe, instead of a PING:

- A node of a Cluster is asked for a key that never exists, in the hash slot of each bucket that it has. It redirects
  the probe as soon as it begins to give the slot away (ASK) or has lost it (MOVED). It refuses the probe when it does
  not see the majority of the nodes (CLUSTERDOWN).
- A primary that Sentinels name is asked for its role.

A probe that fails ends the lease of its server, and hence the use of all values.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple, Protocol

from feature_store.errors import ConfigError, OnlineStoreError
from feature_store.online import keys
from feature_store.online.redis.location import PRIMARY
from feature_store.online.redis.resp import PING, packed
from feature_store.online.redis.shards import Shards

if TYPE_CHECKING:
    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.topology import Topology


class Server(NamedTuple):
    """A server that must be heard.

    Attributes:
        endpoint: the server.
        probe: the commands of a heartbeat, as bytes.
        replies: how many replies they have.
    """

    endpoint: Endpoint
    probe: bytes
    replies: int


class Source(Protocol):
    """Where the values of a near-cache come from."""

    @property
    def version(self) -> int:
        """A number that changes when other servers may have the keys."""

    def servers(self, project: str, buckets: int) -> tuple[Server, ...]:
        """The servers that have the keys of a project; none when they are not known yet."""

    def lost(self, server: Server) -> None:
        """Look for the servers anew, after one of them was lost."""


class OneServer:
    """A server that answers all reads as long as the store is in use."""

    version = 0

    def __init__(self, endpoint: Endpoint) -> None:
        self._servers = (Server(endpoint, PING, 1),)

    def servers(self, project: str, buckets: int) -> tuple[Server, ...]:
        """See Source."""
        return self._servers

    def lost(self, server: Server) -> None:
        """See Source: there is no other."""


class Primaries:
    """The primaries of a Cluster, or the primary that Sentinels name."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    @property
    def version(self) -> int:
        """See Source."""
        return self._shards.version

    def servers(self, project: str, buckets: int) -> tuple[Server, ...]:
        """See Source."""
        by_primary: dict[Endpoint, list[int]] = {}
        for bucket in range(buckets):
            shard = self._shards.shard(keys.epoch_key(project, bucket))
            if shard is None:
                return ()
            by_primary.setdefault(shard.primary, []).append(bucket)
        if self._shards.is_one_node:
            return tuple([Server(primary, packed(b"ROLE"), 1) for primary in by_primary])
        return tuple(
            [
                Server(primary, b"".join([_absent(project, bucket) for bucket in of_primary]), len(of_primary))
                for primary, of_primary in sorted(by_primary.items(), key=lambda item: item[0].number)
            ]
        )

    def lost(self, server: Server) -> None:
        """See Source."""
        with contextlib.suppress(OnlineStoreError):  # then the known servers stay
            self._shards.refresh(self._shards.version, [server.endpoint])


def source_of(topology: Topology) -> Source:
    """Where the values of a near-cache come from.

    Raises:
        ConfigError: replicas answer reads, or a redis-py pool asks Sentinels for each connection.
    """
    if isinstance(topology, Shards):
        if topology.location.read_from != PRIMARY:
            raise ConfigError(
                "cache",
                problem=f"read_from={topology.location.read_from} reads from replicas, which may answer with an older "
                "value after its invalidation came from the primary",
                hint="a near-cache needs read_from=primary",
            )
        return Primaries(topology)
    if topology.only_server is None:
        raise ConfigError(
            "cache",
            problem=f"{topology.shown} is a pool of redis-py, whose Sentinels may name another server at any time",
            hint="give the client the URL of the Sentinels: redis+sentinel://host:port,…/service",
        )
    return OneServer(topology.only_server)


def _absent(project: str, bucket: int) -> bytes:
    """Asks for a key that never exists. Where some keys of a slot were moved away, a node redirects those who ask for
    absent keys, and answers those who ask for keys that it still has."""
    return packed(b"MGET", keys.epoch_key(project, bucket).partition(b"}")[0] + b"}absent")
