"""A primary that Sentinels name: it fails over and is killed while clients read and writers write."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from feature_store.errors import (
    StoreConnectionError,
)
from feature_store.online import OnlineStore
from feature_store.online.redis.topology import connect
from tests.online.clients import CLIENTS
from tests.online.node_worlds import (
    USERS,
    ages,
    counts,
    expected,
    oracle,
    publish,
    stream,
    write,
)
from tests.online.stream_worlds import plan_of as stream_plan
from tests.redis_nodes import PASSWORD, SENTINEL_PASSWORD, wait_until

if TYPE_CHECKING:
    from tests.redis_nodes import RedisSentinels


@pytest.mark.parametrize("how", ["kill", "fail over"])
def test_an_event_counts_once_whatever_happens_to_a_primary(sentinels: RedisSentinels, how: str) -> None:
    """The Sentinels name another primary, which may lack the last merges."""
    store = OnlineStore(sentinels.url, "test", timeout_s=5.0)
    store.publish(stream_plan(buckets=2), over=None)

    def act(batch: int) -> None:
        if batch != 4:
            return
        primary = sentinels.primary
        sentinels.wait_for_replicas()
        if how == "kill":
            primary.kill()
        sentinels.fail_over()

    stream(sentinels.url, act)
    # A primary that was replaced while alive may have taken the last merges, which the new one lacks. Merge them again.
    stream(sentinels.url, lambda batch: None)
    assert counts(sentinels.url) == oracle()
    store.close()


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
@pytest.mark.parametrize("read_from", ["primary", "replica", "nearest"])
def test_clients_and_writers_follow_the_sentinels(sentinels: RedisSentinels, kind: str, read_from: str) -> None:
    """One of the Sentinels is dead."""
    store = OnlineStore(sentinels.url, "shop", timeout_s=5.0)
    publish(store, 1)
    client = CLIENTS[kind](sentinels.url_with(f"read_from={read_from}"), "shop", timeout_s=10.0)
    sentinels.wait_for_replicas()
    assert ages(client) == expected(1)
    sentinels.sentinels[0].kill()
    sentinels.fail_over()
    # The old primary is alive, and takes writes until the Sentinels demote it.
    another = OnlineStore(sentinels.url, "shop", timeout_s=5.0)
    publish(another, 2)
    another.close()
    answers = [ages(client)]
    wait_until(lambda: answers.append(ages(client)) or answers[-1] == expected(2), "an answer of the new primary")
    assert all(answer in (expected(1), expected(2)) for answer in answers)
    sentinels.wait_for_end()
    sentinels.wait_for_replicas()
    sentinels.primary.kill()
    failing_over = threading.Timer(0.1, sentinels.fail_over)
    failing_over.start()
    assert ages(client) == expected(2)
    failing_over.join()
    write(store, 2, [*USERS, 77])
    client.close()
    store.close()


def test_passwords_of_servers_and_sentinels_are_separate(sentinels: RedisSentinels) -> None:
    wrong = sentinels.url.replace(SENTINEL_PASSWORD, "wrong-one")
    with pytest.raises(StoreConnectionError, match="no Sentinel names it") as raised:
        OnlineStore(wrong, "shop").published()
    assert "wrong-one" not in str(raised.value)
    assert PASSWORD not in connect(sentinels.url, 1.0).shown
    assert SENTINEL_PASSWORD not in connect(sentinels.url, 1.0).shown
