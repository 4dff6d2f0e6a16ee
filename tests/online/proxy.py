"""A proxy in front of a real server that acts between commands, and servers that misbehave."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import hiredis

if TYPE_CHECKING:
    from collections.abc import Callable


class Proxy:
    """Passes on one command after the other, each when the reply to the one before is there.

    Attributes:
        before: called with each command before the server gets it.
        drip_s: seconds between each `piece` bytes of a reply; 0: replies go as a whole.
        connections: how many were accepted.
    """

    def __init__(self, url: str) -> None:
        self._path = urlsplit(url).path
        self.before: Callable[[list[bytes]], None] = lambda command: None
        self.drip_s, self.piece, self.connections = 0.0, 10, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for open_socket in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._path)
            self._open += [client, server]
            threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        commands = hiredis.Reader()
        with contextlib.suppress(OSError), client, server:
            while piece := client.recv(1 << 16):
                commands.feed(piece)
                while (command := commands.gets()) is not False:
                    self.before(command)
                    server.sendall(hiredis.pack_command(tuple(command)))
                    self._deliver(client, _reply(server))

    def _deliver(self, client: socket.socket, reply: bytes) -> None:
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
