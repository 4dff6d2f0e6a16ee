"""Verifies that a model without some features is as good as the full one: refitted, on later rows that no choice used.

This is a test of non-inferiority. It does not ask whether a difference is visible, which little data never shows, but
whether the data rule out that the pruned model is worse by more than a margin (Piaggio et al. 2012, CONSORT for
non-inferiority, https://doi.org/10.1001/jama.2012.87802). A candidate passes if the lower bound of (pruned − full)
is above −margin. The bound comes from a bootstrap by entity (`bootstrap.py`).

Candidates are tested from the one that keeps most to the one that keeps least, up to the first that does not pass. In a
sequence that is fixed in advance, each test may use the full level, and the chance of accepting a harmful candidate
stays below 1 − confidence (Maurer, Hothorn and Lehmacher 1995; Wiens 2003, https://doi.org/10.1002/pst.64). Later
candidates that pass are shown, but not offered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from feature_store.errors import DataError, RequestError
from feature_store.pruning.bootstrap import Draws, lower_bound, metric_by_draw
from feature_store.pruning.dataset import Dataset, Factory, fitted_scores
from feature_store.pruning.metric import Metric, Scores, auc, metric_name, metric_of
from feature_store.pruning.trials import Report

Mask = npt.NDArray[np.bool_]

# With 1000 draws, the error of the 5 % quantile is about a twentieth of the standard error.
_DRAWS = 1000


@dataclass(frozen=True)
class Comparison:
    """The pruned and the full model on the same rows; the metrics are means over the seeds.

    Attributes:
        full, pruned: their metrics.
        difference: pruned − full.
        lower_bound: the lower confidence bound of the difference.
        passes: whether the bound is above −margin.
    """

    full: float
    pruned: float
    difference: float
    lower_bound: float
    passes: bool


@dataclass(frozen=True)
class Candidate:
    """The result of a candidate.

    Attributes:
        kept: the names of its features.
        overall: the comparison on all later rows.
        slices: the comparison on the rows of each slice.
    """

    kept: tuple[str, ...]
    overall: Comparison
    slices: Mapping[str, Comparison]

    @property
    def passes(self) -> bool:
        """Whether it passes on all rows and on each slice."""
        return all(one.passes for one in (self.overall, *self.slices.values()))


@dataclass(frozen=True)
class Verification:
    """The results of all candidates.

    Attributes:
        candidates: the candidates, from the one that keeps most to the one that keeps least.
        margin: the accepted loss, in the metric's unit.
        confidence: the one-sided confidence of each bound.
        metric: the metric's name.
        seeds: the seeds of the fits.
        draws: the number of draws of the bootstrap.
        earlier_rows: the number of rows that models were fitted on.
        later_rows: the number of rows that models were compared on.
        entities: the number of distinct entities in the later rows.
    """

    candidates: tuple[Candidate, ...]
    margin: float
    confidence: float
    metric: str
    seeds: tuple[int, ...]
    draws: int
    earlier_rows: int
    later_rows: int
    entities: int

    @property
    def largest_passing(self) -> Candidate | None:
        """The last candidate before the first that does not pass. None if the first does not pass: no feature can
        safely be dropped."""
        passing = list(takewhile(lambda candidate: candidate.passes, self.candidates))
        return passing[-1] if passing else None

    @property
    def reason(self) -> str:
        """The result in a line."""
        largest = self.largest_passing
        if largest is None:
            return f"no feature can be dropped: no candidate is shown to lose at most {self.margin:g} {self.metric}"
        bound = f"{largest.overall.difference:+.4f}, at least {largest.overall.lower_bound:+.4f}"
        return f"{len(largest.kept)} features are enough: {self.metric} {bound} at confidence {self.confidence:g}"


class _Slice(NamedTuple):
    """A model on some rows: its metric, and its metric in each draw."""

    mask: Mask | None
    full: float
    by_draw: npt.NDArray[np.float64]


def verify(
    earlier: Dataset,
    later: Dataset,
    factory: Factory,
    prefixes: Sequence[Sequence[str]],
    *,
    margin: float = 0.002,
    seeds: Sequence[int] = (0, 1, 2),
    confidence: float = 0.95,
    slices: Mapping[str, Mask] | None = None,
    draws: int = _DRAWS,
    metric: str | Metric = "auc",
    report: Report | None = None,
) -> Verification:
    """Refit each candidate and the full model on the earlier rows, and compare them on the later ones.

    Args:
        earlier: the rows to fit on.
        later: rows after these, which importances and plans did not use.
        factory: makes an unfitted model from a seed.
        prefixes: the features that each candidate keeps, from most to least.
        margin: the accepted loss, at least 0, in the metric's unit.
        seeds: each model is fitted once with each; metrics are means over them.
        confidence: the one-sided confidence of the bound, in (0.5, 1).
        slices: (n,) bool masks of the later rows, by name; a candidate must also pass on each.
        draws: the number of draws of the bootstrap.
        metric: the metric; larger is better.
        report: called after each fit.

    Raises:
        RequestError: a candidate keeps more than the one before, or a number is out of its range.
        DataError: later rows begin before the earlier ones end, or a slice has no rows or labels of one class.
        NotFoundError: a candidate has a feature that the rows lack.
    """
    _refuse_unless_sound(earlier, later, prefixes, margin, confidence, draws)
    for kept in prefixes:
        earlier.columns(kept)
    of = metric_of(metric)
    masks: dict[str, Mask | None] = {"": None}
    masks |= {name: _mask(name, mask, later, of) for name, mask in (slices or {}).items()}
    drawn = Draws(later.entity, draws)
    fits = _Fits(earlier, later, factory, seeds, (len(prefixes) + 1) * len(seeds), report)

    def measured(kept: Sequence[str]) -> dict[str, _Slice]:
        scores = fits.scores(kept)
        return {name: _measured(drawn, later, scores, of, mask) for name, mask in masks.items()}

    full = measured(earlier.features)
    candidates = []
    for kept in prefixes:
        pruned = measured(kept)
        compared = {name: _compared(full[name], pruned[name], margin, confidence) for name in masks}
        candidates.append(Candidate(tuple(kept), compared.pop(""), compared))
    return Verification(
        tuple(candidates),
        margin,
        confidence,
        metric_name(metric),
        tuple(seeds),
        draws,
        len(earlier),
        len(later),
        len(np.unique(later.entity)),
    )


class _Fits:
    """Refits on the earlier rows, scored on the later ones."""

    def __init__(
        self,
        earlier: Dataset,
        later: Dataset,
        factory: Factory,
        seeds: Sequence[int],
        total: int,
        report: Report | None,
    ) -> None:
        self._earlier, self._later, self._factory, self._seeds = earlier, later, factory, seeds
        self._done, self._total, self._report = 0, total, report

    def scores(self, kept: Sequence[str]) -> list[Scores]:
        """(n,) scores of the later rows, for each seed."""
        earlier, later = self._earlier.select(kept), self._later.select(kept)
        return [self._one(seed, earlier, later) for seed in self._seeds]

    def _one(self, seed: int, earlier: Dataset, later: Dataset) -> Scores:
        scores = fitted_scores(self._factory, seed, earlier, later.x)
        self._done += 1
        if self._report is not None:
            self._report(self._done, self._total)
        return scores


def _measured(drawn: Draws, later: Dataset, scores: Sequence[Scores], metric: Metric, mask: Mask | None) -> _Slice:
    rows = slice(None) if mask is None else mask
    whole = float(np.mean([metric(later.y[rows], score[rows]) for score in scores]))
    return _Slice(mask, whole, metric_by_draw(drawn, later.y, scores, metric, mask))


def _compared(full: _Slice, pruned: _Slice, margin: float, confidence: float) -> Comparison:
    bound = lower_bound(pruned.by_draw - full.by_draw, confidence)
    return Comparison(full.full, pruned.full, pruned.full - full.full, bound, bound > -margin)


def _refuse_unless_sound(
    earlier: Dataset, later: Dataset, prefixes: Sequence[Sequence[str]], margin: float, confidence: float, draws: int
) -> None:
    if not prefixes or not all(prefixes) or any(len(kept) < len(after) for kept, after in pairwise(prefixes)):
        got = f"{[len(kept) for kept in prefixes]} features"
        raise RequestError(
            "candidates", expected="candidates from the one that keeps most to the one that keeps least", got=got
        )
    if not (margin >= 0 and 0.5 < confidence < 1 and draws * (1 - confidence) >= 1):
        expected = "margin ≥ 0, confidence in (0.5, 1), and draws ≥ 1 / (1 − confidence)"
        raise RequestError("verify", expected=expected, got=f"margin {margin}, confidence {confidence}, draws {draws}")
    if earlier.names != later.names or later.time[0] < earlier.time[-1]:
        problem = "later rows must have the same columns as the earlier ones, and none may be before the last of them"
        raise DataError("verify", problem=problem, hint="split one data set by time")


def _mask(name: str, mask: Mask, later: Dataset, metric: Metric) -> Mask:
    if mask.shape != (len(later),) or mask.dtype != np.bool_ or not mask.any():
        got = f"{mask.dtype} {mask.shape} with {int(np.count_nonzero(mask))} rows"
        raise DataError(f"slice {name}", expected=f"a mask of {len(later)} rows, true for at least one", got=got)
    if metric is auc and len(np.unique(later.y[mask] > 0)) == 1:
        raise DataError(f"slice {name}", expected="labels of both classes", got="one class")
    return mask
