"""Commands that prune a service: import, measure, show, plan, curve, verify, apply, rollback."""

from __future__ import annotations

import enum
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from feature_store.cli.exit_codes import FINDING
from feature_store.cli.options import AsJson, Repo
from feature_store.cli.output import console, print_json, table
from feature_store.cli.progress import CountReport
from feature_store.cli.project import show_changes
from feature_store.cli.tables import MISSING
from feature_store.errors import RequestError
from feature_store.project.pruner import Pruner
from feature_store.project.store import FeatureStore
from feature_store.pruning.planner import Budget
from feature_store.pruning.training import EARLIER, Training

if TYPE_CHECKING:
    from feature_store.pruning.accounts import FeatureAccount
    from feature_store.pruning.footprint import Footprint
    from feature_store.pruning.importance import Importances
    from feature_store.pruning.plan import PrunePlan
    from feature_store.pruning.verify import Verification

app = typer.Typer(
    help="Find features that a model does not need, and stop serving them.", no_args_is_help=True, rich_markup_mode=None
)

_ACCOUNTS = (
    {"feature": "left", "view": "left"}
    | dict.fromkeys(("importance", "bytes", "keys", "per kB", "in Redis", "a day"), "right")
    | {"consumers": "left", "labels": "left", "dropped by": "left"}
)
_TIMES = dict.fromkeys(("round trip", "decode, µs"), "right")
_CANDIDATES = (
    {"features": "right"} | dict.fromkeys(("full", "pruned", "difference", "at least"), "right") | {"": "left"}
)


class Stage(enum.StrEnum):
    """How far a plan is carried out: compare only, stop serving, stop storing."""

    SHADOW = "shadow"
    MASK = "mask"
    DROP = "drop"


class Answer(enum.StrEnum):
    """The answer to a request for a dropped feature."""

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
PlanId = Annotated[str, typer.Argument(metavar="PLAN", help="The id of a prune plan, or its first characters.")]
TrainingSet = Annotated[Path, typer.Option(help="A Parquet file written by `training-set --prune-as-of never`.")]
Label = Annotated[str, typer.Option(help="The column with the labels.")]
EntityColumn = Annotated[
    str, typer.Option("--entity", help="The column that identifies the entity. Rows are resampled by entity.")
]
Model = Annotated[str, typer.Option(metavar="MODULE:FACTORY", help="A function that takes a seed and returns a model.")]
Timestamp = Annotated[str, typer.Option(help="The column with the times of labels.")]
Earlier = Annotated[
    float, typer.Option(min=0.1, max=0.95, help="The share of rows, the earliest, that features are chosen on.")
]
Seeds = Annotated[int, typer.Option(min=1, help="Number of fits of each model.")]


@app.command("import")
def import_importances(
    file: Annotated[
        Path, typer.Argument(help="CSV, Parquet or JSON: feature, importance[, std, method, model, time].")
    ],
    service: Service,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Import the importances of a service's features from a file."""
    from feature_store.pruning.importance_file import read_importances

    with FeatureStore(repo) as store:
        _show_importances(Pruner(store).import_importances(service, read_importances(file)), as_json)


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
        int | None, typer.Option(min=100, help="Number of the earlier rows to use, evenly spread. Default: all.")
    ] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Measure the importances of a service's features by refits on the earlier rows, and keep them."""
    training = Training(training_set, label, entity, model, timestamp, earlier)
    with FeatureStore(repo) as store, CountReport("measure", "fits", console(stderr=True)) as report:
        found = Pruner(store).measure(service, training, seeds=range(seeds), most_rows=rows, report=report)
    _show_importances(found, as_json)


@app.command()
def show(
    service: Service,
    request: Requests,
    timed: Annotated[bool, typer.Option("--timed", help="Time requests too; takes some seconds.")] = False,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Show each feature's importance, its cost, and who reads it."""
    with FeatureStore(repo) as store:
        pruner, counts = Pruner(store), _read_request(request)
        accounts = pruner.accounts(service, counts, timed=timed)
        plans = pruner.plans(service)
    if as_json:
        print_json(
            {
                "features": [asdict(one) | {"importance_per_byte": one.importance_per_byte} for one in accounts],
                "plans": [_about(plan) for plan in plans],
            }
        )
        return
    out = console()
    columns = _ACCOUNTS | (_TIMES if timed else {})
    out.print(table("", columns, [_account(one)[: len(columns)] for one in accounts]))
    out.print(
        "Bytes and keys are what a request saves, and Redis, and materializing in a day, when the feature goes alone."
    )
    for plan in plans:
        out.print(_line(plan), markup=False, soft_wrap=True)


@app.command()
def plan(
    service: Service,
    request: Requests,
    max_bytes: Annotated[int | None, typer.Option(help="The most per request.")] = None,
    max_keys: Annotated[int | None, typer.Option(help="The most per request.")] = None,
    max_features: Annotated[int | None, typer.Option(help="The most that are served.")] = None,
    slo_ms: Annotated[
        float | None,
        typer.Option(help="The highest 99th percentile of a request, estimated from requests that are timed here."),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Keep at least this share of importance, at the lowest cost within the limits."
        ),
    ] = None,
    require: Annotated[list[str] | None, typer.Option(help="A feature to keep; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the plan to this file too, as JSON.")] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Choose the features to keep: the most importance within a budget."""
    budget = Budget(max_bytes=max_bytes, max_keys=max_keys, max_features=max_features, slo_ms=slo_ms, keep=keep)
    if budget == Budget():
        hint = "--max-bytes, --max-keys, --max-features, --slo-ms or --keep"
        raise RequestError("prune plan", problem="a budget is required", hint=hint)
    with FeatureStore(repo) as store:
        pruner, counts = Pruner(store), _read_request(request)
        if slo_ms is not None:
            budget = replace(budget, latency=pruner.latency(service, counts))
        made = pruner.plan(service, budget, counts, required=require or [])
    if out is not None:
        out.write_bytes(made.to_json())
    if as_json:
        print_json(_about(made) | {"reasons": made.reasons, "kept": made.kept, "dropped": made.dropped})
        return
    shown = console()
    shown.print(table("", {"feature": "left", "why": "left"}, made.reasons.items()))
    shown.print(_line(made), markup=False, soft_wrap=True)


@app.command()
def curve(
    plan: PlanId,
    out: Annotated[list[Path], typer.Option(help="The file to write: .svg, .png or .pdf; may be repeated.")],
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Draw the importance that each budget keeps, and mark the plan."""
    from feature_store.pruning.drawing import draw_curve

    with FeatureStore(repo) as store:
        pruner = Pruner(store)
        found = pruner.find(plan)
        choices = pruner.curve(found)
    draw_curve(choices, found, out)
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
    margin: Annotated[float, typer.Option(min=0.0, help="The loss in the metric that is accepted.")] = 0.002,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Confidence of the one-sided bound.")] = 0.95,
    seeds: Seeds = 3,
    slice_by: Annotated[
        str | None, typer.Option(help="A feature; the plan must pass below and above its median too.")
    ] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Refit without the features that a plan drops and compare on later rows. Exits with 3 if the plan fails."""
    training = Training(training_set, label, entity, model, timestamp, earlier)
    with FeatureStore(repo) as store, CountReport("verify", "fits", console(stderr=True)) as report:
        pruner = Pruner(store)
        found, verification, instead = pruner.verify(
            pruner.find(plan),
            training,
            margin=margin,
            seeds=range(seeds),
            confidence=confidence,
            slice_by=slice_by,
            report=report,
        )
    if as_json:
        print_json(_about(found) | {"verification": found.verification, "instead": instead and _about(instead)})
    else:
        show_verification(verification, found, instead)
    if not found.is_verified:
        raise typer.Exit(FINDING)


@app.command()
def apply(
    plan: PlanId,
    stage: Annotated[
        Stage, typer.Option(help="shadow: compare only; mask: not served; drop: not stored.")
    ] = Stage.MASK,
    answer: Annotated[Answer, typer.Option(help="The answer to a request for a dropped feature.")] = Answer.ERROR,
    unverified: Annotated[bool, typer.Option(help="Apply a plan that was not verified, or failed.")] = False,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Apply a plan as a new version of the registry, and serve it."""
    with FeatureStore(repo) as store:
        pruner = Pruner(store)
        applied = pruner.apply(pruner.find(plan), stage.value, answer=answer.value, unverified=unverified)
    _show_applied(applied, as_json)


@app.command()
def rollback(service: Service, repo: Repo = Path(), as_json: AsJson = False) -> None:
    """Serve all features of a service again. Dropped features are filled first."""
    with FeatureStore(repo) as store:
        applied = Pruner(store).rollback(service)
    _show_applied(applied, as_json)


# -- what is shown --------------------------------------------------------------------------------------------------


def _read_request(text: str) -> dict[str, int]:
    found = {}
    for part in text.split(","):
        name, _, count = part.partition("=")
        if not name or not count.isdigit() or int(count) < 1:
            raise RequestError("--request", expected="ENTITY=COUNT, such as user=1,movie=200", got=repr(part))
        found[name.strip()] = int(count)
    return found


def _show_importances(found: Importances, as_json: bool) -> None:
    if as_json:  # as a document that `prune import` takes
        print_json(orjson.loads(found.to_json()))
        return
    columns = {"feature": "left", "importance": "right", "std": "right"}
    ordered = sorted(found.features, key=lambda item: -item.importance)
    console().print(table("", columns, [[one.feature, one.importance, one.std] for one in ordered]))
    noise = "" if found.noise is None else f"; what is not above {found.noise:.3g} is ε"
    console().print(f"{len(ordered)} importances by {found.method} of {found.model}{noise}", markup=False)


def _account(one: FeatureAccount) -> list[Any]:
    per = one.importance_per_byte
    return [
        one.feature,
        one.view,
        one.importance,
        f"{one.bytes:,}",
        f"{one.keys:,}",
        None if per is None else f"{per * 1000:.4g}",
        None if one.redis_bytes is None else f"{one.redis_bytes:,}",
        None if one.daily_bytes is None else f"{one.daily_bytes:,}",
        ", ".join(one.consumers) or None,
        ", ".join("ε" if label == "epsilon" else label for label in one.labels) or None,
        one.dropped_by,
        None if one.round_trip is None else f"{one.round_trip:.2%}",
        None if one.decode_ns is None else f"{one.decode_ns / 1000:.1f}",
    ]


def _about(plan: PrunePlan) -> dict[str, Any]:
    return {
        "plan": plan.id,
        "service": plan.service,
        "made_at": plan.made_at,
        "features": [len(plan.columns), len(plan.kept)],
        "importance": plan.importance,
        "before": asdict(plan.before),
        "after": asdict(plan.after),
        "proven": plan.proven,
        "verified": plan.is_verified,
    }


def _line(plan: PrunePlan) -> str:
    whole, kept = plan.importance
    share = f"{kept / whole:.1%}" if whole else MISSING
    verified = "not verified" if plan.verification is None else "verified" if plan.is_verified else "did not pass"
    return (
        f"plan {plan.id}: {len(plan.kept)} of {len(plan.columns)} features, {share} of the importance, "
        f"{plan.after.bytes:,} of {plan.before.bytes:,} bytes and {plan.after.keys} of {plan.before.keys} keys "
        f"a request{'' if plan.proven else ' (not proven to be the best)'}; {verified}"
    )


def show_verification(verification: Verification, found: PrunePlan, instead: PrunePlan | None) -> None:
    """Print the verification of each candidate, and what to apply."""
    rows = [
        [
            len(one.kept),
            f"{one.overall.full:.4f}",
            f"{one.overall.pruned:.4f}",
            f"{one.overall.difference:+.4f}",
            f"{one.overall.lower_bound:+.4f}",
            "passes" if one.passes else "does not pass",
        ]
        for one in verification.candidates
    ]
    out = console()
    out.print(table("", _CANDIDATES, rows))
    out.print(
        f"{verification.metric} of {verification.later_rows:,} later rows of {verification.entities:,} entities, "
        f"margin {verification.margin:g}, confidence {verification.confidence:g}, {len(verification.seeds)} seeds"
    )
    out.print(_line(found), markup=False, soft_wrap=True)
    if instead is not None:
        out.print(f"instead: {_line(instead)}", markup=False, soft_wrap=True)
    elif not found.is_verified:
        out.print(verification.reason, markup=False, soft_wrap=True)


def show_footprints(before: Footprint, after: Footprint, plan: PrunePlan) -> None:
    """Print the cost of requests before and after a plan was applied, and the loss of the model."""

    def row(name: str, was: float, now: float, shown: str) -> list[str]:
        return [name, format(was, shown), format(now, shown), f"{now / was - 1:+.1%}" if was else MISSING]

    rows = [
        row("features", before.features, after.features, ",d"),
        row("keys a request", before.keys, after.keys, ",.0f"),
        row("bytes a request", before.bytes, after.bytes, ",.0f"),
        row("MB in Redis", before.redis_bytes / 1e6, after.redis_bytes / 1e6, ",.2f"),
        row("p50, ms", before.p50_ms, after.p50_ms, ".3f"),
        row("p99, ms", before.p99_ms, after.p99_ms, ".3f"),
    ]
    if plan.verification is not None:
        found = plan.verification
        change = f"{found['difference']:+.4f}, at least {found['lower_bound']:+.4f}"
        rows.append([found["metric"].upper(), f"{found['full']:.4f}", f"{found['pruned']:.4f}", change])
    console().print(table("", {"": "left"} | dict.fromkeys(("before", "after", "change"), "right"), rows))


def _show_applied(applied: Any, as_json: bool) -> None:
    if as_json:
        print_json({"version": applied.version.version, **applied.changes.to_document()})
        return
    show_changes(applied.changes)
    console().print(f"version {applied.version.version} is served")


# By name: the section of `feature-store --help`, the function or typer.Typer, and a summary of at most 78 characters.
COMMANDS = {
    "prune": ("Prune", "app", "Find features that a model does not need, and stop serving them."),
}
