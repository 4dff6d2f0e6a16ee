"""mean: the mean of the values, from their count and sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from feature_store.functions._contract import Function

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.functions._contract import Options, StateArrays, Values


class Mean(Function):
    """See `summary`."""

    name = "mean"
    summary = "the mean of the values"
    notes = "Null without a value."
    takes = "numbers"
    kinds = ("count", "sum")

    def finalize(self, states: Sequence[StateArrays], options: Options) -> Values:
        """The means; null where nothing was counted."""
        count, total = states
        with np.errstate(invalid="ignore", divide="ignore"):
            return total[""] / count[""], count[""] == 0
