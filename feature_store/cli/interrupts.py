"""Ctrl-C: ends the process at once while modules are imported, and raises KeyboardInterrupt while a command runs."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

from feature_store.cli.exit_codes import INTERRUPTED


@contextlib.contextmanager
def interrupts_end_at_once() -> Iterator[None]:
    """Make Ctrl-C end the process at once. For imports, which leave nothing to clean up.

    A command runs under `interruptible`.
    """
    if not _handles_interrupts():
        yield
        return
    before = signal.signal(signal.SIGINT, _end_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Make Ctrl-C raise KeyboardInterrupt while a command runs, so that the command can clean up."""
    if signal.getsignal(signal.SIGINT) is not _end_at_once:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _end_at_once)


def _handles_interrupts() -> bool:
    """Whether Python's own handler of SIGINT is in place, and this is the main thread."""
    import threading

    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _end_at_once(_number: int, _frame: Any) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"Interrupted.\n")
    os._exit(INTERRUPTED)
