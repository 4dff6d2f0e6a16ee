"""The rows of partitioned folders of Parquet files: the implementation of ParquetSource with `partitioning="hive"`.

The names of the folders hold columns, as in `day=2026-01-05/country=FR/part-0.parquet`. Their values are text, which is
parsed as the declared types. Files may lack columns that were added later, and may have narrower types.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import pyarrow as pa

from feature_store.arrow import csv_text
from feature_store.arrow.encoded import CSV
from feature_store.arrow.file_versions import FileVersion, file_versions, unchanged, version_of
from feature_store.arrow.reading import reading
from feature_store.arrow.sources.files import PARQUET, has_files, rooted_files
from feature_store.arrow.sources.lake.data_files import DataFile, LakeColumns, table_schema
from feature_store.arrow.sources.lake.rows import LakeRows
from feature_store.arrow.sources.parquet.batches import parquet_fragments
from feature_store.arrow.sources.read_files import unread_files
from feature_store.arrow.sources.source import Unread
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.source import ParquetSource
from feature_store.definitions.times import to_microseconds
from feature_store.errors import DataError

# The value of a folder for rows without a value, as Hive, Spark and Arrow write it.
_NULL = "__HIVE_DEFAULT_PARTITION__"
_Values = dict[str, str | None]


class PartitionedRows(LakeRows):
    """The rows of a partitioned folder, in the order of the paths of its files; see LakeRows.

    Args:
        where: names the folder in errors.
        root: the folder below which the names of folders hold columns.
        paths: the files, in order. A FileVersion is read in this version.

    Raises:
        DataError: a file cannot be read; the folders of two files hold different columns, or none; or a column has
            types in two files that have no common type.
    """

    def __init__(self, where: str, root: Path, paths: Sequence[Path | FileVersion]) -> None:
        with reading(where):
            self.files = file_versions(paths)
            with unchanged(where, self.files):
                fragments = parquet_fragments(self.files)
                found = zip(self.files, fragments, strict=True)
                schemas = [(Path(version.path), table_schema(file.physical_schema)) for version, file in found]
                counts = [int(file.metadata.num_rows) for file in fragments]
        self._values = _partitions(where, root, [Path(version.path) for version in self.files])
        columns = LakeColumns(_joined(where, schemas, list(self._values[0])), {}, {})
        files = [
            DataFile(where, "the folder", version.path, version.size, count, _constants(values), version=version)
            for version, count, values in zip(self.files, counts, self._values, strict=True)
        ]
        super().__init__(where, version_of(self.files), columns, files)

    @classmethod
    def open(cls, source: ParquetSource, folder: Path) -> Self:
        """See OfflineSource."""
        return cls(f"source {source.path}", *rooted_files(source.path, folder, PARQUET))

    @classmethod
    def exists(cls, source: ParquetSource, folder: Path) -> bool:
        """See OfflineSource."""
        return has_files(source.path, folder, PARQUET)

    def files_within(self, times: TimeRange | None) -> Sequence[DataFile]:
        """See LakeRows. A file is left out if the name of its folder says that it is outside the range."""
        if times is None or times.column not in self._values[0]:
            return self._files
        inside = [_may_be_in(times, values[times.column]) for values in self._values]
        return [file for file, is_inside in zip(self._files, inside, strict=True) if is_inside]

    def batches(self, columns: Sequence[str], times: TimeRange | None = None) -> Iterator[pa.RecordBatch]:
        """See OfflineSource. All batches have the types of the table."""
        with self.unchanged():
            yield from super().batches(columns, times)

    def unchanged(self) -> AbstractContextManager[None]:
        """See OfflineSource."""
        return unchanged(self.where, self.files)

    def unread(self, known: bytes) -> Unread:
        """See OfflineSource. A file that has the same path, size and time of the last change counts as read."""
        document, unread = unread_files(self.files, known)
        new = [file for file, is_new in zip(self._files, unread, strict=True) if is_new]
        return Unread(document, self.whole_pieces(new))


def _partitions(where: str, root: Path, paths: Sequence[Path]) -> list[_Values]:
    """For each file, the columns that the names of its folders hold."""
    found = [_of_folders(path.relative_to(root).parts[:-1]) for path in paths]
    first = found[0]
    if not first:
        hint = "name folders as day=2026-01-05, or leave out partitioning"
        raise DataError(where, problem=f"no folder of {paths[0].name} has a name with a column and a value", hint=hint)
    for path, values in zip(paths, found, strict=True):
        if list(values) != list(first):
            raise DataError(
                where,
                expected=f"the columns {', '.join(first)} in the names of folders, as of {paths[0]}",
                got=f"{', '.join(values) or 'none'} of {path}",
            )
    return found


def _of_folders(names: Iterable[str]) -> _Values:
    parts = [name.partition("=") for name in names]
    return {unquote(name): None if value == _NULL else unquote(value) for name, is_pair, value in parts if is_pair}


def _constants(values: _Values) -> tuple[tuple[str, pa.Scalar], ...]:
    return tuple((name, pa.scalar(value, pa.string())) for name, value in values.items())


def _may_be_in(times: TimeRange, text: str | None) -> bool:
    """Whether a time may be in a range. A text that is no time is: the check of rows refuses it."""
    time = None if text is None else csv_text.time(text)
    return time is None or times.start_us <= to_microseconds(time) < times.end_us


def _joined(where: str, schemas: Sequence[tuple[Path, pa.Schema]], partitions: Sequence[str]) -> pa.Schema:
    """The columns of all files, and of the names of their folders, which win."""
    types: dict[str, tuple[pa.DataType, Path]] = {}
    for path, schema in schemas:
        for field in schema:
            known = types.get(field.name)
            common = field.type if known is None else _common(known[0], field.type)
            if known is not None and common is None:
                expected = f"a type that goes with {known[0]}, of {known[1].name}"
                raise DataError(f"{where}: column {field.name}", expected=expected, got=f"{field.type} of {path.name}")
            if known is None or common != known[0]:
                types[field.name] = common, path
    types |= dict.fromkeys(partitions, (CSV, schemas[0][0]))
    return pa.schema([pa.field(name, found) for name, (found, _) in types.items()])


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both types exactly. None: there is none."""
    if one == other:
        return one
    try:
        schemas = [pa.schema([("column", found)]) for found in (one, other)]
        common: Any = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None
    # Floats do not hold all integers.
    is_rounded = pa.types.is_floating(common) and any(pa.types.is_integer(found) for found in (one, other))
    return None if is_rounded else common
