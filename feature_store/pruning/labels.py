"""Words for what importances say: why a feature may go."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from feature_store.pruning.importance import Importances

Label = Literal["unused", "epsilon", "bundled", "correlated"]


def classify(importances: Importances, consumers: Mapping[str, Collection[str]]) -> dict[str, list[Label]]:
    """What can be said of each feature; most have no label.

    - unused: no service consumes it.
    - epsilon: it is worth no more than a useless feature reaches by chance.
    - bundled: it is ε, and its view is not: a good view shelters it.
    - correlated: others say nearly the same.

    Args:
        importances: of the features. Without a known noise, ε is what is worth nothing.
        consumers: the services that consume each feature; one that is not there has none.
    """
    noise = importances.noise or 0.0
    good = {name for view in importances.views if view.importance > noise for name in view.features}
    twins = {name for cluster in importances.clusters for name in cluster}
    out: dict[str, list[Label]] = {}
    for item in importances.features:
        is_epsilon = item.importance <= noise
        said: dict[Label, bool] = {
            "unused": not consumers.get(item.feature),
            "epsilon": is_epsilon,
            "bundled": is_epsilon and item.feature in good,
            "correlated": item.feature in twins,
        }
        out[item.feature] = [label for label, holds in said.items() if holds]
    return out
