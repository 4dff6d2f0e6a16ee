"""The seam between jobs and engines: an engine finds the latest row of each entity in a source, and writes these rows.

Both steps may run in other processes, on other machines. So plain data crosses the seam, and counts come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from feature_store.arrow.inspection import Inspection
from feature_store.arrow.pushed import PushedRows
from feature_store.arrow.quarantine import Quarantine
from feature_store.arrow.sources.source import OfflineSource
from feature_store.definitions.feature_view import FeatureView
from feature_store.engines.report import Report
from feature_store.online.batch import RowBatch
from feature_store.online.writer import WriteCounts


class StageRequest(NamedTuple):
    """A request to stage the latest rows of a view.

    Attributes:
        view: the view.
        rows: its source, or pushed rows, which only the local engine takes.
        start_us, end_us: the interval of event times, `[start_us, end_us)` in microseconds since 1970.
        target: the file or folder to make. It appears whole or not at all.
        quarantine: takes the rows that do not fit.
        report: gets the progress.
    """

    view: FeatureView
    rows: OfflineSource | PushedRows
    start_us: int
    end_us: int
    target: Path
    quarantine: Quarantine
    report: Report


class RowSink(Protocol):
    """Where an engine writes rows: a writer of the online store."""

    def write(self, batch: RowBatch) -> WriteCounts:
        """Write rows. The newest row of an entity wins."""
        ...


class RowDestination(Protocol):
    """The place of rows, as plain data: a copy in another process opens a sink to the same place."""

    def open(self) -> AbstractContextManager[RowSink]:
        """A sink, for one process."""
        ...


class Written(NamedTuple):
    """A chunk that was written: its number of rows, and the counts of the sink."""

    rows: int
    counts: WriteCounts


class Engine(Protocol):
    """Computes the latest rows of a view. All engines pass one conformance suite.

    Attributes:
        name: its name in feature_store.yaml. An engine does not read what another has staged.
    """

    name: str

    def stage(self, request: StageRequest) -> int:
        """Write the latest row of each entity key to `request.target`.

        The latest row is the one with the greatest (event time, creation time) among those that fit; of equal rows, the
        last in the source. If the view has SQL, its rows are the result of the SQL.

        If the view has aggregations, the row of an entity holds its windows at the interval's end (`windows_at`). An
        entity that had events in a window at the interval's start gets a row too, even if none is left in a window at
        the end. Events outside of all these windows need not be read or counted.

        Returns:
            How many rows of the source are in the interval.

        Raises:
            DataError: the source does not fit the view, or cannot be read.
        """
        ...

    def chunk_count(self, target: Path) -> int:
        """The number of chunks of a staged target, the same at each call. Each entity key occurs in one chunk, once."""
        ...

    def inspect(self, target: Path, view: FeatureView) -> Inspection:
        """The inspection of a staged target's rows, for a view with expectations."""
        ...

    def write(self, target: Path, view: FeatureView, first: int, destination: RowDestination) -> Iterator[Written]:
        """Write the chunks from number `first` on, in order, and yield the counts of each after it is written.

        To write a chunk again changes nothing.
        """
        ...
