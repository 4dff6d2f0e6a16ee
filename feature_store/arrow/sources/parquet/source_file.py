"""A Parquet file with the columns of its source: columns that only other files of the source have are null in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from feature_store.arrow.batch_sizes import batch_rows, schema_row_bytes
from feature_store.arrow.plain import plain_type
from feature_store.arrow.sources.parquet.batches import file_batches
from feature_store.arrow.time_range import TimeRange


class SourceFile(NamedTuple):
    """A Parquet file of a source.

    Attributes:
        fragment: the file, or a subset of its row groups, as a fragment of a dataset.
        lacking: the columns of the source that the file does not have, in plain types.
    """

    fragment: Any
    lacking: pa.Schema

    @property
    def schema(self) -> pa.Schema:
        """The columns of the file, then those that it lacks."""
        found: pa.Schema = self.fragment.physical_schema
        return pa.schema([*found, *self.lacking], found.metadata) if self.lacking.names else found

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
        lacking = [name for name in names if name in self.lacking.names]
        stored = [name for name in names if name not in lacking]
        if not lacking:
            yield from file_batches(self.fragment, stored, groups)
            return
        # Nulls of vectors take as much memory as vectors, and the file's batches are cut for the stored columns only.
        most_rows = batch_rows(schema_row_bytes(self.lacking))
        for batch in file_batches(self.fragment, stored or self._narrowest(), groups):
            for start in range(0, len(batch), most_rows):
                yield self._completed(batch.slice(start, most_rows), names)

    def _narrowest(self) -> list[str]:
        """The column that takes the least memory. It is read for the number of rows if the file has no other one."""
        found: pa.Schema = self.fragment.physical_schema
        return [min(found, key=lambda field: schema_row_bytes(pa.schema([field]))).name]

    def _completed(self, batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
        found = dict(zip(batch.schema.names, batch.columns, strict=True))
        rows = len(batch)
        columns = [found[name] if name in found else pa.nulls(rows, self.lacking.field(name).type) for name in names]
        return pa.RecordBatch.from_arrays(columns, names=list(names))


def source_files_of(fragments: Sequence[Any]) -> tuple[list[SourceFile], pa.Schema]:
    """Fragments as files of one source, and the columns of the source.

    A column has the type of the first file that has it; the types of others may differ. A column that a file has twice
    stays so, since the check of columns refuses it if a view takes it.
    """
    columns: dict[str, pa.Field] = {}
    for fragment in fragments:
        columns |= {field.name: field for field in fragment.physical_schema if field.name not in columns}
    files = []
    for fragment in fragments:
        own = set(fragment.physical_schema.names)
        lacking = [pa.field(name, plain_type(field.type)) for name, field in columns.items() if name not in own]
        files.append(SourceFile(fragment, pa.schema(lacking)))
    return files, files[0].schema
