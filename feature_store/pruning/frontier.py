"""The importance–cost curve: the most importance that each budget can keep."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from feature_store.errors import RequestError
from feature_store.pruning.budget import Budget, Choice
from feature_store.pruning.cost import CostModel
from feature_store.pruning.planner import choose

# The smallest budget, as a share of the full cost. The first few percent keep most of the importance, so points are
# denser there.
_LEAST_SHARE = 0.01
# Each point is an integer program, solved in 0.03 to 0.5 s for 200 features.
_POINTS = 24
_SECONDS = 2.0


def frontier(
    model: CostModel, importance: Mapping[str, float], *, points: int = _POINTS, required: Collection[str] = ()
) -> list[Choice]:
    """The best choices within rising budgets of bytes, up to the full cost.

    Left out are choices that keep no more importance than the one before, and budgets below the required features.

    Args:
        model: the costs of the features.
        importance: the importance of each feature.
        points: the number of budgets.
        required: features that must be kept.
    """
    whole = model.cost(model.features).bytes
    choices: list[Choice] = []
    for share in np.geomspace(_LEAST_SHARE, 1.0, points):
        try:
            budget = Budget(max_bytes=round(share * whole))
            choice = choose(model, importance, budget, required=required, seconds=_SECONDS)
        except RequestError:
            continue
        if choice.kept and (not choices or choice.importance > choices[-1].importance):
            choices.append(choice)
    return choices
