"""The rows of Delta Lake tables: the implementation of DeltaSource.

`deltalake` reads the log of the table: the data files of a version, their partition values, statistics and deleted
rows. The data files themselves are read as those of every lake table.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from numpy.typing import NDArray

from feature_store.arrow.file_versions import stores
from feature_store.arrow.reading import reading
from feature_store.arrow.sources.lake.data_files import DataFile, LakeColumns, table_schema
from feature_store.arrow.sources.lake.delta_log import ReadVersion, added_since
from feature_store.arrow.sources.lake.rows import LakeRows
from feature_store.arrow.sources.source import Unread
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.delta_source import DeltaSource
from feature_store.definitions.file_url import is_url
from feature_store.errors import DataError

# Features of tables that readers must know. Others change what the data files mean.
_FEATURES = {
    "columnMapping",
    "deletionVectors",
    "timestampNtz",
    "typeWidening",
    "typeWidening-preview",
    "v2Checkpoint",
    "vacuumProtocolCheck",
}
_MS_US, _DAY_US = 1000, 86_400_000_000


class DeltaRows(LakeRows):
    """The rows of a version of a Delta table, in the order in which its files were written; see LakeRows.

    Args:
        where: names the table in errors.
        root: the folder or URL of the table.
        version: the version to open. None: the newest.

    Raises:
        DataError: there is no such table or version, its log cannot be read, or it needs a feature that is not
            supported.
    """

    def __init__(self, where: str, root: str, version: int | None) -> None:
        self._root = root
        with _delta_errors(where, root, version):
            table = _table(root, version)
            _refuse_features(where, table)
            columns = _columns(table)
            actions = pa.table(table.get_add_actions(flatten=False))
            deleted = _deleted(table)
            self._now = ReadVersion.of(root, str(table.metadata().id), table.version())
            order = sorted(range(len(actions)), key=_age_of(actions).__getitem__)
            self._actions = actions.take(pa.array(order, pa.int64()))
            self._paths: list[str] = self._actions["path"].to_pylist()
            files = _data_files(where, root, self._now.version, self._actions, columns, deleted)
        self.pinned = {"version": self._now.version}
        super().__init__(where, f"{self._now.table} version {self._now.version}", columns, files)

    @classmethod
    def open(cls, source: DeltaSource, folder: Path) -> Self:
        """See OfflineSource."""
        return cls(f"source {source.path}", _root(source, folder), source.version)

    @classmethod
    def exists(cls, source: DeltaSource, folder: Path) -> bool:
        """See OfflineSource."""
        log = f"{_root(source, folder)}/_delta_log"
        return any(True for _ in stores().listed(log)) if is_url(log) else Path(log).is_dir()

    def files_within(self, times: TimeRange | None) -> Sequence[DataFile]:
        """See LakeRows. The statistics of each file in the log decide."""
        if times is None:
            return self._files
        inside = self._statistics.may_hold(times, _stored_name(self._columns, times.column))
        return [file for file, is_inside in zip(self._files, inside.tolist(), strict=True) if is_inside]

    def unread(self, known: bytes) -> Unread:
        """See OfflineSource. The log shows which files were added."""
        before = ReadVersion.parse(known)
        with reading(self.where), _delta_errors(self.where, self._root, self._now.version):
            added = None if before is None else added_since(self._root, before, self._now)
        files = [file for path, file in zip(self._paths, self._files, strict=True) if added is None or path in added]
        return Unread(self._now.document(), self.whole_pieces(files))

    @cached_property
    def _statistics(self) -> _Statistics:
        return _Statistics(self._actions)


class _Statistics:
    """The statistics that the log has of the columns of data files.

    Args:
        actions: the files, as deltalake lists them.
    """

    def __init__(self, actions: pa.Table) -> None:
        self._actions = actions

    def may_hold(self, times: TimeRange, stored: str) -> NDArray[np.bool_]:
        """Whether each file may hold rows whose time is in a range or null: (n,).

        Args:
            times: the range.
            stored: the name of the column in the data files.
        """
        least, most, nulls = (self._column(part, stored) for part in ("min", "max", "null_count"))
        everything = np.ones(len(self._actions), bool)
        if least is None or most is None or nulls is None:
            return everything
        step_us = _step_us(least.type)
        if step_us is None:
            return everything
        known = np.asarray(nulls.fill_null(1)) == 0
        known &= least.is_valid().to_numpy() & most.is_valid().to_numpy()
        # Times in statistics are rounded down to milliseconds.
        last = _microseconds(most) + (_DAY_US if step_us == _DAY_US else _MS_US)
        outside = (last < times.start_us) | (_microseconds(least) >= times.end_us)
        return np.asarray(~(known & outside))

    def _column(self, part: str, name: str) -> pa.ChunkedArray | None:
        if part not in self._actions.schema.names:
            return None
        values = self._actions[part].combine_chunks()
        if not pa.types.is_struct(values.type) or values.type.get_field_index(name) < 0:
            return None
        return pa.chunked_array([values.flatten()[values.type.get_field_index(name)]])


def _step_us(found: pa.DataType) -> int | None:
    if pa.types.is_timestamp(found):
        return 1
    return _DAY_US if pa.types.is_date32(found) else None


def _microseconds(times: pa.ChunkedArray) -> NDArray[np.int64]:
    """Times in microseconds since 1970, nulls as 0: (n,) int64."""
    if pa.types.is_date32(times.type):
        days = times.cast(pa.int32()).cast(pa.int64())
        return np.asarray(days.fill_null(0)) * _DAY_US
    return np.asarray(times.cast(pa.timestamp("us", times.type.tz)).cast(pa.int64()).fill_null(0))


@contextlib.contextmanager
def _delta_errors(where: str, root: str, version: int | None) -> Iterator[None]:
    """A block that calls deltalake or reads the log, whose errors become a DataError."""
    try:
        yield
    except TableNotFoundError as error:
        hint = "name the folder that holds the table's _delta_log"
        raise DataError(where, problem=f"there is no Delta table in {root}", hint=hint) from error
    except (DeltaError, ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        _refuse_version(where, root, version, error)
        raise DataError(where, expected="a readable Delta table", got=str(error).partition("\n")[0]) from error


def _root(source: DeltaSource, folder: Path) -> str:
    """The folder or URL of a table.

    Raises:
        DataError: the URL has a %, which deltalake decodes in some requests and not in others.
    """
    if not is_url(source.path):
        return str(folder / source.path)
    if "%" in source.path:
        hint = "move the table to a folder without % in its name"
        raise DataError(f"source {source.path}", problem="a Delta table cannot be read at a URL with a %", hint=hint)
    return source.path.rstrip("/")


def _table(root: str, version: int | None = None) -> Any:
    """A version of a table, or the newest. Credentials of URLs come from the environment."""
    if not is_url(root):
        return DeltaTable(root, version=version)
    return DeltaTable(root, version=version, storage_options=stores().lake_options(root))


def _refuse_version(where: str, root: str, version: int | None, cause: Exception) -> None:
    """Raise a DataError if a table can be read, but does not have a version."""
    try:
        newest = None if version is None else _table(root).version()
    except (DeltaError, ValueError, OSError):
        return
    if version is None or newest is None:
        return
    if version > newest:
        hint = "leave out version=, or name an earlier one"
        raise DataError(where, problem=f"there is no version {version}; the newest is {newest}", hint=hint) from cause
    reason = str(cause).partition("\n")[0]
    hint = "the log of old versions is removed after its retention time: name a later version, or leave out version="
    raise DataError(where, problem=f"version {version} cannot be read: {reason}", hint=hint) from cause


def _refuse_features(where: str, table: Any) -> None:
    """Raise a DataError if a table needs a feature that is not supported."""
    unknown = sorted(set(table.protocol().reader_features or ()) - _FEATURES)
    if unknown:
        hint = "switch the feature off, or export the table to plain Parquet files"
        raise DataError(where, problem=f"the table uses {unknown[0]}, which is not supported", hint=hint)


def _columns(table: Any) -> LakeColumns:
    schema = table_schema(pa.schema(table.schema().to_arrow()))
    about = {field["name"]: field.get("metadata", {}) for field in json.loads(table.schema().to_json())["fields"]}
    stored: dict[str, tuple[str, ...]] = {
        name: (found["delta.columnMapping.physicalName"],) for name, found in about.items() if _is_mapped(found)
    }
    if table.metadata().configuration.get("delta.columnMapping.mode") != "id":
        return LakeColumns(schema, stored, {})
    return LakeColumns(schema, stored, {name: int(about[name]["delta.columnMapping.id"]) for name in stored})


def _stored_name(columns: LakeColumns, name: str) -> str:
    """The name of a column in the data files and the log."""
    (stored,) = columns.stored.get(name, (name,))
    return stored


def _is_mapped(about: Mapping[str, Any]) -> bool:
    return "delta.columnMapping.physicalName" in about


def _deleted(table: Any) -> dict[str, bytes]:
    """The positions of deleted rows, by the path of the file relative to the table, or absolute."""
    root = str(table.table_uri).rstrip("/") + "/"
    if "deletionVectors" not in (table.protocol().reader_features or ()):
        return {}
    found: dict[str, bytes] = {}
    for batch in pa.RecordBatchReader.from_stream(table.deletion_vectors()):
        for uri, kept in zip(batch.column(0).to_pylist(), batch.column(1), strict=True):
            places = np.flatnonzero(~np.asarray(kept.values.to_numpy(zero_copy_only=False)))
            found[_named(uri.removeprefix(root))] = places.astype(np.int64).tobytes()
    return found


def _named(uri: str) -> str:
    """The path of a file as the log names it, decoded: relative to the table, absolute, or a URL."""
    return unquote(uri.removeprefix("file://"))


def _placed(root: str, path: str) -> str:
    """The path or URL of a data file of a table.

    Raises:
        ValueError: the table is on this machine, and the file is not.
    """
    if is_url(root):
        return path if is_url(path) else f"{root}/{path}"
    if is_url(path):
        raise ValueError(f"the data file {path} is not on this machine")
    return str(Path(root) / path)


def _age_of(actions: pa.Table) -> list[tuple[int, str]]:
    """For each file, what its place among the others follows from: the time when it was written, and its path."""
    return list(zip(actions["modification_time"].to_pylist(), actions["path"].to_pylist(), strict=True))


def _data_files(
    where: str, root: str, version: int, actions: pa.Table, columns: LakeColumns, deleted: Mapping[str, bytes]
) -> list[DataFile]:
    constants = _constants(actions, columns)
    rows = zip(*(actions[name].to_pylist() for name in ("path", "size_bytes", "num_records")), strict=True)
    found = []
    for number, (path, size, count) in enumerate(rows):
        name = _named(path)
        values = tuple((column, of_files[number]) for column, of_files in constants.items())
        placed, gone = _placed(root, name), deleted.get(name, b"")
        found.append(DataFile(where, f"version {version}", placed, size, count, values, gone))
    return found


def _constants(actions: pa.Table, columns: LakeColumns) -> dict[str, list[pa.Scalar]]:
    """Partition column -> its value in each file."""
    if "partition" not in actions.schema.names:
        return {}
    values = actions["partition"].combine_chunks()
    names = {_stored_name(columns, name): name for name in columns.schema.names}
    found = {}
    for field, column in zip(values.type, values.flatten(), strict=True):
        name = names.get(field.name, field.name)
        found[name] = list(column.cast(columns.schema.field(name).type))
    return found
