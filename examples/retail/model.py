"""The ranking model: gradient-boosted trees. `prune measure` and `prune verify` take it as `model:make`."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np


class Ranker:
    """A classifier: whether a household buys from a category in the coming week.

    Args:
        seed: of the rows and columns that each tree is grown on.
    """

    def __init__(self, seed: int) -> None:
        self._parameters = {
            "objective": "binary",
            "learning_rate": 0.1,
            "num_leaves": 31,
            "min_data_in_leaf": 100,
            "feature_fraction": 0.5,
            "bagging_fraction": 0.7,
            "bagging_freq": 1,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            # More threads than idle cores would wait for each other at every split.
            "num_threads": 1,
            "verbosity": -1,
        }
        self.booster: lightgbm.Booster | None = None

    def fit(self, x: Any, y: Any) -> Ranker:
        """Learn from (n, f) float32 and (n,) labels."""
        self.booster = lightgbm.train(self._parameters, lightgbm.Dataset(x, y), num_boost_round=100)
        return self

    def predict_proba(self, x: Any) -> np.ndarray:
        """(n, 2) float64: the probabilities that it does not buy, and that it does."""
        assert self.booster is not None
        bought = np.asarray(self.booster.predict(x, num_threads=1))
        return np.column_stack([1 - bought, bought])


def make(seed: int) -> Ranker:
    """An unfitted model."""
    return Ranker(seed)
