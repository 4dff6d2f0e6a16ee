"""A Redis Cluster: which node holds which slot. The map is learnt from the nodes and corrected by their redirections.

Each bucket of a project has one hash tag, hence one slot, hence one node. So a bucket's rows, tiles, fences and epoch
stay together wherever the Cluster moves them. This module is imported only for the URL of a Cluster.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from redis.crc import key_slot

from feature_store.errors import ClusterDownError, OnlineStoreError, StoreReplyError, WrongNodeError
from feature_store.online.redis.endpoint import Endpoint, Question
from feature_store.online.redis.location import Location
from feature_store.online.redis.resp import packed
from feature_store.online.redis.scanning import scan_node
from feature_store.online.redis.shard_recovery import CHANGING
from feature_store.online.redis.sharded import Sharded
from feature_store.online.redis.shards import Shard, known_host

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Sequence

    from feature_store.online.redis.address import Address
    from feature_store.online.redis.endpoint import Failure

SLOTS = 16_384
_ASK_SLOTS = packed(b"CLUSTER", b"SLOTS")
# Known nodes that are asked for the slots before their silence counts as an error.
_MOST_ASKED = 8


class Cluster(Sharded):
    """The nodes of a Redis Cluster.

    Args:
        url: `redis+cluster://…` or `rediss+cluster://…`, see redis/location.py. It names some nodes, not all.
        timeout_s: seconds for a whole answer.

    Raises:
        ConfigError: the URL cannot be read.
    """

    # A node that lost a slot or its role reports it. Only new replicas are found by this refresh.
    refresh_s = 30.0

    def __init__(self, url: str | Location, timeout_s: float) -> None:
        super().__init__(url if isinstance(url, Location) else Location.of(url), timeout_s, SLOTS)
        self._slots: dict[bytes, int] = {}

    @property
    def is_one_node(self) -> bool:
        """See Topology."""
        return False

    def slot(self, key: bytes) -> int:
        """The slot of a key. Slots are kept by key: a project has few keys of epochs and tags."""
        slot = self._slots.get(key)
        if slot is None:
            slot = key_slot(key)
            if len(self._slots) < SLOTS:
                self._slots[key] = slot
        return slot

    def together(self, keys: Sequence[bytes]) -> list[list[bytes]]:
        """See Topology: the keys of one slot are together."""
        by_slot: dict[int, list[bytes]] = {}
        for key in keys:
            by_slot.setdefault(key_slot(key), []).append(key)
        return list(by_slot.values())

    def uncovered(self, key: bytes) -> OnlineStoreError:
        """See Shards."""
        error = ClusterDownError(
            f"Redis Cluster at {self.shown}",
            problem=f"no node holds hash slot {self.slot(key)}",
            hint="look at `CLUSTER INFO` and `CLUSTER SLOTS`: are all 16,384 slots assigned?",
        )
        error.code = "CLUSTERDOWN"
        return error

    def address_of(self, host: str, port: int, *, is_replica: bool) -> Address:
        """See Shards. A replica of a Cluster answers reads only to connections that ask for it."""
        return replace(self.location.address, host=host, port=port, is_readonly=is_replica)

    def learning(self, version: int, failed: Collection[Endpoint] = ()) -> Generator[Question, Any, None]:
        """See Shards."""
        if self.version != version:
            return
        addresses = self._addresses(failed)
        failures: list[Failure] = []
        for i, address in enumerate(addresses):
            try:
                reply = yield Question(address, _ASK_SLOTS, len(addresses) - i)
            except OnlineStoreError as error:
                failures.append((address, error))
                continue
            if reply:
                self.learnt(version, self._shards_of(reply, address))
                return
            failures.append((address, "knows no slots"))
        raise _refusal(failures) or self.whole.not_found("no node of the Cluster answers", failures)

    def _addresses(self, failed: Collection[Endpoint]) -> list[Address]:
        """The nodes to ask: some nodes of the newest map in random order, then those of the URL, then those that
        failed."""
        last = {_place(node.address): node.address for node in failed}
        known = {_place(node.address): node.address for node in self.named()}
        well = [address for place, address in known.items() if place not in last]
        random.shuffle(well)
        given = [self.location.address, *self.location.others]
        first = {_place(address): address for address in (*well[:_MOST_ASKED], *given)}
        asked = {place: address for place, address in first.items() if place not in last} | last
        return [replace(address, is_readonly=False) for address in asked.values()]

    def _shards_of(self, reply: Any, by: Address) -> list[Shard | None]:
        """The shard of each slot, from a reply to CLUSTER SLOTS."""
        shards: list[Shard | None] = [None] * SLOTS
        known: dict[tuple[Endpoint, ...], Shard] = {}
        for first, last, *nodes in reply:
            primary = self._named(nodes[0], by, is_replica=False)
            replicas = tuple(self._named(node, by, is_replica=True) for node in nodes[1:])
            shard = known.setdefault((primary, *replicas), Shard(primary, replicas))
            shards[first : last + 1] = [shard] * (last + 1 - first)
        return shards

    def _named(self, node: Sequence[Any], by: Address, *, is_replica: bool) -> Endpoint:
        """A node as CLUSTER SLOTS names it. A node that does not know its own host has the host that was asked."""
        host = node[0].decode() if isinstance(node[0], bytes) else ""
        return self.endpoint(known_host(host, by), int(node[1]), is_replica=is_replica)

    # -- scans --------------------------------------------------------------------------------------------------

    def scan(self, key: bytes, prefix: bytes) -> Iterator[list[bytes]]:
        """See Topology.

        The keys of a slot that is being moved are on two nodes. They move one way, so the node that they leave is
        scanned first, and then the node that it names. After a fail-over the scan begins again on the new primary,
        since a cursor of SCAN means nothing to another server.
        """
        recovery = self.recovery(key)
        walked: list[Endpoint] = []
        node: Endpoint | None = self.node(key)
        while node is not None and node not in walked:
            try:
                yield from scan_node(node, prefix)
                walked.append(node)
                node = self._leads_to(node, key)
            except CHANGING as error:
                node = recovery.after(error).node
                walked.clear()

    def scan_all(self, prefix: bytes) -> Iterator[list[bytes]]:
        """See Topology.

        A walk over all nodes counts if no slot changed its node meanwhile. While slots are being moved, two walks are
        needed: a key that moves during one walk stays in place during the other.
        """
        recovery = self.recovery(prefix)
        before: list[bytes] = []
        walks = 0
        while True:
            try:
                owned = self._owned()
                walks, before = (walks if owned == before else 0), owned
                for node in self.nodes():
                    yield from scan_node(node, prefix)
                walks += 1
                is_moving = any(b"[" in text for text in before)
                if self._owned() == before and walks >= (2 if is_moving else 1):
                    return
            except CHANGING as error:
                recovery.after(error)
                before = []

    def _owned(self) -> list[bytes]:
        """The slots of each primary: `[93->-…` is a slot that it gives away, `[93-<-…` a slot that it takes."""
        said = []
        for node in self.nodes():
            with node.commands() as client:
                text: bytes = client.execute_command("CLUSTER", "NODES")
            mine = next(line for line in text.splitlines() if b"myself" in line)
            said.append(b" ".join([mine.split()[0], *mine.split()[8:]]))
        return sorted(said)

    def _leads_to(self, node: Endpoint, key: bytes) -> Endpoint | None:
        """The node to which a node redirects a caller who asks for an absent key; None when it does not redirect."""
        absent = key.partition(b"}")[0] + b"}absent:" + random.randbytes(8).hex().encode()
        try:
            with node.commands() as client:
                client.exists(absent)
        except WrongNodeError as error:
            return self.place(error.target, node)
        return None


def _refusal(failures: Sequence[Failure]) -> StoreReplyError | None:
    """The last refusal if all nodes refuse to tell their slots, such as with NOPERM: it says what to do."""
    refusals = [why for _, why in failures if isinstance(why, StoreReplyError)]
    return refusals[-1] if refusals and len(refusals) == len(failures) else None


def _place(address: Address) -> tuple[str, int]:
    return address.host, address.port
