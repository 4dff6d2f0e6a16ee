"""Training sets from the served log: labels with the feature vectors that the model was served.

A label names its request by `request_id`. It names the row of the request by `request_row` (the number of the row) if
the labels have that column, else by the service's join keys. Labels whose request was not logged are left out; the
manifest has their number.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.arrow.frames import table_of_columns
from feature_store.arrow.labels import label_values, matches
from feature_store.arrow.reading import reading
from feature_store.arrow.rows import refuse_column
from feature_store.arrow.served_log import (
    REQUEST_ID,
    REQUEST_ROW,
    SERVED_AT,
    About,
    LogFile,
    functions_of,
    log_files,
    one_feature_list,
    read_log,
    statuses_of,
)
from feature_store.arrow.types import storage_type
from feature_store.definitions.dtypes import DType, Int32, String
from feature_store.engines.join import Labels
from feature_store.engines.local.join import LocalJoined
from feature_store.errors import DataError
from feature_store.training.basis import basis_of
from feature_store.training.manifest import Manifest, SourceFile, SourceSnapshot
from feature_store.training.training_set import TrainingSet, label_rows, served_types

if TYPE_CHECKING:
    import pyarrow as pa

    from feature_store.project.context import Project

Places = np.ndarray[Any, np.dtype[np.int64]]


def training_set_from_log(
    project: Project,
    log: Path,
    labels: Any,
    service: str,
    *,
    version: int | None = None,
    take: Sequence[str] = (),
) -> TrainingSet:
    """Join logged vectors to labels; see `FeatureStore.training.from_log`."""
    begun = time.perf_counter()
    basis, engine = basis_of(project), project.engine("local")
    files = log_files(log, service, version)
    served = served_types(basis.service(service)) if version is None else None
    about = one_feature_list(files, served)
    given = engine.labels(label_rows(labels, project.folders.source))
    records = read_log(files)
    of_labels, of_records = _matched(given, records, about)
    chosen = records.take(of_records)
    columns = _columns(given, of_labels, chosen, about, take)
    statuses = statuses_of(chosen, list(about.features))
    missing = {name: int(np.count_nonzero(codes)) for name, codes in statuses.items()}
    joined = LocalJoined(table_of_columns(columns), missing)
    manifest = Manifest(
        project=about.project,
        definitions_version=about.version,
        definitions_digest=basis.version.digest if about.version == basis.version.version else "",
        service=service,
        features=tuple(about.features),
        engine="served log",
        labels=f"{given.where}: {len(given.rows):,} rows, of which {joined.rows:,} were logged",
        timestamp_column=SERVED_AT,
        sources=(SourceSnapshot(f"served log {log}", _snapshots(files), len(records)),),
        made_at=datetime.now(UTC),
        seconds=time.perf_counter() - begun,
        rows=joined.rows,
        missing=missing,
        functions=functions_of(files),
    )
    return TrainingSet(joined, manifest, about.feature_types)


def _matched(labels: Labels, records: pa.Table, about: About) -> tuple[Places, Places]:
    """(k,) int64 places of the labels that were logged, in order, and (k,) int64 places of their records.

    Raises:
        DataError: the labels lack a column, or a label names more than one record.
    """
    by_row = REQUEST_ROW in labels.schema.names
    keys = {REQUEST_ROW: Int32} if by_row else {name: DType.parse(text) for name, text in about.keys.items()}
    keys = {REQUEST_ID: String} | keys
    left = {}
    for name, dtype in keys.items():
        where = f"{labels.where}: column {name}"
        refuse_column(where, name, dtype, labels.schema)
        left[name] = label_values(labels.rows[name], dtype, where)
    right = {name: records[name].cast(storage_type(dtype)) for name, dtype in keys.items()}
    of_labels, of_records = matches(left, right, labels.where)
    twice = np.flatnonzero(of_labels[1:] == of_labels[:-1])
    if len(twice):
        row = int(of_labels[twice[0]])
        named = ", ".join(f"{name}={left[name][row].as_py()!r}" for name in keys)
        hint = f"give each request an id of its own{'' if by_row else f', or the labels a column {REQUEST_ROW}'}"
        raise DataError(f"{labels.where}, row {row}", expected="one record", got=f"several of {named}", hint=hint)
    return of_labels, of_records


def _columns(
    labels: Labels, of_labels: Places, chosen: pa.Table, about: About, take: Sequence[str]
) -> dict[str, pa.ChunkedArray]:
    """The labels' columns, then the columns `take` of the log, then the features.

    Raises:
        DataError: the log lacks a column, or a column of the labels has the same name as one from the log.
    """
    rows = labels.rows.take(of_labels)
    columns = {name: rows[name] for name in rows.column_names}
    for name in (*take, *about.features):
        if name not in chosen.column_names:
            expected = f"a column of the log: {', '.join(set(chosen.column_names) - set(about.features))}"
            raise DataError(f"served log: column {name}", expected=expected, got="none")
        if name in columns:
            hint = "rename the column, or do not take it"
            expected = "a name that neither a feature nor what is taken has"
            raise DataError(f"{labels.where}: column {name}", expected=expected, got=name, hint=hint)
        columns[name] = chosen[name]
    return columns


def _snapshots(files: Sequence[LogFile]) -> tuple[SourceFile, ...]:
    with reading(f"served log {files[0].path}"):
        found = [(file.path, file.path.stat()) for file in files]
    return tuple(SourceFile(str(path), about.st_size, about.st_mtime_ns) for path, about in found)
