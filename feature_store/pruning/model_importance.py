"""The importances that a fitted model reports: of scikit-learn, LightGBM, XGBoost or CatBoost. None is imported.

They are cheap and often mislead. Gain counts how much a model uses a feature, not how much worse the model would be
without it (https://scikit-learn.org/stable/modules/permutation_importance.html). `measure.py` measures the latter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_store.errors import RequestError
from feature_store.pruning.importance import FeatureImportance, Importances, now

Values = npt.NDArray[np.float64]


def importance_from_model(model: Any, names: Sequence[str]) -> Importances:
    """The importances that a fitted model reports. A pipeline or a search is asked for its final model.

    Args:
        model: a model of scikit-learn (`feature_importances_`, or the size of `coef_`), LightGBM or XGBoost (total
            gain; 0 for a feature that XGBoost never split on) or CatBoost (its default importance).
        names: the feature of each column that the model was fitted on, in order. A feature with several columns, such
            as an array, gets their sum.

    Raises:
        RequestError: the model reports no importances, or not one for each name.

    Example:
        >>> from types import SimpleNamespace
        >>> from feature_store.pruning import importance_from_model
        >>> fitted = SimpleNamespace(feature_importances_=[0.7, 0.2, 0.1])
        >>> importance_from_model(fitted, ["price", "embedding", "embedding"]).by_name()
        {'price': 0.7, 'embedding': 0.30000000000000004}
    """
    fitted = _final(model)
    where = f"model {type(fitted).__name__}"
    source = next(((method, read) for method, is_there, read in _SOURCES if is_there(fitted)), None)
    if source is None:
        expected = "feature_importances_, coef_, or a LightGBM, XGBoost or CatBoost model"
        raise RequestError(where, expected=expected, got="none of them", hint="use `feature-store prune measure`")
    method, read = source
    try:
        values = read(fitted)
    except ValueError as error:  # XGBoostError is one: linear boosters have no gain
        got = str(error).partition("\n")[0]
        raise RequestError(where, expected=method, got=got, hint="use `feature-store prune measure`") from error
    if values.shape != (len(names),):
        hint = "name the columns that the model was fitted on; the other steps of a pipeline must keep them"
        got = f"{len(values)} importances"
        raise RequestError(where, expected=f"one for each of {len(names)} names", got=got, hint=hint)
    sums: dict[str, float] = {}
    for name, value in zip(names, values, strict=True):
        sums[name] = sums.get(name, 0.0) + float(value)
    features = tuple(FeatureImportance(name, value) for name, value in sums.items())
    return Importances(method, type(fitted).__name__, now(), features)


def _final(model: Any) -> Any:
    """The model at the end of pipelines and searches."""
    while True:
        if hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif isinstance(steps := getattr(model, "steps", None), list) and steps:
            model = steps[-1][1]
        else:
            return model


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda model: all(hasattr(model, name) for name in names)


def _array(values: Any) -> Values:
    return np.asarray(values, np.float64)


def _coefficients(model: Any) -> Values:
    """The absolute coefficients, averaged over the classes."""
    sizes = np.abs(_array(model.coef_))
    return sizes if sizes.ndim == 1 else np.asarray(sizes.mean(axis=0))


def _xgboost(booster: Any) -> Values:
    """XGBoost reports only features that it split on. Without names they are f0, f1, …"""
    names = booster.feature_names or [f"f{i}" for i in range(booster.num_features())]
    gains = booster.get_score(importance_type="total_gain")
    return _array([gains.get(name, 0.0) for name in names])


# Tried in this order: the wrappers of LightGBM and XGBoost have feature_importances_ too, which counts splits
# (LightGBM) or averages gains (XGBoost).
_SOURCES: tuple[tuple[str, Callable[[Any], bool], Callable[[Any], Values]], ...] = (
    ("CatBoost feature importance", _has("get_feature_importance"), lambda m: _array(m.get_feature_importance())),
    ("LightGBM gain", _has("booster_"), lambda m: _array(m.booster_.feature_importance(importance_type="gain"))),
    ("LightGBM gain", _has("feature_importance"), lambda m: _array(m.feature_importance(importance_type="gain"))),
    ("XGBoost total gain", _has("get_booster"), lambda m: _xgboost(m.get_booster())),
    ("XGBoost total gain", _has("get_score"), _xgboost),
    ("feature_importances_", _has("feature_importances_"), lambda m: _array(m.feature_importances_)),
    ("size of coef_", _has("coef_"), _coefficients),
)
