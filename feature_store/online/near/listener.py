"""Receives from Redis the names of changed keys: for each server on a connection and in a thread of its own.

Redis sends invalidations as RESP3 pushes (`CLIENT TRACKING ON BCAST`): one for each write of a key with one of the
prefixes, before it acknowledges the write. A thread sends a probe (`sources.py`) every fifth of a lease. Each reply
renews the lease of the server.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from feature_store.errors import FeatureStoreError, StoreTimeoutError
from feature_store.online.redis.connection import Connection
from feature_store.online.redis.limit import Limit
from feature_store.online.redis.resp import is_push, packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.online.near.sources import Server, Source
    from feature_store.online.near.values import CachedValues

_LOG = logging.getLogger("feature_store.near_cache")
# Heartbeats in the time of a lease, and the most probes that a server answers in a second: with many buckets on a
# server there are fewer heartbeats.
_PINGS, _MOST_PROBES_PER_S = 5, 2000
# Seconds between two attempts to connect: the first pause, doubled each time up to the longest.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


class Listener:
    """Keeps cached values in step with Redis, from `listen` until `close` or until the values are dropped.

    Args:
        values: the cached values.
        source: where the values come from.

    Attributes:
        connections: those of the threads, one to each server that is heard.
    """

    def __init__(self, values: CachedValues, source: Source) -> None:
        self._values, self._source = values, source
        self._heard: tuple[tuple[Server, ...], tuple[bytes, ...]] = (), ()
        self._errors: dict[Server, FeatureStoreError] = {}
        self.connections: dict[Server, Connection] = {}
        self.forget()

    def forget(self) -> None:
        """Forget the threads, which a forked child does not have, and close the child's copies of their connections."""
        self._lock = threading.Lock()
        self._is_over: threading.Event | None = None
        connections, self.connections = self.connections, {}
        for connection in connections.values():
            connection.close()

    @property
    def is_listening(self) -> bool:
        """Whether threads listen, or try to."""
        return self._is_over is not None

    @property
    def error(self) -> FeatureStoreError | None:
        """Why a server is not heard at present; None when all are, or before the first attempt."""
        return next(iter(list(self._errors.values())), None)

    def note(self, server: Server, error: FeatureStoreError | None) -> None:
        """Record why a server is not heard; None when it is."""
        before = self._errors.get(server)
        if error is None:
            self._errors.pop(server, None)
            return
        if type(error) is not type(before):
            _LOG.warning("the near-cache is not used: %s", error)
        self._errors[server] = error

    def listen(self, servers: tuple[Server, ...], prefixes: Sequence[bytes]) -> None:
        """Receive from these servers the changes of all keys that start with one of the prefixes, from now on.

        If other servers were heard before, the values are dropped first.
        """
        heard = servers, tuple(prefixes)
        with self._lock:
            if self._is_over is not None and self._heard == heard:
                return
            self._stop()
            if not servers:
                return
            self._heard, is_over = heard, threading.Event()
            self._values.hear(servers)
            try:
                for server in servers:
                    run = _Run(self, self._values, self._source, server, heard[1], is_over)
                    threading.Thread(target=run, name="feature-store near-cache", daemon=True).start()
            except RuntimeError as error:  # no more threads, or the interpreter ends; the next request tries again
                is_over.set()
                self.note(servers[0], servers[0].endpoint.lost(f"no thread to listen in ({error})"))
                return
            self._is_over = is_over

    def close(self) -> None:
        """End the threads and their connections. The cached values are dropped."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._is_over is not None:
            self._is_over.set()  # the threads see it within a fifth of a lease
            self._is_over = None
            self._errors.clear()
            self._values.hear([None])


class _Run:
    """The work of a thread, which hears one server. It holds weak references to the values, so it ends when a client is
    dropped unclosed."""

    def __init__(
        self,
        listener: Listener,
        values: CachedValues,
        source: Source,
        server: Server,
        prefixes: tuple[bytes, ...],
        is_over: threading.Event,
    ) -> None:
        self._listener, self._values = weakref.ref(listener), weakref.ref(values)
        self._source, self._server, self._endpoint, self._is_over = source, server, server.endpoint, is_over
        self._ping_s = max(values.bound_s / _PINGS, server.replies / _MOST_PROBES_PER_S)
        self._clock = values.clock
        named = [part for prefix in prefixes for part in (b"PREFIX", prefix)]
        self._subscription = packed(b"CLIENT", b"TRACKING", b"ON", b"BCAST", *named)

    def __call__(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self._is_over.is_set() and self._values() is not None:
            error = self._listen_until_lost()
            if error is None:
                return
            self._note(error)
            if self._was_heard:
                pause = _FIRST_PAUSE_S
            # If another server has the keys, the next request listens to that one, and this thread ends.
            self._source.lost(self._server)
            self._is_over.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _listen_until_lost(self) -> FeatureStoreError | None:
        """Listen on one connection. Returns the error that ends it; None when the client no longer needs it."""
        self._was_heard = False
        connection = None
        try:
            connection = Connection(self._endpoint)
            self._show(connection)
            self._subscribe(connection)
            self._listen(connection)
        except FeatureStoreError as error:
            return error
        except Exception as error:  # a credential provider's own, say: without this, nobody would listen any more
            _LOG.debug("listening ended", exc_info=True)
            return self._endpoint.lost(f"{type(error).__name__} while listening")
        finally:
            self._show(None)
            if connection is not None:
                connection.close()
            values = self._values()
            if values is not None:
                values.suspend(self._is_over.is_set, self._server)
        return None

    def _show(self, connection: Connection | None) -> None:
        listener = self._listener()
        if listener is None or self._is_over.is_set():
            return
        if connection is None:
            listener.connections.pop(self._server, None)
        else:
            listener.connections[self._server] = connection

    def _subscribe(self, connection: Connection) -> None:
        for command in (packed(b"HELLO", b"3"), self._subscription):
            connection.send(command)
            reply = connection.reply()
            if isinstance(reply, Exception):
                raise self._endpoint.refused(reply)

    def _listen(self, connection: Connection) -> None:
        sent: deque[float] = deque()
        self._answered = 0
        ping_at = 0.0
        while not self._is_over.is_set():
            if time.monotonic() >= ping_at:
                now = self._clock()
                if sent and now - sent[0] > self._endpoint.timeout_s:
                    raise self._endpoint.timeout(self._endpoint.limit())
                connection.send(self._server.probe)
                sent.append(now)
                ping_at = time.monotonic() + self._ping_s
            try:
                reply = connection.reply(Limit(ping_at, self._ping_s))
            except StoreTimeoutError:
                continue
            if not self._take([reply, *connection.at_hand()], sent):
                return

    def _take(self, replies: Sequence[Any], sent: deque[float]) -> bool:
        """Take pushes and the replies to probes. Changes that arrive together cost little more than one change.

        Returns False when the values were dropped.
        """
        values = self._values()
        if values is None:
            return False
        changed: list[bytes] = []
        for reply in replies:
            if is_push(reply):
                if reply[0] == b"invalidate" and reply[1] is not None:
                    changed += reply[1]
                elif reply[0] == b"invalidate":
                    values.invalidate(None)
                continue
            self._check(reply)
            self._answered += 1
            if self._answered < self._server.replies:
                continue
            self._answered = 0
            values.invalidate(changed)
            changed = []
            self._was_heard = True
            values.renew(sent.popleft(), self._is_over.is_set, self._server)
            self._note(None)
        values.invalidate(changed)
        return True

    def _check(self, reply: Any) -> None:
        """Refuse the reply to a probe of a server that has not, or not all of, the keys."""
        if isinstance(reply, Exception):
            raise self._endpoint.refused(reply)
        if isinstance(reply, list) and reply[0] not in (None, b"master"):
            raise self._endpoint.lost("it is no master any more")

    def _note(self, error: FeatureStoreError | None) -> None:
        listener = self._listener()
        if listener is not None and not self._is_over.is_set():
            listener.note(self._server, error)
