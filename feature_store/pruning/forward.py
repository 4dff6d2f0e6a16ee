"""Forward selection with refits: what features add to those that are worth more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from feature_store.pruning.trials import Trials


def select_forward(trials: Trials, candidates: Sequence[str], noise: float) -> dict[str, float]:
    """Take features, the one that adds most first, until none adds more than noise; credit each with what it added.

    Of features that can stand in for each other the first has all the credit. The credits of those taken up to any
    point add up to what the metric has gained until then, so that a small sum is a small model's. What a feature adds
    hardly grows while others are taken, so that what it once added is a bound, and only those whose bound is the
    largest are fitted again: the lazy greedy algorithm of Minoux 1978 (https://doi.org/10.1007/BFb0006528), which for
    gains that never grow takes what greedy selection takes. Where gains grow, as those of a pair that counts only
    together, it may miss both; `measure` finds them by leaving them out.

    Args:
        trials: refits.
        candidates: what may be taken.
        noise: what a useless feature may add by chance.

    Returns: the credit of each feature that was taken, above the noise, in the order in which they were.
    """
    credits: dict[str, float] = {}
    bounds = dict.fromkeys(candidates, math.inf)
    while bounds:
        name = _largest(trials, frozenset(credits), bounds)
        gain = bounds.pop(name)
        if gain <= noise:
            break
        credits[name] = gain
    return credits


def _largest(trials: Trials, taken: frozenset[str], bounds: dict[str, float]) -> str:
    """Fit those with the largest bounds again until one that was has the largest; the bounds become what they add."""
    fresh: set[str] = set()
    while (name := max(bounds, key=lambda name: bounds[name])) not in fresh:
        bounds[name] = trials.gain(taken | {name}, [name]).mean
        fresh.add(name)
    return name


def shared(whole: float, weights: Mapping[str, float]) -> dict[str, float]:
    """A sum, not below 0, divided in proportion to the weights above 0, or evenly when there are none."""
    positive = {name: max(weight, 0.0) for name, weight in weights.items()}
    total = sum(positive.values())
    if total == 0:
        return dict.fromkeys(weights, max(whole, 0.0) / max(len(weights), 1))
    return {name: max(whole, 0.0) * weight / total for name, weight in positive.items()}
