"""Files of one folder that differ in their columns, for each kind of file: a column that a file lacks is null in it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from feature_store import (
    ArrowSource,
    AvroSource,
    CsvSource,
    Entity,
    FeatureView,
    Field,
    Float64,
    JsonLinesSource,
    ParquetSource,
    String,
)
from feature_store.arrow.sources.opening import open_view
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions.batch_source import BatchSource
from feature_store.engines.local.engine import LocalEngine
from feature_store.engines.source_check import check_source
from feature_store.errors import DataError
from feature_store.materialize.job import Target, materialize
from feature_store.materialize.span import Span
from feature_store.project.context import ProjectFolders
from feature_store.testing.doubles import FolderSink, MemoryProgress

Rows = list[dict[str, Any]]


def parquet(path: Path, rows: Rows) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))


def hive(path: Path, rows: Rows) -> None:
    folder = path.parent / f"part={path.name}"
    folder.mkdir()
    parquet(folder / "rows", rows)


def arrow(path: Path, rows: Rows) -> None:
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_file(str(path.with_suffix(".arrow")), table.schema) as writer:
        writer.write_table(table, max_chunksize=1)


def csv(path: Path, rows: Rows) -> None:
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), path.with_suffix(".csv"))


def json_lines(path: Path, rows: Rows) -> None:
    lines = [json.dumps(row, default=datetime.isoformat) for row in rows]
    path.with_suffix(".jsonl").write_text("\n".join(lines))


def avro(path: Path, rows: Rows) -> None:
    types: dict[str, Any] = {"user_id": "long", "score": "double", "title": "string"}
    types["at"] = {"type": "long", "logicalType": "timestamp-micros"}
    fields = [{"name": name, "type": types[name]} for name in rows[0]]
    with path.with_suffix(".avro").open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "row", "fields": fields}, rows)


WRITERS: dict[str, tuple[Callable[[Path, Rows], None], BatchSource]] = {
    "parquet": (parquet, ParquetSource("rows", event_timestamp="at")),
    "hive": (hive, ParquetSource("rows", event_timestamp="at", partitioning="hive")),
    "arrow": (arrow, ArrowSource("rows", event_timestamp="at")),
    "csv": (csv, CsvSource("rows", event_timestamp="at")),
    "json lines": (json_lines, JsonLinesSource("rows", event_timestamp="at")),
    "avro": (avro, AvroSource("rows", event_timestamp="at")),
}
AT = datetime(2026, 1, 1, tzinfo=UTC)
OLD = [{"user_id": 1, "at": AT, "score": 0.5}, {"user_id": 2, "at": AT, "score": 1.5}]
NEW = [{"title": "x", "score": 2.5, "at": AT + timedelta(days=1), "user_id": 2}]
USER = Entity("user", join_key="user_id")


def view_of(source: BatchSource, *fields: Field) -> FeatureView:
    return FeatureView("stats", entities=[USER], source=source, schema=list(fields))


@pytest.fixture(params=list(WRITERS))
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> BatchSource:
    """A source with an old file, and a new one with another column in front."""
    write, source = WRITERS[request.param]
    (tmp_path / "rows").mkdir()
    write(tmp_path / "rows" / "a", OLD)
    write(tmp_path / "rows" / "b", NEW)
    return source


def titles(batches: Any) -> list[Any]:
    return [getattr(part, "storage", part).to_pylist() for batch in batches for part in [batch.column("title")]]


@pytest.mark.parametrize("columns", [["title"], ["user_id", "title"], ["title", "at"]])
def test_a_column_that_came_later_is_null_in_earlier_rows(
    kind: BatchSource, tmp_path: Path, columns: list[str]
) -> None:
    rows = open_view(kind, view_of(kind, Field("title", String)), tmp_path)
    assert "title" in rows.schema.names
    whole = [title for part in titles(rows.batches(columns)) for title in part]
    assert whole[:2] == [None, None]
    assert whole[2] in ("x", '"x"')
    pieces = [pickle.loads(pickle.dumps(piece)) for piece in rows.pieces(columns, None, most_bytes=1)]
    assert [title for piece in pieces for part in titles(piece.batches(columns)) for title in part] == whole
    unread = rows.unread(b"").pieces
    assert [title for piece in unread for part in titles(piece.batches(columns)) for title in part] == whole
    times = TimeRange("at", -(1 << 62), 1 << 62)
    assert [title for part in titles(rows.batches(columns, times)) for title in part] == whole
    assert [title for part in titles(rows.sequence(times).batches(columns)) for title in part] == whole


def test_such_rows_are_materialized(kind: BatchSource, tmp_path: Path) -> None:
    view = view_of(kind, Field("score", Float64), Field("title", String))
    check_source(view, tmp_path)
    sink = FolderSink(tmp_path / "sink")
    summary = materialize(
        view,
        Span(),
        Target(sink, MemoryProgress()),
        folders=ProjectFolders(tmp_path, tmp_path / "state"),
        engine=LocalEngine(),
        digest="d",
    )
    assert (summary.source_rows, summary.quarantined) == (3, 0)
    assert {user: row[2:] for user, row in sink.rows.items()} == {1: (0.5, None), 2: (2.5, "x")}


def test_a_column_that_no_file_has_is_refused(kind: BatchSource, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="titel"):
        open_view(kind, view_of(kind, Field("titel", String)), tmp_path)
