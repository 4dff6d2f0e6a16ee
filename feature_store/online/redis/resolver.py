"""From names of hosts to addresses. The system's resolver takes no time limit, so a thread waits for it.

While it does not answer, one thread waits for each name, however many connections need it and whatever their limits.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from feature_store.online.redis.limit import Limit


class Place(NamedTuple):
    """Where a server listens.

    Attributes:
        family: AF_INET or AF_INET6.
        address: the address for `connect`.
    """

    family: int
    address: tuple[Any, ...]


class _LookUp:
    """A question to the resolver that is under way, or answered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._calls: list[Callable[[], object]] = []
        self._found: list[Any] = []
        self._error: OSError | None = OSError("the resolver did not answer")

    def run(self, key: tuple[int, str]) -> None:
        """Ask the resolver, and tell all that wait."""
        try:
            self._found, self._error = socket.getaddrinfo(key[1], None, 0, socket.SOCK_STREAM), None
        except UnicodeError as error:
            self._error = OSError(f"{key[1]!r} is no host name ({error})")
        except OSError as error:
            self._error = error
        finally:
            self.end(key)

    def end(self, key: tuple[int, str], error: OSError | None = None) -> None:
        """End the question: who asks now begins another."""
        self._error = error or self._error
        _under_way.pop(key, None)
        with self._lock:
            self._ended.set()
        for call in self._calls:
            call()

    def when_ended(self, call: Callable[[], object]) -> None:
        """Have a function called at the end, from another thread, or now if it has ended."""
        with self._lock:
            if not self._ended.is_set():
                self._calls.append(call)
                return
        call()

    def wait(self, seconds: float) -> bool:
        """Wait, as a thread. Returns whether it has ended."""
        return self._ended.wait(seconds)

    def places(self, port: int) -> list[Place]:
        """The answer, for a port.

        Raises:
            OSError: the resolver knows no address.
        """
        if self._error is not None:
            raise OSError(str(self._error)) from self._error
        return [Place(family, (address[0], port, *address[2:])) for family, _, _, _, address in self._found]


# By process and name: a forked child does not have the threads of its parent.
_under_way: dict[tuple[int, str], _LookUp] = {}


def look_up(host: str, port: int, limit: Limit) -> list[Place]:
    """The addresses of a host, within a limit.

    Raises:
        OSError: there is no address.
        TimeoutError: the resolver does not answer in time.
    """
    places = _numeric(host, port)
    if places is not None:
        return places
    question = _asked(host)
    if not question.wait(limit.left()):
        raise TimeoutError
    return question.places(port)


async def look_up_in_loop(host: str, port: int) -> list[Place]:
    """As `look_up`, within the limit of the task."""
    import asyncio  # only clients of event loops pay for it

    places = _numeric(host, port)
    if places is not None:
        return places
    question, loop = _asked(host), asyncio.get_running_loop()
    ended = asyncio.Event()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(ended.set)

    question.when_ended(tell)
    await ended.wait()
    return question.places(port)


def _numeric(host: str, port: int) -> list[Place] | None:
    """The place of an address that needs no resolver; None for a name."""
    try:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        return None
    return [Place(family, address) for family, _, _, _, address in found]


def _asked(host: str) -> _LookUp:
    """The question for a host that is under way. The first that asks begins it."""
    key, own = (os.getpid(), host), _LookUp()
    question = _under_way.setdefault(key, own)
    if question is own:
        try:
            threading.Thread(target=own.run, args=(key,), name="feature-store-resolver", daemon=True).start()
        except RuntimeError as error:
            own.end(key, OSError(f"no thread can ask for the address of {host} ({error})"))
    return question
