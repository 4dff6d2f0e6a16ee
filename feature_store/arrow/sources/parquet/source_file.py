"""A Parquet file with the columns of its source: columns that only other files of the source have are null in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from feature_store.arrow.batch_sizes import schema_row_bytes
from feature_store.arrow.file_versions import FileVersion
from feature_store.arrow.sources.lacking import completed, lacking_of, whole_schema
from feature_store.arrow.sources.parquet.batches import file_batches
from feature_store.arrow.time_range import TimeRange


class SourceFile(NamedTuple):
    """A Parquet file of a source.

    Attributes:
        version: the version of the file.
        fragment: the file, or a subset of its row groups, as a fragment of a dataset.
        lacking: the columns of the source that the file does not have, in plain types.
    """

    version: FileVersion
    fragment: Any
    lacking: pa.Schema

    @property
    def schema(self) -> pa.Schema:
        """The columns of the file, then those that it lacks."""
        return whole_schema(self.fragment.physical_schema, self.lacking)

    def inside(self, times: TimeRange | None) -> Any:
        """An expression for the rows that may be in a range of times. None: all rows."""
        if times is None or times.column in self.lacking.names:
            return None
        return times.filter(self.fragment.physical_schema.field(times.column))

    def within(self, times: TimeRange | None) -> Any:
        """The fragment without the row groups that have no rows in a range of times."""
        inside = self.inside(times)
        if inside is None:
            return self.fragment
        return self.fragment.subset(filter=inside, schema=self.fragment.physical_schema)

    def batches(self, columns: Sequence[str], times: TimeRange | None) -> Iterator[pa.RecordBatch]:
        """The rows that may be in a range of times."""
        names = list(dict.fromkeys(columns))
        inside = self.inside(times)
        groups = [group.id for group in self.within(times).row_groups]
        if times is None or inside is None:
            yield from self.group_batches(names, groups)
            return
        # Always read the times for the filter, so that the choice of rows does not depend on the columns.
        read = names if times.column in names else [*names, times.column]
        for batch in self.group_batches(read, groups):
            yield batch.filter(inside).select(names)

    def group_batches(self, names: Sequence[str], groups: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """All rows of some row groups, as `file_batches` yields them."""
        stored = [name for name in names if name not in self.lacking.names]
        if len(stored) == len(names):
            return file_batches(self.version, self.fragment, stored, groups)
        return completed(
            file_batches(self.version, self.fragment, stored or self._narrowest(), groups), names, self.lacking
        )

    def _narrowest(self) -> list[str]:
        """The column that takes the least memory. It is read for the number of rows if the file has no other one."""
        found: pa.Schema = self.fragment.physical_schema
        return [min(found, key=lambda field: schema_row_bytes(pa.schema([field]))).name]


def source_files_of(versions: Sequence[FileVersion], fragments: Sequence[Any]) -> tuple[list[SourceFile], pa.Schema]:
    """Files with their fragments as files of one source, and the columns of the source.

    A column has the type of the first file that has it; the types of others may differ. A column that a file has twice
    stays so, since the check of columns refuses it if a view takes it.
    """
    lacking = lacking_of([fragment.physical_schema for fragment in fragments])
    files = [SourceFile(*parts) for parts in zip(versions, fragments, lacking, strict=True)]
    return files, files[0].schema
