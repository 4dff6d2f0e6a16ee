"""Commands that prune a service: import, measure, show, plan, curve, verify, apply, rollback."""

from __future__ import annotations

import enum
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from feature_store.cli.exit_codes import FINDING
from feature_store.cli.options import AsJson, Repo, read_counts
from feature_store.cli.output import console, print_json, table
from feature_store.cli.progress import CountReport
from feature_store.cli.prune_output import (
    ACCOUNT_COLUMNS,
    TIME_COLUMNS,
    account_row,
    plan_document,
    plan_line,
    show_applied,
    show_importances,
    show_verification,
)
from feature_store.errors import RequestError
from feature_store.project.pruner import Pruner
from feature_store.project.store import FeatureStore
from feature_store.pruning.budget import Budget
from feature_store.pruning.training import EARLIER, Training

app = typer.Typer(
    help="Find features that a model does not need, and stop serving them.", no_args_is_help=True, rich_markup_mode=None
)


class StageChoice(enum.StrEnum):
    """The stages of a plan: shadow, mask, drop."""

    SHADOW = "shadow"
    MASK = "mask"
    DROP = "drop"


class AnswerChoice(enum.StrEnum):
    """Answer to a request for a dropped feature."""

    ERROR = "error"
    DEFAULT = "default"


Service = Annotated[str, typer.Option(help="The service.")]
Requests = Annotated[
    str,
    typer.Option(
        "--request",
        metavar="ENTITY=COUNT[,…]",
        help="Distinct entities in a typical request: user=1,movie=200.",
    ),
]
PlanId = Annotated[str, typer.Argument(metavar="PLAN", help="Id of a prune plan, or its first characters.")]
TrainingSet = Annotated[Path, typer.Option(help="A Parquet file written by `training-set --prune-as-of never`.")]
Label = Annotated[str, typer.Option(help="The column with the labels.")]
EntityColumn = Annotated[
    str, typer.Option("--entity", help="The column that identifies the entity. Rows are resampled by entity.")
]
Model = Annotated[str, typer.Option(metavar="MODULE:FACTORY", help="A function that takes a seed and returns a model.")]
Timestamp = Annotated[str, typer.Option(help="The column with the label times.")]
Earlier = Annotated[
    float,
    typer.Option(min=0.1, max=0.95, help="Share of the rows to choose features on, earliest first."),
]
Seeds = Annotated[int, typer.Option(min=1, help="Number of fits of each model.")]


@app.command("import")
def import_importances(
    service: Service,
    file: Annotated[
        Path | None, typer.Argument(help="CSV, Parquet or JSON: feature, importance[, std, method, model, time].")
    ] = None,
    fitted: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Instead of a file: a function that returns a fitted model, which reports its importances.",
        ),
    ] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Import the importances of a service's features from a file or from a fitted model."""
    from feature_store.pruning.dataset import load_fitted
    from feature_store.pruning.importance_file import read_importances

    if (file is None) == (fitted is None):
        raise RequestError("prune import", problem="name either a file or --fitted")
    with FeatureStore(repo) as store:
        pruner = Pruner(store)
        if file is not None:
            imported = pruner.import_importances(service, read_importances(file))
        else:
            imported = pruner.import_from_model(service, load_fitted(str(fitted)))
    show_importances(imported, as_json)


@app.command()
def measure(
    service: Service,
    training_set: TrainingSet,
    label: Label,
    entity: EntityColumn,
    model: Model,
    timestamp: Timestamp = "event_timestamp",
    earlier: Earlier = EARLIER,
    seeds: Seeds = 3,
    rows: Annotated[
        int | None, typer.Option(min=100, help="Number of earlier rows to use, evenly spread. Default: all.")
    ] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Measure importances by refitting the model on the earlier rows, and keep them."""
    training = Training(training_set, label, entity, model, timestamp, earlier)
    with FeatureStore(repo) as store, CountReport("measure", "fits", console(stderr=True)) as report:
        measured = Pruner(store).measure(service, training, seeds=range(seeds), most_rows=rows, report=report)
    show_importances(measured, as_json)


@app.command()
def show(
    service: Service,
    request: Requests,
    timed: Annotated[bool, typer.Option("--timed", help="Also time requests, for a few seconds.")] = False,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Show each feature's importance, its cost, and who reads it."""
    with FeatureStore(repo) as store:
        pruner, counts = Pruner(store), read_counts("--request", request)
        accounts = pruner.accounts(service, counts, timed=timed)
        plans = pruner.plans(service)
    if as_json:
        print_json(
            {
                "features": [asdict(one) | {"importance_per_byte": one.importance_per_byte} for one in accounts],
                "plans": [plan_document(plan) for plan in plans],
            }
        )
        return
    out = console()
    columns = ACCOUNT_COLUMNS | (TIME_COLUMNS if timed else {})
    out.print(table("", columns, [account_row(one)[: len(columns)] for one in accounts]))
    out.print("Bytes and keys: the saving if this feature alone is dropped, per request, in Redis, and written a day.")
    for plan in plans:
        out.print(plan_line(plan), markup=False, soft_wrap=True)


@app.command()
def plan(
    service: Service,
    request: Requests,
    max_bytes: Annotated[int | None, typer.Option(help="Most bytes per request.")] = None,
    max_keys: Annotated[int | None, typer.Option(help="Most keys per request.")] = None,
    max_features: Annotated[int | None, typer.Option(help="Most features to serve.")] = None,
    slo_ms: Annotated[
        float | None,
        typer.Option(help="Highest 99th percentile of the request time, estimated by timing requests here."),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Keep at least this share of importance, in the fewest bytes within the limits."
        ),
    ] = None,
    require: Annotated[list[str] | None, typer.Option(help="A feature to keep. Repeatable.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the plan to this file, as JSON.")] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Choose the features to keep: the most importance within a budget."""
    budget = Budget(max_bytes=max_bytes, max_keys=max_keys, max_features=max_features, slo_ms=slo_ms, keep=keep)
    if budget == Budget():
        hint = "--max-bytes, --max-keys, --max-features, --slo-ms or --keep"
        raise RequestError("prune plan", problem="a budget is required", hint=hint)
    with FeatureStore(repo) as store:
        pruner, counts = Pruner(store), read_counts("--request", request)
        if slo_ms is not None:
            budget = replace(budget, latency=pruner.latency(service, counts))
        made = pruner.plan(service, budget, counts, required=require or [])
    if out is not None:
        out.write_bytes(made.to_json())
    if as_json:
        print_json(plan_document(made) | {"reasons": made.reasons, "kept": made.kept, "dropped": made.dropped})
        return
    shown = console()
    shown.print(table("", {"feature": "left", "why": "left"}, made.reasons.items()))
    shown.print(plan_line(made), markup=False, soft_wrap=True)


@app.command()
def curve(
    plan: PlanId,
    out: Annotated[list[Path], typer.Option(help="File to write: .svg, .png or .pdf. Repeatable.")],
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Draw the importance that each budget keeps, with the plan marked."""
    from feature_store.pruning.drawing import draw_curve

    with FeatureStore(repo) as store:
        pruner = Pruner(store)
        kept = pruner.find(plan)
        choices = pruner.curve(kept)
    draw_curve(choices, kept, out)
    if as_json:
        print_json([asdict(one.cost) | {"importance": one.importance, "kept": one.kept} for one in choices])
    else:
        console().print(f"drawn: {', '.join(map(str, out))}", markup=False, soft_wrap=True)


@app.command()
def verify(
    plan: PlanId,
    training_set: TrainingSet,
    label: Label,
    entity: EntityColumn,
    model: Model,
    timestamp: Timestamp = "event_timestamp",
    earlier: Earlier = EARLIER,
    margin: Annotated[float, typer.Option(min=0.0, help="Accepted loss in the metric.")] = 0.002,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Confidence of the one-sided bound.")] = 0.95,
    seeds: Seeds = 3,
    slice_by: Annotated[
        str | None, typer.Option(help="A feature. The plan must also pass on the rows above and below its median.")
    ] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Compare a refit without the dropped features on later rows. Exits with 3 if the plan fails."""
    training = Training(training_set, label, entity, model, timestamp, earlier)
    with FeatureStore(repo) as store, CountReport("verify", "fits", console(stderr=True)) as report:
        pruner = Pruner(store)
        verified, verification, instead = pruner.verify(
            pruner.find(plan),
            training,
            margin=margin,
            seeds=range(seeds),
            confidence=confidence,
            slice_by=slice_by,
            report=report,
        )
    if as_json:
        print_json(
            plan_document(verified)
            | {"verification": verified.verification, "instead": instead and plan_document(instead)}
        )
    else:
        show_verification(verification, verified, instead)
    if not verified.is_verified:
        raise typer.Exit(FINDING)


@app.command()
def apply(
    plan: PlanId,
    stage: Annotated[
        StageChoice, typer.Option(help="shadow: compare only; mask: not served; drop: not stored.")
    ] = StageChoice.MASK,
    answer: Annotated[
        AnswerChoice, typer.Option(help="Answer to a request for a dropped feature.")
    ] = AnswerChoice.ERROR,
    unverified: Annotated[bool, typer.Option(help="Apply a plan that is not verified or did not pass.")] = False,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Apply a plan as a new version of the registry, and serve it."""
    with FeatureStore(repo) as store:
        pruner = Pruner(store)
        applied = pruner.apply(pruner.find(plan), stage.value, answer=answer.value, unverified=unverified)
    show_applied(applied, as_json)


@app.command()
def rollback(service: Service, repo: Repo = Path(), as_json: AsJson = False) -> None:
    """Serve all features of a service again. Dropped features are filled first."""
    with FeatureStore(repo) as store:
        applied = Pruner(store).rollback(service)
    show_applied(applied, as_json)


# By name: the section of `feature-store --help`, the function or typer.Typer, and a summary of at most 78 characters.
COMMANDS = {
    "prune": ("Prune", "app", "Find features that a model does not need, and stop serving them."),
}
