"""Files of JSON lines pass the conformance suite of sources, and give the rows that the same events on a topic give."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from feature_store.arrow import json_lines
from feature_store.arrow.quarantine import Quarantine
from feature_store.arrow.rows import EVENT_TS, SEQUENCE, Checked, check_events, checked_schema, source_columns
from feature_store.arrow.sources.opening import open_source, open_view, source_exists
from feature_store.arrow.types import fit, numpy_values, served_values
from feature_store.definitions import (
    Aggregation,
    Array,
    Bool,
    Bytes,
    Date,
    Decimal,
    Entity,
    FeatureView,
    Field,
    Float16,
    Float32,
    Float64,
    Int8,
    Int64,
    JsonLinesSource,
    KafkaSource,
    StreamFeatureView,
    String,
    Timestamp,
)
from feature_store.definitions.dtypes import DType
from feature_store.engines.engine import StageRequest
from feature_store.engines.local.engine import LocalEngine
from feature_store.engines.report import Silent
from feature_store.engines.source_check import check_source
from feature_store.errors import DataError
from feature_store.streaming.formats.json_messages import JsonDecoder
from feature_store.testing.doubles import FolderSink
from feature_store.testing.formats import messages_of
from feature_store.testing.sources import OfflineSourceSuite, SourceOnEngineSuite

_SOURCE = JsonLinesSource("rows", event_timestamp="at", created_timestamp="made")
_USER = Entity("user", join_key="user_id")


class StoredJsonLines:
    """Files of all kinds that are written: compressed or not, with nulls or without the members that are null."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = _SOURCE
        self._count = 0

    def append(self, rows: pa.Table) -> None:
        number = self._count
        lines = b"".join(orjson.dumps(_members(row, has_nulls=number % 2 == 0)) + b"\n" for row in rows.to_pylist())
        put(
            self.folder,
            gzip.compress(lines) if number % 2 else lines,
            f"part-{number:04d}.{'ndjson.gz' if number % 2 else 'jsonl'}",
        )
        self._count += 1


def _members(row: dict[str, Any], *, has_nulls: bool) -> dict[str, Any]:
    return {name: value for name, value in row.items() if has_nulls or value is not None}


@pytest.fixture
def stored(tmp_path: Path) -> StoredJsonLines:
    return StoredJsonLines(tmp_path)


class TestJsonLines(OfflineSourceSuite):
    pass


class TestJsonLinesOnLocalEngine(SourceOnEngineSuite):
    pass


class TestJsonLinesOnSpark(SourceOnEngineSuite):
    @pytest.fixture
    def engine(self, spark_engine: object) -> object:
        return spark_engine


def put(folder: Path, text: str | bytes, name: str = "a.jsonl") -> None:
    (folder / "rows").mkdir(exist_ok=True)
    (folder / "rows" / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def column(folder: Path, name: str, dtype: DType, source: JsonLinesSource = _SOURCE) -> list[Any]:
    """The values of a column of a source, with "bad" for those that do not fit."""
    found: list[Any] = []
    for batch in open_source(source, folder).batches([name]):
        fitted, bad = fit(batch[name], dtype)
        values = served_values(fitted, dtype).to_pylist()
        found += ["bad" if wrong else value for value, wrong in zip(values, bad.tolist(), strict=True)]
    return found


# -- the same event gives the same row ------------------------------------------------------------------------------

_FIELDS = [
    Field(f"c{number}", dtype)
    for number, dtype in enumerate(
        (Bool, Int8, Int64, Float16, Float32, Float64, Decimal(8, 2), String, Bytes, Date, Timestamp)
    )
]
_TEXTS = st.text(max_size=8) | st.sampled_from(
    [
        "",
        "null",
        "2026-01-31",
        "2026-01-31T10:00:00Z",
        "0001-01-01T00:00:00+23:00",
        "AAE=",
        "12.30",
        "nan",
        "1e3",
        '"',
        "\n",
    ]
)
_NUMBERS = st.integers(-(1 << 70), 1 << 70) | st.integers(-300, 300) | st.floats(allow_nan=False, allow_infinity=False)
_MEMBER = st.none() | st.booleans() | _NUMBERS | _TEXTS | st.just([1]) | st.just({"a": 1})
_EVENT = st.dictionaries(st.sampled_from([field.name for field in _FIELDS]), _MEMBER).flatmap(
    lambda members: (
        st.just(members)
        | st.fixed_dictionaries(
            {"at": _MEMBER | st.integers(10**12, 10**12 + 5), "id": st.integers(0, 3) | _MEMBER}
        ).map(lambda about: members | about)
    )
)
_LINE = _EVENT.map(json.dumps) | st.sampled_from(
    ["{", "[]", "5", "{}{}", '{"at": NaN}', '{"at": 1e999}', '{"id": "\\ud800"}']
)


@given(st.lists(_LINE, max_size=8), st.sampled_from(["s", "ms", "us"]), st.sampled_from(["\n", "\r\n", "\n\n"]))
@settings(max_examples=150)
def test_an_event_gives_the_same_row_from_a_file_and_from_a_topic(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], unit: str, newline: str
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    put(folder, "".join(line + newline for line in lines))
    fields = [Field("id", Int64), *_FIELDS]
    history = JsonLinesSource("rows", event_timestamp="at", timestamp_unit=unit, schema=fields)
    topic = KafkaSource("t", topic="t", event_timestamp="at", schema=fields, timestamp_unit=unit, history=history)
    view = StreamFeatureView(
        "v",
        entities=[Entity("e", join_key="id")],
        source=topic,
        aggregations=[Aggregation("c5", "max", windows=[timedelta(hours=1)])],
    )
    events = JsonDecoder(topic).decode(messages_of(line.encode() for line in lines))
    rows = open_view(history, view, folder)
    taken = source_columns(view, rows.schema, rows.where)._replace(types={field.name: field.dtype for field in fields})
    checked = _checked([check_events(batch, taken, [], 0) for batch in rows.batches(taken.names)], taken)
    assert checked[SEQUENCE].to_pylist() == events.places.tolist()
    assert checked[EVENT_TS].to_pylist() == events.event_us.tolist()
    for field in fields:
        values, nulls = events.columns[field.name]
        found, found_nulls = numpy_values(checked[field.name], field.dtype)
        missing = np.zeros(len(checked), bool) if found_nulls is None else found_nulls
        assert missing.tolist() == nulls.tolist(), field
        assert repr(found[~missing].tolist()) == repr(values[~nulls].tolist()), field


def _checked(parts: list[Checked], taken: Any) -> pa.RecordBatch:
    assert len(parts) <= 1
    return parts[0].good if parts else pa.RecordBatch.from_pylist([], schema=checked_schema(taken))


# -- values ---------------------------------------------------------------------------------------------------------


def test_arrays_are_read_by_their_elements(tmp_path: Path) -> None:
    values = [[1, 2], None, [1.5, 2], [1, None], "[1, 2]", [1], [1, "2"], [], [[1], 2]]
    put(tmp_path, "".join(json.dumps({"at": 1, "v": value}) + "\n" for value in values))
    assert column(tmp_path, "v", Array(Float32, 2)) == [
        [1, 2],
        None,
        [1.5, 2],
        "bad",
        "bad",
        "bad",
        "bad",
        "bad",
        "bad",
    ]
    assert column(tmp_path, "v", Array(Int64)) == [[1, 2], None, "bad", "bad", "bad", [1], "bad", [], "bad"]


@pytest.mark.parametrize("engine_name", ["local", "spark"])
@pytest.mark.parametrize("sql", [None, "SELECT *, CAST(score AS DOUBLE) > 100 AS big FROM source"])
def test_lines_and_values_that_do_not_fit_are_bad_rows(
    tmp_path: Path, engine_name: str, sql: str | None, request: pytest.FixtureRequest
) -> None:
    engine = LocalEngine() if engine_name == "local" else request.getfixturevalue("spark_engine")
    put(
        tmp_path,
        b'\xef\xbb\xbf{"user_id": 1, "at": "2026-01-01T00:00:00Z", "score": 1.5, "title": "a \\"b\\"\\u00e9"}\n'
        b'\n{"user_id": 2, "at": "2026-01-01", "score"\n'
        b'["not", "an object"]\r\n'
        b'{"user_id": 3, "at": "yesterday", "score": 1}\n'
        b'{"user_id": 4, "at": "2026-01-02", "score": 2, "title": "caf\xe9"}\n'
        b'{"user_id": 5, "at": "2026-01-02", "score": 200, "title": "007", "more": {"a": 1}}',
    )
    fields = [Field("score", Float64), Field("title", String)]
    view = FeatureView("stats", entities=[_USER], source=_SOURCE, schema=fields, sql=sql)
    check_source(view, tmp_path)
    rows = open_view(_SOURCE, view, tmp_path)
    quarantine = Quarantine(tmp_path / "quarantine", tmp_path / "work", "stats")
    staged = tmp_path / "staged.parquet"
    if sql is None:
        engine.stage(StageRequest(view, rows, 0, 1 << 60, staged, quarantine, Silent()))
        sink = FolderSink(tmp_path / "sink")
        list(engine.write(staged, view, 0, sink))
        assert {key: row[2:] for key, row in sink.rows.items()} == {1: (1.5, 'a "b"é'), 5: (200.0, "007")}
        if engine_name == "local":
            quarantine.close()
        assert quarantine.path is not None
        bad = pq.read_table(quarantine.path if quarantine.path.exists() else quarantine.parts).to_pylist()
        assert [row["reason"] for row in bad] == [
            "user_id: expected Int64, got 'line 3 of a.jsonl is not one JSON object: "
            '{"user_id": 2, "at": "2026-01-01", "score"\'',
            'user_id: expected Int64, got \'line 4 of a.jsonl is not one JSON object: ["not", "an object"]\\r\'',
            "at: expected Timestamp, got '\"yesterday\"'",
            "user_id: expected Int64, got 'line 6 of a.jsonl is not one JSON object: "
            '{"user_id": 4, "at": "2026-01-02", "score": 2, "title": "caf\\\\xe9"}\'',
        ]
        assert bad[2]["at"] == "yesterday"
    else:  # the cast fails the job for a line that is not an object, so only proper lines are there
        put(
            tmp_path,
            b'{"user_id": 1, "at": "2026-01-01", "score": 200, "title": "x"}\n{"user_id": "y", "at": "2026-01-01"}',
        )
        rows = open_view(_SOURCE, view, tmp_path)
        engine.stage(StageRequest(view, rows, 0, 1 << 60, staged, quarantine, Silent()))
        sink = FolderSink(tmp_path / "sink")
        list(engine.write(staged, view, 0, sink))
        assert {key: row[2:] for key, row in sink.rows.items()} == {1: (200.0, "x")}
        assert quarantine.rows == 1


# -- files ----------------------------------------------------------------------------------------------------------


def test_members_after_the_first_lines_are_those_of_the_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "_BLOCK_BYTES", 40)
    put(tmp_path, '{"at": 1, "early": 2}\n' * 3 + '{"at": 1, "late": 3}\n')
    assert open_source(_SOURCE, tmp_path).schema.names == ["at", "made", "early"]
    declared = JsonLinesSource("rows", event_timestamp="at", schema=[Field("late", Int64)])
    assert open_source(declared, tmp_path).schema.names == ["at", "late", "early"]
    assert column(tmp_path, "late", Int64, declared) == [None, None, None, 3]
    mapped = JsonLinesSource(
        "rows", event_timestamp="time", schema=[Field("new", Int64)], field_mapping={"at": "time", "late": "new"}
    )
    assert column(tmp_path, "new", Int64, mapped) == [None, None, None, 3]


@given(st.lists(st.text("ab\r é", max_size=5), max_size=12), st.integers(1, 40), st.booleans())
def test_blocks_of_any_size_have_the_same_lines(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], block: int, is_ended: bool
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    lines = [json.dumps({"n": number, "text": text}, ensure_ascii=False) for number, text in enumerate(texts)]
    put(folder, "\n".join(lines) + ("\n" if is_ended else ""))
    source = JsonLinesSource("rows", event_timestamp="at", schema=[Field("n", Int64), Field("text", String)])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_lines, "_BLOCK_BYTES", block)
        assert column(folder, "text", String, source) == texts
        assert column(folder, "n", Int64, source) == list(range(len(texts)))
        (piece,) = open_source(source, folder).pieces(["n"], None, most_bytes=1)
        assert piece.rows >= len(texts)


def test_a_line_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "_MOST_LINE_BYTES", 1000)
    monkeypatch.setattr(json_lines, "_BLOCK_BYTES", 100)
    put(tmp_path, '{"at": 1}\n{"at": ' + "1" * 2000)
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: the line is longer than 16 MB"):
        column(tmp_path, "at", Timestamp)


def test_a_compressed_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(b'{"at": %d}\n' % number for number in range(5000)))
    put(tmp_path, whole[:-10], "a.jsonl.gz")
    with pytest.raises(DataError, match="expected readable data"):
        column(tmp_path, "at", Timestamp)


def test_the_second_read_has_the_new_files_alone(tmp_path: Path) -> None:
    put(tmp_path, '{"at": 1, "n": 1}\n', "a.jsonl")
    first = open_source(_SOURCE, tmp_path).unread(b"")
    put(tmp_path, '{"at": 1, "n": 2}\n', "b.ndjson")
    second = open_source(_SOURCE, tmp_path).unread(first.document)
    assert [batch["n"].to_pylist() for piece in second.pieces for batch in piece.batches(["n"])] == [["2"]]


def test_a_folder_has_files_of_all_suffixes(tmp_path: Path) -> None:
    assert not source_exists(_SOURCE, tmp_path)
    for name in ("a.jsonl", "b.ndjson", "_c.jsonl", "d.json", "e.csv"):
        put(tmp_path, '{"at": 1}\n', name)
    put(tmp_path, "", "empty.jsonl")
    found = open_source(_SOURCE, tmp_path)
    assert [Path(version.path).name for version in found.files] == ["a.jsonl", "b.ndjson", "empty.jsonl"]
    assert len(column(tmp_path, "at", Timestamp)) == 2
