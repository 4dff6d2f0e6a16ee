"""A read of the serving plan that one request of a client does, and that its other requests wait for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from feature_store.errors import StoreTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from feature_store.errors import NotPublishedError
    from feature_store.online.redis.limit import Limit


class PlanLoad:
    """A step of a client: wait until a read that is under way has ended, for whatever reason.

    Args:
        project: the name of the project, for errors.

    Attributes:
        unpublished: why there is no plan, if the read came to that; else None.
    """

    def __init__(self, project: str) -> None:
        self._project = project
        self._ended = threading.Event()
        self._when_ended: list[Callable[[], object]] = []
        self.unpublished: NotPublishedError | None = None

    def end(self) -> None:
        """Record that the read has ended. Requests that wait go on."""
        self._ended.set()
        for call in self._when_ended:
            call()

    def when_ended(self, call: Callable[[], object]) -> None:
        """Have a function called at the end. Only for the one thread of an event loop."""
        self._when_ended.append(call)

    def wait(self, limit: Limit) -> None:
        """Wait, as a thread.

        Raises:
            StoreTimeoutError: the limit ended first.
        """
        try:
            has_ended = self._ended.wait(limit.left())
        except TimeoutError:
            has_ended = False
        if not has_ended:
            raise self.too_late(limit)

    def too_late(self, limit: Limit) -> StoreTimeoutError:
        """The error for a request whose limit ended first."""
        return StoreTimeoutError(
            f"serving plan of {self._project}",
            problem=f"another request reads it, which took longer than {limit.seconds * 1000:g} ms",
            hint=f"is Redis overloaded, swapping or paused? The limit is {limit.setting}",
        )
