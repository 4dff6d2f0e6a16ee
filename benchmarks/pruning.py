"""Pruning of the retail example, and a comparison of importances: `python -m benchmarks.pruning`.

Two questions, answered in docs/benchmarks-pruning.md:

- How much does the verified plan save, in each of two layouts, by Redis's counts and the client's times?
- At equal cost, how good is a model that is refitted on the features that importances choose? Ours are compared with
  random importances, the model's own gain, permutation and SHAP, all measured on the same earlier rows. The choices are
  judged on later rows that none of them has seen: once by spending each budget on the most important features in order,
  as is usual, and once with our planner, so that only the importances differ.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from rich.console import Console

from feature_store import FeatureStore
from feature_store.project.pruner import Pruner
from feature_store.pruning.budget import Budget
from feature_store.pruning.dataset import load_factory, scores
from feature_store.pruning.metric import auc
from feature_store.pruning.planner import choose
from feature_store.pruning.trials import Trials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from feature_store.pruning.cost import CostModel
    from feature_store.pruning.dataset import Dataset

ROOT = Path(__file__).resolve().parent.parent
RETAIL, PAGE = ROOT / "examples" / "retail", ROOT / "docs" / "benchmarks-pruning.md"
LAYOUTS = ("entity", "view")
# Of what all features cost. Beyond half of it, nothing is left to tell importances apart.
SHARES = (0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5)
SEEDS, RANDOM_ORDERS = (0, 1), 3
# Refits take seconds each; half the rows would blur differences of a thousandth.
FITTED_ROWS, JUDGED_ROWS, EXPLAINED_ROWS = 100_000, 120_000, 8_000
Importance = dict[str, float]


class Row(NamedTuple):
    """The areas of one kind of importance, spent in order and by the planner, up to half of the whole cost."""

    name: str
    ordered: float
    planned: float


def main() -> None:
    """Prune in both layouts, compare the importances, write the page."""
    arguments = _arguments()
    console = Console(stderr=True)
    found = {} if arguments.no_plans else {layout: _pruned(layout) for layout in LAYOUTS}
    console.print("importances at equal cost …")
    rows = list(_compared(console))
    text = _page(found, rows)
    if arguments.page:
        PAGE.write_text(text)
    Console(width=160, highlight=False).print(text, markup=False)


def _pruned(layout: str) -> str:
    """What the example prints of its plan: the verification and what it changes."""
    command = [sys.executable, str(RETAIL / "prune.py"), "--row-groups", layout]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout[done.stdout.index(" features ") :]


def _compared(console: Console) -> Iterator[Row]:
    sys.path.insert(0, str(RETAIL))
    os.chdir(RETAIL)
    os.environ |= {"ROW_GROUPS": "entity", "RETAIL_PROJECT": "retail_entity"}
    import prune

    with FeatureStore(RETAIL) as store:
        pruner = Pruner(store)
        earlier, later = pruner.parts(prune.SERVICE, prune.TRAINING)
        ours = pruner.importances(prune.SERVICE)
        model = pruner.costs(prune.SERVICE, prune.request(store))
    assert ours is not None
    known, judged = earlier.thinned(FITTED_ROWS), later.thinned(JUDGED_ROWS)
    trials = Trials(known, judged, load_factory(prune.TRAINING.model), SEEDS, "auc")
    everyone = {"ours": [ours.by_name()], **_others(known, prune.TRAINING.model)}
    for name, importances in everyone.items():
        console.print(f"  {name} …")
        ordered = [_area(trials, model, _in_order(model, one)) for one in importances]
        planned = [_area(trials, model, _by_planner(model, one)) for one in importances]
        yield Row(name, float(np.mean(ordered)), float(np.mean(planned)))


# -- what each budget buys ------------------------------------------------------------------------------------------


def _budgets(model: CostModel) -> list[int]:
    return [round(share * model.cost(model.features).bytes) for share in SHARES]


def _in_order(model: CostModel, importance: Mapping[str, float]) -> list[list[str]]:
    """For each budget, the features from the most important on, as many as it pays for."""
    order = sorted(model.features, key=lambda name: -importance[name])
    found = []
    for budget in _budgets(model):
        kept: list[str] = []
        for name in order:
            if model.cost([*kept, name]).bytes > budget:
                break
            kept.append(name)
        found.append(kept)
    return found


def _by_planner(model: CostModel, importance: Mapping[str, float]) -> list[list[str]]:
    return [list(choose(model, importance, Budget(max_bytes=budget), seconds=5).kept) for budget in _budgets(model)]


def _area(trials: Trials, model: CostModel, chosen: list[list[str]]) -> float:
    """The mean metric over all budgets up to the largest, where each buys the last choice that it can pay for."""
    metrics = [float(trials.metrics(kept).mean()) for kept in ([], *chosen[:-1])]
    budgets = [0, *_budgets(model)]
    return float(np.dot(np.diff(budgets), metrics) / budgets[-1])


# -- what others take for importance --------------------------------------------------------------------------------


def _others(known: Dataset, factory: str) -> dict[str, list[Importance]]:
    rng = np.random.default_rng(0)
    fitted, held_out = known.split_by_time((0.7, 0.3))
    explained = held_out.thinned(EXPLAINED_ROWS)
    models = [load_factory(factory)(seed).fit(fitted.x, fitted.y) for seed in SEEDS]
    names = list(known.features)
    gain = np.mean([one.booster.feature_importance("gain") for one in models], axis=0)
    # Tree SHAP (Lundberg et al. 2020), exact, as LightGBM computes it; the last column is the base value.
    shap = np.mean([np.abs(one.booster.predict(explained.x, pred_contrib=True))[:, :-1].mean(0) for one in models], 0)
    return {
        "random": [dict(zip(names, rng.random(len(names)), strict=True)) for _ in range(RANDOM_ORDERS)],
        "gain of the model": [dict(zip(names, gain.tolist(), strict=True))],
        "permutation": [_permutation(models, explained, rng)],
        "SHAP": [dict(zip(names, shap.tolist(), strict=True))],
    }


def _permutation(models: list[object], data: Dataset, rng: np.random.Generator) -> Importance:
    """What a model's AUC loses when one column is shuffled (Breiman 2001), on rows that it was not fitted on."""
    whole = [auc(data.y, scores(model, data.x)) for model in models]
    found = {}
    for at, name in enumerate(data.names):
        x = data.x.copy()
        x[:, at] = x[rng.permutation(len(x)), at]
        lost = [before - auc(data.y, scores(model, x)) for before, model in zip(whole, models, strict=True)]
        found[name] = max(0.0, float(np.mean(lost)))
    return found


# -- the page -------------------------------------------------------------------------------------------------------


def _page(found: Mapping[str, str], rows: list[Row]) -> str:
    lines = [
        "# Benchmarks of pruning",
        "",
        "Written by `python -m benchmarks.pruning` on the retail example (`examples/retail`): 153 features of 18",
        "views, a household and 50 candidates a request. Refits on the first 70 % of 673,000 labels in time, compared",
        "on the rest.",
        "",
        f"- {datetime.now(UTC):%Y-%m-%d}",
        "",
    ]
    about = {
        "entity": "All views of an entity in one row",
        "view": "A row group for each view, where keys weigh more",
    }
    for layout, text in found.items():
        lines += [f"## {about[layout]}", "", "```", text.rstrip(), "```", ""]
    lines += [
        "## Importances at equal cost",
        "",
        "Mean later AUC over budgets up to half of what all features cost: the area under the steps, by the width;",
        f"{len(SEEDS)} seeds.",
        "",
        "| importances | spent in their order | spent by the planner |",
        "|---|---|---|",
        *(f"| {row.name} | {row.ordered:.4f} | {row.planned:.4f} |" for row in rows),
        "",
    ]
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pruning", description="Measure what pruning saves.")
    parser.add_argument("--no-plans", action="store_true", help="compare the importances only")
    parser.add_argument("--no-page", dest="page", action="store_false", help="leave the page as it is")
    return parser.parse_args()


if __name__ == "__main__":
    main()
