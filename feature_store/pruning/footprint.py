"""The measured cost of a service: counted by Redis and timed by the client, not computed from the layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Redis's counters over all clients.
_COUNTERS = ("total_net_input_bytes", "total_net_output_bytes", "keyspace_hits", "keyspace_misses")


@dataclass(frozen=True)
class Footprint:
    """The measured cost of requests to a service.

    Attributes:
        features: the number of features in an answer.
        keys: the number of keys that Redis looks up per request, including the plan's epoch.
        bytes: the bytes that Redis receives and sends per request.
        redis_bytes: the memory of the rows and tiles that the service reads, in bytes.
        p50_ms, p99_ms: quantiles of the time of a request, from the call to its matrix.

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
    """Redis's counters at one moment."""

    bytes: int
    keys: int

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Counted:
        """The counters in an answer to INFO."""
        received, sent, hits, misses = (int(info[name]) for name in _COUNTERS)
        return cls(received + sent, hits + misses)


def footprint(
    features: int, counted: Sequence[Counted], requests: int, seconds: Sequence[float], redis_bytes: int
) -> Footprint:
    """The footprint of requests.

    Args:
        features: the number of features in an answer.
        counted: the counters twice in a row, then after the requests. Reading the counters counts as well; the first
            two measure that.
        requests: the number of requests between the second and the third.
        seconds: the times of some requests.
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
