"""Commands that compare served values with what was declared or computed: skew, freshness, score."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from feature_store._formatting import shown_age, shown_duration, shown_time
from feature_store.cli.exit_codes import FINDING
from feature_store.cli.options import AsJson, Repo, read_entity_rows, read_time
from feature_store.cli.output import console, print_json, table
from feature_store.cli.streaming import stop_signals
from feature_store.cli.text import visible
from feature_store.definitions.dtypes import from_microseconds
from feature_store.errors import RegistryError
from feature_store.monitoring.freshness import FreshnessReport
from feature_store.monitoring.skew import FeatureSkew, SkewReport
from feature_store.project.store import FeatureStore
from feature_store.registry.store import current_author

if TYPE_CHECKING:
    from feature_store.monitoring.served_skew import ServedFeatureSkew, ServedSkewReport

_COLUMNS = {"feature": "left"} | dict.fromkeys(("equal", "differing", "worst"), "right") | {"example": "left"}
_LOG_COLUMNS = (
    {"feature": "left"}
    | dict.fromkeys(("equal", "differing", "left out", "worst", "distance"), "right")
    | {"example": "left"}
)
_FRESHNESS = {
    "view": "left",
    "newest event": "left",
    "age": "right",
    "declared": "right",
    "ttl": "right",
    "state": "left",
    "rows": "right",
}
_POINTS = {1.0: "[green]1  [/]", 0.5: "[yellow]0.5[/]", 0.0: "[red]0  [/]"}
_OTHER_SECTIONS = (
    "The paper's score is the minimum over four sections. This command scores data and monitoring; "
    "models and infrastructure are outside a feature store."
)
# Seconds between checks of whether the metrics server should stop.
_POLL_S = 0.2


def skew(
    service: Annotated[str | None, typer.Option(help="The service. Optional with the log of one service.")] = None,
    at: Annotated[
        datetime | None, typer.Option(parser=read_time, metavar="TIME", help="The time to compare at. Default: now.")
    ] = None,
    entity_rows: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE[,VALUE…]]…", help="The entities to compare. Default: a sample of the stored ones."
        ),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Number of rows to sample. Default: 1000, or 20000 of a served log.")
    ] = None,
    from_served_log: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Compare the records of this served log, each at its own time.")
    ] = None,
    training_set: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With a log: the reference of distances. Default: the recomputed values."),
    ] = None,
    version: Annotated[int | None, typer.Option(help="With a log: only records of this version.")] = None,
    max_differing: Annotated[
        float, typer.Option(min=0, max=1, help="Share of rows in which a feature may differ.")
    ] = 0.0,
    max_distance: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="With a log: the largest accepted distance from the reference."),
    ] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Compare served values with values computed from offline data. Exits with 3 if a feature differs in more rows.

    The registry keeps the last result, for `feature-store score`.
    """
    if from_served_log is None and (service is None or training_set or version is not None or max_distance is not None):
        about_log = "--training-set, --version and --max-distance need --from-served-log"
        raise typer.BadParameter("is required" if service is None else about_log, param_hint="--service")
    if from_served_log is not None and (at is not None or entity_rows):
        raise typer.BadParameter(
            "cannot be used with a log, whose records have keys and times", param_hint="--at, KEY=VALUE"
        )
    with FeatureStore(repo) as store:
        if from_served_log is not None:
            log_report = store.monitoring.skew_of_log(
                from_served_log, service, training_set=training_set, version=version, sample=sample or 20_000
            )
            _keep(store, log_report)
            beyond = log_report.beyond(max_differing, max_distance)
            document = log_report.to_document() | {"beyond": beyond}
        else:
            assert service is not None
            rows = read_entity_rows(entity_rows or [], store.applied())
            report = store.monitoring.skew(service, at or datetime.now(UTC), rows, sample=sample or 1000)
            _keep(store, report)
            beyond = [one.feature for one in report.features if one.differing > max_differing * report.rows]
            document = report.to_document()
    if as_json:
        print_json(document)
    elif from_served_log is not None:
        _show_log(log_report, beyond)
    else:
        _show(report)
    if beyond:
        raise typer.Exit(FINDING)


def _keep(store: FeatureStore, report: SkewReport | ServedSkewReport) -> None:
    """Keep the report. If the registry is read-only, say so and go on: the report is still shown."""
    try:
        store.registry.keep_report("skew", report.service, report.summary(), current_author())
    except RegistryError as error:
        console(stderr=True).print(
            f"The registry does not keep this result: {escape(visible(error.reason))}", soft_wrap=True
        )


def freshness(
    service: Annotated[str | None, typer.Option(help="Only views that this service reads. Default: all views.")] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve Prometheus metrics on this port until stopped; 0: any free port."),
    ] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Show the age of the newest stored event of each view. Exits with 3 if one is older than its ttl, or than
    declared.
    """
    with FeatureStore(repo) as store:
        report = store.monitoring.freshness(service)
        if metrics_port is not None:
            _serve(metrics_port, lambda: store.monitoring.freshness(service))
            return
    if as_json:
        print_json(report.to_document())
    else:
        _show_freshness(report)
    if report.breached:
        raise typer.Exit(FINDING)


def _serve(port: int, measure: Callable[[], FreshnessReport]) -> None:
    from feature_store.monitoring.freshness_metrics import FreshnessMetrics

    with stop_signals() as stopped, FreshnessMetrics(port, measure) as metrics:
        console(stderr=True).print(f"Metrics at http://localhost:{metrics.port}/metrics until Ctrl-C.")
        while not stopped():
            time.sleep(_POLL_S)


def _show_freshness(report: FreshnessReport) -> None:
    out = console()
    rows = [
        [
            view.view,
            None if view.newest_us is None else shown_time(from_microseconds(view.newest_us)),
            None if view.age_s is None else shown_age(view.age_s),
            _duration(view.limit_s),
            _duration(view.ttl_s),
            view.state,
            f"{view.rows:,}{'' if view.whole else ' sampled'}",
        ]
        for view in report.views
    ]
    out.print(table("", _FRESHNESS, rows))
    for view in report.breached:
        out.print(f"{view.view}: {view.hint}", markup=False, soft_wrap=True)


def _duration(seconds: float | None) -> str | None:
    return None if seconds is None else shown_duration(timedelta(seconds=seconds))


def score(repo: Repo = Path(), as_json: AsJson = False) -> None:
    """Score the project with the ML Test Score (Breck et al., 2017): what exists, what is missing, how to add it."""
    with FeatureStore(repo) as store:
        scored = store.monitoring.score()
    if as_json:
        print_json(scored.to_document())
        return
    out = console()
    for item in scored.items:
        out.print(f"{_POINTS[item.points]} [bold]{item.id}[/]  {item.title}", soft_wrap=True)
        out.print(f"     found: {visible(item.found)}", markup=False, soft_wrap=True)
        if item.missing:
            out.print(f"     missing: {visible(item.missing)}", markup=False, soft_wrap=True)
            out.print(f"     → {visible(item.how)}", markup=False, soft_wrap=True)
    for section, (points, seen, whole) in scored.sections.items():
        rest = "" if seen == whole else f"; {whole - seen} of the section's {whole} tests are outside a feature store"
        out.print(f"[bold]{section}: {points:g} of {seen}[/]{rest}")
    out.print(_OTHER_SECTIONS, soft_wrap=True)


def _show(report: SkewReport) -> None:
    out = console()
    out.print(table("", _COLUMNS, [_row(feature) for feature in report.features]))
    total = report.rows * len(report.features)
    out.print(f"{total - report.differing:,} of {total:,} values of {report.rows:,} entity rows are equal.")


def _show_log(report: ServedSkewReport, beyond: list[str]) -> None:
    out = console()
    out.print(table("", _LOG_COLUMNS, [_log_row(feature) for feature in report.features]))
    versions = ", ".join(map(str, report.versions))
    compared = f"{report.rows:,} of {report.records:,} records of {report.service}, version {versions}"
    out.print(f"{compared}; distances from {report.reference}.", markup=False, soft_wrap=True)
    if beyond:
        out.print(f"Beyond the limits: {', '.join(beyond)}.", markup=False, soft_wrap=True)


def _log_row(feature: ServedFeatureSkew) -> list[str | None]:
    name, equal, differing, worst, example = _row(feature.compared, "served")
    distance = None if feature.distance is None else f"{feature.distance.value:.4f} {feature.distance.measure}"
    return [name, equal, differing, f"{feature.left_out:,}", worst, distance, example]


def _row(feature: FeatureSkew, online: str = "online") -> list[str | None]:
    example = None
    if feature.example is not None:
        named = ", ".join(f"{key}={value}" for key, value in feature.example.items())
        example = f"{named}: {online} {feature.online}, offline {feature.offline}"
    worst = None if feature.worst is None else f"{feature.worst:.6g}"
    return [feature.feature, f"{feature.equal:,}", f"{feature.differing:,}", worst, example]


# By name: the section of `feature-store --help`, the function or typer.Typer, and a summary of at most 78 characters.
COMMANDS = {
    "freshness": ("Watch", "freshness", "Show the age of the newest stored event of each view."),
    "skew": ("Watch", "skew", "Compare served values with values computed from offline data."),
    "score": ("Watch", "score", "Score the project with the ML Test Score."),
}
