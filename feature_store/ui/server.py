"""The pages behind a socket, until they are told to stop. uvicorn's one door."""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
from typing import TYPE_CHECKING

import uvicorn

from feature_store.errors import ConfigError
from feature_store.ui.app import create_app
from feature_store.ui.security import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feature_store.store import FeatureStore


def serve(
    store: FeatureStore, *, host: str, port: int, token: str | None, told: Callable[[str], None] = lambda _: None
) -> None:
    """Serve the pages of a project until SIGINT or SIGTERM.

    Args:
        store: the project.
        host, port: where; port 0: any that is free.
        token: what a visitor must show; None: nothing.
        told: is told the address once connections are accepted.

    Raises:
        ConfigError: the address cannot be listened on.
        RegistryError: the registry cannot be read.
    """
    with _bound(host, port) as bound:
        app = create_app(store, token=token, loopback=is_loopback(host))
        # The definitions stay: looking through them for garbage would hold a page up, for 0.3 s where there are 5,000.
        gc.collect()
        gc.freeze()
        # Requests are not logged: addresses hold what people look for, and a token once.
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, ws="none")
        server = uvicorn.Server(config)
        with _ended_by_signals(server):
            address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}/"
            told(f"{address}{'?token=…' if token else ''} shows {store.project}; Ctrl+C ends it")
            try:
                server.run([bound])
            finally:
                gc.unfreeze()


@contextlib.contextmanager
def _ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """SIGINT and SIGTERM end the server and nothing else: uvicorn raises them once more when it has ended, and what
    comes after it, such as the embedded server's end, would not happen."""

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
            stack.pop_all()  # it stays open
            return bound
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}", expected="a free address", got=str(error), hint="choose another --port"
        ) from None
