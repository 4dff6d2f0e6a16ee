"""Observers of a client's requests: metrics, traces, and the served log.

A client calls its observers in the thread of the request, or on its event loop. It calls them after the answer came and
before the caller gets it, so their time adds to the request's. An exception of an observer is logged once and never
reaches the caller.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from feature_store.online.response import OnlineResponse

# The name of a service that is made of feature references; no declared service can have it.
REFERENCES = "(references)"
# The metrics label of a service that the plan does not have.
UNKNOWN = "(unknown)"
_LOG = logging.getLogger("feature_store.observers")


class Observed:
    """One request, from its first step to its answer. Reads after a new plan and shadow reads belong to it.

    Attributes:
        service: the service's name as given; REFERENCES when feature references were given.
        label: the service's name as a label of metrics: UNKNOWN unless the client's plan has the service.
        entity_rows: as given.
        started_ns: the time when the request started, nanoseconds since 1970.
        seconds: the duration of the request. Values are decoded later, when the caller reads them.
        response: the response; None when the request failed.
        error: the error; None when the request succeeded.
        request_id, log_fields: as given.
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
    """Watches clients. Override the methods that you need; the others do nothing. Threads share an observer."""

    def request(self, request: Observed) -> None:
        """A request was answered or failed."""

    def reconnected(self) -> None:
        """An idle connection was dead, as after a restart of the server. The request goes on with another."""

    def hedged(self, outcome: str, load: float) -> None:
        """A server of a shard was slow, and another server was asked, too, or would have been.

        Args:
            outcome: `won` or `lost`: the other server answered first, or did not. `no_budget`: it was not asked, since
                hedges would become more than 5 % of the load. `slow_store`: the other servers are slow, too.
            load: the bytes that the client sent for hedges so far, as a share of the bytes of its requests to servers.
        """

    def plan_read(self, version: int) -> None:
        """The serving plan was read: at the first request, and after each publication."""

    def shadowed(self, service: str, *, differing: bool, failed: bool) -> None:
        """A request was read in shadow, because a prune plan is in the stage `shadow`; see `OnlineClient.shadow`.

        Requests with a deadline are not read in shadow, because a second read takes time.
        """


class Observers:
    """The observers of a client. `bool()` of it is False when there are none."""

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

    def hedged(self, outcome: str, load: float) -> None:
        """See Observer."""
        self._tell(lambda observer: observer.hedged(outcome, load))

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
