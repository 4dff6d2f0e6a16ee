"""The keys of one project, on the nodes that hold them: scan, delete, and send commands of redis-py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from feature_store.errors import OnlineStoreError
from feature_store.online import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.topology import Topology

T = TypeVar("T")


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

    def each_node(self, ask: Callable[[Any], T]) -> list[T]:
        """The results of `ask` for a redis-py client of each node; all are asked again if a node is replaced."""
        recovery = self.topology.recovery(keys.tag(self.project, 0))
        while True:
            try:
                return [self._ask(node, ask) for node in self.topology.nodes()]
            except OnlineStoreError as error:
                recovery.after(error)

    def commands(self, bucket: int) -> AbstractContextManager[Any]:
        """A redis-py client of the node that holds a bucket. Within the block, its errors become this library's."""
        return self.topology.commands(keys.tag(self.project, bucket))

    def buckets_together(self, buckets: int) -> list[list[int]]:
        """The buckets in groups: one script may name the keys of a whole group. The first begins with bucket 0."""
        tags = {keys.tag(self.project, bucket): bucket for bucket in range(buckets)}
        return [[tags[tag] for tag in group] for group in self.topology.together(list(tags))]

    def scan(self, bucket: int, prefix: bytes) -> Iterator[list[bytes]]:
        """The keys of a bucket that start with `prefix`, one step of SCAN at a time. `prefix` starts with the tag.

        A key that exists during the whole scan is returned at least once. A key that is added or deleted meanwhile may
        be returned.
        """
        return self.topology.scan(keys.tag(self.project, bucket), prefix)

    def scan_all(self) -> Iterator[list[bytes]]:
        """All keys of the project, as `scan`."""
        return self.topology.scan_all(b"{%b:" % self.project.encode())

    def has_any(self, bucket: int, prefix: bytes) -> bool:
        """Whether a key of a bucket starts with `prefix`."""
        return any(self.scan(bucket, prefix))

    def unlink(self, bucket: int, names: Sequence[bytes]) -> int:
        """Delete keys of a bucket. Returns how many were deleted."""
        if not names:
            return 0
        with self.commands(bucket) as redis:
            count: int = redis.unlink(*names)
        return count

    def unlink_starting(self, bucket: int, prefix: bytes) -> int:
        """Delete the keys of a bucket that start with `prefix`. Returns how many were deleted."""
        return sum(self.unlink(bucket, names) for names in self.scan(bucket, prefix))

    def unlink_all(self) -> int:
        """Delete all keys of the project. Returns how many were deleted."""
        deleted = 0
        for names in self.scan_all():
            by_tag: dict[bytes, list[bytes]] = {}
            for name in names:
                by_tag.setdefault(name.partition(b"}")[0], []).append(name)
            for group in by_tag.values():
                with self.topology.commands(group[0]) as redis:
                    deleted += redis.unlink(*group)
        return deleted

    @staticmethod
    def _ask(node: Endpoint, ask: Callable[[Any], T]) -> T:
        with node.commands() as redis:
            return ask(redis)
