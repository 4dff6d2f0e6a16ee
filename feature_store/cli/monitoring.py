"""Commands on what is served against what was meant: skew, freshness."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_store.cli.options import AsJson, Repo, read_entity_rows, read_time
from feature_store.cli.output import console, print_json, shown_time, table
from feature_store.cli.streaming import stop_signals
from feature_store.definitions.dtypes import from_microseconds
from feature_store.definitions.duration import shown_age, shown_duration
from feature_store.store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from feature_store.monitoring.freshness import FreshnessReport
    from feature_store.monitoring.skew import FeatureSkew, SkewReport

_COLUMNS = {"feature": "left"} | dict.fromkeys(("equal", "differing", "worst"), "right") | {"example": "left"}
_FRESHNESS = {
    "view": "left",
    "newest event": "left",
    "age": "right",
    "declared": "right",
    "state": "left",
    "rows": "right",
}
# How often a server of metrics looks whether it is to stop.
_ASKED_EVERY_S = 0.2


def skew(
    service: Annotated[str, typer.Option(help="Whose features.")],
    at: Annotated[
        datetime | None, typer.Option(parser=read_time, metavar="TIME", help="When; now unless given.")
    ] = None,
    entity_rows: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE[,VALUE…]]…", help="Of whom; a sample of what is stored unless given."),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="How many entity rows to sample.")] = 1000,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Compare what is served with what the offline data say, at one time. Exit code 1 when a value differs."""
    with FeatureStore(repo) as store:
        rows = read_entity_rows(entity_rows or [], store.applied())
        report = store.skew(service, at or datetime.now(UTC), rows, sample=sample)
    if as_json:
        print_json(report.to_document())
    else:
        _show(report)
    if report.differing:
        raise typer.Exit(1)


def freshness(
    service: Annotated[str | None, typer.Option(help="Of the views that it reads; of all unless given.")] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve Prometheus metrics there until stopped; 0: on any free port."),
    ] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Show how old the newest stored event time of each view is. Exit code 1 when it is older than declared."""
    with FeatureStore(repo) as store:
        report = store.freshness(service)
        if metrics_port is not None:
            _serve(metrics_port, lambda: store.freshness(service))
            return
    if as_json:
        print_json(report.to_document())
    else:
        _show_freshness(report)
    if report.breached:
        raise typer.Exit(1)


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


def _show(report: SkewReport) -> None:
    out = console()
    out.print(table("", _COLUMNS, [_row(feature) for feature in report.features]))
    total = report.rows * len(report.features)
    out.print(f"{total - report.differing:,} of {total:,} values of {report.rows:,} entity rows are equal.")


def _row(feature: FeatureSkew) -> list[str | None]:
    example = None
    if feature.example is not None:
        named = ", ".join(f"{key}={value}" for key, value in feature.example.items())
        example = f"{named}: online {feature.online}, offline {feature.offline}"
    worst = None if feature.worst is None else f"{feature.worst:.6g}"
    return [feature.feature, f"{feature.equal:,}", f"{feature.differing:,}", worst, example]


COMMANDS = (skew, freshness)
