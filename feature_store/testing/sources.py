"""The offline source suites: the contract of `OfflineSource`, and the results of engines on a source.

    from feature_store.testing.sources import OfflineSourceSuite, SourceOnEngineSuite

    class StoredLake:  # see FillableSource
        ...

    @pytest.fixture
    def stored(tmp_path):
        return StoredLake(tmp_path)

    class TestLake(OfflineSourceSuite): ...

    class TestLakeOnLocalEngine(SourceOnEngineSuite): ...

They need pytest and the extra `local`. To test another engine, subclass SourceOnEngineSuite and override the fixture
`engine`.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store._intervals import Interval
from feature_store.arrow.encoded import encoding_of, is_encoded
from feature_store.arrow.plain import plain_type
from feature_store.arrow.quarantine import Quarantine
from feature_store.arrow.sources.late_rows import late_rows
from feature_store.arrow.sources.opening import open_source, open_view, source_exists
from feature_store.arrow.time_range import TimeRange
from feature_store.arrow.types import fit
from feature_store.definitions import DefinitionSet, Entity, FeatureView, Field, Float64, Int64, String, Timestamp
from feature_store.definitions.batch_source import SOURCES, BatchSource
from feature_store.engines.engine import StageRequest
from feature_store.engines.join import JoinRequest, ViewJoin
from feature_store.engines.local.engine import LocalEngine
from feature_store.engines.report import Silent
from feature_store.engines.source_check import check_source, has_source
from feature_store.errors import DataError
from feature_store.materialize.job import Target, materialize
from feature_store.materialize.span import Span
from feature_store.project.context import ProjectFolders
from feature_store.registry.catalog import described, listed
from feature_store.testing.doubles import FolderSink, MemoryProgress, UnchangedLabels

_SECOND_US = 1_000_000
_START_US = 1_700_000_000 * _SECOND_US
_ALL = TimeRange("at", -(1 << 62), 1 << 62)
_NAMES = ["user_id", "at", "made", "score", "title"]
_SCHEMA = pa.schema(
    {
        "user_id": pa.int64(),
        "at": pa.timestamp("us"),
        "made": pa.timestamp("us"),
        "score": pa.float64(),
        "title": pa.string(),
    }
)
_RENAMED = {"points": "score", "time": "at"}
_DTYPES = {"user_id": Int64, "at": Timestamp, "made": Timestamp, "score": Float64, "title": String}
_DTYPES |= {new: _DTYPES[old] for new, old in _RENAMED.items()}
user = Entity("user", join_key="user_id")


class FillableSource(Protocol):
    """A source that the suite fills with rows. Each test gets a new, empty one.

    Attributes:
        folder: the folder that relative paths in definitions refer to.
        source: the definition, with the event timestamp `at` and the created timestamp `made`.
    """

    folder: Path
    source: BatchSource

    def append(self, rows: pa.Table) -> None:
        """Append rows after the existing ones, as a writer does by adding a file, a snapshot or a transaction."""
        ...


class OfflineSourceSuite:
    """The contract of OfflineSource. A subclass has the fixture `stored`: an empty FillableSource.

    Rows have the columns `user_id`, `at`, `made`, `score` and `title`.
    """

    def test_a_document_of_the_definition_gives_the_definition_back(self, stored: FillableSource) -> None:
        document = stored.source.model_dump(mode="json", by_alias=True)
        assert SOURCES.of_document(document) == stored.source
        definitions = DefinitionSet([_view(stored)])
        assert DefinitionSet.from_document(definitions.to_document()).view("stats").source == stored.source

    def test_browsing_shows_the_source_by_its_name(self, stored: FillableSource) -> None:
        definitions = DefinitionSet([_view(stored)])
        assert [row["name"] for row in listed(definitions, "sources")] == [stored.source.name]
        document = described(definitions, stored.source.name)
        assert (document["kind"], document["read_by"]) == (type(stored.source).__name__, ["stats"])
        assert described(definitions, "stats")["source"] == stored.source.name

    def test_a_source_without_rows_is_missing_or_empty(self, stored: FillableSource) -> None:
        if source_exists(stored.source, stored.folder):
            assert _read(stored) == []
        else:
            with pytest.raises(DataError):
                open_source(stored.source, stored.folder)
        assert has_source(_view(stored), stored.folder) == source_exists(stored.source, stored.folder)

    def test_all_rows_come_in_order_in_the_columns_that_are_named(self, stored: FillableSource) -> None:
        tables = [_rows(seed, 50) for seed in range(3)]
        for table in tables:
            stored.append(table)
        assert source_exists(stored.source, stored.folder)
        whole = pa.concat_tables(tables)
        assert _read(stored) == whole.to_pylist()
        assert _read(stored, ["title", "user_id"]) == whole.select(["title", "user_id"]).to_pylist()
        opened = open_source(stored.source, stored.folder)
        assert set(_NAMES) <= set(opened.schema.names)
        assert opened.total in (None, len(whole))

    def test_batches_hold_plain_columns(self, stored: FillableSource) -> None:
        stored.append(_rows(1, 20))
        for batch in open_source(stored.source, stored.folder).batches(_NAMES):
            assert batch.schema.names == _NAMES
            assert all(field.type == plain_type(field.type) for field in batch.schema)

    @pytest.mark.parametrize("seed", range(5))
    def test_a_range_of_times_leaves_out_no_row_that_is_in_it_or_has_no_time(
        self, stored: FillableSource, seed: int
    ) -> None:
        tables = [_rows(seed, 40, without_times=3), _rows(seed + 100, 40)]
        for table in tables:
            stored.append(table)
        whole = pa.concat_tables(tables)
        times = _range(seed)
        inside = pc.or_kleene(pc.is_null(whole["at"]), _is_inside(whole["at"], times))
        wanted = whole.filter(inside).to_pylist()
        opened = open_source(stored.source, stored.folder)
        found = [row for batch in opened.batches(_NAMES, times) for row in _read_rows(batch)]
        assert _subsequence(wanted, found)
        assert _subsequence(found, whole.to_pylist())
        titles = [row["title"] for batch in opened.batches(["title"], times) for row in _read_rows(batch)]
        assert titles == [row["title"] for row in found], "which rows are left out depends on the columns"
        counted = opened.count(times)
        assert counted is None or counted == len(wanted)

    @pytest.mark.parametrize("most_bytes", [1, 1000, 1 << 30])
    def test_pieces_are_plain_data_and_hold_all_rows(self, stored: FillableSource, most_bytes: int) -> None:
        tables = [_rows(seed, 60) for seed in range(3)]
        for table in tables:
            stored.append(table)
        opened = open_source(stored.source, stored.folder)
        times = _range(1)
        for within in (None, times):
            pieces = opened.pieces(_NAMES, within, most_bytes=most_bytes)
            sent = pickle.loads(pickle.dumps(list(pieces)))
            found = [[row for batch in piece.batches(_NAMES, within) for row in _read_rows(batch)] for piece in sent]
            read = [row for batch in opened.batches(_NAMES, within) for row in _read_rows(batch)]
            assert [row for rows in found for row in rows] == read
            for piece, rows in zip(sent, found, strict=True):
                assert piece.rows >= len(rows)
                assert piece.row_bytes >= 1
            assert all(one.first + one.rows <= two.first for one, two in itertools.pairwise(sent))

    def test_a_version_stays_with_the_rows_and_changes_with_them(self, stored: FillableSource) -> None:
        versions = []
        for seed in range(3):
            stored.append(_rows(seed, 10))
            versions.append(open_source(stored.source, stored.folder).version)
            assert open_source(stored.source, stored.folder).version == versions[-1]
        assert len(set(versions)) == 3

    def test_an_open_source_gives_its_own_rows_or_an_error_when_rows_are_added(self, stored: FillableSource) -> None:
        first = _rows(1, 30)
        stored.append(first)
        opened = open_source(stored.source, stored.folder)
        pieces = opened.pieces(_NAMES, None, most_bytes=1 << 30)
        stored.append(_rows(2, 30))
        with contextlib.suppress(DataError):
            assert [row for batch in opened.batches(_NAMES) for row in _read_rows(batch)] == first.to_pylist()
        with contextlib.suppress(DataError):
            found = [row for piece in pieces for batch in piece.batches(_NAMES) for row in _read_rows(batch)]
            assert found == first.to_pylist()

    @pytest.mark.parametrize("seed", range(3))
    def test_rows_are_read_again_by_their_places(self, stored: FillableSource, seed: int) -> None:
        for number in range(3):
            stored.append(_rows(seed * 10 + number, 40))
        sequence = open_source(stored.source, stored.folder).sequence(_range(seed))
        titles = [row["title"] for batch in sequence.batches(["title", "at"]) for row in _read_rows(batch)]
        chosen = np.flatnonzero(np.random.default_rng(seed).random(len(titles)) < 0.2)
        gathered = [row["title"] for batch in sequence.gather(["title"], chosen) for row in _read_rows(batch)]
        assert gathered == [titles[place] for place in chosen]
        assert sequence.total is None or sequence.total >= len(titles)

    def test_what_was_not_read_is_known(self, stored: FillableSource) -> None:
        first, second = _rows(1, 30), _rows(2, 30)
        stored.append(first)
        view = _view(stored)
        known = late_rows(open_view(stored.source, view, stored.folder), view, b"")
        assert not known.is_known
        assert _covers(known.times_before("at", 1 << 62), first["at"])
        again = late_rows(open_view(stored.source, view, stored.folder), view, known.document)
        assert again.is_known
        assert not again.pieces
        stored.append(second)
        more = late_rows(open_view(stored.source, view, stored.folder), view, known.document)
        assert more.is_known
        assert _covers(more.times_before("at", 1 << 62), second["at"])

    def test_a_field_mapping_renames_columns(self, stored: FillableSource) -> None:
        table = _rows(1, 30)
        stored.append(table)
        old = {name: column for column, name in stored.source.field_mapping.items()}
        mapping = stored.source.field_mapping | {old.get("score", "score"): "points", old.get("at", "at"): "time"}
        source = stored.source.model_copy(update={"field_mapping": mapping, "event_timestamp": "time"})
        assert SOURCES.of_document(source.model_dump(mode="json", by_alias=True)) == source
        opened = open_source(source, stored.folder)
        wanted = table.select(["at", "score", "title"]).rename_columns(["time", "points", "title"])
        assert {"time", "points", "title"} <= set(opened.schema.names)
        found = [row for batch in opened.batches(wanted.schema.names) for row in _read_rows(batch)]
        assert found == wanted.to_pylist()
        pieces = pickle.loads(pickle.dumps(list(opened.pieces(["points"], None, most_bytes=1))))
        points = [row["points"] for piece in pieces for batch in piece.batches(["points"]) for row in _read_rows(batch)]
        assert points == table["score"].to_pylist()

    def test_a_view_that_takes_other_columns_is_refused(self, stored: FillableSource) -> None:
        stored.append(_rows(1, 10))
        missing = FeatureView("stats", entities=[user], source=stored.source, schema=[Field("scores", Float64)])
        with pytest.raises(DataError, match="column scores"):
            check_source(missing, stored.folder)
        if encoding_of(open_source(stored.source, stored.folder).schema) is not None:
            return  # any value may be encoded text
        other = FeatureView("stats", entities=[user], source=stored.source, schema=[Field("title", Int64)])
        with pytest.raises(DataError, match="column title"):
            check_source(other, stored.folder)


class SourceOnEngineSuite:
    """The results of an engine on a source: the latest rows, with and without SQL; late rows; training rows.

    A subclass has the fixture `stored`: an empty FillableSource.
    """

    @pytest.fixture
    def engine(self) -> Any:
        """The engine that reads the source. A subclass may override it."""
        return LocalEngine()

    @pytest.mark.parametrize(
        "sql", [None, 'SELECT user_id, "at", made, CAST(score AS DOUBLE) * 2 AS score, title FROM source']
    )
    def test_the_latest_rows_are_those_of_the_oracle(
        self, stored: FillableSource, engine: Any, sql: str | None, tmp_path: Path
    ) -> None:
        tables = [_rows(seed, 200) for seed in range(2)]
        for table in tables:
            stored.append(table)
        view = _view(stored, sql)
        check_source(view, stored.folder)
        rows = open_view(stored.source, view, stored.folder)
        times = _range(3)
        staged = tmp_path / "staged.parquet"
        quarantine = Quarantine(tmp_path / "quarantine", tmp_path, "stats")
        stage = StageRequest(view, rows, times.start_us, times.end_us, staged, quarantine, Silent())
        wanted = _latest(pa.concat_tables(tables), times, 2 if sql else 1)
        assert engine.stage(stage) == wanted[1]
        sink = FolderSink(tmp_path / "sink")
        list(engine.write(staged, view, 0, sink))
        assert sink.rows == wanted[0]

    def test_a_job_reads_again_the_times_of_rows_that_came_late(
        self, stored: FillableSource, engine: Any, tmp_path: Path
    ) -> None:
        view, progress, sink = _view(stored), MemoryProgress(), FolderSink(tmp_path / "sink")
        folders = ProjectFolders(stored.folder, tmp_path / "state")
        first, late = _rows(1, 100), _rows(2, 5)
        stored.append(first)

        def run() -> Any:
            target = Target(sink, progress)
            return materialize(view, Span(None, None, 0), target, folders=folders, engine=engine, digest="1")

        assert run().source_rows == len(first)
        assert run().source_rows == 0
        stored.append(late)
        assert run().late_rows >= len(late)
        assert sink.rows == _latest(pa.concat_tables([first, late]), _ALL)[0]

    @pytest.mark.parametrize("seed", range(2))
    def test_each_label_sees_the_row_that_was_newest_and_known(
        self, stored: FillableSource, engine: Any, seed: int, tmp_path: Path
    ) -> None:
        tables = [_rows(seed, 150), _rows(seed + 50, 150)]
        for table in tables:
            stored.append(table)
        view, fields = _view(stored), ("score", "title")
        labels = _rows(seed + 99, 60).select(["user_id", "at"])
        rows = open_view(stored.source, view, stored.folder)
        quarantine = Quarantine(tmp_path / "quarantine", tmp_path, "stats")
        held = engine.labels(labels)
        finish = UnchangedLabels(held.schema)
        joined = engine.join(
            JoinRequest(held, "at", (ViewJoin(view, rows, fields, quarantine),), finish, tmp_path, Silent())
        )
        found = pa.Table.from_batches(joined.batches(), joined.schema)
        history = sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: (row["at"], row["made"]))
        for label in found.to_pylist():
            seen = [
                row
                for row in history
                if row["user_id"] == label["user_id"] and max(row["at"], row["made"]) <= label["at"]
            ]
            wanted = (seen[-1]["score"], seen[-1]["title"]) if seen else (None, None)
            assert (label["stats score"], label["stats title"]) == wanted


def _view(stored: FillableSource, sql: str | None = None) -> FeatureView:
    schema = [Field("score", Float64), Field("title", String)]
    return FeatureView("stats", entities=[user], source=stored.source, schema=schema, sql=sql)


def _rows(seed: int, count: int, without_times: int = 0) -> pa.Table:
    """Random rows of 20 users. No two rows have the same event time, so their order does not matter."""
    random = np.random.default_rng(seed)
    at = _START_US + random.choice(100_000_000, count, replace=False) * 1000
    made = at + random.integers(0, 3600, count) * _SECOND_US
    columns = [
        pa.array(random.integers(0, 20, count)),
        pa.array(at, pa.timestamp("us"), mask=np.arange(count) < without_times),
        pa.array(made, pa.timestamp("us")),
        pa.array(random.random(count)),
        pa.array([f"{seed}: {i}" for i in range(count)]),
    ]
    return pa.table(columns, schema=_SCHEMA)


def _range(seed: int) -> TimeRange:
    start, end = sorted(np.random.default_rng(seed).choice(100_000_000, 2, replace=False).tolist())
    return TimeRange("at", _START_US + start * 1000, _START_US + end * 1000)


def _is_inside(times: pa.ChunkedArray, within: TimeRange) -> pa.ChunkedArray:
    microseconds = times.cast(pa.int64())
    return pc.and_(pc.greater_equal(microseconds, within.start_us), pc.less(microseconds, within.end_us))


def _read(stored: FillableSource, columns: Sequence[str] = _NAMES) -> list[dict[str, Any]]:
    opened = open_source(stored.source, stored.folder)
    return [row for batch in opened.batches(columns) for row in _read_rows(batch)]


def _read_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch, with the values that a view reads from encoded text."""
    names = batch.schema.names
    columns = [
        _parsed(name, column) if is_encoded(column.type) else column for name, column in zip(names, batch, strict=True)
    ]
    rows: list[dict[str, Any]] = pa.RecordBatch.from_arrays(columns, names=names).to_pylist()
    return rows


def _parsed(name: str, values: pa.Array) -> pa.Array:
    fitted, bad = fit(values, _DTYPES[name])
    assert not bad.any()
    return fitted.cast(_SCHEMA.field(_RENAMED.get(name, name)).type)


def _subsequence(rows: list[Any], of: list[Any]) -> bool:
    others = iter(of)
    return all(any(row == other for other in others) for row in rows)


def _covers(interval: Interval | None, times: pa.ChunkedArray) -> bool:
    if interval is None:
        return False
    found = times.cast(pa.int64())
    return bool(interval[0] <= pc.min(found).as_py() and pc.max(found).as_py() < interval[1])


def _latest(rows: pa.Table, times: TimeRange, factor: int = 1) -> tuple[dict[int, tuple[Any, ...]], int]:
    """For each user, the times and values of the latest row in a range; and the number of rows in the range."""
    found: dict[int, tuple[Any, ...]] = {}
    count = 0
    micros = rows.set_column(1, "at", rows["at"].cast(pa.int64())).set_column(2, "made", rows["made"].cast(pa.int64()))
    for row in micros.to_pylist():
        if times.start_us <= row["at"] < times.end_us:
            count += 1
            new = (row["at"], row["made"], row["score"] * factor, row["title"])
            found[row["user_id"]] = max(found.get(row["user_id"], new), new)
    return found, count
