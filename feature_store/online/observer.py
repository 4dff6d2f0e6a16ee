"""What a client tells of its requests to those who watch: metrics, traces, the log of what was served.

Observers are called in the thread of the request, or on its event loop, when its answer is there and before the caller
has it: what they take, the request takes. What they raise is logged once and reaches no caller. A client without
observers makes none of this: it asks whether there are any, and that is all.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from feature_store.online.response import OnlineResponse

# How a service that is made of feature references is called; no service has such a name.
REFERENCES = "(references)"
# The label of a service that the plan does not have.
UNKNOWN = "(unknown)"
_LOG = logging.getLogger("feature_store.observers")


class Observed:
    """One request, from its first step to its answer: reading again after a new plan, and in shadow, included.

    Attributes:
        service: the service's name, as it was given; REFERENCES when feature references were given.
        label: the same for labels of metrics: UNKNOWN unless the plan that the client knows has such a service.
        entity_rows: as they were given.
        started_ns: when it began, nanoseconds since 1970.
        seconds: how long it took. Values are decoded later, when the caller asks for them.
        response: its answer; None when it failed.
        error: why it failed; None when it did not.
        request_id, log_fields: as they were given.
    """

    __slots__ = (
        "_clock",
        "_label_of",
        "_observers",
        "entity_rows",
        "error",
        "log_fields",
        "request_id",
        "response",
        "seconds",
        "service",
        "started_ns",
    )

    def __init__(
        self,
        observers: Observers,
        label_of: Callable[[str], str],
        service: str | Sequence[str],
        entity_rows: Mapping[str, Any],
        request_id: str | None,
        log_fields: Mapping[str, Any] | None,
    ) -> None:
        self._observers, self._label_of = observers, label_of
        self.service = service if isinstance(service, str) else REFERENCES
        self.entity_rows, self.request_id, self.log_fields = entity_rows, request_id, log_fields
        self.response: OnlineResponse | None = None
        self.error: BaseException | None = None
        self.seconds = 0.0

    @property
    def label(self) -> str:
        """See the class."""
        return self.service if self.response is not None else self._label_of(self.service)

    def __enter__(self) -> Self:
        self.started_ns = time.time_ns()
        self._clock = time.perf_counter()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self.seconds = time.perf_counter() - self._clock
        self.error = error
        self._observers.request(self)


class Observer:
    """Watches clients. Take what you need: each method does nothing unless it is overridden. Threads share it."""

    def request(self, request: Observed) -> None:
        """A request was answered, or failed."""

    def reconnected(self) -> None:
        """An idle connection turned out dead, as after a restart of the server; the request goes on with another."""

    def plan_read(self, version: int) -> None:
        """The serving plan was read: at the first request, and when another is published."""

    def shadowed(self, service: str, *, differing: bool, failed: bool) -> None:
        """A request was read again as a prune plan in the stage `shadow` would have it (see `OnlineClient.shadow`).

        Requests with a deadline are not: a second read would cost the time that they do not have.
        """


class Observers:
    """The observers of a client; false when there are none."""

    __slots__ = ("_all", "_failed")

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._all = tuple(observers)
        self._failed: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._all)

    def request(self, request: Observed) -> None:
        """See Observer."""
        for observer in self._all:
            try:
                observer.request(request)
            except Exception:
                self._note(observer)

    def reconnected(self) -> None:
        """See Observer."""
        self._tell(lambda observer: observer.reconnected())

    def plan_read(self, version: int) -> None:
        """See Observer."""
        self._tell(lambda observer: observer.plan_read(version))

    def shadowed(self, service: str, *, differing: bool, failed: bool) -> None:
        """See Observer."""
        self._tell(lambda observer: observer.shadowed(service, differing=differing, failed=failed))

    def _tell(self, event: Callable[[Observer], None]) -> None:
        for observer in self._all:
            try:
                event(observer)
            except Exception:
                self._note(observer)

    def _note(self, observer: Observer) -> None:
        if id(observer) not in self._failed:
            self._failed.add(id(observer))
            _LOG.exception("the observer %s failed, and may go on failing; requests do not", type(observer).__name__)
