"""Exports a source to Parquet files, on which DuckDB runs the SQL of views."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from feature_store._private_files import private_file, private_folder
from feature_store.arrow.chunks import ChunkWriter
from feature_store.arrow.encoded import stored_batch, stored_schema
from feature_store.arrow.plain import plain_schema
from feature_store.arrow.reading import reading
from feature_store.arrow.sources.source import OfflineSource, Piece

EXPORT_BYTES = 64 << 20  # size in memory of the rows of one file
_GROUP_ROWS = 128 * 1024


def exported_files(rows: OfflineSource, folder: Path) -> Sequence[str]:
    """Paths of Parquet files with the rows of a source: its own files, else files that this function writes.

    Args:
        rows: the source.
        folder: the folder for files that are written.

    Raises:
        DataError: the source cannot be read, or a file cannot be written.
    """
    if rows.parquet_files is not None:
        return rows.parquet_files
    files = [*schema_files(rows, folder)]
    for number, piece in enumerate(rows.pieces(rows.schema.names, None, most_bytes=EXPORT_BYTES)):
        path = folder / f"piece-{number:06d}.parquet"
        if write_piece(piece, rows.schema.names, path):
            files.append(str(path))
    return files


def schema_files(rows: OfflineSource, folder: Path) -> Sequence[str]:
    """Paths of Parquet files with the schemas of a source: its own files, else empty files that this function writes.

    Raises:
        DataError: a file cannot be written.
    """
    if rows.parquet_files is not None:
        return rows.parquet_files
    files = []
    for number, schema in enumerate({stored_schema(plain_schema(schema)): None for _, schema in rows.schemas()}):
        path = folder / f"schema-{number:06d}.parquet"
        with reading(f"file {path}"):
            private_folder(folder)
            pq.write_table(schema.empty_table(), private_file(path))
        files.append(str(path))
    return files


def write_piece(piece: Piece, columns: Sequence[str], path: Path) -> bool:
    """Write the rows of a piece to a Parquet file.

    Returns:
        Whether the piece has rows. Without rows, no file is written.

    Raises:
        DataError: the piece cannot be read, or the file cannot be written.
    """
    batches = map(stored_batch, piece.batches(columns))
    first = next(batches, None)
    if first is None:
        return False
    with reading(f"file {path}"), ChunkWriter(path, first.schema, _GROUP_ROWS) as chunks:
        chunks.add(first)
        for batch in batches:
            chunks.add(batch)
    return True
