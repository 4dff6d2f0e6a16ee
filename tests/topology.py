"""The topologies of Redis that `--topology` runs the tests on, and the tests that are about one server.

A test that takes the fixture `redis_url` or `redis_process` runs on each. A test that cannot, because what it states holds for
one server alone, is listed here with the reason. It is expected to fail on the topologies that are named: one that passes
there fails the run, so that the list stays true.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.redis_nodes import redis_cluster, redis_sentinels
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


class Servers(Protocol):
    """Real servers of a topology."""

    @property
    def url(self) -> str: ...


TOPOLOGIES: dict[str, Callable[[], AbstractContextManager[Servers]]] = {
    "single": redis_server,
    "sentinel": partial(redis_sentinels, quick=True),
    "cluster": redis_cluster,
}
FIXTURES = {"redis_process", "redis_url"}
BOTH = ("sentinel", "cluster")
# (file or file::test, the topologies on which it cannot hold, why)
ABOUT_ONE_SERVER: tuple[tuple[str, tuple[str, ...], str], ...] = ()


def keep_those_of(topology: str, items: list[pytest.Item]) -> list[pytest.Item]:
    """Keep the tests that ask for the servers of a topology, and expect those about one server to fail. Returns the others,
    which would run as they do on one server."""
    others = [item for item in items if FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))]
    items[:] = [item for item in items if item not in set(others)]
    for item in items:
        for named, topologies, why in ABOUT_ONE_SERVER:
            if topology in topologies and item.nodeid.partition("[")[0].startswith(f"tests/{named}"):
                item.add_marker(pytest.mark.xfail(reason=why, strict=True))
    return others
