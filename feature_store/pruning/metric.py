"""Metrics of scores. Larger is better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from feature_store.errors import DataError, RequestError

Scores = npt.NDArray[np.float64]
Metric = Callable[[npt.NDArray[Any], Scores], float]
"""A function of (n,) labels and (n,) scores."""


class RankedScores:
    """Rows sorted by score once, to compute the AUC for many weights of the rows.

    The AUC is the share of pairs of a true and a false label in which the true one has the larger score, ties half:
    Mann and Whitney's U, https://doi.org/10.1214/aoms/1177730491. A row of weight w counts as w rows.

    Args:
        y: (n,) labels, true where above 0.
        score: (n,) float64, finite.

    Raises:
        DataError: all labels are true, or all false.
    """

    def __init__(self, y: npt.NDArray[Any], score: Scores) -> None:
        is_true = y > 0
        if is_true.all() or not is_true.any():
            raise DataError("AUC", expected="labels of both classes", got=f"{len(y)} of one class")
        order = np.argsort(score)
        sorted_true = is_true[order]
        self.true, self.false = order[sorted_true], order[~sorted_true]
        below = score[self.false]
        self._first = np.searchsorted(below, score[self.true], "left")
        self._last = np.searchsorted(below, score[self.true], "right")
        self._falses = np.zeros(
            len(self.false) + 1, np.int64
        )  # the number before each row; overwritten for each set of weights

    def auc(self) -> float:
        """The AUC with each row once."""
        won = int(self._first.sum()) + int(self._last.sum())
        return won / (2 * len(self.true) * len(self.false))

    def weighted_auc(self, of_true: npt.NDArray[np.integer], of_false: npt.NDArray[np.integer]) -> float:
        """The AUC with each row of `self.true` and `self.false` this many times. NaN if one class has no rows."""
        falses = self._falses
        np.cumsum(of_false, out=falses[1:])
        pairs = int(of_true.sum()) * int(falses[-1])
        if not pairs:
            return float("nan")
        won = int(np.dot(of_true, falses[self._first])) + int(np.dot(of_true, falses[self._last]))
        return won / (2 * pairs)


def auc(y: ArrayLike, score: ArrayLike) -> float:
    """The area under the ROC curve of (n,) labels, true where above 0, and (n,) scores.

    Raises:
        DataError: all labels are true, or all false.
    """
    return RankedScores(np.asarray(y), np.asarray(score, np.float64)).auc()


def metric_of(metric: str | Metric) -> Metric:
    """The metric with a name, or the given function.

    Raises:
        RequestError: there is no metric with that name.
    """
    if callable(metric):
        return metric
    if metric != "auc":
        raise RequestError("metric", expected="auc, or a function of labels and scores", got=repr(metric))
    return auc


def metric_name(metric: str | Metric) -> str:
    """The name of a metric."""
    return metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)
