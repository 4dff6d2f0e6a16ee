"""Both clients behind one face, so that every test of serving runs on both."""

from __future__ import annotations

import asyncio
import threading
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


def counted(response: OnlineResponse) -> dict[Status, int]:
    """What `status_counts` must say, value by value."""
    return Counter(status for statuses in response.status.values() for status in statuses)


CLIENTS: dict[str, Any] = {
    "blocking": OnlineClient,
    "asyncio": AsyncInThread,
    "uvloop": partial(AsyncInThread, loop=uvloop.new_event_loop),
}
