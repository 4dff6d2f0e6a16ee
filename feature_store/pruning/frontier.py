"""The importance–cost curve: for each budget, how much importance it buys at most."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from feature_store.errors import RequestError
from feature_store.pruning.budget import Budget, Choice
from feature_store.pruning.cost import CostModel
from feature_store.pruning.planner import choose

# Of what all features cost: most of the importance is bought by the first few percent, so they lie closer there.
_LEAST_SHARE = 0.01
# Each point is an integer program of its own, solved in 0.03 to 0.5 s for 200 features.
_POINTS = 24
_SECONDS = 2.0


def frontier(
    model: CostModel, importance: Mapping[str, float], *, points: int = _POINTS, required: Collection[str] = ()
) -> list[Choice]:
    """The best choices within rising budgets of bytes, the last of which buys all; those that buy no more than the one
    before are left out.

    Args:
        model: what features cost.
        importance: of each feature.
        points: how many budgets are tried.
        required: what is kept whatever it costs; budgets that do not suffice for it are left out.
    """
    whole = model.cost(model.features).bytes
    found: list[Choice] = []
    for share in np.geomspace(_LEAST_SHARE, 1.0, points):
        try:
            budget = Budget(max_bytes=round(share * whole))
            choice = choose(model, importance, budget, required=required, seconds=_SECONDS)
        except RequestError:
            continue
        if choice.kept and (not found or choice.importance > found[-1].importance):
            found.append(choice)
    return found
