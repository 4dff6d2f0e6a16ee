"""stddev: the standard deviation of the population."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from feature_store.functions._arrays import Column, StateArrays, Values, WindowMask, sizes_of
from feature_store.functions._contract import MOST_COUNTED, Function, State
from feature_store.functions._parameters import Options
from feature_store.functions.sum import sum_of_tiles


class Moments(State):
    """Count, mean and sum of squared deviations: 20 bytes, merged as by Chan, Golub and LeVeque 1979."""

    kind = "moments"
    is_exact = False
    struct = "I4dd"
    lua = """
  local n, m = a[i], b[i]
  if m == 0 then
    return
  end
  if n == 0 then
    a[i], a[i + 1], a[i + 2] = m, b[i + 1], b[i + 2]
    return
  end
  local total, difference = n + m, b[i + 1] - a[i + 1]
  a[i] = total < 4294967295 and total or 4294967295
  a[i + 1] = a[i + 1] + difference * m / total
  a[i + 2] = a[i + 2] + b[i + 2] + difference * difference * n * m / total
"""

    @property
    def fields(self) -> dict[str, Any]:
        """Count, mean and sum of squared deviations."""
        return {"count": "<u4", "mean": "<f8", "m2": "<f8"}

    def update(self, values: Column, at: Column, starts: Column) -> StateArrays:
        """The moments of groups."""
        numbers, sizes = values.astype(np.float64), sizes_of(starts, len(values))
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.add.reduceat(numbers, starts) / sizes
            m2 = np.add.reduceat(np.square(numbers - np.repeat(mean, sizes)), starts)
        return {"count": np.minimum(sizes, MOST_COUNTED), "mean": mean, "m2": m2}

    def merge(self, a: StateArrays, b: StateArrays) -> StateArrays:
        """The moments of two groups together."""
        n, m = a["count"].astype(np.float64), b["count"].astype(np.float64)
        total = n + m
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            difference = b["mean"] - a["mean"]
            mean = a["mean"] + difference * m / total
            m2 = a["m2"] + b["m2"] + difference * difference * n * m / total
        return {
            "count": np.minimum(total, MOST_COUNTED),
            "mean": np.where(m == 0, a["mean"], np.where(n == 0, b["mean"], mean)),
            "m2": np.where(m == 0, a["m2"], np.where(n == 0, b["m2"], m2)),
        }

    def fold(self, states: StateArrays, window: WindowMask) -> StateArrays:
        """The moments of windows."""
        n = window.chosen(states["count"], 0).astype(np.float64)
        mean = window.chosen(states["mean"], 0.0)
        total = np.add.reduce(n, axis=0)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            overall = np.add.reduce(n * mean, axis=0) / total
            mean -= overall
            np.square(mean, out=mean)
            mean *= n
            m2 = sum_of_tiles(states["m2"], window) + np.add.reduce(mean, axis=0)
            return {"count": total, "mean": overall, "m2": m2}


class Stddev(Function):
    """See `summary`."""

    name = "stddev"
    summary = "the standard deviation of the values, as a population"
    notes = "Null without a value. NaN where a value is infinite."
    takes = "numbers"
    kinds = ("moments",)

    def finalize(self, states: Sequence[StateArrays], options: Options) -> Values:
        """The deviations; null without a value."""
        (state,) = states
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(state["m2"] / state["count"]), state["count"] == 0
