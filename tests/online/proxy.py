"""A proxy before a real server, which can act between commands, and servers that misbehave."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import hiredis

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Certificates:
    """A server's certificate, and the file of the authority that signed it."""

    context: ssl.SSLContext
    authority: Path


class Listener:
    """A listening socket of one transport. Subclasses decide what to do with connections.

    Attributes:
        transport: `tcp`, `tls` or `unix`.
        connections: how many were accepted.
    """

    def __init__(self, transport: str = "tcp", certificates: Certificates | None = None, backlog: int = 100) -> None:
        self.transport, self._certificates, self.connections = transport, certificates, 0
        self._folder = Path(tempfile.mkdtemp(prefix="fs-test-"))
        self._path = self._folder / "listener.sock"
        self._listener = socket.socket(socket.AF_UNIX if transport == "unix" else socket.AF_INET)
        self._listener.bind(str(self._path) if transport == "unix" else ("127.0.0.1", 0))
        self._listener.listen(backlog)
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, user: str = "", query: str = "") -> str:
        """The URL at which it listens; for TLS, the URL names the authority to trust."""
        at = f"{user}@" if user else ""
        if self.transport == "unix":
            return f"unix://{at}{self._path}?{query}"
        port = self._listener.getsockname()[1]
        if self.transport == "tcp":
            return f"redis://{at}127.0.0.1:{port}?{query}"
        assert self._certificates is not None
        return f"rediss://{at}localhost:{port}?ssl_ca_certs={self._certificates.authority}&{query}"

    def close(self) -> None:
        for open_socket in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()
        shutil.rmtree(self._folder)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(client)
            threading.Thread(target=self._handle, args=(client,), daemon=True).start()

    def _handle(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.transport == "tls":
                assert self._certificates is not None
                client = self._certificates.context.wrap_socket(client, server_side=True)
                self._open.append(client)
            self.serve(client)

    def serve(self, client: socket.socket) -> None:
        raise NotImplementedError


class Silent(Listener):
    """Accepts connections and never sends a byte, not even in a TLS handshake."""

    def _handle(self, client: socket.socket) -> None:
        pass


class Full(Listener):
    """Does not accept. Its queue is full, so that a client waits while it connects."""

    def __init__(self) -> None:
        super().__init__(backlog=0)
        self._fill: list[socket.socket] = []
        for _ in range(4):
            filling = socket.socket()
            filling.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filling.connect(self._listener.getsockname())
            self._fill.append(filling)

    def _accept(self) -> None:
        pass

    def close(self) -> None:
        for filling in self._fill:
            filling.close()
        super().close()


class FirstBytes(Listener):
    """Notes the first bytes of each connection, and closes it."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        super().__init__()

    def serve(self, client: socket.socket) -> None:
        self.seen.append(client.recv(1 << 12))
        client.close()


class Proxy(Listener):
    """Passes on one command after the other, each after the reply to the command before.

    Attributes:
        before: called with each command before the server gets it.
        drip_s: seconds between pieces of a reply, of `piece` bytes each; 0: replies are sent whole.
        delivered: how many bytes of replies were sent to clients.
    """

    def __init__(self, url: str, transport: str = "tcp", certificates: Certificates | None = None) -> None:
        if not url.startswith("unix://"):
            raise ValueError(f"{url}: a proxy stands before one server, which listens on a Unix socket")
        self._server_path = urlsplit(url).path
        self.before: Callable[[list[bytes]], Any] = lambda command: None
        self.drip_s, self.piece = 0.0, 10
        self.delivered, self._room = 0, -1
        self._goes_on = threading.Event()
        super().__init__(transport, certificates)

    def serve(self, client: socket.socket) -> None:
        commands = hiredis.Reader()
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._server_path)
        self._open.append(server)
        with client, server:
            while piece := client.recv(1 << 16):
                commands.feed(piece)
                while (command := commands.gets()) is not False:
                    self.before(command)
                    server.sendall(hiredis.pack_command(tuple(command)))
                    self._deliver(client, _reply(server))

    def stop_after(self, count: int) -> None:
        """Deliver `count` more bytes of replies, then nothing until `go_on`."""
        self._goes_on.clear()
        self._room = count

    def go_on(self) -> None:
        """Deliver the held bytes, and all later replies."""
        self._room = -1
        self._goes_on.set()

    def _deliver(self, client: socket.socket, reply: bytes) -> None:
        self.delivered += len(reply)
        if 0 <= self._room < len(reply):
            client.sendall(reply[: self._room])
            reply, self._room = reply[self._room :], 0
            self._goes_on.wait(60)
        elif self._room > 0:
            self._room -= len(reply)
        if not self.drip_s:
            client.sendall(reply)
            return
        for at in range(0, len(reply), self.piece):
            client.sendall(reply[at : at + self.piece])
            time.sleep(self.drip_s)


def _reply(server: socket.socket) -> bytes:
    reader, reply = hiredis.Reader(), b""
    while True:
        piece = server.recv(1 << 16)
        if not piece:
            raise ConnectionError
        reply += piece
        reader.feed(piece)
        if reader.gets() is not False:
            return reply
