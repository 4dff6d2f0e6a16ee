"""A walk over the keys of one server."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_store.online.redis.endpoint import Endpoint

# Keys per SCAN: what Redis does in well under a millisecond.
_KEYS_PER_STEP = 1000


def scan_node(node: Endpoint, prefix: bytes) -> Iterator[list[bytes]]:
    """The keys of a server that start with `prefix`, a step of SCAN at a time. No step is empty.

    A key that is there from the beginning to the end is given at least once; another may be.
    """
    cursor = 0
    while True:
        with node.commands() as redis:
            cursor, names = redis.scan(cursor, match=prefix + b"*", count=_KEYS_PER_STEP)
        if names:
            yield names
        if cursor == 0:
            return
