"""Values that take longer than a page may: computed in threads, once, and kept for a while."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from feature_store.errors import FeatureStoreError

T = TypeVar("T")
# Seconds that a page waits for a value. Quick values are then shown at once, and the page still answers in 100 ms.
PATIENCE_S = 0.04
# Seconds after which a failed computation is tried again.
_RETRY_S = 5.0
# The most values that are kept. The least recently used are dropped first.
_MOST_KEPT = 512
# The most computations of one kind that wait for a thread. Beyond this, the least recently used one is dropped: its
# visitor has left, or the page asks again.
MOST_WAITING = 8


@dataclass(frozen=True)
class Computed(Generic[T]):
    """The state of a computation.

    Attributes:
        value: its result; None: it is not done, or it failed.
        error: the error if it failed.
        is_pending: whether it runs for the first time.
    """

    value: T | None = None
    error: FeatureStoreError | None = None
    is_pending: bool = False


@dataclass
class _Entry:
    future: Future[Any]
    computed: Computed[Any]
    begun: float


class Background:
    """Computes values in a few threads. Pages never wait for long."""

    def __init__(self, threads: int = 4) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ui")
        self._kept: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def ask(
        self, key: Hashable, compute: Callable[[], T], *, max_age_s: float | None = None, patience_s: float = PATIENCE_S
    ) -> Computed[T]:
        """The result of `compute`, as far as it is known.

        Args:
            key: identifies the computation. One computation runs per key at a time.
            compute: the function to call in another thread.
            max_age_s: the age in seconds from which to compute again, while the old value is shown. None: never, unless
                it failed.
            patience_s: seconds to wait for the result.

        Raises:
            Exception: `compute` raised it, and it is not an error of the library. Errors of the library are returned.
        """
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                self._drop_waiting(_kind(key))
                kept = self._kept[key] = _Entry(self._pool.submit(compute), Computed(is_pending=True), time.monotonic())
            elif kept.future.done() and time.monotonic() - kept.begun > _lasts(kept.future, max_age_s):
                if not _is_broken(kept.future):
                    kept.computed = _computed(kept.future)
                kept.future, kept.begun = self._pool.submit(compute), time.monotonic()
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST_KEPT:
                _, oldest = self._kept.popitem(last=False)
                oldest.future.cancel()
            future, before = kept.future, kept.computed
        wait([future], patience_s)
        if future.cancelled():
            return before
        return cast("Computed[T]", _computed(future) if future.done() else before)

    def _drop_waiting(self, kind: Hashable) -> None:
        """Make room for another computation of a kind."""
        waiting = [key for key, kept in self._kept.items() if _kind(key) == kind and not kept.future.done()]
        for key in waiting[: max(0, len(waiting) + 1 - MOST_WAITING)]:
            if self._kept[key].future.cancel():  # a running computation cannot be cancelled
                del self._kept[key]

    def __len__(self) -> int:
        """The number of values that are kept or being computed."""
        return len(self._kept)

    def close(self) -> None:
        """Wait for running computations, and start no more."""
        self._pool.shutdown(cancel_futures=True)


def _kind(key: Hashable) -> Hashable:
    """The kind of a computation: the first item of its key, if that is a tuple."""
    return key[0] if isinstance(key, tuple) else key


def _lasts(future: Future[Any], max_age_s: float | None) -> float:
    """The seconds for which a result is kept."""
    wanted = math.inf if max_age_s is None else max_age_s
    return wanted if future.exception() is None else min(wanted, _RETRY_S)


def _is_broken(future: Future[Any]) -> bool:
    """Whether a computation failed by a bug, not by an error of the library."""
    error = future.exception()
    return error is not None and not isinstance(error, FeatureStoreError)


def _computed(future: Future[Any]) -> Computed[Any]:
    error = future.exception()
    if error is None:
        return Computed(future.result())
    if isinstance(error, FeatureStoreError):
        return Computed(error=error)
    raise error
