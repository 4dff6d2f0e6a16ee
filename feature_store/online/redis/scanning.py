"""A walk over the keys of one server."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_store.online.redis.endpoint import Endpoint

# Keys per SCAN, which takes Redis well under a millisecond.
_KEYS_PER_STEP = 1000


def scan_node(node: Endpoint, prefix: bytes) -> Iterator[list[bytes]]:
    """The keys of a server that start with `prefix`, one step of SCAN at a time. No step is empty.

    A key that exists during the whole scan is returned at least once. A key that is added or deleted meanwhile may be
    returned.
    """
    cursor = 0
    while True:
        with node.commands() as redis:
            cursor, names = redis.scan(cursor, match=prefix + b"*", count=_KEYS_PER_STEP)
        if names:
            yield names
        if cursor == 0:
            return
