"""The seam of point-in-time joins: label rows and the wanted features go in, label rows with features come out.

    labels(given)    hold a table, a Parquet path or the result of a query as label rows
    join(request)    find the row of each view that each label sees (`as_of`), gather its fields, `finish` batches

Every label row comes back once, in order. `as_of` alone decides which row a label sees. `finish` alone names the
columns and fills in defaults. Engines read, sort, partition and gather.
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


class LabelQuery(NamedTuple):
    """SQL whose result is the label rows. Paths in it are relative to `folder`."""

    text: str
    folder: Path


class Labels(NamedTuple):
    """Label rows that an engine holds.

    Attributes:
        where: names them in errors.
        schema: the schema of all their columns.
        rows: the rows, in a form of the engine's own.
    """

    where: str
    schema: pa.Schema
    rows: Any


class ViewJoin(NamedTuple):
    """The wanted features of one view.

    Attributes:
        view: the view. If it has aggregations, its features are the windows of its events at the label's time
            (`aggregates.at_times.windows_at`); else those of the row that `as_of` finds.
        rows: its source or its history. If the view has SQL, the engine runs it on these rows.
        fields: the names of the wanted fields, in the order in which `finish` takes them.
        quarantine: takes the rows that do not fit the view; a row need not hold a bad value in a wanted field.
    """

    view: FeatureView | StreamFeatureView
    rows: OfflineSource
    fields: tuple[str, ...]
    quarantine: Quarantine


class Finished(NamedTuple):
    """A batch of the training set, and for each feature the number of rows without a value."""

    batch: pa.RecordBatch
    missing: Sequence[int]


class Finish(Protocol):
    """Makes batches of the training set from batches of joined rows. Engines may call it in any process and order.

    Attributes:
        schema: the schema of the training set.
        features: the names of the features that `Finished.missing` counts, in order.
    """

    schema: pa.Schema
    features: Sequence[str]

    def __call__(self, labels: pa.RecordBatch, joined: Sequence[pa.Array], first: int) -> Finished:
        """A batch of the training set.

        Args:
            labels: label rows, with all their columns.
            joined: the values of each wanted field, view after view, as `types.storage_type`; null without a value.
            first: the number of the first label, for errors.
        """
        ...

    def check(self, labels: pa.RecordBatch, first: int) -> None:
        """Check, before anything is joined, that labels have the fields that requests carry.

        Args:
            labels: label rows, with all their columns.
            first: the number of the first label, for errors.

        Raises:
            DataError: a value is of a wrong type, or it is null and the field has no default.
        """
        ...


class JoinRequest(NamedTuple):
    """A request to join views to labels.

    Attributes:
        labels: label rows of the same engine.
        timestamp: the column of the labels' times.
        views: the wanted features, view by view.
        finish: makes batches of the training set.
        work: a folder for files that the join needs until it is done.
        report: gets the progress.
    """

    labels: Labels
    timestamp: str
    views: tuple[ViewJoin, ...]
    finish: Finish
    work: Path
    report: Report


class Joined(Protocol):
    """A training set that an engine holds.

    Attributes:
        schema: the schema of `Finish`.
        rows: the number of rows.
        missing: for each feature, the number of rows without a value.
    """

    schema: pa.Schema
    rows: int
    missing: Mapping[str, int]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, in the order of the labels."""
        ...

    def write(self, path: Path) -> None:
        """Write the rows to a Parquet file, or to a folder of Parquet files in order. It appears whole or not at all.

        Raises:
            DataError: it cannot be written.
        """
        ...


class JoinEngine(Protocol):
    """Joins as of the labels' times. All engines pass one conformance suite."""

    def labels(self, given: pa.Table | Path | LabelQuery) -> Labels:
        """Hold label rows.

        Raises:
            DataError: they cannot be read.
        """
        ...

    def join(self, request: JoinRequest) -> Joined:
        """The training set.

        A label whose entity key is null sees no row. A row of a source that does not fit its view goes to quarantine,
        and no label sees it. Rows that no label can see, by their event times and the view's ttl, need not be read.

        Raises:
            DataError: a label has no time, or a key that is not of the entity's type; or a source cannot be read.
            TransformError: an on-demand function fails in `finish`.
        """
        ...
