"""The embedded server: the project's own Valkey or Redis, used when no URL is configured.

All processes that use the project share it: the first starts it, and the last stops it. Kernel locks alone tell which
processes use it, so a killed process leaves no stale state behind. In `<folder>/.feature_store/online/`:

| file | lock | held by |
|---|---|---|
| `start.lock` | exclusive | the process that starts or stops the server, while it does |
| `lease.lock` | shared | each process that uses the server, until it ends. Exclusive: no process uses the server |
| `server.lock` | exclusive | the server, which inherits it and holds it while it runs. Contains its socket and pid |
| `persistent` | | exists while the server is to outlive its users |
| `online.sock`, `server.log`, `appendonlydir/` | | the server's |
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import json
import os
import signal
import stat
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feature_store._private_files import private_folder
from feature_store.errors import EmbeddedServerError, OnlineStoreError
from feature_store.online.redis import embedded_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The kernel's limit on a Unix socket's path is 107 bytes on Linux and 103 on macOS.
MAX_SOCKET_PATH_BYTES = 103
# A server answers its first PING in 20–50 ms; a busy machine may take a hundred times as long.
START_TIMEOUT_S = 15.0
# Reading the data of a large store: about 10 s a gigabyte.
LOAD_TIMEOUT_S = 600.0
POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The state of the embedded server.

    Attributes:
        running: whether its process runs.
        persistent: whether it stays when its last user ends.
        data_dir: the folder of its data and log.
        socket: the Unix socket that it listens on; empty when it does not run.
        url: the URL of the socket, as redis-py reads it; empty when it does not run.
        pid: its process id; None when it does not run.
        version: such as `valkey 9.1.0`; empty when it does not answer.
        memory_bytes: bytes of memory that its data use; 0 when it does not answer.
        keys: how many keys it holds; 0 when it does not answer.
    """

    running: bool
    persistent: bool
    data_dir: Path
    socket: str = ""
    url: str = ""
    pid: int | None = None
    version: str = ""
    memory_bytes: int = 0
    keys: int = 0


class EmbeddedServer:
    """The server of one project folder. Safe for threads, processes and forks.

    Args:
        folder: the folder of feature_store.yaml.
    """

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder.expanduser().resolve() / ".feature_store" / "online"
        self._lease: int | None = None
        self._mutex = threading.RLock()

    def ensure(self) -> str:
        """Use the server: start it unless it runs, and keep it until `release`, or until this process ends.

        Returns:
            The URL of the server.

        Raises:
            EmbeddedServerError: there is no server binary, or the server does not start. The error shows the end of its
                log.
        """
        with self._mutex, self._errors():
            known = self._record()
            if self._lease is not None and known.socket and embedded_process.ping(known.socket) == b"+PONG":
                return embedded_process.url_of(known.socket)
            self._prepare()
            with self._starting():
                self._take_lease()
                return embedded_process.url_of(self._start())

    def start(self, *, persistent: bool = False) -> str:
        """As `ensure`. A persistent server stays until `stop`, through crashes and restarts of its users.

        Returns:
            The URL of the server.

        Raises:
            EmbeddedServerError: as `ensure`.
        """
        if persistent:
            with self._errors():
                self._prepare()
                self._persistent.touch()
        return self.ensure()

    def release(self) -> None:
        """Stop using the server. The last user stops it, unless it is persistent. Called when the process ends.

        Raises:
            EmbeddedServerError: the server does not stop.
        """
        with self._mutex, self._errors():
            if self._lease is None:
                return
            atexit.unregister(self._release_at_exit)
            if not self.data_dir.is_dir():  # the project was deleted, and the locks with it
                self._drop_lease()
                return
            with self._starting():
                self._drop_lease()
                if not self._persistent.exists() and self._is_unused():
                    self._stop()

    def stop(self) -> None:
        """Stop the server, even if it has users or is persistent. Its data stay. Does nothing when it does not run.

        Raises:
            EmbeddedServerError: the server does not stop.
        """
        with self._mutex, self._errors():
            if not self.data_dir.is_dir():
                return
            with self._starting():
                self._persistent.unlink(missing_ok=True)
                self._stop()
                self._drop_lease()
                atexit.unregister(self._release_at_exit)

    def status(self) -> ServerStatus:
        """Look at the server without using or starting it.

        Raises:
            EmbeddedServerError: the folder of the server cannot be read.
        """
        with self._errors():
            is_persistent = self._persistent.exists()
            record = self._record()
            if not self._is_alive():
                return ServerStatus(running=False, persistent=is_persistent, data_dir=self.data_dir)
            return ServerStatus(
                running=True,
                persistent=is_persistent,
                data_dir=self.data_dir,
                socket=record.socket,
                url=embedded_process.url_of(record.socket),
                **{"pid": record.pid} | embedded_process.info(record.socket),
            )

    @property
    def _persistent(self) -> Path:
        return self.data_dir / "persistent"

    @property
    def _server_lock(self) -> Path:
        return self.data_dir / "server.lock"

    @property
    def _log(self) -> Path:
        return self.data_dir / "server.log"

    def _prepare(self) -> None:
        private_folder(self.data_dir)
        self.data_dir.chmod(0o700)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, OnlineStoreError):
                raise
            raise EmbeddedServerError(
                f"embedded server in {self.data_dir}", expected="a folder and locks that can be used", got=str(error)
            ) from error

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        """Hold start.lock, so that the server is started and stopped by one process at a time."""
        lock = _open(self.data_dir / "start.lock")
        try:
            _await(
                lambda: _try_lock(lock, fcntl.LOCK_EX),
                LOAD_TIMEOUT_S,
                lambda: EmbeddedServerError(
                    f"embedded server in {self.data_dir}",
                    expected="another process to finish starting or stopping it",
                    got=f"none that did in {LOAD_TIMEOUT_S:g} s",
                ),
            )
            yield
        finally:
            # Unlock it, not only close it: a process that was forked meanwhile has a copy, which would keep the lock.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def _take_lease(self) -> None:
        if self._lease is None:
            self._lease = _open(self.data_dir / "lease.lock")
            # No process can hold it exclusively: that takes start.lock, which this process holds.
            fcntl.flock(self._lease, fcntl.LOCK_SH)
            atexit.register(self._release_at_exit)

    def _drop_lease(self) -> None:
        # Close it, do not unlock it: a forked child shares the lock, and keeps it for as long as it lives.
        if self._lease is not None:
            os.close(self._lease)
            self._lease = None

    def _release_at_exit(self) -> None:
        with contextlib.suppress(EmbeddedServerError):  # the process ends; the next use repairs
            self.release()

    def _is_unused(self) -> bool:
        lease = _open(self.data_dir / "lease.lock")
        try:
            return _try_lock(lock=lease, kind=fcntl.LOCK_EX)
        finally:
            os.close(lease)

    def _is_alive(self) -> bool:
        try:
            lock = os.open(self._server_lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _try_lock(lock, fcntl.LOCK_SH)
        finally:
            os.close(lock)

    def _record(self) -> _Record:
        try:
            document = json.loads(self._server_lock.read_bytes())
            return _Record(str(document["socket"]), document["pid"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # no file, or a file cut short by a crash
            return _Record("", None)

    def _start(self) -> str:
        if self._is_alive():
            path = self._record().socket
            if self._await_pong(path, 0):
                return path
        path = self._socket_path()
        Path(path).unlink(missing_ok=True)  # the socket of a server that was killed
        log_start = self._log.stat().st_size if self._log.exists() else 0
        self._spawn(path)
        if not self._await_pong(path, log_start):
            raise self._did_not_start(log_start)
        return path

    def _await_pong(self, path: str, log_start: int) -> bool:
        """Wait until the server is ready. Returns False when the server ends before."""

        def answer_or_end() -> bytes:
            answer = embedded_process.ping(path)
            return answer if answer or self._is_alive() else b"ended"

        def failure() -> EmbeddedServerError:
            return self._did_not_start(log_start)

        _await(answer_or_end, START_TIMEOUT_S, failure)
        # `-LOADING` is an answer too; then wait for `+PONG`.
        _await(lambda: answer_or_end() in (b"+PONG", b"ended"), LOAD_TIMEOUT_S, failure)
        return answer_or_end() == b"+PONG"

    def _spawn(self, path: str) -> None:
        self._server_lock.unlink(missing_ok=True)  # a new file: no stray copy of the old lock can hold it
        lock = _open(self._server_lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _write(lock, _Record(path, None))
            _write(lock, _Record(path, embedded_process.spawn(self.data_dir, path, self._log, lock)))
        finally:
            os.close(lock)  # the server's own copy keeps it locked

    def _stop(self) -> None:
        if self._is_alive():
            record = self._record()
            # With an append-only file, SHUTDOWN writes and syncs it; SAVE would add a snapshot that nothing reads.
            if not embedded_process.shut_down(record.socket) and record.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record.pid, signal.SIGTERM)
            _await(
                lambda: not self._is_alive(), embedded_process.STOP_TIMEOUT_S, lambda: self._did_not_stop(record.pid)
            )
        path = self._record().socket
        if path:
            Path(path).unlink(missing_ok=True)
        self._server_lock.unlink(missing_ok=True)
        embedded_process.reap()

    def _socket_path(self) -> str:
        path = str(self.data_dir / "online.sock")
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
            return path
        digest = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        runtime = Path(tempfile.gettempdir()) / f"fs-{digest}"
        _make_private(runtime)
        path = str(runtime / "online.sock")
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise EmbeddedServerError(
                path,
                expected=f"a socket path of at most {MAX_SOCKET_PATH_BYTES} bytes",
                hint="set TMPDIR to a shorter one",
            )
        return path

    def _did_not_start(self, log_start: int) -> EmbeddedServerError:
        embedded_process.reap()
        return EmbeddedServerError(
            f"embedded server in {self.data_dir}",
            expected="it to start and answer",
            got="\n".join(["the last lines of its log:", *embedded_process.tail(self._log, log_start)]),
            hint=f"the whole log is {self._log}",
        )

    def _did_not_stop(self, pid: int | None) -> EmbeddedServerError:
        return EmbeddedServerError(
            f"embedded server in {self.data_dir}",
            expected=f"process {pid} to end within {embedded_process.STOP_TIMEOUT_S:g} s",
            got="still running",
            hint=f"look at {self._log}; if it hangs, end it with `kill -9 {pid}`: no more than the last second is lost",
        )


@dataclass(frozen=True, slots=True)
class _Record:
    """The content of server.lock: the socket, and the pid once the server has one."""

    socket: str
    pid: int | None


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _write(lock: int, record: _Record) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps({"socket": record.socket, "pid": record.pid}).encode(), 0)


def _try_lock(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _await(is_done: Callable[[], object], timeout_s: float, error: Callable[[], EmbeddedServerError]) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() > deadline:
            raise error()
        time.sleep(POLL_S)


def _make_private(folder: Path) -> None:
    """Make a folder that only this user can enter, or check that an existing folder is one."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or stat.S_IMODE(about.st_mode) & 0o077:
        raise EmbeddedServerError(
            str(folder),
            expected="a folder of this user's, closed to others (mode 0700)",
            got=f"mode {stat.filemode(about.st_mode)} of user {about.st_uid}",
            hint="remove it, or set TMPDIR to a folder of your own",
        )
