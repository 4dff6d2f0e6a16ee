"""Forward selection with refits: the gain of each feature over the features with more importance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from feature_store.pruning.trials import Trials


def select_forward(trials: Trials, candidates: Sequence[str], noise: float) -> dict[str, float]:
    """Add features, the one with the largest gain first, until no gain is above the noise. Credit each with its gain.

    Among features that can replace each other, the first gets all the credit. The credits of the features added so far
    sum to the gain of the metric so far. The gain of a feature hardly grows while others are added, so an earlier gain
    is a bound, and only features with the largest bound are fitted again: the lazy greedy algorithm of Minoux 1978
    (https://doi.org/10.1007/BFb0006528), which equals greedy selection if gains never grow. It may miss a pair of
    features that gain only together; `measure` finds such pairs by leaving them out.

    Args:
        trials: the refits.
        candidates: the features to choose from.
        noise: the gain that a useless feature may have by chance.

    Returns: the credits above the noise, in the order in which features were added.
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
    """The feature with the largest gain. Features with the largest bounds are fitted, and their bounds become gains."""
    fresh: set[str] = set()
    while (name := max(bounds, key=lambda name: bounds[name])) not in fresh:
        bounds[name] = trials.gain(taken | {name}, [name]).mean
        fresh.add(name)
    return name


def shared(whole: float, weights: Mapping[str, float]) -> dict[str, float]:
    """Divide a sum, at least 0, in proportion to the positive weights, or evenly if there are none."""
    positive = {name: max(weight, 0.0) for name, weight in weights.items()}
    total = sum(positive.values())
    if total == 0:
        return dict.fromkeys(weights, max(whole, 0.0) / max(len(weights), 1))
    return {name: max(whole, 0.0) * weight / total for name, weight in positive.items()}
