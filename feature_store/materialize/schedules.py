"""Views with a schedule: when they are due, which event times no run has covered, and the runs of what is due.

A run materializes a view up to its last scheduled time. What the online store recorded decides whether a view is due:
so a run by hand counts, a run that failed is due again, and a time that was missed is covered by the next run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from feature_store._intervals import BEGINNING, Interval, missing
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.schedule import time_after, time_before
from feature_store.errors import FeatureStoreError
from feature_store.materialize.summary import Summary, iso_time
from feature_store.registry.runs import Lease
from feature_store.registry.store import current_author

if TYPE_CHECKING:
    from feature_store.engines.report import Report
    from feature_store.project.context import Project
    from feature_store.registry.runs import Run, Runs

_LOG = logging.getLogger("feature_store")
# How long a process that died keeps others from running its view, and how often a living one says that it lives.
LEASE_US = 60_000_000
_RENEWALS = 4
_MOST_AUTHOR = 200
# The times of a Run.
_TIMES = ("due_us", "started_us", "ended_us", "lease_us")


@dataclass(frozen=True)
class ViewSchedule:
    """When a view is materialized, and what is missing. Times are microseconds since 1970.

    Attributes:
        view: the view's name.
        schedule: the cron expression, in UTC. None: the view has none.
        due_us: the last scheduled time. None: the view has no schedule.
        next_us: the next scheduled time. None: the view has no schedule.
        missed: the event times `[start, end)` that no run covered: before `due_us` or, without a schedule, before the
            end of the last run. The start of the first one may be before all times.
        run: the last scheduled run. None: there was none.
        is_running: whether a process runs the view now.
    """

    view: str
    schedule: str | None
    due_us: int | None
    next_us: int | None
    missed: tuple[Interval, ...]
    run: Run | None
    is_running: bool

    @property
    def is_due(self) -> bool:
        """Whether the view has a schedule and should be materialized now."""
        return self.due_us is not None and bool(self.missed) and not self.is_running

    def to_document(self) -> dict[str, Any]:
        """The schedule as JSON types. Times are ISO 8601 texts; an unbounded start is None."""
        run = None if self.run is None else _run_document(self.run)
        return {
            "view": self.view,
            "schedule": self.schedule,
            "due": iso_time(self.due_us),
            "next": iso_time(self.next_us),
            "missed": [[iso_time(start), iso_time(end)] for start, end in self.missed],
            "is_due": self.is_due,
            "is_running": self.is_running,
            "run": run,
        }


@dataclass(frozen=True)
class DueRun:
    """The run of a view that was due.

    Attributes:
        view: the view's name.
        due_us: the scheduled time, which is the end of the interval.
        summary: the result of the job. None: it failed.
        error: why it failed. None: it did not.
    """

    view: str
    due_us: int
    summary: Summary | None
    error: FeatureStoreError | None

    def to_document(self) -> dict[str, Any]:
        """The run as JSON types."""
        summary = None if self.summary is None else self.summary.to_document()
        error = None if self.error is None else str(self.error)
        return {"view": self.view, "due": iso_time(self.due_us), "summary": summary, "error": error}


def _run_document(run: Run) -> dict[str, Any]:
    about = asdict(run)
    times = {name.removesuffix("_us"): iso_time(about.pop(name)) for name in _TIMES}
    return about | times


def schedules(project: Project) -> list[ViewSchedule]:
    """The schedules of all views with a source, and what is missing, as of Redis's clock."""
    version, _ = project.served()
    now_us, finished = project.online.now_us(), project.online.finished_intervals()
    runs = project.registry.runs.of_views()
    return [
        _schedule(view, finished.get(view.name, []), runs.get(view.name), now_us)
        for view in version.served_definitions().feature_views.values()
        if view.source is not None
    ]


def run_due(project: Project, *, report: Report | None = None) -> list[DueRun]:
    """Materialize the views that are due, one after the other; see `FeatureStore.run_due`."""
    from feature_store.materialize import views
    from feature_store.materialize.span import Span

    done: list[DueRun] = []
    for schedule in schedules(project):
        if not schedule.is_due or schedule.due_us is None:
            continue
        with _running(project, schedule.view, schedule.due_us) as outcome:
            if outcome is None:  # another process has begun meanwhile
                continue
            span = Span(None, schedule.due_us)
            (outcome.summary,) = views.materialize(project, [schedule.view], span, report=report)
        done.append(DueRun(schedule.view, schedule.due_us, outcome.summary, outcome.error))
    return done


def _schedule(view: FeatureView, finished: Sequence[Interval], run: Run | None, now_us: int) -> ViewSchedule:
    if view.schedule is None:
        due_us = next_us = None
        end_us = finished[-1][1] if finished else BEGINNING
    else:
        due_us, next_us = time_before(view.schedule, now_us), time_after(view.schedule, now_us)
        end_us = due_us
    missed = tuple(missing((BEGINNING, end_us), finished))
    is_running = run is not None and run.is_running(now_us)
    return ViewSchedule(view.name, view.schedule, due_us, next_us, missed, run, is_running)


class _Outcome:
    summary: Summary | None = None
    error: FeatureStoreError | None = None


@contextlib.contextmanager
def _running(project: Project, view: str, due_us: int) -> Iterator[_Outcome | None]:
    """Hold the lease of a view while the block runs it. None: another process has the lease.

    An error of ours in the block is noted, and ends the block alone, so that the other views run.
    """
    runs = project.registry.runs
    holder = f"{current_author()[:_MOST_AUTHOR]} process {os.getpid()} {uuid.uuid4().hex[:8]}"
    clock = _clock(project.online.now_us())
    lease = Lease(view, holder, clock() + LEASE_US)
    if not runs.begin(lease, due_us, clock()):
        yield None
        return
    outcome, problem = _Outcome(), "the process was interrupted"
    try:
        with _renewed(runs, lease, clock):
            yield outcome
        problem = ""
    except FeatureStoreError as error:
        outcome.error, problem = error, str(error)
    finally:
        runs.end(lease, clock(), problem)


def _clock(now_us: int) -> Callable[[], int]:
    """Redis's clock as it goes on from a time, even when Redis does not answer."""
    began = time.monotonic_ns()
    return lambda: now_us + (time.monotonic_ns() - began) // 1000


@contextlib.contextmanager
def _renewed(runs: Runs, lease: Lease, clock: Callable[[], int]) -> Iterator[None]:
    """Renew a lease from a thread while the block runs."""
    is_over = threading.Event()

    def renew() -> None:
        while not is_over.wait(LEASE_US / 1e6 / _RENEWALS):
            try:
                runs.renew(lease._replace(until_us=clock() + LEASE_US))
            except FeatureStoreError as error:  # the job goes on: it does no harm beside another run of the view
                _LOG.warning("the lease of %s is not renewed: %s", lease.view, error)

    thread = threading.Thread(target=renew, name=f"feature-store lease of {lease.view}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
