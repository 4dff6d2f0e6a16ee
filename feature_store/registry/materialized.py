"""The intervals over which each view of a project was materialized, into any online store.

This is history. What one online store holds is recorded in that store (`online/progress.py`).
"""

from __future__ import annotations

from feature_store._intervals import Interval, merged
from feature_store.registry.database import Database, DuplicateKeyError, ProjectTable
from feature_store.registry.tables import INTERVALS

# Release 0.1 recorded here, under each generation, what its rows in Redis held, and relied on it.
_ANY_GENERATION = 0


class MaterializedIntervals:
    """The materialized intervals of one project's views, half-open, in microseconds since 1970."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._intervals = ProjectTable(database, INTERVALS, project)

    def add(self, view: str, start_us: int, end_us: int) -> None:
        """Record that `[start_us, end_us)` of a view was materialized."""
        try:
            self._add_once(view, start_us, end_us)
        except DuplicateKeyError:  # another process inserted one with this start: merge with it
            self._add_once(view, start_us, end_us)

    def of(self, view: str) -> list[Interval]:
        """The intervals of a view."""
        c = self._intervals.c
        rows = self._intervals.rows(self._intervals.select(c.start_us, c.end_us).where(c.view == view))
        return merged((row.start_us, row.end_us) for row in rows)

    def had_it_stayed(self, view: str) -> list[Interval]:
        """The intervals to backfill for a view that was dropped and is restored: its own, and those of other views
        after its last end. Empty if the view was never materialized."""
        rows = self._intervals.rows()
        own = [(row.start_us, row.end_us) for row in rows if row.view == view]
        if not own:
            return []
        end_us = max(end for _, end in own)
        since = [(max(row.start_us, end_us), row.end_us) for row in rows if row.view != view]
        return merged([*own, *since])

    def _add_once(self, view: str, start_us: int, end_us: int) -> None:
        place: dict[str, object] = {"view": view, "generation": _ANY_GENERATION}
        c = self._intervals.c
        with self._database.writing() as connection:
            self._intervals.lock(connection)  # else one of two jobs that finish at once would lose its interval
            known = self._intervals.select(c.start_us, c.end_us).where(self._intervals.at(place)).with_for_update()
            intervals = [(row.start_us, row.end_us) for row in connection.execute(known)]
            self._intervals.delete(connection, place)
            for start, end in merged([*intervals, (start_us, end_us)]):
                self._intervals.insert(connection, **place, start_us=start, end_us=end)
