"""Receives from Redis the names of changed keys, on a connection and in a thread of its own.

Redis sends invalidations as RESP3 pushes (`CLIENT TRACKING ON BCAST`): one for each write of a key with one of the
prefixes, before it acknowledges the write. The thread sends a PING every fifth of a lease. Each reply renews the lease.
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

    from feature_store.online.near.values import CachedValues
    from feature_store.online.redis.endpoint import Endpoint

_LOG = logging.getLogger("feature_store.near_cache")
_PING = b"*1\r\n$4\r\nPING\r\n"
# PINGs in the time of a lease.
_PINGS = 5
# Seconds between two attempts to connect: the first pause, doubled each time up to the longest.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


class Listener:
    """Keeps cached values in step with a Redis server, from `listen` until `close` or until the values are dropped.

    Args:
        values: the cached values.
        endpoint: the server that has the keys.

    Attributes:
        error: why the server is not heard at present; None when it is, or before the first attempt.
        connection: the one of the thread; None when there is none.
    """

    def __init__(self, values: CachedValues, endpoint: Endpoint) -> None:
        self._values, self._endpoint = values, endpoint
        self._prefixes: tuple[bytes, ...] = ()
        self.error: FeatureStoreError | None = None
        self.connection: Connection | None = None
        self.forget()

    def forget(self) -> None:
        """Forget the thread, which a forked child does not have, and close the child's copy of its connection."""
        self._lock = threading.Lock()
        self._is_over: threading.Event | None = None
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    @property
    def is_listening(self) -> bool:
        """Whether a thread listens, or tries to."""
        return self._is_over is not None

    def listen(self, prefixes: Sequence[bytes]) -> None:
        """Receive the changes of all keys that start with one of these prefixes, from now on."""
        with self._lock:
            if self._is_over is not None and self._prefixes == tuple(prefixes):
                return
            self._stop()
            self._prefixes, is_over = tuple(prefixes), threading.Event()
            run = _Run(self, self._values, self._endpoint, self._prefixes, is_over)
            try:
                threading.Thread(target=run, name="feature-store near-cache", daemon=True).start()
            except RuntimeError as error:  # no more threads, or the interpreter ends; the next request tries again
                self.error = self._endpoint.lost(f"no thread to listen in ({error})")
                return
            self._is_over = is_over

    def close(self) -> None:
        """End the thread and its connection. The cached values are dropped."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._is_over is not None:
            self._is_over.set()  # the thread sees it within a fifth of a lease
            self._is_over = None
            self._values.suspend()


class _Run:
    """The work of the thread. It holds weak references to the values, so it ends when a client is dropped unclosed."""

    def __init__(
        self,
        listener: Listener,
        values: CachedValues,
        endpoint: Endpoint,
        prefixes: tuple[bytes, ...],
        is_over: threading.Event,
    ) -> None:
        self._listener, self._values = weakref.ref(listener), weakref.ref(values)
        self._endpoint, self._is_over = endpoint, is_over
        self._ping_s, self._clock = values.bound_s / _PINGS, values.clock
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
            if values is not None and not self._is_over.is_set():
                values.suspend()
        return None

    def _show(self, connection: Connection | None) -> None:
        listener = self._listener()
        if listener is not None and not self._is_over.is_set():
            listener.connection = connection

    def _subscribe(self, connection: Connection) -> None:
        for command in (packed(b"HELLO", b"3"), self._subscription):
            connection.send(command)
            reply = connection.reply()
            if isinstance(reply, Exception):
                raise self._endpoint.refused(reply)

    def _listen(self, connection: Connection) -> None:
        sent: deque[float] = deque()
        ping_at = 0.0
        while not self._is_over.is_set():
            if time.monotonic() >= ping_at:
                now = self._clock()
                if sent and now - sent[0] > self._endpoint.timeout_s:
                    raise self._endpoint.timeout(self._endpoint.limit())
                connection.send(_PING)
                sent.append(now)
                ping_at = time.monotonic() + self._ping_s
            try:
                reply = connection.reply(Limit(ping_at, self._ping_s))
            except StoreTimeoutError:
                continue
            if not self._take([reply, *connection.at_hand()], sent):
                return

    def _take(self, replies: Sequence[Any], sent: deque[float]) -> bool:
        """Take pushes and the replies to PINGs. Changes that arrive together cost little more than one change.

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
            if isinstance(reply, Exception):
                raise self._endpoint.refused(reply)
            values.invalidate(changed)
            changed = []
            self._was_heard = True
            values.renew(sent.popleft(), self._is_over.is_set)
            self._note(None)
        values.invalidate(changed)
        return True

    def _note(self, error: FeatureStoreError | None) -> None:
        listener = self._listener()
        if listener is None or listener.error is error:
            return
        if error is not None and type(error) is not type(listener.error):
            _LOG.warning("the near-cache is not used: %s", error)
        listener.error = error
