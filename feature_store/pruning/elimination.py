"""Backward elimination with refits: what things are worth to each other's survivors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from feature_store.pruning.trials import Trials


def eliminate(
    trials: Trials, context: frozenset[str], units: Mapping[str, Sequence[str]], share: float
) -> dict[str, float]:
    """Take the units away, least worth first, until none is left; credit each with what the metric lost by it.

    In every round the model is refitted without each unit that is still there (leave-one-out), and the units whose
    loss is smallest go. So of units that can stand in for each other the last one is credited with what all of them
    are worth, and the others with nothing. The credits add up to what the metric loses from all units to none, and
    those of the units kept at any point of the path to what is retained then. Backward elimination around a refitted
    model: John, Kohavi and Pfleger 1994 (https://doi.org/10.1016/B978-1-55860-335-6.50023-4).

    Args:
        trials: refits.
        context: features that stay.
        units: the features of each unit.
        share: of the units that are left, how many go in one round; at least one.

    Returns: the credit of each unit, in the order in which they went; not negative.
    """
    left = dict(units)
    credits: dict[str, float] = {}
    while left:
        kept = context.union(*left.values())
        losses = {unit: trials.gain(kept, features).mean for unit, features in left.items()}
        going = sorted(left, key=lambda unit: losses[unit])[: max(1, int(share * len(left)))]
        joint = trials.gain(kept, [name for unit in going for name in left[unit]]).mean
        credits |= shared(joint, {unit: losses[unit] for unit in going})
        for unit in going:
            del left[unit]
    return credits


def shared(whole: float, weights: Mapping[str, float]) -> dict[str, float]:
    """A sum, not below 0, divided in proportion to the weights above 0, or evenly when there are none."""
    positive = {name: max(weight, 0.0) for name, weight in weights.items()}
    total = sum(positive.values())
    if total == 0:
        return dict.fromkeys(weights, max(whole, 0.0) / max(len(weights), 1))
    return {name: max(whole, 0.0) * weight / total for name, weight in positive.items()}


def expected_fits(units: int, share: float) -> int:
    """How many sets of features `eliminate` fits at most."""
    fits = 0
    while units:
        going = max(1, int(share * units))
        fits += units + (going > 1)
        units -= going
    return fits
