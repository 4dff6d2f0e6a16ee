"""Both clients with one interface, so that every test of serving runs on both."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from functools import partial
from typing import Any

import uvloop

from feature_store.online import AsyncOnlineClient, OnlineClient, OnlineResponse, Status


class AsyncInThread:
    """AsyncOnlineClient with blocking calls, on an event loop of its own."""

    def __init__(self, *args: Any, loop: Any = asyncio.new_event_loop, **kwargs: Any) -> None:
        self._loop = loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.client = AsyncOnlineClient(*args, **kwargs)

    def get_online_features(self, *args: Any, **kwargs: Any) -> OnlineResponse:
        return self.run(self.client.get_online_features(*args, **kwargs))

    def plan(self) -> Any:
        return self.run(self.client.plan())

    def shadow(self, service: str) -> Any:
        return self.client.shadow(service)

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def close(self) -> None:
        self.run(self.client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class NearInStep:
    """OnlineClient with a near-cache of all groups, which has heard of all earlier writes before it answers.

    It makes each request twice and returns the second answer, whose values the first request has read.
    """

    def __init__(self, url: str, project: str, **options: Any) -> None:
        OnlineClient(url, project, **options).close()  # raises what a client raises for bad options
        self._made, self._client = (url, project, options), None

    def get_online_features(self, *args: Any, **kwargs: Any) -> OnlineResponse:
        client = self._near()
        for _ in range(2):
            in_step(client)
            response = client.get_online_features(*args, **kwargs)
        return response

    def plan(self) -> Any:
        return self._near().plan()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _near(self) -> OnlineClient:
        if self._client is None:
            url, project, options = self._made
            with OnlineClient(url, project) as plain:
                plan = plain.plan()
            names = [*(group.name for group in plan.groups), *(tiles.view for tiles in plan.tiles)]
            self._client = OnlineClient(url, project, cache=dict.fromkeys(names, "1MB"), cache_bound_ms=25, **options)
            self._client.plan()
        return self._client


def in_step(client: Any) -> None:
    """Wait until a client's near-cache has heard of all earlier writes, and has kept the values that it read."""
    renewals = client.cache.renewals
    ends = time.monotonic() + 20
    while client.cache.renewals < renewals + 2:
        assert time.monotonic() < ends
        time.sleep(0.001)


def counted(response: OnlineResponse) -> dict[Status, int]:
    """What `status_counts` must return, counted value by value."""
    return Counter(status for statuses in response.status.values() for status in statuses)


CLIENTS: dict[str, Any] = {
    "blocking": OnlineClient,
    "asyncio": AsyncInThread,
    "uvloop": partial(AsyncInThread, loop=uvloop.new_event_loop),
}
NEAR = {"near-cache": NearInStep}
