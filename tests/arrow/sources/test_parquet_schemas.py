"""Parquet files of one folder whose columns differ: DuckDB, which unites the files by name, is the oracle."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.arrow.batch_sizes import BATCH_BYTES
from feature_store.arrow.sources.opening import open_source, open_view
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions import Array, Entity, FeatureView, Field, Float32, Float64, ParquetSource, String
from feature_store.engines.local.engine import LocalEngine
from feature_store.engines.source_check import check_source
from feature_store.errors import DataError
from feature_store.materialize.job import Target, materialize
from feature_store.materialize.span import Span
from feature_store.project.context import ProjectFolders
from feature_store.testing.doubles import FolderSink, MemoryProgress

_SOURCE = ParquetSource("rows", event_timestamp="at")
_FIELDS = [Field("score", Float64), Field("title", String)]
_TYPES: dict[str, list[pa.DataType]] = {
    "n": [pa.int16(), pa.int32(), pa.int64()],
    "score": [pa.float32(), pa.float64()],
    "title": [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())],
}
_VALUES: dict[str, list[Any]] = {"n": [None, -3, 0, 7], "score": [None, 0.5, -2.0], "title": [None, "", "a", "é"]}


@pytest.fixture(params=["local", "spark"])
def engine(request: pytest.FixtureRequest) -> Any:
    return LocalEngine() if request.param == "local" else request.getfixturevalue("spark_engine")


def _write(folder: Path, number: int, **columns: Any) -> None:
    path = folder / "rows" / f"part-{number:03d}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=7)


def _random_files(folder: Path, seed: int) -> None:
    """Files that lack some columns, have them in other orders, and in wider or narrower types."""
    random = np.random.default_rng(seed)
    first = 0
    for number in range(6):
        rows = int(random.integers(1, 40))
        columns = {
            "user_id": pa.array(random.integers(0, 15, rows)),
            "at": pa.array([(first + i) * 1_000_000 for i in range(rows)], pa.timestamp("us")),
        }
        for name, types in _TYPES.items():
            if number == 5 or random.random() < 0.5:
                values = [_VALUES[name][i] for i in random.integers(0, len(_VALUES[name]), rows)]
                columns[name] = pa.array(values).cast(types[random.integers(len(types))])
        names = random.permutation(list(columns))
        _write(folder, number, **{str(name): columns[name] for name in names})
        first += rows


def _oracle(folder: Path, query: str) -> list[tuple[Any, ...]]:
    connection = duckdb.connect()
    connection.read_parquet(f"{folder}/rows/*.parquet", union_by_name=True, hive_partitioning=False).create_view("rows")
    return connection.sql(query).fetchall()


def _view(source: ParquetSource = _SOURCE, sql: str | None = None) -> FeatureView:
    return FeatureView("stats", entities=[Entity("user", join_key="user_id")], source=source, schema=_FIELDS, sql=sql)


def _tuples(batches: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


@pytest.mark.parametrize("seed", range(6))
def test_rows_pieces_and_places_are_those_of_the_oracle(tmp_path: Path, seed: int) -> None:
    _random_files(tmp_path, seed)
    names = ["title", "n", "score", "user_id"]
    wanted = _oracle(tmp_path, 'SELECT title, n, score, user_id FROM rows ORDER BY "at"')
    opened = open_source(_SOURCE, tmp_path)
    assert set(opened.schema.names) == {*names, "at"}
    assert _tuples(opened.batches(names)) == wanted
    pieces = pickle.loads(pickle.dumps(opened.pieces(names, None, most_bytes=200)))
    assert [row for piece in pieces for row in _tuples(piece.batches(names))] == wanted
    sequence = opened.sequence(TimeRange("at", -(1 << 62), 1 << 62))
    chosen = np.flatnonzero(np.random.default_rng(seed).random(len(wanted)) < 0.2)
    assert _tuples(sequence.gather(names, chosen)) == [wanted[place] for place in chosen]
    assert _tuples(opened.batches(["n"])) == [(row[1],) for row in wanted], "also if a file has none of the columns"
    times = TimeRange("at", 20_000_000, 50_000_000)
    inside = _oracle(
        tmp_path,
        'SELECT title, n FROM rows WHERE epoch_us("at") >= 20000000 AND epoch_us("at") < 50000000 ORDER BY "at"',
    )
    assert _tuples(opened.batches(["title", "n"], times)) == inside


@pytest.mark.parametrize("sql", [None, 'SELECT user_id, "at", score, title FROM source'])
@pytest.mark.parametrize("mapping", [{}, {"n": "number"}])
def test_the_latest_rows_are_those_of_the_oracle(
    tmp_path: Path, engine: Any, sql: str | None, mapping: dict[str, str]
) -> None:
    _random_files(tmp_path, 11)
    view = _view(ParquetSource("rows", event_timestamp="at", field_mapping=mapping), sql)
    check_source(view, tmp_path)
    sink = FolderSink(tmp_path / "sink")
    folders = ProjectFolders(tmp_path, tmp_path / "state")
    materialize(view, Span(), Target(sink, MemoryProgress()), folders=folders, engine=engine, digest="d")
    newest = 'SELECT user_id, arg_max(struct_pack(score, title), "at") FROM rows GROUP BY user_id'
    # FolderSink holds 0.0 for a score that is null. No score of the files is 0.
    wanted = {user: (row["score"] or 0.0, row["title"]) for user, row in _oracle(tmp_path, newest)}
    assert {user: row[2:] for user, row in sink.rows.items()} == wanted


def test_a_column_that_no_file_has_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, 0, user_id=[1], at=pa.array([1], pa.timestamp("us")), score=[1.0])
    with pytest.raises(DataError, match="column title: expected a column of String, got none"):
        open_view(_SOURCE, _view(), tmp_path)


def test_a_file_whose_type_cannot_fit_is_named(tmp_path: Path) -> None:
    _write(tmp_path, 0, user_id=[1], at=pa.array([1], pa.timestamp("us")), score=[1.0], title=["a"])
    _write(tmp_path, 1, user_id=[1], at=pa.array([2], pa.timestamp("us")), score=["1"])
    with pytest.raises(
        DataError, match=r"part-001\.parquet: column score: expected values of Float64, got a column of string"
    ):
        open_view(_SOURCE, _view(), tmp_path)


def test_nulls_of_vectors_that_a_file_lacks_come_in_batches_of_the_usual_size(tmp_path: Path) -> None:
    width, rows = 512, 40_000
    _write(tmp_path, 0, user_id=[1], at=pa.array([0], pa.timestamp("us")), v=pa.array([[0.0] * width], pa.list_(pa.float32(), width)))  # fmt: skip
    times = pa.array(range(rows), pa.timestamp("us"))
    pq.write_table(pa.table({"user_id": range(rows), "at": times}), tmp_path / "rows" / "part-001.parquet")
    view = FeatureView(
        "stats",
        entities=[Entity("user", join_key="user_id")],
        source=_SOURCE,
        schema=[Field("v", Array(Float32, width))],
    )
    sizes = [(len(one), one.nbytes) for one in open_view(_SOURCE, view, tmp_path).batches(["user_id", "v"])]
    assert sum(count for count, _ in sizes) == rows + 1
    assert max(size for _, size in sizes) <= 2 * BATCH_BYTES
