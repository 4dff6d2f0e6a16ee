"""mean: the mean of the values, from their count and sum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from feature_store.functions._arrays import StateArrays, Values
from feature_store.functions._contract import Function
from feature_store.functions._parameters import Options


class Mean(Function):
    """See `summary`."""

    name = "mean"
    summary = "the mean of the values"
    notes = "Null without a value."
    takes = "numbers"
    kinds = ("count", "sum")

    def finalize(self, states: Sequence[StateArrays], options: Options) -> Values:
        """The means; null without a value."""
        count, total = states
        with np.errstate(invalid="ignore", divide="ignore"):
            return total[""] / count[""], count[""] == 0
