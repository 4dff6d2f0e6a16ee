"""Training sets: label rows with the features that serving would have returned at each label's time.

- The features of a batch view come from the row that a label sees (`engines/as_of.py`). The view's ttl counts from the
  label's time.
- The features of a view with aggregations, streamed or not, are its windows at the label's time, over all known events.
- On-demand features come from the functions that serving runs.

A feature without a value gets what serving returns: the field's default, or null.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store._private_files import private_folder
from feature_store.arrow.frames import TABLES, arrow_stream, table_of
from feature_store.arrow.labels import refuse_corrupt, refuse_labels, refuse_unstorable
from feature_store.arrow.lists import ragged_table
from feature_store.arrow.matrix import to_matrix
from feature_store.arrow.plain import plain_table
from feature_store.arrow.quarantine import Quarantine
from feature_store.arrow.reading import reading
from feature_store.arrow.sources.opening import open_view
from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.dtypes import DType
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.engines.join import Joined, JoinRequest, LabelQuery, ViewJoin
from feature_store.engines.report import Report, Silent
from feature_store.errors import DataError, RequestError
from feature_store.online.arrow import data_frame
from feature_store.online.matrix import matrix_columns
from feature_store.online.sequences import Padded, Ragged, check_lists
from feature_store.online.service import CompiledService
from feature_store.training.basis import PruneAsOf, basis_of
from feature_store.training.finish import ServedColumns
from feature_store.training.manifest import Manifest, SourceFile, SourceSnapshot
from feature_store.training.recorded import RecordedSources

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from feature_store.project.context import Project, ProjectFolders

# Optional comments and parentheses, then a word that begins a query and a space. Paths hardly ever look like this.
_SQL = re.compile(r"(?is)\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*|\(\s*)*(?:select|with)\s")


class TrainingSet:
    """Label rows with features. It has each label row once, in order: all its columns, then the features.

    Args:
        joined: the rows.
        manifest: their origin.
        types: the types of the features, by name, in order.

    Attributes:
        manifest: the origin of the rows.
        columns: the names of the columns of `to_numpy()`; see OnlineResponse.columns.
    """

    def __init__(self, joined: Joined, manifest: Manifest, types: Mapping[str, DType]) -> None:
        self._joined, self.manifest, self._types = joined, manifest, types
        self.columns = matrix_columns(types)

    def __len__(self) -> int:
        return self._joined.rows

    def __repr__(self) -> str:
        made = self.manifest
        return (
            f"<TrainingSet of {made.service!r}: {len(self):,} rows × {len(made.features)} features, "
            f"definitions version {made.definitions_version}>"
        )

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table. Features have their declared types; a missing value is the default, or null."""
        return table_of(self._joined.batches(), self._joined.schema)

    def to_pandas(self) -> pd.DataFrame:
        """`to_arrow()` as a DataFrame, with the types of OnlineResponse.to_pandas().

        Integers and booleans always have pandas' nullable types (`Int64`, `boolean`, …), also in the columns of the
        label rows and also without nulls.

        Raises:
            MissingDependencyError: pandas is not installed (`feature-store[pandas]`).
        """
        return data_frame(self.to_arrow())

    def to_numpy(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The features as the matrix that serving returns: (n, f) float32, C-contiguous; see OnlineResponse.to_numpy().

        Raises:
            RequestError: a feature's type does not fit a float matrix (String, Timestamp, ragged Array), or an integer
                is beyond 2**53.
        """
        return to_matrix(self.to_arrow(), self._types)

    def ragged(self, names: Sequence[str]) -> Ragged:
        """Lists of several features as flat values and offsets; see OnlineResponse.ragged()."""
        check_lists(self._types, names)
        return ragged_table(self.to_arrow(), self._types, names)

    def padded(self, names: Sequence[str], n: int | None = None) -> Padded:
        """Lists of several features as matrices with a mask; see OnlineResponse.padded()."""
        return self.ragged(names).padded(n)

    def write_parquet(self, path: str | Path) -> None:
        """Write the rows to a Parquet file, and the manifest beside it: `train.parquet`, `train.manifest.json`.

        The Spark engine writes a folder of Parquet files. Sorted by name, they are in the order of the labels.

        Raises:
            DataError: a file cannot be written.
        """
        self._joined.write(Path(path))
        self.manifest.write(manifest_path(Path(path)))


def manifest_path(path: Path) -> Path:
    """The path of the manifest that belongs to a training set's file."""
    return path.with_suffix(".manifest.json")


def historical_features(
    project: Project,
    entity_df: Any,
    service: str | Sequence[str],
    *,
    engine: str | None = None,
    timestamp_column: str = "event_timestamp",
    prune_as_of: PruneAsOf = None,
    as_recorded: str | Path | None = None,
    report: Report | None = None,
) -> TrainingSet:
    """Join the features of a service to label rows; see `FeatureStore.get_historical_features`."""
    begun = time.perf_counter()
    recorded = None if as_recorded is None else RecordedSources.read(Path(as_recorded))
    basis, joining = basis_of(project, prune_as_of), project.engine(engine)
    definitions, compiled = basis.definitions, basis.service(service)
    labels = joining.labels(label_rows(entity_df, project.folders.source))
    columns = ServedColumns(compiled, labels.schema, labels.where)
    refuse_labels(labels.schema, labels.where, _needed(columns, definitions), timestamp_column)
    folder = private_folder(project.folders.work("training"))
    with tempfile.TemporaryDirectory(dir=folder) as work:
        views = [
            _view_join(definitions, name, tuple(fields), project.folders, Path(work), recorded)
            for name, fields in columns.wanted.items()
        ]
        with contextlib.ExitStack() as stack:
            for view in views:
                stack.enter_context(view.rows.unchanged())
                stack.callback(view.quarantine.close)
            joined = joining.join(
                JoinRequest(labels, timestamp_column, tuple(views), columns, Path(work), report or Silent())
            )
    manifest = Manifest(
        project=project.name,
        definitions_version=basis.version.version,
        definitions_digest=basis.version.digest,
        service=service if isinstance(service, str) else tuple(service),
        features=tuple(columns.features),
        engine=project.engine_name(engine),
        labels=labels.where,
        timestamp_column=timestamp_column,
        sources=tuple(map(_snapshot, views)),
        made_at=datetime.now(UTC),
        seconds=time.perf_counter() - begun,
        rows=joined.rows,
        missing=dict(joined.missing),
        functions={name: (digest,) for name, digest in compiled.functions().items()},
    )
    return TrainingSet(joined, manifest, served_types(compiled))


def served_types(service: CompiledService) -> dict[str, DType]:
    """The types of a service's features, by name."""
    return {name: column.dtype for name, column in service.columns.items()}


def label_rows(given: Any, folder: Path) -> pa.Table | Path | LabelQuery:
    """Label rows in the form that engines take.

    Args:
        given: a table or DataFrame, the path of a Parquet file or folder, or an SQL query.
        folder: the folder that relative paths in a query refer to.

    Raises:
        DataError: `given` is none of these, the path does not exist, or a column cannot be stored in Parquet.
    """
    if isinstance(given, str) and _SQL.match(given):
        return LabelQuery(given, folder)
    if isinstance(given, (str, Path)):
        if "://" not in str(given) and not os.path.exists(given):  # noqa: PTH110 - as of pushed files
            hint = f"a relative path is taken from the current folder, {Path.cwd()}"
            raise DataError(f"labels {given}", problem="there is no such file or folder", hint=hint)
        return Path(given)
    stream = arrow_stream(given, "labels", f"{TABLES}, the path of a Parquet file, or a query")
    with reading("labels"):
        rows = plain_table(stream.read_all())
    refuse_unstorable(rows.schema, "labels")
    refuse_corrupt(rows, "labels")
    return rows


def _needed(columns: ServedColumns, definitions: DefinitionSet) -> dict[str, DType]:
    """The columns that the label rows must have, with types: the views' join keys and the request fields."""
    keys = {
        entity.join_key: entity.dtype for name in columns.wanted for entity in definitions.stored_view(name).entities
    }
    return keys | {name: item.dtype for name, item in columns.requests.items()}


def _view_join(
    definitions: DefinitionSet,
    name: str,
    fields: tuple[str, ...],
    folders: ProjectFolders,
    work: Path,
    recorded: RecordedSources | None,
) -> ViewJoin:
    view = definitions.stored_view(name)
    if view.history is None:
        where, expected = f"view {name}", "a source, which knows its history"
        hint = "serving has its newest rows alone; keep what is pushed, and make it the view's source"
        if isinstance(view, StreamFeatureView):
            expected, hint = "a history of its events", f"give {view.source.name} a history=…"
        raise RequestError(where, expected=expected, got="none", hint=hint)
    folder = work / name
    private_folder(folder)
    quarantine = Quarantine(folders.quarantine, folder, name)
    open_rows = open_view if recorded is None else recorded.open_view
    return ViewJoin(view, open_rows(view.history, view, folders.source), fields, quarantine)


def _snapshot(view: ViewJoin) -> SourceSnapshot:
    files = tuple(SourceFile(*version[:3]) for version in view.rows.files)
    kept = view.quarantine.path
    return SourceSnapshot(
        view=view.view.name,
        files=files,
        rows=view.rows.total,
        quarantined=view.quarantine.rows,
        quarantine_file=None if kept is None else str(kept),
        version=view.rows.version,
        pinned=dict(view.rows.pinned),
    )
