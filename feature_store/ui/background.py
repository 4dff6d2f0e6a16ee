"""What takes longer than a page may: computed beside it, once, and kept for a while."""

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
# How long a page waits for what is being computed: what is quick is then on it at once, and it still answers in 100 ms.
PATIENCE_S = 0.04
# When to try again what failed.
_RETRY_S = 5.0
# Answers that are kept. Those asked for longest ago go first.
_MOST_KEPT = 512
# Computations of one kind that wait for a thread. When there are more, the one asked for longest ago is dropped: its
# visitor has left, or the page asks again.
MOST_WAITING = 8


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What is known by now.

    Attributes:
        value: None while it is being computed, and when it failed.
        error: why it failed.
        is_pending: whether it is being computed for the first time.
    """

    value: T | None = None
    error: FeatureStoreError | None = None
    is_pending: bool = False


@dataclass
class _Kept:
    future: Future[Any]
    outcome: Outcome[Any]
    begun: float


class Background:
    """Computes in a few threads; pages ask, and never wait for long."""

    def __init__(self, threads: int = 4) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ui")
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def ask(
        self, key: Hashable, compute: Callable[[], T], *, max_age_s: float | None = None, patience_s: float = PATIENCE_S
    ) -> Outcome[T]:
        """What `compute` gives.

        Args:
            key: what it is the answer to; one key, one computation at a time.
            compute: is called in another thread.
            max_age_s: when to compute it anew; the old answer stands meanwhile. None: never, unless it failed.
            patience_s: how long to wait for it.

        Raises:
            Exception: what `compute` raised, unless it is an error of the library, which is an outcome.
        """
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                self._drop_waiting(_kind(key))
                kept = self._kept[key] = _Kept(self._pool.submit(compute), Outcome(is_pending=True), time.monotonic())
            elif kept.future.done() and time.monotonic() - kept.begun > _lasts(kept.future, max_age_s):
                if not _is_broken(kept.future):
                    kept.outcome = _outcome(kept.future)
                kept.future, kept.begun = self._pool.submit(compute), time.monotonic()
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST_KEPT:
                _, oldest = self._kept.popitem(last=False)
                oldest.future.cancel()
            future, before = kept.future, kept.outcome
        wait([future], patience_s)
        if future.cancelled():
            return before
        return cast("Outcome[T]", _outcome(future) if future.done() else before)

    def _drop_waiting(self, kind: Hashable) -> None:
        """Make room for one more computation of a kind."""
        waiting = [key for key, kept in self._kept.items() if _kind(key) == kind and not kept.future.done()]
        for key in waiting[: max(0, len(waiting) + 1 - MOST_WAITING)]:
            if self._kept[key].future.cancel():  # one that runs cannot be
                del self._kept[key]

    def close(self) -> None:
        """Start nothing more; what runs is waited for."""
        self._pool.shutdown(cancel_futures=True)


def _kind(key: Hashable) -> Hashable:
    """What sort of computation a key is of: the first part of a tuple."""
    return key[0] if isinstance(key, tuple) else key


def _lasts(future: Future[Any], max_age_s: float | None) -> float:
    """For how many seconds an answer stands."""
    wanted = math.inf if max_age_s is None else max_age_s
    return wanted if future.exception() is None else min(wanted, _RETRY_S)


def _is_broken(future: Future[Any]) -> bool:
    """Whether it failed by a fault of the code."""
    error = future.exception()
    return error is not None and not isinstance(error, FeatureStoreError)


def _outcome(future: Future[Any]) -> Outcome[Any]:
    error = future.exception()
    if error is None:
        return Outcome(future.result())
    if isinstance(error, FeatureStoreError):
        return Outcome(error=error)
    raise error
