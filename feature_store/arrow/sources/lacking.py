"""The columns of a source whose files differ: a column that a file lacks is null in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from feature_store.arrow.batch_sizes import batch_rows, schema_row_bytes
from feature_store.arrow.plain import plain_type


def lacking_of(schemas: Sequence[pa.Schema]) -> list[pa.Schema]:
    """For each file, the columns that only other files have, in the plain type of the first file that has them."""
    columns: dict[str, pa.Field] = {}
    for schema in schemas:
        columns |= {field.name: field for field in schema if field.name not in columns}
    found = []
    for schema in schemas:
        own = set(schema.names)
        fields = [pa.field(name, plain_type(field.type)) for name, field in columns.items() if name not in own]
        found.append(pa.schema(fields))
    return found


def whole_schema(schema: pa.Schema, lacking: pa.Schema) -> pa.Schema:
    """The columns of a file, then those that it lacks."""
    return pa.schema([*schema, *lacking], schema.metadata) if lacking.names else schema


def completed(batches: Iterator[pa.RecordBatch], names: Sequence[str], lacking: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Batches of a file with columns that it lacks.

    Args:
        batches: the rows, with at least the columns of `names` that the file has.
        names: the columns, each once.
        lacking: the columns that the file lacks.
    """
    # Nulls of vectors take as much memory as vectors, and the batches are cut for the columns of the file only.
    most_rows = batch_rows(schema_row_bytes(lacking))
    for batch in batches:
        for start in range(0, len(batch), most_rows):
            yield _completed(batch.slice(start, most_rows), names, lacking)


def _completed(batch: pa.RecordBatch, names: Sequence[str], lacking: pa.Schema) -> pa.RecordBatch:
    found = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns = [found[name] if name in found else pa.nulls(len(batch), lacking.field(name).type) for name in names]
    return pa.RecordBatch.from_arrays(columns, names=list(names))
