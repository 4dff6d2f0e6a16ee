from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from feature_store.errors import RequestError
from feature_store.pruning.model_importance import importance_from_model

NAMES = ["a", "b", "c"]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3))
Y = (X[:, 1] + RNG.normal(size=300) > 0).astype(int)


def reported(model):
    found = importance_from_model(model, NAMES)
    return found.method, [item.importance for item in found.features]


def test_trees_of_scikit_learn():
    model = RandomForestClassifier(10, random_state=0).fit(X, Y)
    assert reported(model) == ("feature_importances_", model.feature_importances_.tolist())
    assert importance_from_model(model, NAMES).model == "RandomForestClassifier"


@pytest.mark.parametrize(
    "make",
    [lambda: make_pipeline(StandardScaler(), LogisticRegression()), lambda: GridSearchCV(LogisticRegression(), {})],
)
def test_a_pipeline_or_a_search_reports_the_importances_of_its_final_model(make):
    method, values = reported(make().fit(X, Y))
    assert method == "size of coef_"
    assert values[1] == max(values)


def test_coefficients_of_several_classes_are_averaged():
    assert reported(SimpleNamespace(coef_=np.array([[1.0, -2.0, 0.0], [-3.0, 0.0, 0.0]])))[1] == [2.0, 1.0, 0.0]


class Gains:
    def feature_importance(self, importance_type):
        assert importance_type == "gain"
        return np.array([5.0, 0.0, 2.0])


class Scores(SimpleNamespace):
    def num_features(self):
        return 3

    def get_score(self, importance_type):
        assert importance_type == "total_gain"
        return self.scores


def test_lightgbm():
    booster = SimpleNamespace(feature_importance=Gains().feature_importance)
    wrapper = SimpleNamespace(booster_=booster, feature_importances_=[1, 2, 3])
    assert reported(booster) == reported(wrapper) == ("LightGBM gain", [5.0, 0.0, 2.0])


def test_xgboost():
    unnamed = Scores(feature_names=None, scores={"f2": 2.0, "f0": 5.0})
    named = Scores(feature_names=["x", "y", "z"], scores={"z": 2.0, "x": 5.0})
    wrapper = SimpleNamespace(get_booster=lambda: named, feature_importances_=[1, 2, 3])
    assert reported(unnamed) == reported(named) == reported(wrapper) == ("XGBoost total gain", [5.0, 0.0, 2.0])


def test_an_error_of_the_model_is_in_the_error():
    def refuse(importance_type):
        raise ValueError("gblinear only has `weight` defined for feature importance.\nStack trace: …")

    with pytest.raises(RequestError, match=r"expected XGBoost total gain, got gblinear only has"):
        reported(SimpleNamespace(feature_names=NAMES, get_score=refuse))


def test_catboost():
    model = SimpleNamespace(get_feature_importance=lambda: [5.0, 0.0, 2.0], feature_importances_=[1, 2, 3])
    assert reported(model) == ("CatBoost feature importance", [5.0, 0.0, 2.0])


def test_columns_of_one_feature_are_summed():
    found = importance_from_model(SimpleNamespace(coef_=np.array([1.0, -2.0, 4.0])), ["a", "b", "b"])
    assert found.by_name() == {"a": 1.0, "b": 6.0}


def test_other_columns_are_refused():
    model = SimpleNamespace(feature_importances_=[1.0, 2.0])
    with pytest.raises(RequestError, match="expected one for each of 3 names, got 2 importances"):
        importance_from_model(model, NAMES)


def test_a_model_without_importances_is_refused():
    with pytest.raises(RequestError, match="prune measure"):
        importance_from_model(HistGradientBoostingClassifier(max_iter=2).fit(X, Y), NAMES)
