"""The seam between jobs and what computes: an engine turns a source's rows into the latest row of each entity."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from feature_store.definitions.feature_view import FeatureView
    from feature_store.engines.quarantine import Quarantine
    from feature_store.engines.report import Report
    from feature_store.engines.sources import Rows
    from feature_store.online.batch import RowBatch


class Stage(NamedTuple):
    """What an engine is asked for.

    Attributes:
        view: whose rows.
        rows: the source.
        start_us, end_us: event times in `[start_us, end_us)` count.
        target: the file to make; it must be there whole or not at all.
        quarantine: takes the rows that do not fit.
        report: is told of the progress.
    """

    view: FeatureView
    rows: Rows
    start_us: int
    end_us: int
    target: Path
    quarantine: Quarantine
    report: Report


class Engine(Protocol):
    """Computes the latest rows of a view. All engines pass one conformance suite."""

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
        """How many chunks a staged file has; each time the same."""
        ...

    def chunks(self, target: Path, view: FeatureView, first: int) -> Iterator[RowBatch]:
        """The chunks from the `first` on; in each, every entity key occurs once."""
        ...
