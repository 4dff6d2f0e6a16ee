"""After a publication one request of a client reads the plan, and its other requests wait for that."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from feature_store.errors import NotPublishedError, StoreTimeoutError
from feature_store.online import AsyncOnlineClient, OnlineClient, OnlineStore, keys
from tests.online.proxy import Proxy
from tests.online.test_connections import LOOPS
from tests.online.transports import SERVICE, ask
from tests.online.worlds import NOW_US, numbers, plan_of, write

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS = 64
PLAN = keys.plan_key("test")


class Counting(Proxy):
    """Counts how often a plan is read, and may hold the first reads.

    Attributes:
        reads: how often the plan was asked for.
        asked: is set when the plan is asked for.
        goes_on: the plan is not passed on before this is set.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.reads, self.asked, self.goes_on = 0, threading.Event(), threading.Event()
        self.before = self._count
        self.goes_on.set()

    def _count(self, command: list[bytes]) -> None:
        if PLAN in command:
            self.reads += 1
            self.asked.set()
            assert self.goes_on.wait(60)


@pytest.fixture
def store(redis_url: str) -> Iterator[OnlineStore]:
    made = OnlineStore(redis_url, "test")
    publish(made)
    write(made, numbers, [{"movie_id": i, "event_ts": NOW_US, "a": 1.0, "b": 2.0, "c": i} for i in range(REQUESTS)])
    yield made
    made.close()


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Counting]:
    made = Counting(redis_url)
    yield made
    made.goes_on.set()
    made.close()


@pytest.fixture(params=list(LOOPS))
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as made:
        yield made


def publish(store: OnlineStore) -> None:
    over = store.published()
    plan = plan_of(SERVICE, version=over.plan.version + 1 if over else 1, previous=over.plan if over else None)
    store.publish(plan, over=over)


def test_requests_of_an_event_loop(store: OnlineStore, proxy: Counting, runner: asyncio.Runner) -> None:
    async def requests() -> None:
        async with AsyncOnlineClient(proxy.url(), "test") as client:
            for round_ in range(1, 4):
                answers = await asyncio.gather(*[ask(client, [i]) for i in range(REQUESTS)])
                assert [answer.to_dict()["c"][0] for answer in answers] == list(range(REQUESTS))
                assert {answer.plan_version for answer in answers} == {round_}
                assert proxy.reads == round_
                publish(store)

    runner.run(requests())


def test_requests_of_threads(store: OnlineStore, proxy: Counting) -> None:
    with OnlineClient(proxy.url(), "test") as client, ThreadPoolExecutor(16) as threads:
        for round_ in range(1, 4):
            gate = threading.Barrier(16)

            def one(i: int, gate: threading.Barrier = gate) -> int:
                gate.wait()
                answer = ask(client, [i])
                assert answer.to_dict()["c"] == [i]
                return answer.plan_version

            assert set(threads.map(one, range(16))) == {round_}
            assert proxy.reads == round_
            publish(store)


def test_the_request_that_reads_may_end(store: OnlineStore, proxy: Counting, runner: asyncio.Runner) -> None:
    """It is cancelled, or its deadline passes. Another request then reads the plan."""
    proxy.goes_on.clear()

    async def requests() -> None:
        async with AsyncOnlineClient(proxy.url(), "test") as client:
            reading = asyncio.create_task(ask(client, [0]))
            await asyncio.to_thread(proxy.asked.wait, 60)
            others = [asyncio.create_task(ask(client, [i])) for i in range(1, REQUESTS)]
            await asyncio.sleep(0)
            others[3].cancel()
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.sleep(0)
            proxy.goes_on.set()
            answers = await asyncio.gather(*others[:3], *others[4:])
            assert [answer.to_dict()["c"][0] for answer in answers] == [1, 2, 3, *range(5, REQUESTS)]
            assert proxy.reads == 2

            publish(store)
            proxy.asked.clear()
            proxy.goes_on.clear()
            short = asyncio.create_task(ask(client, [0], deadline_ms=300))
            await asyncio.to_thread(proxy.asked.wait, 60)
            others = [asyncio.create_task(ask(client, [i])) for i in range(1, REQUESTS)]
            with pytest.raises(StoreTimeoutError):
                await short
            proxy.goes_on.set()
            assert {answer.plan_version for answer in await asyncio.gather(*others)} == {2}
            assert proxy.reads == 4

    runner.run(requests())


def test_a_request_waits_no_longer_than_its_limit(store: OnlineStore, proxy: Counting, runner: asyncio.Runner) -> None:
    proxy.goes_on.clear()
    with OnlineClient(proxy.url(), "test") as client, ThreadPoolExecutor(1) as threads:
        reading = threads.submit(ask, client)
        assert proxy.asked.wait(60)
        with pytest.raises(StoreTimeoutError, match="another request reads it, which took longer than 50 ms"):
            ask(client, deadline_ms=50)
        proxy.goes_on.set()
        assert reading.result(60).to_dict()["c"] == [1, 2, 3]

    async def requests() -> None:
        proxy.asked.clear()
        proxy.goes_on.clear()
        async with AsyncOnlineClient(proxy.url(), "test") as client:
            reading = asyncio.create_task(ask(client))
            await asyncio.to_thread(proxy.asked.wait, 60)
            with pytest.raises(StoreTimeoutError, match="another request reads it, which took longer than 50 ms"):
                await ask(client, deadline_ms=50)
            proxy.goes_on.set()
            assert (await reading).to_dict()["c"] == [1, 2, 3]

    runner.run(requests())


def test_without_a_plan_all_requests_learn_that(redis_url: str, proxy: Counting, runner: asyncio.Runner) -> None:
    async def requests() -> None:
        async with AsyncOnlineClient(proxy.url(), "test") as client:
            errors = await asyncio.gather(*[ask(client) for _ in range(REQUESTS)], return_exceptions=True)
            assert all(isinstance(error, NotPublishedError) for error in errors)
            assert proxy.reads == 1 and len(set(map(id, errors))) == REQUESTS

    runner.run(requests())


def test_a_forked_child_does_not_wait_for_its_parent(store: OnlineStore, proxy: Counting) -> None:
    proxy.goes_on.clear()
    with OnlineClient(proxy.url(), "test", timeout_s=20.0) as client, ThreadPoolExecutor(1) as threads:
        reading = threads.submit(ask, client)
        assert proxy.asked.wait(60)
        process = os.fork()
        if not process:
            os._exit(_answers(client))
        proxy.goes_on.set()
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
        assert reading.result(60).to_dict()["c"] == [1, 2, 3]


def _answers(client: Any) -> int:
    try:
        return 0 if ask(client).to_dict()["c"] == [1, 2, 3] else 1
    except BaseException:
        return 2


def test_the_plan_of_now_is_read_by_its_own_request(store: OnlineStore, proxy: Counting) -> None:
    """`plan()` returns the plan that is published when it is called, also while an earlier read is under way."""
    proxy.goes_on.clear()
    with OnlineClient(proxy.url(), "test") as client, ThreadPoolExecutor(1) as threads:
        reading = threads.submit(ask, client)
        assert proxy.asked.wait(60)
        publish(store)
        proxy.goes_on.set()
        assert client.plan().version == 2
        reading.result(60)
