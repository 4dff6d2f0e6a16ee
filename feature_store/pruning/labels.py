"""Labels of features, from their importances: reasons why a feature may be dropped."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from feature_store.pruning.importance import Importances

Label = Literal["unused", "epsilon", "bundled", "correlated"]


def classify(importances: Importances, consumers: Mapping[str, Collection[str]]) -> dict[str, list[Label]]:
    """The labels of each feature. Most features have none.

    - unused: no service serves it.
    - epsilon (ε): its importance is within the noise.
    - bundled: it is ε, and its view as a whole is not.
    - correlated: another feature is nearly identical.

    Args:
        importances: the importances. If the noise is not known, ε is an importance of 0.
        consumers: the services that serve each feature. A feature that is not named has none.
    """
    noise = importances.noise or 0.0
    good = {name for view in importances.views if view.importance > noise for name in view.features}
    twins = {name for cluster in importances.clusters for name in cluster}
    out: dict[str, list[Label]] = {}
    for item in importances.features:
        is_epsilon = item.importance <= noise
        holds: dict[Label, bool] = {
            "unused": not consumers.get(item.feature),
            "epsilon": is_epsilon,
            "bundled": is_epsilon and item.feature in good,
            "correlated": item.feature in twins,
        }
        out[item.feature] = [label for label, is_so in holds.items() if is_so]
    return out
