"""The last scheduled run of each view, and the lease that keeps two processes from running a view at once.

A process takes the lease of a view, renews it while the job runs, and gives it back at the end. The lease of a process
that dies ends by itself. A process that stops for longer than its lease, and goes on, runs the view beside another
one: both jobs write the same rows.

All times are microseconds since 1970 on one clock, which the callers share: that of Redis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from feature_store.errors import RegistryError
from feature_store.registry.database import Database, ProjectTable
from feature_store.registry.tables import RUNS

State = Literal["running", "done", "failed"]
_STATES = get_args(State)
_MOST_PROBLEM = 2_000


@dataclass(frozen=True)
class Run:
    """The last scheduled run of a view.

    Attributes:
        due_us: the scheduled time that it was for, and the end of its interval.
        state: `running`, `done` or `failed`. A run whose process died stays `running`, without a lease.
        started_us, ended_us: when it started and ended; the same time while it runs.
        problem: why it failed; else empty.
        holder: the process that ran it: user, host and process id.
        lease_us: the end of the process's lease.
    """

    due_us: int
    state: State
    started_us: int
    ended_us: int
    problem: str
    holder: str
    lease_us: int

    def is_running(self, now_us: int) -> bool:
        """Whether a process runs the view now, as far as its lease says."""
        return self.state == "running" and self.lease_us > now_us


class Lease(NamedTuple):
    """The right to run a view: the process that has it, and until when."""

    view: str
    holder: str
    until_us: int


class Runs:
    """The last runs of one project's views."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._table = ProjectTable(database, RUNS, project)

    def of_views(self) -> dict[str, Run]:
        """The last run of each view that had one.

        Raises:
            RegistryError: a run has an unknown state.
        """
        return {row.view: _run(row) for row in self._table.rows()}

    def begin(self, lease: Lease, due_us: int, now_us: int) -> bool:
        """Take the lease of a view and note that its run begins.

        Returns:
            False when another process has the lease.
        """
        c = self._table.c
        place: dict[str, object] = {"view": lease.view}
        values = {
            "due_us": due_us,
            "state": "running",
            "started_us": now_us,
            "ended_us": now_us,
            "problem": "",
            "holder": lease.holder,
            "lease_us": lease.until_us,
        }
        with self._database.writing() as connection:
            self._table.lock(connection)  # else two processes that begin at once would both see no lease
            held = self._table.select(c.view).where(self._table.at(place), c.state == "running", c.lease_us > now_us)
            if connection.execute(held).first() is not None:
                return False
            if not self._table.update(connection, place, values):
                self._table.insert(connection, **place, **values)
        return True

    def renew(self, lease: Lease) -> bool:
        """Extend a lease.

        Returns:
            False when another process has taken it, because it had ended.
        """
        with self._database.writing() as connection:
            place: dict[str, object] = {"view": lease.view, "holder": lease.holder, "state": "running"}
            return bool(self._table.update(connection, place, {"lease_us": lease.until_us}))

    def end(self, lease: Lease, now_us: int, problem: str = "") -> None:
        """Note the end of a run, and give the lease back. Nothing is noted when another process has taken the lease."""
        values: dict[str, object] = {
            "state": "failed" if problem else "done",
            "ended_us": now_us,
            "problem": problem[:_MOST_PROBLEM],
            "lease_us": now_us,
        }
        with self._database.writing() as connection:
            self._table.update(connection, {"view": lease.view, "holder": lease.holder, "state": "running"}, values)


def _run(row: Any) -> Run:
    if row.state not in _STATES:
        raise RegistryError(f"run of {row.view}", expected=" or ".join(_STATES), got=repr(row.state)[:80])
    return Run(row.due_us, row.state, row.started_us, row.ended_us, row.problem, row.holder, row.lease_us)
