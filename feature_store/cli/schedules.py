"""Commands on schedules: run-due, missed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from feature_store._formatting import shown_time
from feature_store._intervals import BEGINNING, Interval
from feature_store.cli.data import show_summaries
from feature_store.cli.exit_codes import FAILED, FINDING
from feature_store.cli.options import AsJson, Repo, read_duration
from feature_store.cli.output import console, print_json, table
from feature_store.cli.progress import ProgressReport
from feature_store.cli.text import visible
from feature_store.definitions.dtypes import from_microseconds
from feature_store.materialize.schedules import DueRun, ViewSchedule
from feature_store.project.store import FeatureStore

_COLUMNS = dict.fromkeys(("view", "schedule", "from", "to", "last run", "next"), "left")


def run_due(repo: Repo = Path(), as_json: AsJson = False) -> None:
    """Materialize each view whose schedule says that it is due, up to its scheduled time.

    Run it every minute, from several machines if you like: a lease in the registry lets one process run a view at a
    time. Exits with 1 if a job fails. The other views are run, and the failed one is due again.
    """
    with FeatureStore(repo) as store, ProgressReport(console(stderr=True)) as report:
        runs = store.run_due(report=report)
    if as_json:
        print_json([run.to_document() for run in runs])
    else:
        _show(runs)
    if any(run.error for run in runs):
        raise typer.Exit(FAILED)


def missed(
    repo: Repo = Path(),
    grace: Annotated[
        timedelta | None,
        typer.Option(parser=read_duration, metavar="10m|2h", help="Leave out what is due for less than this."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the event times that no run of materialize covered. Exits with 3 if there are any.

    Of a view with a schedule, these are the times before its last scheduled time; of another view, those before the end
    of its last run. Views that a process is running now are left out.
    """
    with FeatureStore(repo) as store:
        now_us, schedules = store.online.now_us(), store.monitoring.schedules()
    late_us = now_us - (grace or timedelta(0)) // timedelta(microseconds=1)
    found = [one for one in schedules if one.missed and not one.is_running and (one.due_us or 0) <= late_us]
    if as_json:
        print_json([one.to_document() for one in found])
    else:
        _show_missed(found)
    if found:
        raise typer.Exit(FINDING)


def _show(runs: list[DueRun]) -> None:
    if not runs:
        console().print("Nothing is due.")
        return
    summaries = [run.summary for run in runs if run.summary is not None]
    if summaries:
        show_summaries(summaries)
    for run in runs:
        if run.error is not None:
            console(stderr=True).print(visible(f"error: {run.view}: {run.error}"), markup=False, style="red")


def _show_missed(found: list[ViewSchedule]) -> None:
    if not found:
        console().print("No event times are missed.")
        return
    rows = [
        [one.view, one.schedule or "–", *_times(interval), _last_run(one), _time(one.next_us)]
        for one in found
        for interval in one.missed
    ]
    console().print(table("", _COLUMNS, rows))
    if any(one.schedule for one in found):
        console().print("`feature-store run-due` covers what is due.", markup=False)
    if any(not one.schedule for one in found):
        console().print("`feature-store materialize` covers the views without a schedule.", markup=False)


def _times(interval: Interval) -> tuple[str, str]:
    start, end = interval
    return "the beginning" if start == BEGINNING else _time(start), _time(end)


def _time(time_us: int | None) -> str:
    return "–" if time_us is None else shown_time(from_microseconds(time_us))


def _last_run(schedule: ViewSchedule) -> str:
    run = schedule.run
    if run is None:
        return "–"
    if run.state == "failed":
        return f"failed {_time(run.ended_us)}: {visible(run.problem)}"
    return f"{'begun' if run.state == 'running' else 'done'} {_time(run.ended_us)}"


# By name: the section of `feature-store --help`, the function or typer.Typer, and a summary of at most 78 characters.
COMMANDS = {
    "run-due": ("Fill", "run_due", "Materialize each view whose schedule says that it is due."),
    "missed": ("Watch", "missed", "List the event times that no run of materialize covered."),
}
