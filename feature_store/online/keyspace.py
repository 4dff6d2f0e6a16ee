"""The keys of one project, on whichever nodes hold them: scan, delete, and send commands of redis-py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feature_store.online import keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.topology import Topology

# Keys per SCAN and per UNLINK or MGET: what Redis does in well under a millisecond.
_KEYS_PER_STEP = 1000


class Keyspace:
    """The keys of one project. Nothing here reads or deletes a key of another project.

    Args:
        topology: the Redis servers.
        project: the project's name.
    """

    def __init__(self, topology: Topology, project: str) -> None:
        self.topology, self.project = topology, project

    @property
    def shown(self) -> str:
        """Where the store is, without a password."""
        return self.topology.shown

    def node(self, bucket: int) -> Endpoint:
        """The node that holds a bucket."""
        return self.topology.node(keys.tag(self.project, bucket))

    def commands(self, bucket: int) -> AbstractContextManager[Any]:
        """A redis-py client of the node that holds a bucket, whose errors become this library's within the block."""
        return self.node(bucket).commands()

    def buckets_together(self, buckets: int) -> list[list[int]]:
        """The numbers below `buckets` in groups: one script may name the keys of a group. Bucket 0 is the first."""
        tags = {keys.tag(self.project, bucket): bucket for bucket in range(buckets)}
        return [[tags[tag] for tag in group] for group in self.topology.together(list(tags))]

    def scan(self, bucket: int, prefix: bytes) -> Iterator[list[bytes]]:
        """The keys of a bucket that start with `prefix`, which starts with the bucket's tag; a step of SCAN at a time.

        A key that is there from the beginning to the end is given at least once; another may be.
        """
        return _scan(self.node(bucket), prefix)

    def scan_all(self) -> Iterator[list[bytes]]:
        """All keys of the project, as `scan`."""
        for node in self.topology.nodes():
            yield from _scan(node, b"{%b:" % self.project.encode())

    def has_any(self, bucket: int, prefix: bytes) -> bool:
        """Whether a key of a bucket starts with `prefix`."""
        return any(self.scan(bucket, prefix))

    def unlink(self, bucket: int, names: Sequence[bytes]) -> int:
        """Delete keys of a bucket. Returns how many there were."""
        if not names:
            return 0
        with self.commands(bucket) as redis:
            count: int = redis.unlink(*names)
        return count

    def unlink_starting(self, bucket: int, prefix: bytes) -> int:
        """Delete the keys of a bucket that start with `prefix`. Returns how many there were."""
        return sum(self.unlink(bucket, names) for names in self.scan(bucket, prefix))

    def unlink_all(self) -> int:
        """Delete all keys of the project. Returns how many there were."""
        deleted = 0
        for names in self.scan_all():
            by_tag: dict[bytes, list[bytes]] = {}
            for name in names:
                by_tag.setdefault(name.partition(b"}")[0], []).append(name)
            for group in by_tag.values():
                with self.topology.node(group[0]).commands() as redis:
                    deleted += redis.unlink(*group)
        return deleted


def _scan(node: Endpoint, prefix: bytes) -> Iterator[list[bytes]]:
    cursor = 0
    while True:
        with node.commands() as redis:
            cursor, names = redis.scan(cursor, match=prefix + b"*", count=_KEYS_PER_STEP)
        if names:
            yield names
        if cursor == 0:
            return
