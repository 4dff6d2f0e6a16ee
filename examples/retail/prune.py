"""Prunes the service coming_week: importances, plan, verification, apply; then what requests cost, before and after.

    python prune.py                      # all views of an entity in one row
    python prune.py --row-groups view    # a row of its own for each view
    python prune.py --measure            # measure the importances anew, as importances.json was made

It runs a Redis of its own (the embedded server), and leaves the pruned version served.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))  # the model is named as a module of this folder

import tables  # noqa: E402

from feature_store import FeatureStore, Pruner  # noqa: E402
from feature_store.cli import (  # noqa: E402
    CountReport,
    ProgressReport,
    console as make_console,
    show_footprints,
    show_verification,
)
from feature_store.pruning import Budget, Training, draw_curve, read_importances  # noqa: E402

if TYPE_CHECKING:
    from typing import Any

SERVICE = "coming_week"
IMPORTANCES = FOLDER / "importances.json"
TRAINING = Training(FOLDER / "data" / "training.parquet", "bought", "household_id", "model:make")
END = datetime(2017, 12, 25, tzinfo=UTC)
MARGIN = 0.002
# The share of the importance to keep. The model is 0.35 AUC above chance, so a plan may lose a fifth of the margin.
KEEP = 0.999
# A request: a household, a store, and candidates from about this many departments.
CANDIDATES, DEPARTMENTS = 50, 10
ENTITIES = {"household_id": 1, "category_id": CANDIDATES, "department_id": DEPARTMENTS, "store_id": 1}
REQUESTS, REPEATS = 200, 3000
# Hundreds of refits on all 455,000 earlier rows would take hours.
MEASURED_ROWS = 150_000
console = make_console()


def main() -> None:
    options = _options()
    os.environ["ROW_GROUPS"] = options.row_groups
    os.environ["RETAIL_PROJECT"] = f"retail_{options.row_groups}"
    tables.make()
    with FeatureStore(FOLDER) as store:
        served(store)
        pruner = Pruner(store)
        make_training_set(store)
        if options.measure:
            with CountReport("measure", "fits", console) as report:
                found = pruner.measure(SERVICE, TRAINING, most_rows=MEASURED_ROWS, report=report)
            IMPORTANCES.write_bytes(found.to_json())
        else:
            pruner.import_importances(SERVICE, read_importances(IMPORTANCES))
        prune(store, pruner, FOLDER / "output" / options.row_groups)


def served(store: FeatureStore) -> None:
    """Apply, materialize, and undo an earlier pruning."""
    store.apply()
    if store.applied().prunings:
        Pruner(store).rollback(SERVICE)
    with ProgressReport(console) as report:
        store.materialize(end=END, report=report)


def make_training_set(store: FeatureStore) -> None:
    """The features of all labels, as of the beginning of each week."""
    labels = FOLDER / "data" / "labels.parquet"
    with console.status("joining 153 features to 673,000 labels"):
        found = store.get_historical_features(pq.read_table(labels), SERVICE, prune_as_of="never")
        pq.write_table(found.to_arrow(), TRAINING.path)


def prune(store: FeatureStore, pruner: Pruner, output: Path) -> None:
    """Plan, verify, apply; show what it changes."""
    plan = pruner.plan(SERVICE, Budget(keep=KEEP), request(store))
    with CountReport("verify", "fits", console) as report:
        plan, verification, instead = pruner.verify(plan, TRAINING, margin=MARGIN, report=report)
    show_verification(verification, plan, instead)
    chosen = plan if plan.is_verified else instead
    if chosen is None:
        sys.exit("No plan passes: nothing is pruned.")
    asked = requests()
    with CountReport("read, full", "requests", console, auto_refresh=False) as report:
        before = pruner.footprint(SERVICE, asked, repeats=REPEATS, now=END, report=report)
    pruner.apply(chosen, "drop")
    with CountReport("read, pruned", "requests", console, auto_refresh=False) as report:
        after = pruner.footprint(SERVICE, asked, repeats=REPEATS, now=END, report=report)
    show_footprints(before, after, chosen)
    drawn = [output / "curve.svg", output / "curve.png"]
    draw_curve(pruner.curve(chosen), chosen, drawn)
    console.print(f"importance–cost curve: {', '.join(str(path.relative_to(FOLDER)) for path in drawn)}")


def request(store: FeatureStore) -> dict[str, int]:
    """The number of each entity in a request."""
    views = store.applied().stored_views_of(SERVICE)
    return {entity.name: ENTITIES[entity.join_key] for view in views for entity in view.entities}


def requests() -> list[dict[str, Any]]:
    """The recommender's requests in the week after the last: some households, each with its candidates."""
    names = ["household_id", "category_id", "department_id", "store_id"]
    rows = pq.read_table(TRAINING.path, columns=names).to_pydict()
    department = dict(zip(rows["category_id"], rows["department_id"], strict=True))
    store = dict(zip(rows["household_id"], rows["store_id"], strict=True))
    choose = random.Random(0)
    asked = []
    for household in choose.sample(sorted(store), REQUESTS):
        categories = choose.sample(sorted(department), CANDIDATES)
        asked.append(
            {
                "household_id": household,
                "category_id": categories,
                "department_id": [department[category] for category in categories],
                "store_id": store[household],
                "today": int(END.timestamp()) // 86_400,
            }
        )
    return asked


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Prune the service coming_week, and measure what it saves.")
    parser.add_argument("--row-groups", choices=["entity", "view"], default="entity", help="what shares a stored row")
    parser.add_argument("--measure", action="store_true", help="measure the importances anew")
    return parser.parse_args()


if __name__ == "__main__":
    main()
