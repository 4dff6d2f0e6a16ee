"""A relay between a client and a server that can hold back replies, or invalidations."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit

from tests.online.proxy import Listener


class Relay(Listener):
    """Passes bytes on in both directions.

    Attributes:
        replies: while cleared, no reply is delivered on connections that read features.
        invalidations: while cleared, nothing is delivered on a near-cache's connection.
    """

    def __init__(self, url: str) -> None:
        if not url.startswith("unix://"):
            raise ValueError(f"{url}: a relay stands before one server, which listens on a Unix socket")
        self._server_path = urlsplit(url).path
        self.replies, self.invalidations = threading.Event(), threading.Event()
        self.replies.set()
        self.invalidations.set()
        self._hearing: list[socket.socket] = []
        super().__init__()

    def serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._server_path)
        self._open.append(server)
        said: list[bytes] = []
        threading.Thread(target=self._listen, args=(client, server, said), daemon=True).start()
        while piece := server.recv(1 << 16):
            gate = self.invalidations if any(b"TRACKING" in one for one in said) else self.replies
            gate.wait(60)
            client.sendall(piece)

    def break_hearing(self) -> None:
        """Close the connections on which near-caches hear of changes."""
        for hearing in self._hearing:
            with contextlib.suppress(OSError):
                hearing.shutdown(socket.SHUT_RDWR)

    def _listen(self, client: socket.socket, server: socket.socket, said: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(1 << 16):
                said[:] = [*said[:1], piece[:200]]
                if b"TRACKING" in piece:
                    said.insert(0, piece)
                    self._hearing.append(client)
                server.sendall(piece)
            server.shutdown(socket.SHUT_RDWR)
