"""What a service costs where it runs: counted by Redis and timed by the client, not reckoned from a layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# What Redis counts of all its clients, in the order of `Counted`.
_COUNTERS = ("total_net_input_bytes", "total_net_output_bytes", "keyspace_hits", "keyspace_misses")


@dataclass(frozen=True)
class Footprint:
    """What requests of a service cost.

    Attributes:
        features: that a request returns.
        keys: that Redis looks up for a request; the one that tells a new plan is among them.
        bytes: that Redis receives and sends for a request.
        redis_bytes: of memory that the rows and tiles use that the service reads.
        p50_ms, p99_ms: of a request, from the call to its matrix.

    Example:
        >>> from feature_store import FeatureStore
        >>> with FeatureStore(".") as store:
        ...     requests = [{"user_id": 1, "product_id": [1, 2], "basket_price": 10.0}]
        ...     cost = store.pruning.footprint("ranking", requests, repeats=3)
        >>> cost.features
        5
    """

    features: int
    keys: float
    bytes: float
    redis_bytes: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Counted:
    """Redis's counters at some moment."""

    bytes: int
    keys: int

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Counted:
        """From what Redis says of itself."""
        received, sent, hits, misses = (int(info[name]) for name in _COUNTERS)
        return cls(received + sent, hits + misses)


def footprint(
    features: int, counted: Sequence[Counted], requests: int, seconds: Sequence[float], redis_bytes: int
) -> Footprint:
    """The footprint of requests.

    Args:
        features: that a request returns.
        counted: twice in a row, then after the requests. Asking is counted as well: the first two tell how much.
        requests: how many there were between the second and the third.
        seconds: that each of some requests took.
        redis_bytes: see Footprint.
    """
    first, before, after = counted
    asking = before.bytes - first.bytes
    return Footprint(
        features,
        (after.keys - before.keys) / requests,
        (after.bytes - before.bytes - asking) / requests,
        redis_bytes,
        float(np.quantile(seconds, 0.5) * 1e3),
        float(np.quantile(seconds, 0.99) * 1e3),
    )
