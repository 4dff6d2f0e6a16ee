"""A primary with replicas that Sentinels watch and name. It is one shard, learnt from the Sentinels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from feature_store.errors import OnlineStoreError
from feature_store.online.redis.endpoint import Question, master_of, replicas_of
from feature_store.online.redis.location import PRIMARY, Location
from feature_store.online.redis.resp import packed
from feature_store.online.redis.scanning import scan_node
from feature_store.online.redis.shard_recovery import CHANGING
from feature_store.online.redis.sharded import Sharded
from feature_store.online.redis.shards import Shard

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Sequence

    from feature_store.online.redis.address import Address
    from feature_store.online.redis.endpoint import Endpoint, Failure


class Sentinels(Sharded):
    """The servers that Sentinels name.

    Args:
        url: `redis+sentinel://…` or `rediss+sentinel://…`, see redis/location.py.
        timeout_s: seconds for a whole answer.

    Raises:
        ConfigError: the URL cannot be read.
    """

    # A primary that the Sentinels replaced while it was alive goes on answering for about 10 s.
    refresh_s = 1.0

    def __init__(self, url: str | Location, timeout_s: float) -> None:
        super().__init__(url if isinstance(url, Location) else Location.of(url), timeout_s, 1)
        service = self.location.service.encode()
        self._ask_primary = packed(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service)
        self._ask_replicas = packed(b"SENTINEL", b"REPLICAS", service)
        self._sentinels = self.location.others

    @property
    def is_one_node(self) -> bool:
        """See Topology."""
        return True

    def slot(self, key: bytes) -> int:
        """See Shards: there is one shard."""
        return 0

    def together(self, keys: Sequence[bytes]) -> list[list[bytes]]:
        """See Topology."""
        return [list(keys)]

    def uncovered(self, key: bytes) -> OnlineStoreError:
        """See Shards."""
        return self.whole.lost("no Sentinel names a primary")

    def address_of(self, host: str, port: int, *, is_replica: bool) -> Address:
        """See Shards. A Sentinel can be wrong for a while, so each primary is asked for its role."""
        return replace(self.location.address, host=host, port=port, is_master=not is_replica)

    def learning(self, version: int, failed: Collection[Endpoint] = ()) -> Generator[Question, Any, None]:
        """See Shards."""
        if self.version != version:
            return
        failures: list[Failure] = []
        for i, sentinel in enumerate(self._sentinels):
            left = len(self._sentinels) - i + 1
            try:
                primary = master_of((yield Question(sentinel, self._ask_primary, left)))
                wants_replicas = primary is not None and self.location.read_from != PRIMARY
                listed = replicas_of((yield Question(sentinel, self._ask_replicas, left))) if wants_replicas else []
            except OnlineStoreError as error:
                failures.append((sentinel, error))
                continue
            if primary is not None:
                replicas = tuple(self.endpoint(*replica, is_replica=True) for replica in listed)
                self.learnt(version, [Shard(self.endpoint(*primary), replicas)])
                # The next question goes to a Sentinel that answers.
                self._sentinels = (*self._sentinels[i:], *self._sentinels[:i])
                return
            failures.append((sentinel, "knows no such server"))
        raise self.whole.not_found("no Sentinel names it", failures)

    def scan(self, key: bytes, prefix: bytes) -> Iterator[list[bytes]]:
        """See Topology. After a fail-over the scan begins again, on the new primary."""
        recovery = self.recovery(key)
        node = self.node(key)
        while True:
            try:
                yield from scan_node(node, prefix)
            except CHANGING as error:
                node = recovery.after(error).node
                continue
            self.refresh(self.version)
            if self.node(key) is node:
                return
            node = self.node(key)  # the scanned server is a replica by now

    def scan_all(self, prefix: bytes) -> Iterator[list[bytes]]:
        """See Topology."""
        return self.scan(prefix, prefix)
