"""How long a request takes, as a function of what it costs: fitted to requests that were timed.

Keys, bytes and features all take time, and more of one never saves any: so the fit is by least squares, with no
coefficient below 0 (Lawson and Hanson 1974, through scipy).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from feature_store._extras import requires_extra
from feature_store.pruning.budget import Latency
from feature_store.pruning.cost import Cost


class Timed(NamedTuple):
    """A kind of request: its cost, and the milliseconds that each of several took."""

    cost: Cost
    milliseconds: Sequence[float]


def fit_latency(timed: Sequence[Timed], *, quantile: float = 0.99) -> Latency:
    """The latency of requests: fitted to medians, then scaled so that the most expensive kind takes its quantile.

    A quantile of few requests is noise; how far it is from the median hardly depends on the request.

    Args:
        timed: kinds of requests of different costs, three at least; all took more than no time.
        quantile: of the requests, that the latency stands for.

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
