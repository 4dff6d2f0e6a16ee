"""Hedged reads: a server that is slow is not waited for, since another server of its shard has the same keys.

A request that its server has not answered within the p95 of the server's recent requests is sent to another server,
too, and the first answer counts. Two rules keep hedges from adding to the load of a store that is slow as a whole:

- Budget: hedges are at most SHARE of the bytes that a client sends. A request earns SHARE of its bytes, and a hedge
  spends all of its bytes. The credit fades, so a quiet hour pays for no burst.
- A server gets one hedge at a time, and none while another request waits for it for longer than its p95.

There is no I/O here. A client of threads and a client of an event loop have one object each.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from feature_store.online.observer import Observers
    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.resp import Command

# The most bytes of hedges, as a share of the bytes of requests.
SHARE = 0.05
# The credit of a steady load is that of this many of its requests: enough for 100 hedges.
_FADES_AFTER = 2000
QUANTILE = 0.95
# A server's p95 is known after _FEWEST answers. It is computed from the last _RECENT, after each _STEP further answers:
# sorting 256 numbers takes 12 µs, 0.4 µs an answer.
_RECENT, _FEWEST, _STEP = 256, 64, 32
# No hedge is sent earlier. A blocking client waits for milliseconds, and a hedge costs both servers and the client
# about 0.2 ms.
_SOONEST_S = 0.001
WON, LOST, NO_BUDGET, SLOW_STORE = "won", "lost", "no_budget", "slow_store"


class _Times:
    """The times of a server's recent answers, in seconds."""

    __slots__ = ("count", "p95", "recent")

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=_RECENT)
        self.count = 0
        self.p95: float | None = None

    def add(self, seconds: float) -> None:
        self.recent.append(seconds)
        self.count += 1
        if self.count % _STEP == 0 and self.count >= _FEWEST:
            ordered = sorted(self.recent)
            self.p95 = max(_SOONEST_S, ordered[int(QUANTILE * len(ordered))])


class Hedges:
    """The times of servers, the budget of a client, and the hedges that are under way.

    Args:
        observers: the client's observers, which learn the outcome of each hedge.
    """

    def __init__(self, observers: Observers) -> None:
        self._observers = observers
        self._times: dict[Endpoint, _Times] = {}
        self._credit = 0.0
        # The bytes of all requests, and of all hedges.
        self._asked = self._spent = 0
        # Per server, how many requests are late and how many hedges are under way.
        self._waited: dict[Endpoint, int] = {}
        self._lock = threading.Lock()

    def after(self, server: Endpoint) -> float | None:
        """The seconds after which a request to a server is hedged: its p95, or the longest p95 of the other servers
        while its own is not known. None while no p95 is known."""
        times = self._times.get(server)
        if times is not None and times.p95 is not None:
            return times.p95
        return max([one.p95 for one in list(self._times.values()) if one.p95 is not None], default=None)

    def asked(self, commands: Sequence[Command]) -> None:
        """Record that a request is sent to a server, which earns credit for hedges."""
        size = size_of(commands)
        with self._lock:
            self._asked += size
            self._credit += SHARE * size - self._credit / _FADES_AFTER

    def answered(self, server: Endpoint, seconds: float) -> None:
        """Record the time of an answer. If a hedge won, it is the time until then: the server needed more."""
        times = self._times.get(server)
        if times is None:
            times = self._times.setdefault(server, _Times())
        times.add(seconds)

    def keep(self, servers: Container[Endpoint]) -> None:
        """Forget the times of other servers."""
        for server in [one for one in list(self._times) if one not in servers]:
            self._times.pop(server, None)

    def begin(self, slow: Endpoint, others: Sequence[Endpoint], size: int) -> Endpoint | None:
        """The first of some servers that gets a hedge, which is paid for; None when none does. `end` must follow.

        Args:
            slow: the server that is late. It gets no hedge of other requests until `end`.
            others: the servers that have the same keys, the best first.
            size: the bytes of the commands.
        """
        with self._lock:
            target = next((one for one in others if not self._waited.get(one)), None)
            is_paid = target is not None and self._credit >= size
            if is_paid:
                self._credit -= size
                self._spent += size
            self._count(slow, 1)
            if target is not None and is_paid:
                self._count(target, 1)
        if target is not None and is_paid:
            return target
        if others:
            self._tell(SLOW_STORE if target is None else NO_BUDGET)
        return None

    def end(self, slow: Endpoint, target: Endpoint | None, *, has_won: bool = False) -> None:
        """Record that a late request has ended.

        Args:
            slow, target: the server that was late, and the server that got the hedge, if any.
            has_won: whether the answer to the hedge counted.
        """
        with self._lock:
            self._count(slow, -1)
            if target is not None:
                self._count(target, -1)
        if target is not None:
            self._tell(WON if has_won else LOST)

    @property
    def load(self) -> float:
        """The bytes of hedges, as a share of the bytes of requests."""
        return self._spent / self._asked if self._asked else 0.0

    def _count(self, server: Endpoint, change: int) -> None:
        left = self._waited.get(server, 0) + change
        if left:
            self._waited[server] = left
        else:
            self._waited.pop(server, None)

    def _tell(self, outcome: str) -> None:
        self._observers.hedged(outcome, self.load)


def size_of(commands: Sequence[Command]) -> int:
    """The bytes of commands. A server's work grows with them."""
    if len(commands) == 1:
        return len(commands[0].data)
    return sum([len(command.data) for command in commands])
