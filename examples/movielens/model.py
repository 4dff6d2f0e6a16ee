"""A ranking model: trained on what serving would have said just before each rating, served by the online client.

`demo.py` runs it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from feature_store import FeatureStore

SERVICE = "ranking"
LIKED = 4
# Just before the rating, which must not be one of its own features.
BEFORE = timedelta(microseconds=1)
TRAINED_SHARE = 0.8
SEED = 7


class Ranker(HistGradientBoostingClassifier):
    """Small trees that each see some of the features: on later ratings they are better than larger ones that see all
    (AUC 0.758, not 0.754), and a model without some features is less a matter of luck."""

    def __init__(self, random_state: int) -> None:
        super().__init__(
            max_iter=150,
            learning_rate=0.05,
            max_leaf_nodes=15,
            min_samples_leaf=100,
            l2_regularization=10.0,
            max_features=0.3,
            random_state=random_state,
        )

    def fit(self, x: Any, y: Any) -> Ranker:
        """Learn, with one thread: several that wait for a busy core take minutes for what one does in seconds."""
        with threadpool_limits(1):
            super().fit(x, y)
        return self


def make(seed: int) -> Ranker:
    """An unfitted model: `prune measure` and `prune verify` take it as `model:make`."""
    return Ranker(seed)


class Trained(NamedTuple):
    """A model, and its score on ratings that are later than those that it was trained on."""

    model: Ranker
    trained_rows: int
    tested_rows: int
    features: int
    auc: float
    auc_of_means: float


def labels(folder: Path, end: datetime) -> pa.Table:
    """The ratings before `end`, ordered by time, each with the time just before it and whether it is 4 or 5."""
    ratings = pq.read_table(folder / "data" / "ratings.parquet")
    ratings = ratings.filter(pc.less(ratings["ts"], end)).sort_by("ts")
    return pa.table(
        {
            "user_id": ratings["user_id"],
            "movie_id": ratings["movie_id"],
            "event_timestamp": pc.subtract(ratings["ts"], pa.scalar(BEFORE, pa.duration("us"))),
            "now_year": pc.cast(pc.year(ratings["ts"]), pa.int32()),
            "liked": pc.greater_equal(ratings["rating"], LIKED),
        }
    )


def train(store: FeatureStore, folder: Path, end: datetime) -> Trained:
    """Train on the earlier ratings and test on the later ones, as in use."""
    table = labels(folder, end)
    training_set = store.get_historical_features(table, SERVICE)
    features, liked = training_set.to_numpy(), table["liked"].to_numpy()
    split = int(len(table) * TRAINED_SHARE)
    model = make(SEED).fit(features[:split], liked[:split])
    scores = model.predict_proba(features[split:])[:, 1]
    means = features[split:, training_set.columns.index("movie_rating_mean")]
    return Trained(
        model,
        split,
        len(table) - split,
        features.shape[1],
        roc_auc_score(liked[split:], scores),
        roc_auc_score(liked[split:], np.nan_to_num(means)),
    )


def rank(store: FeatureStore, trained: Trained, request: dict[str, Any], now: datetime) -> list[tuple[int, float]]:
    """The candidates of a request, best first: the position of each in the request, and its score."""
    matrix = store.client.get_online_features(SERVICE, request, now=now).to_numpy()
    scores = trained.model.predict_proba(matrix)[:, 1]
    return [(i, float(scores[i])) for i in np.argsort(-scores).tolist()]
