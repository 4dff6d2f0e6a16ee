"""The topologies of Redis that `--topology` runs the tests on, and the tests that are about one server.

A test that takes the fixture `redis_url` or `redis_process` runs on each. A test that cannot is listed here with the
reason: what it states holds for one server alone, or a fault is known. It is expected to fail on the topologies that are
named, and fails the run if it passes there, so that the list stays true. A test that would harm servers of a topology takes
`one_server_url`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
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
# (a pattern of the path below tests/ and the name, the topologies, why)
EXPECTED_TO_FAIL: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("online/test_deadline.py::*", BOTH, "a proxy before one server holds replies back"),
    ("online/test_one_plan.py::*", BOTH, "a proxy before one server acts between two commands of a request"),
    ("online/test_shared_plan.py::*", BOTH, "a proxy before one server counts and holds commands"),
    ("online/test_pools.py::test_streams_work_through*", BOTH, "the pool is redis-py's own, of one server"),
    (
        "online/test_near_cache.py::test_a_write_is_seen_after_the_bound*",
        BOTH,
        "a relay before one server holds invalidations or replies back",
    ),
    (
        "online/test_near_cache.py::test_a_reply_that_an_invalidation_overtakes*",
        BOTH,
        "a relay before one server holds invalidations or replies back",
    ),
    (
        "online/test_near_cache.py::test_a_lost_connection_empties*",
        BOTH,
        "a relay before one server holds invalidations or replies back",
    ),
    (
        "online/test_near_cache.py::test_an_answer_for_which_no_epoch*",
        BOTH,
        "a relay before one server holds invalidations or replies back",
    ),
    ("online/test_near_cache.py::test_a_server_that_refuses*", BOTH, "its user may not ask who has which keys either"),
    ("online/test_near_cache.py::test_a_credential_provider*", BOTH, "the pool is redis-py's own, of one server"),
)


def keep_those_of(topology: str, items: list[pytest.Item]) -> list[pytest.Item]:
    """Keep the tests that ask for the servers of a topology, and expect those that are listed to fail. Returns the others,
    which would run as they do on one server."""
    others = [item for item in items if FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))]
    items[:] = [item for item in items if item not in set(others)]
    for item in items:
        for pattern, topologies, why in EXPECTED_TO_FAIL:
            if topology in topologies and fnmatchcase(item.nodeid, f"tests/{pattern}"):
                item.add_marker(pytest.mark.xfail(reason=why, strict=True))
    return others
