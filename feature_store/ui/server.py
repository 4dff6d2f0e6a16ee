"""Serves the pages until a signal. The only module that imports uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from feature_store.errors import ConfigError
from feature_store.project.store import FeatureStore
from feature_store.ui.app import create_app
from feature_store.ui.security import is_loopback, refuse_weak

# The most connections. A browser opens six. Further ones are answered with 503.
_MOST_CONNECTIONS = 256
# Seconds for a whole request to arrive, from the connection or from the end of the last answer.
REQUEST_S = 10.0


class PatientProtocol(H11Protocol):
    """uvicorn's protocol, with a limit: it closes the connection if a request does not arrive within REQUEST_S."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(transport)
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Called by uvicorn when bytes have come."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:  # the whole request has arrived
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Called by uvicorn."""
        self._expect_request()
        super().on_response_complete()

    def _expect_request(self) -> None:
        self._stop_waiting()
        self._late = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def serve(
    store: FeatureStore,
    *,
    host: str,
    port: int,
    token: str | None,
    shows_token: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve the pages of a project until SIGINT or SIGTERM.

    Args:
        store: the project.
        host, port: the address to listen on; port 0: any free port.
        token: the token that visitors must present; None: no token is needed.
        shows_token: whether the printed address contains the token. It should for a token that was made for this
            server, so that a click opens the pages, and not for a secret of the environment.
        say: called with a line that has the address, once connections are accepted.

    Raises:
        ConfigError: the address is not available, or the token is too short.
        RegistryError: the registry cannot be read.
    """
    if token is not None:
        refuse_weak(token)
    with _bound(host, port) as bound:
        app = create_app(store, token=token, loopback=is_loopback(host))
        # The definitions stay in memory. Scanning 5,000 of them for garbage would delay a page by 0.3 s.
        gc.collect()
        gc.freeze()
        # Requests are not logged: addresses contain searches, and once the token.
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            limit_concurrency=_MOST_CONNECTIONS,
            http=PatientProtocol,
        )
        server = uvicorn.Server(config)
        with _ended_by_signals(server):
            address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}/"
            shown = "" if token is None else f"?{urlencode({'token': token})}" if shows_token else "?token=…"
            say(f"{address}{shown} shows {store.project}. Press Ctrl-C to stop.")
            try:
                server.run([bound])
            finally:
                gc.unfreeze()


@contextlib.contextmanager
def _ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """Let SIGINT and SIGTERM stop only the server. uvicorn would raise them again after it has stopped, which would
    skip the cleanup that follows, such as stopping the embedded server."""

    def end(*_: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as stack:
            bound = stack.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(128)
            stack.pop_all()  # keep the socket open
            return bound
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}", expected="a free address", got=str(error), hint="choose another --port"
        ) from None
