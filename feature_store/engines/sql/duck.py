"""DuckDB's one door: each query runs in a connection from here, which maps DuckDB's errors and hears Ctrl-C."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from feature_store._extras import requires_extra

with requires_extra("local", "engine local"):
    import duckdb


# Messages of DuckDB, and of Arrow on DuckDB's stream, for a query that a signal ended.
_INTERRUPTED = ("Query interrupted", "INTERRUPT Error")


@contextlib.contextmanager
def connected(
    failure: Callable[[str], BaseException], settings: Mapping[str, Any] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own to an empty database, in UTC.

    Args:
        failure: makes the error to raise from DuckDB's message. A caller whose query reads rows from Python returns
            the error that the reader raised, which DuckDB has only as text.
        settings: DuckDB's own, by name.

    Raises:
        KeyboardInterrupt: Ctrl-C came while a query ran. DuckDB makes a RuntimeError or an error of its own of it.
    """
    try:
        with duckdb.connect(config=dict(settings or {})) as connection:
            connection.execute("SET enable_progress_bar = false")  # in a notebook it would print one
            connection.execute("SET TimeZone = 'UTC'")  # else times without a zone would be the machine's
            yield connection
    except duckdb.InterruptException:
        raise KeyboardInterrupt from None
    except duckdb.Error as error:
        raise failure(str(error)) from error
    except (RuntimeError, pa.ArrowException, OSError) as error:
        if not _was_interrupted(error):
            raise
        raise KeyboardInterrupt from None


def _was_interrupted(error: BaseException) -> bool:
    return isinstance(error, pa.ArrowCancelled) or any(text in str(error) for text in _INTERRUPTED)


def first_line(message: str) -> str:
    """The first line of DuckDB's message; the query follows it."""
    return message.partition("\n")[0]


def memory_hint(message: str) -> str:
    """A hint when DuckDB's memory is full; empty for other messages."""
    is_full = "Out of Memory" in message
    return "give it more: `local: {memory_limit: 2GB}` in feature_store.yaml" if is_full else ""
