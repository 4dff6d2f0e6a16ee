"""The seam of point-in-time joins: label rows and what is wanted of each view go in, label rows with features come out.

    labels(given)    a table, a Parquet path or a query becomes rows that the engine holds
    join(asked)      per view the row that each label sees (`as_of`), the wanted fields of it, `finish` over batches

Every label row comes back once, in order. What a label sees is decided by `as_of` alone, what the columns are called
and filled with by `finish` alone; engines read, sort, partition and gather.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from feature_store.arrow.quarantine import Quarantine
from feature_store.arrow.sources.source import OfflineSource
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.engines.report import Report


class Query(NamedTuple):
    """SQL whose result are the label rows; files are relative to the folder."""

    text: str
    folder: Path


class Labels(NamedTuple):
    """Label rows as an engine holds them.

    Attributes:
        where: what they are, for errors.
        schema: of all their columns.
        rows: the engine's own.
    """

    where: str
    schema: pa.Schema
    rows: Any


class ViewJoin(NamedTuple):
    """The wanted features of one view.

    Attributes:
        view: whose features. Of one with aggregations they are `aggregates.at_times.windows_at` of its events, as of
            the label's time; of others, those of the row that `as_of` finds.
        rows: its source, or its history; to be selected from (`local_sql`), when the view has SQL.
        fields: the names of the wanted fields, in the order in which `finish` takes them.
        quarantine: takes the rows that do not fit the view, wanted fields or not.
    """

    view: FeatureView | StreamFeatureView
    rows: OfflineSource
    fields: tuple[str, ...]
    quarantine: Quarantine


class Finished(NamedTuple):
    """A batch of the training set, and per feature how many of its rows have no value."""

    batch: pa.RecordBatch
    missing: Sequence[int]


class Finish(Protocol):
    """Makes batches of the training set from batches of joined rows; may be called anywhere, in any order.

    Attributes:
        schema: of the training set.
        features: the names that `Finished.missing` is about.
    """

    schema: pa.Schema
    features: Sequence[str]

    def __call__(self, labels: pa.RecordBatch, joined: Sequence[pa.Array], first: int) -> Finished:
        """A batch.

        Args:
            labels: label rows, with all their columns.
            joined: per wanted field, view after view, its values as `rows.storage_type`, null where there is none.
            first: the number of the first label, for errors.
        """
        ...

    def check(self, labels: pa.RecordBatch, first: int) -> None:
        """See to it, before anything is joined, that labels have the fields that requests carry.

        Args:
            labels: label rows, with all their columns.
            first: the number of the first label, for errors.

        Raises:
            DataError: a value is null, and the field has no default; or is of a wrong type.
        """
        ...


class Join(NamedTuple):
    """A request to join views to labels.

    Attributes:
        labels: from the same engine.
        timestamp: the column of the labels' times.
        views: what is joined.
        finish: see Finish.
        work: a folder for what is needed until the join is done.
        report: gets the progress.
    """

    labels: Labels
    timestamp: str
    views: tuple[ViewJoin, ...]
    finish: Finish
    work: Path
    report: Report


class Joined(Protocol):
    """A training set as an engine holds it.

    Attributes:
        schema: as of `Finish`.
        rows: how many.
        missing: per feature, how many rows have no value.
    """

    schema: pa.Schema
    rows: int
    missing: Mapping[str, int]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, in the order of the labels."""
        ...

    def write(self, path: Path) -> None:
        """Write them to a Parquet file, or a folder of such files in order, which is there whole or not at all.

        Raises:
            DataError: it cannot be written.
        """
        ...


class JoinEngine(Protocol):
    """Joins as of the labels' times. All engines pass one conformance suite."""

    def labels(self, given: pa.Table | Path | Query) -> Labels:
        """Label rows.

        Raises:
            DataError: they cannot be read.
        """
        ...

    def join(self, asked: Join) -> Joined:
        """The training set.

        A label whose entity key is null sees no row. A row of a source that does not fit its view is set aside and
        seen by no label. Rows that no label could see, by their event times and the view's ttl, need not be read.

        Raises:
            DataError: a label has no time, or a key that is not of the entity's type; or a source cannot be read.
            TransformError: from `finish`.
        """
        ...
