"""Shadow reads: the answer of a pruned service, compared with the answer of the full service.

While a prune plan is in the stage `shadow`, a client reads each request again, with only the columns that the plan
keeps, and compares. The caller gets the response of the full service.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from feature_store.online.observer import Observers
    from feature_store.online.response import OnlineResponse


@dataclass
class ShadowCounts:
    """Counts of the shadow reads of one service.

    Attributes:
        plan: the prune plan's id.
        reads: requests that were read in shadow.
        differing: shadow reads in which a kept feature had another value or status than in the full reads before and
            after.
        failed: shadow reads that failed.
        full_s, pruned_s: seconds that the full and the pruned reads took in total.
    """

    plan: str
    reads: int = 0
    differing: int = 0
    failed: int = 0
    full_s: float = 0.0
    pruned_s: float = 0.0


class Shadows:
    """The shadow reads of a client. Threads may share it. It calls the observers for each read."""

    def __init__(self, observers: Observers) -> None:
        self._observers = observers
        self._counts: dict[str, ShadowCounts] = {}
        self._lock = threading.Lock()

    def of(self, service: str) -> ShadowCounts | None:
        """The counts of a service; None when it was never read in shadow."""
        return self._counts.get(service)

    def add(
        self, service: str, plan: str, *, full_s: float, pruned_s: float, differing: bool = False, failed: bool = False
    ) -> None:
        """Count a shadow read. The first read under another plan starts the counts over."""
        with self._lock:
            counts = self._counts.get(service)
            if counts is None or counts.plan != plan:
                counts = self._counts[service] = ShadowCounts(plan)
            counts.reads += 1
            counts.differing += differing
            counts.failed += failed
            counts.full_s += full_s
            counts.pruned_s += pruned_s
        self._observers.shadowed(service, differing=differing, failed=failed)


def differ(full: OnlineResponse, pruned: OnlineResponse) -> bool:
    """Whether a feature of both responses differs in any value or status."""
    first, second = full.to_dict(), pruned.to_dict()
    return any(
        full.status[name] != pruned.status[name] or not _same(first[name], values) for name, values in second.items()
    )


def _same(a: list[object], b: list[object]) -> bool:
    """Whether two columns are equal. NaN equals NaN."""
    if a == b:
        return True
    try:
        return bool(np.array_equal(np.array(a, np.float64), np.array(b, np.float64), equal_nan=True))
    except (TypeError, ValueError):
        return False
