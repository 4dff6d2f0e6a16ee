"""Shadow reads: what a pruned service would answer, compared with what the full one did.

While a prune plan is in the stage `shadow`, a client reads a request again, with only the columns that the plan keeps,
and compares. Nothing of that reaches the caller.
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
    """What was found by the shadow reads of one service.

    Attributes:
        plan: the prune plan's id.
        reads: requests that were read twice.
        differing: of them, those with a kept feature whose values or statuses differed, twice in a row.
        failed: of them, those whose second read failed.
        full_s, pruned_s: seconds that the first and the second reads took, together.
    """

    plan: str
    reads: int = 0
    differing: int = 0
    failed: int = 0
    full_s: float = 0.0
    pruned_s: float = 0.0


class Shadows:
    """The counts of a client; threads share it. Its observers are told of each read."""

    def __init__(self, observers: Observers) -> None:
        self._observers = observers
        self._counts: dict[str, ShadowCounts] = {}
        self._lock = threading.Lock()

    def of(self, service: str) -> ShadowCounts | None:
        """What was found of a service so far; None: it was never read in shadow."""
        return self._counts.get(service)

    def add(
        self, service: str, plan: str, *, full_s: float, pruned_s: float, differing: bool = False, failed: bool = False
    ) -> None:
        """Count a read; with another plan, counting begins anew."""
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
    """Whether a feature that both have differs in any value or status."""
    first, second = full.to_dict(), pruned.to_dict()
    return any(
        full.status[name] != pruned.status[name] or not _same(first[name], values) for name, values in second.items()
    )


def _same(a: list[object], b: list[object]) -> bool:
    """Equal; of numbers, NaN equals NaN."""
    if a == b:
        return True
    try:
        return bool(np.array_equal(np.array(a, np.float64), np.array(b, np.float64), equal_nan=True))
    except (TypeError, ValueError):
        return False
