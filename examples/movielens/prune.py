"""Drop features that the model does not need: plan, verification, apply, savings, and rollback.

`demo.py` runs it. importances.json is what `feature-store prune measure` found of the model in model.py: hundreds of
refits, which take some ten minutes; docs/pruning.md says how to measure them anew.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, NamedTuple

import model
import pyarrow.parquet as pq

from feature_store import Pruner
from feature_store.pruning import Budget, Training, draw_curve, read_importances

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from feature_store import FeatureStore
    from feature_store.pruning import PrunePlan, Verification

    Report = Callable[[int, int], None]

# The share of the importance to keep. Of 0.26 AUC above chance, this loses at most two thirds of the margin.
KEEP, MARGIN = 0.995, 0.002
REQUESTS = 100
SEED = 7


class Verified(NamedTuple):
    """A plan, what was found of it, and the one that passes: it, what is offered instead, or None."""

    plan: PrunePlan
    verification: Verification
    instead: PrunePlan | None

    @property
    def passing(self) -> PrunePlan | None:
        """The plan that may be applied."""
        return self.plan if self.plan.is_verified else self.instead


def verify(store: FeatureStore, folder: Path, end: datetime, candidates: int, report: Report) -> Verified:
    """Plan by the measured importances, and refit without what the plan drops."""
    pruner = Pruner(store)
    pruner.import_importances(model.SERVICE, read_importances(folder / "importances.json"))
    plan = pruner.plan(model.SERVICE, Budget(keep=KEEP), {"user": 1, "movie": candidates})
    training_set = store.get_historical_features(model.labels(folder, end), model.SERVICE, prune_as_of="never")
    path = folder / "output" / "training.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(training_set.to_arrow(), path)
    training = Training(path, "liked", "user_id", "model:make")
    return Verified(*pruner.verify(plan, training, margin=MARGIN, report=report))


def requests(users: int, movies: int, candidates: int, now: datetime) -> list[dict[str, Any]]:
    """Random users, each with different candidates."""
    choose = random.Random(SEED)
    return [
        {
            "user_id": choose.randint(1, users),
            "movie_id": choose.sample(range(1, movies + 1), candidates),
            "now_year": now.year,
        }
        for _ in range(REQUESTS)
    ]


def draw(store: FeatureStore, plan: PrunePlan, folder: Path) -> list[Path]:
    """Draw the importance–cost curve into output/."""
    paths = [folder / "output" / "curve.svg", folder / "output" / "curve.png"]
    draw_curve(Pruner(store).curve(plan), plan, paths)
    return paths
