"""Refits of a model on subsets of its features, scored on later rows, once for each subset and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from feature_store.pruning.dataset import Dataset, Factory, fitted_scores
from feature_store.pruning.metric import Metric, metric_of

Report = Callable[[int, int], None]
"""Called with the number of fits that are done and that are expected so far."""


class Gain(NamedTuple):
    """The loss of the metric without some features: mean and standard deviation over the seeds."""

    mean: float
    std: float


class Trials:
    """Refits of one model.

    Args:
        earlier: the rows to fit on.
        later: the rows to score.
        factory: makes an unfitted model from a seed.
        seeds: each set of features is fitted once with each.
        metric: the metric; larger is better.
        report: called after each fit.
    """

    def __init__(
        self,
        earlier: Dataset,
        later: Dataset,
        factory: Factory,
        seeds: Sequence[int],
        metric: str | Metric,
        report: Report | None = None,
    ) -> None:
        self.earlier, self.later, self.factory, self.seeds = earlier, later, factory, tuple(seeds)
        self.metric = metric_of(metric)
        self.done, self.expected = 0, 0
        self._report = report
        self._known: dict[frozenset[str], npt.NDArray[np.float64]] = {}

    def metrics(self, features: Iterable[str]) -> npt.NDArray[np.float64]:
        """(s,) float64: the metric with only these features, for each seed. Without any, that of equal scores."""
        wanted = frozenset(features)
        if wanted not in self._known:
            self._known[wanted] = self._fit(wanted)
        return self._known[wanted]

    def gain(self, kept: frozenset[str], without: Iterable[str]) -> Gain:
        """The loss of the metric if the model is fitted on `kept` without some features, over the seeds."""
        return gain_of(self.metrics(kept) - self.metrics(kept.difference(without)))

    def expect(self, fits: int) -> None:
        """Expect this many more sets of features to be fitted."""
        self.expected = self.done + fits * len(self.seeds)

    def fitted(self) -> None:
        """Count and report a fit."""
        self.done += 1
        if self._report is not None:
            self._report(self.done, max(self.done, self.expected))

    def _fit(self, wanted: frozenset[str]) -> npt.NDArray[np.float64]:
        if not wanted:
            return np.full(len(self.seeds), self.metric(self.later.y, np.zeros(len(self.later))))
        earlier, later = self.earlier.select(wanted), self.later.select(wanted)
        out = np.empty(len(self.seeds))
        for at, seed in enumerate(self.seeds):
            out[at] = self.metric(later.y, fitted_scores(self.factory, seed, earlier, later.x))
            self.fitted()
        return out


def gain_of(by_seed: npt.NDArray[np.float64]) -> Gain:
    """The mean and standard deviation of (s,) differences."""
    return Gain(float(by_seed.mean()), float(by_seed.std(ddof=1)) if len(by_seed) > 1 else 0.0)
