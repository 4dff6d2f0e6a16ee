"""The time of a request as a function of its cost, fitted to timed requests.

Keys, bytes and features all take time, so the fit is by least squares with coefficients of at least 0 (Lawson and
Hanson 1974, through SciPy).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from feature_store._extras import requires_extra
from feature_store.pruning.budget import Latency
from feature_store.pruning.cost import Cost


class Timed(NamedTuple):
    """A kind of request: its cost, and the times of several requests in milliseconds."""

    cost: Cost
    milliseconds: Sequence[float]


def fit_latency(timed: Sequence[Timed], *, quantile: float = 0.99) -> Latency:
    """Fit the latency to medians, then scale it so that the most expensive kind of request takes its quantile.

    A quantile of few requests is noisy, and its ratio to the median hardly depends on the request.

    Args:
        timed: at least three kinds of requests of different costs, with times above 0.
        quantile: the quantile of the time that the latency estimates.

    Raises:
        MissingDependencyError: scipy is not installed (`feature-store[prune]`).
    """
    with requires_extra("prune", "latency"):
        from scipy.optimize import nnls

    costs = np.array([[1.0, one.cost.keys, one.cost.bytes, one.cost.features] for one in timed])
    medians = np.array([np.median(one.milliseconds) for one in timed])
    scale = costs.max(axis=0)  # so that bytes do not drown keys
    found = nnls(costs / scale, medians)[0] / scale
    largest = max(timed, key=lambda one: one.cost.bytes)
    tail = float(np.quantile(largest.milliseconds, quantile) / np.median(largest.milliseconds))
    base, per_key, per_byte, per_feature = (float(value) * tail for value in found)
    return Latency(base, per_key, per_byte, per_feature)
