"""Reads ahead: a thread receives rows from a database while the engine works on the rows before them."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator

import pyarrow as pa

# Batches that wait for the engine. They take 16 MB each.
_WAITING = 2
# How often the thread looks whether the engine has stopped, while no batch is taken.
_LOOK_S = 0.1


def read_ahead(batches: Iterator[pa.RecordBatch], cancel: Callable[[], None]) -> Iterator[pa.RecordBatch]:
    """The same batches, of which a thread reads the next ones meanwhile.

    Args:
        batches: the batches. Only the thread reads them.
        cancel: ends a read that is under way, when the reader stops early. It may be called from any thread.
    """
    ahead = _Ahead(batches)
    thread = threading.Thread(target=ahead.fill, name="feature-store read ahead", daemon=True)
    thread.start()
    try:
        while (found := ahead.waiting.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        ahead.is_stopped.set()
        if thread.is_alive():
            cancel()
        thread.join()


class _Ahead:
    """The batches that wait. After the last one comes None, or the error that ended the read."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self.waiting: queue.Queue[pa.RecordBatch | BaseException | None] = queue.Queue(_WAITING)
        self.is_stopped = threading.Event()

    def fill(self) -> None:
        """Read the batches, until there are no more or the reader stops."""
        try:
            for batch in self._batches:
                self._put(batch)
                if self.is_stopped.is_set():
                    return
        except BaseException as error:
            self._put(error)
        else:
            self._put(None)

    def _put(self, found: pa.RecordBatch | BaseException | None) -> None:
        while not self.is_stopped.is_set():
            with contextlib.suppress(queue.Full):
                self.waiting.put(found, timeout=_LOOK_S)
                return
