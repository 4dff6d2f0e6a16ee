"""Connections to DuckDB. Every query runs in one of them, so DuckDB's errors and Ctrl-C are mapped in one place."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import pyarrow as pa

from feature_store._extras import requires_extra

with requires_extra("local", "engine local"):
    import duckdb


# Error messages of DuckDB, and of Arrow reading from DuckDB, after a signal interrupted the query.
_INTERRUPTED = ("Query interrupted", "INTERRUPT Error")


@contextlib.contextmanager
def connected(
    failure: Callable[[str], BaseException], settings: Mapping[str, Any] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A new connection to an empty in-memory database. Its time zone is UTC.

    Args:
        failure: returns the error to raise for a message of DuckDB. If the query reads rows from Python, DuckDB has
            the reader's error only as text, so `failure` should return the original error.
        settings: settings of DuckDB, by name.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed while a query ran. DuckDB itself raises RuntimeError or one of its own
            errors in this case.
    """
    try:
        with duckdb.connect(config=dict(settings or {})) as connection:
            connection.execute("SET enable_progress_bar = false")  # else DuckDB prints a progress bar in notebooks
            connection.execute("SET TimeZone = 'UTC'")  # else times without a zone are in the machine's zone
            with _stopped_by_signals(connection):
                yield connection
    except duckdb.InterruptException:
        raise KeyboardInterrupt from None
    except duckdb.Error as error:
        raise failure(str(error)) from error
    except (RuntimeError, pa.ArrowException, OSError) as error:
        if not _was_interrupted(error):
            raise
        raise KeyboardInterrupt from None


@contextlib.contextmanager
def _stopped_by_signals(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Have Ctrl-C stop the threads of a query too.

    By itself, DuckDB stops only the thread that gets the signal, and waits until its other threads end their parts of
    the query. With two threads, a cross product went on for an hour, and the process heard no further signal.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # only the main thread gets signals
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        connection.interrupt()
        before(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _was_interrupted(error: BaseException) -> bool:
    return isinstance(error, pa.ArrowCancelled) or any(text in str(error) for text in _INTERRUPTED)


def first_line(message: str) -> str:
    """The first line of an error message of DuckDB. The lines after it repeat the query."""
    return message.partition("\n")[0]


def memory_hint(message: str) -> str:
    """A hint if the message says that DuckDB ran out of memory, else an empty string."""
    is_full = "Out of Memory" in message
    return "give it more: `local: {memory_limit: 2GB}` in feature_store.yaml" if is_full else ""
