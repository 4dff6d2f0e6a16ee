"""The seam between jobs and what computes: an engine turns a source's rows into the latest row of each entity, and
writes them where a job says.

Both steps may run in other processes, on other machines: what crosses the seam is plain data, and counts come back.
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


class Stage(NamedTuple):
    """A request to stage the latest rows of a view.

    Attributes:
        view: whose rows.
        rows: its source; or rows that a caller pushes, which only the local engine takes, where they are.
        start_us, end_us: event times in `[start_us, end_us)` count.
        target: the file or folder to make; it must be there whole or not at all.
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


class Sink(Protocol):
    """Takes rows: a writer of the online store."""

    def write(self, batch: RowBatch) -> WriteCounts:
        """Write rows, newest wins."""
        ...


class Destination(Protocol):
    """Where rows go. Plain data: a copy in another process opens a sink to the same place."""

    def open(self) -> AbstractContextManager[Sink]:
        """A sink, for one process."""
        ...


class Written(NamedTuple):
    """The outcome of a chunk: its number of rows, and the counts of the sink."""

    rows: int
    counts: WriteCounts


class Engine(Protocol):
    """Computes the latest rows of a view. All engines pass one conformance suite.

    Attributes:
        name: what it is called in feature_store.yaml. What one engine has staged, another does not read.
    """

    name: str

    def stage(self, asked: Stage) -> int:
        """Write to `asked.target`, for each entity key, the row with the greatest (event time, creation time) among the
        rows that fit; of equal ones the last in the source. Returns how many rows of the source were in the interval.

        Of a view with SQL, the rows are what it selects from the source. Of a view with aggregations, the row of an
        entity is what `windows_at` says of its events at the interval's end (see FeatureView); entities that may have
        had such a row at the interval's start get one too, whatever has left their windows. Events that no such window
        can hold need not be read nor counted.

        Raises:
            DataError: the source does not fit the view, or cannot be read.
        """
        ...

    def chunk_count(self, target: Path) -> int:
        """How many chunks a staged target has; each time the same. Every entity key occurs in one chunk, once."""
        ...

    def inspect(self, target: Path, view: FeatureView) -> Inspection:
        """The inspection of a staged target's rows, for a view with expectations."""
        ...

    def write(self, target: Path, view: FeatureView, first: int, destination: Destination) -> Iterator[Written]:
        """Write the chunks from the `first` on, one after the other, and tell of each when it is written.

        Writing what is partly written already changes nothing.
        """
        ...
