"""Commands on what is served against what was meant: skew, freshness."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from feature_store._formatting import shown_age, shown_duration, shown_time
from feature_store.cli.options import AsJson, Repo, read_entity_rows, read_time
from feature_store.cli.output import console, print_json, table
from feature_store.cli.running import FINDING
from feature_store.cli.streaming import stop_signals
from feature_store.cli.text import visible
from feature_store.definitions.dtypes import from_microseconds
from feature_store.errors import RegistryError
from feature_store.project.store import FeatureStore
from feature_store.registry.store import current_author

if TYPE_CHECKING:
    from collections.abc import Callable

    from feature_store.monitoring.freshness import FreshnessReport
    from feature_store.monitoring.served_skew import ServedFeatureSkew, ServedSkewReport
    from feature_store.monitoring.skew import FeatureSkew, SkewReport

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
    "state": "left",
    "rows": "right",
}
_POINTS = {1.0: "[green]1  [/]", 0.5: "[yellow]0.5[/]", 0.0: "[red]0  [/]"}
_OF_THE_WHOLE = "The paper's score is the least of its four sections; those of models and infrastructure are not seen."
# How often a server of metrics looks whether it is to stop.
_ASKED_EVERY_S = 0.2


def skew(
    service: Annotated[str | None, typer.Option(help="Whose features; of a log of one service it is known.")] = None,
    at: Annotated[
        datetime | None, typer.Option(parser=read_time, metavar="TIME", help="When; now unless given.")
    ] = None,
    entity_rows: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE[,VALUE…]]…", help="Of whom; a sample of what is stored unless given."),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="How many rows to sample; 1000, of a log 20000, unless given.")
    ] = None,
    from_served_log: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Compare what was served, at each record's own time.")
    ] = None,
    training_set: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of the log: what distances are from; what is computed again unless given."),
    ] = None,
    version: Annotated[int | None, typer.Option(help="Of the log: only records of this version.")] = None,
    max_differing: Annotated[
        float, typer.Option(min=0, max=1, help="The share of rows in which a feature may differ.")
    ] = 0.0,
    max_distance: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of the log: how far a feature may be from the reference.")
    ] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Compare what is served, or was, with what the offline data say. Exit code 3 when a feature differs in more.

    The registry keeps what was found last, for `feature-store score`.
    """
    if from_served_log is None and (service is None or training_set or version is not None or max_distance is not None):
        about_log = "--training-set, --version and --max-distance are about a log: --from-served-log"
        raise typer.BadParameter("is needed" if service is None else about_log, param_hint="--service")
    if from_served_log is not None and (at is not None or entity_rows):
        raise typer.BadParameter("the log says of whom and when", param_hint="--at, KEY=VALUE")
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
    """Keep what was found; a registry that only lets itself be read is no reason not to show it."""
    try:
        store.registry.keep_report("skew", report.service, report.summary(), current_author())
    except RegistryError as error:
        console(stderr=True).print(f"Not kept: {escape(visible(error.reason))}", soft_wrap=True)


def freshness(
    service: Annotated[str | None, typer.Option(help="Of the views that it reads; of all unless given.")] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve Prometheus metrics there until stopped; 0: on any free port."),
    ] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Show how old the newest stored event time of each view is. Exit code 3 when it is older than declared."""
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
            time.sleep(_ASKED_EVERY_S)


def _show_freshness(report: FreshnessReport) -> None:
    out = console()
    rows = [
        [
            view.view,
            None if view.newest_us is None else shown_time(from_microseconds(view.newest_us)),
            None if view.age_s is None else shown_age(view.age_s),
            None if view.limit_s is None else shown_duration(timedelta(seconds=view.limit_s)),
            view.state,
            f"{view.rows:,}{'' if view.whole else ' of more'}",
        ]
        for view in report.views
    ]
    out.print(table("", _FRESHNESS, rows))
    for view in report.breached:
        out.print(f"{view.view}: {view.hint}", markup=False, soft_wrap=True)


def score(repo: Repo = Path(), as_json: AsJson = False) -> None:
    """Score the project by the ML Test Score (Breck et al., 2017): what is found, what is missing, how to get it."""
    with FeatureStore(repo) as store:
        found = store.monitoring.score()
    if as_json:
        print_json(found.to_document())
        return
    out = console()
    for item in found.items:
        out.print(f"{_POINTS[item.points]} [bold]{item.id}[/]  {item.title}", soft_wrap=True)
        out.print(f"     found: {visible(item.found)}", markup=False, soft_wrap=True)
        if item.missing:
            out.print(f"     missing: {visible(item.missing)}", markup=False, soft_wrap=True)
            out.print(f"     → {visible(item.how)}", markup=False, soft_wrap=True)
    for section, (points, seen, whole) in found.sections.items():
        rest = (
            "" if seen == whole else f"; {whole - seen} of the section's {whole} tests are not a feature store's to see"
        )
        out.print(f"[bold]{section}: {points:g} of {seen}[/]{rest}")
    out.print(_OF_THE_WHOLE, soft_wrap=True)


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
        out.print(f"Beyond what is allowed: {', '.join(beyond)}.", markup=False, soft_wrap=True)


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


COMMANDS = (skew, freshness, score)
