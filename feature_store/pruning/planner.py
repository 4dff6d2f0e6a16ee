"""Which features to keep: the most importance within a budget, or the least cost for a share of the importance.

The importance of a feature counts if the feature is kept. Its cost depends on which others are kept (see `cost.py`), so
the choice is an integer program: a variable for each feature, and one for each resource, which is at least 1 while a
feature that needs the resource is kept.

    maximise  Σ importance · kept                           subject to   Σ bytes · needed ≤ budget, …
    minimise  Σ bytes · needed                              subject to   Σ importance · kept ≥ share · total

`integer_program.py` solves it to a proven optimum, the same one each time. Among equal optima it takes the one with the
fewest bytes, then the one with the fewest features. Where SciPy is not installed, or HiGHS finds no optimum in time,
`greedy.py` chooses instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from feature_store.errors import RequestError
from feature_store.pruning.budget import Budget, Choice
from feature_store.pruning.cost import CostModel
from feature_store.pruning.greedy import greedy
from feature_store.pruning.integer_program import IntegerProgram

_SECONDS = 20.0


def choose(
    model: CostModel,
    importance: Mapping[str, float],
    budget: Budget,
    *,
    required: Collection[str] = (),
    seconds: float = _SECONDS,
) -> Choice:
    """The features to keep.

    Args:
        model: the costs of the features.
        importance: of each feature, at least 0. A feature that is not named has none.
        budget: the limits.
        required: features that must be kept.
        seconds: the time to prove an optimum.

    Raises:
        RequestError: no choice is within the budget, or a required feature is not one of the service's.
    """
    _refuse_unknown(model, required)
    try:
        from scipy.optimize import milp  # noqa: F401
    except ModuleNotFoundError:
        return greedy(model, importance, budget, required=required)
    solved = IntegerProgram(model, importance, budget, required).solve(seconds)
    return solved if solved is not None else greedy(model, importance, budget, required=required)


def _refuse_unknown(model: CostModel, required: Collection[str]) -> None:
    unknown = sorted(set(required) - set(model.features))
    if unknown:
        raise RequestError(
            f"prune plan of {model.service}", expected="required features of the service", got=", ".join(unknown)
        )
