"""Rows from CSV files: each value is parsed as its declared type, and a bad value makes one bad row."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from feature_store.arrow.encoded import CSV, encoded_batch
from feature_store.arrow.rows import SEQUENCE, SourceColumns, check
from feature_store.definitions import Array, Bool, Entity, Float32, Float64, Int32, Int64, String, Timestamp
from feature_store.definitions.dtypes import DType
from feature_store.engines.local.engine import LocalEngine
from feature_store.errors import DataError
from feature_store.materialize.job import push
from feature_store.materialize.summary import Summary
from feature_store.project.context import ProjectFolders
from tests.engines.offline_worlds import MemorySink, shop, slot, user, view_of

JANUARY = datetime(2026, 1, 1)
AT = "2026-01-01T00:00:00"
OFFSETS = st.none() | st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def parsed(texts: list[str | None], dtype: DType) -> tuple[list[Any], list[bool]]:
    """The values of texts, with times as datetimes and None for bad texts; and for each text whether it is bad."""
    at = [AT] * len(texts)
    batch = encoded_batch(pa.record_batch({"n": pa.array(texts, pa.string()), "at": pa.array(at)}), CSV)
    good, bad = check(batch, SourceColumns({"n": dtype}, "at", None), [], 0)
    assert len(good) + len(bad) == len(texts)
    places = good[SEQUENCE].to_pylist()
    values = dict(zip(places, good["n"].cast(pa.timestamp("us")) if dtype == Timestamp else good["n"], strict=True))
    return (
        [values[i].as_py() if i in values else None for i in range(len(texts))],
        [i not in values for i in range(len(texts))],
    )


def one(text: str, dtype: DType) -> Any:
    """The value of a text, or "bad". It is parsed alone and beside a bad text, and must not depend on that."""
    alone, (bad_alone,) = parsed([text], dtype)
    beside, (bad, _) = parsed([text, "?"], dtype)
    assert bad == bad_alone, "it depends on its neighbours whether a value is bad"
    if not bad:
        assert repr(alone[0]) == repr(beside[0]), "its value depends on its neighbours"
    return "bad" if bad else beside[0]


# -- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("+3", 3),
        ("007", 7),
        (" 3 ", 3),
        ("3.0", 3),
        ("3e2", 300),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775807.0", 2**63 - 1),
        ("9223372036854775808", "bad"),
        ("-9223372036854775809", "bad"),
        ("3.5", "bad"),
        ("1e400", "bad"),
        ("1e1000000", "bad"),
        ("nan", "bad"),
        ("inf", "bad"),
        ("", "bad"),
        ("three", "bad"),
        ("0x10", "bad"),
        ("1_000", "bad"),
        ("1,000", "bad"),
        ("٣", "bad"),
        ("true", "bad"),
    ],
)
def test_an_integer_is_digits_and_nothing_else(text: str, value: Any) -> None:
    assert one(text, Int64) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("-.5", -0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        (" 2 ", 2.0),
        ("5e-324", 5e-324),
        ("1e-400", 0.0),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("1e400", "bad"),
        ("-1e400", "bad"),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("Infinity", math.inf),
        ("0,5", "bad"),
        ("half", "bad"),
        ("", "bad"),
        ("1_0.5", "bad"),
        ("٣", "bad"),
    ],
)
def test_a_float_is_a_number_that_has_not_overflowed(text: str, value: Any) -> None:
    assert one(text, Float64) == value


@pytest.mark.parametrize("text", ["nan", "NaN", "NAN"])
def test_nan_is_a_value(text: str) -> None:
    assert math.isnan(one(text, Float64))


@given(st.lists(st.floats(width=64), min_size=1, max_size=5))
def test_floats_come_back_as_they_were_written(values: list[float]) -> None:
    found, bad = parsed([repr(value) for value in values], Float64)
    assert repr(found) == repr(values)
    assert not any(bad)


@given(st.lists(st.integers(-(2**65), 2**65) | st.sampled_from([2**63 - 1, 2**63, -(2**63)]), min_size=1, max_size=5))
def test_integers_come_back_as_they_were_written(values: list[int]) -> None:
    found, bad = parsed([str(value) for value in values], Int64)
    assert bad == [not -(2**63) <= value < 2**63 for value in values]
    assert [value for value in found if value is not None] == [value for value in values if -(2**63) <= value < 2**63]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("TRUE", True),
        ("True", True),
        ("1", True),
        ("false", False),
        ("False", False),
        ("0", False),
        (" true ", True),
        ("yes", "bad"),
        ("t", "bad"),
        ("2", "bad"),
        ("1.0", "bad"),
        ("", "bad"),
    ],
)
def test_a_bool_is_true_or_false_or_1_or_0(text: str, value: Any) -> None:
    assert one(text, Bool) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-01-01", JANUARY),
        ("2026-01-01 00:00", JANUARY),
        ("2026-01-01T00:00:00", JANUARY),
        ("2026-01-01T00:00:00Z", JANUARY),
        ("2026-01-01 00:00:00+00:00", JANUARY),
        ("2026-01-01T05:45:00+05:45", JANUARY),
        ("2025-12-31T19:00:00-05:00", JANUARY),
        ("2026-01-01T00:00:00.000001", JANUARY + timedelta(microseconds=1)),
        ("2026-01-01T00:00:00.5Z", JANUARY + timedelta(seconds=0.5)),
        (" 2026-01-01 ", JANUARY),
        ("0001-01-01T00:00:00", datetime.min),
        ("9999-12-31T23:59:59.999999", datetime.max),
        ("0001-01-01T00:00:00+01:00", "bad"),
        ("9999-12-31T23:59:59-01:00", "bad"),
        ("10000-01-01", "bad"),
        ("0000-01-01", "bad"),
        ("2026-02-30", "bad"),
        ("2026-01-01T25:00", "bad"),
        ("01/02/2026", "bad"),
        ("yesterday", "bad"),
        ("1700000000", "bad"),
        ("", "bad"),
    ],
)
def test_a_time_is_iso_8601_and_utc_unless_it_says_otherwise(text: str, value: Any) -> None:
    assert one(text, Timestamp) == value


@given(
    st.lists(
        st.datetimes(timezones=OFFSETS, min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)),
        min_size=1,
        max_size=5,
    )
)
def test_times_come_back_as_they_were_written(times: list[datetime]) -> None:
    found, bad = parsed([time.isoformat() for time in times], Timestamp)
    assert found == [time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None) for time in times]
    assert not any(bad)


@pytest.mark.parametrize("dtype", [Bool, Int32, Int64, Float32, Float64, Timestamp, String])
def test_nothing_is_null_beside_what_is_good_and_what_is_bad(dtype: DType) -> None:
    assert parsed([None, None], dtype) == ([None, None], [False, False])
    if dtype != String:
        assert parsed([None, "?"], dtype) == ([None, None], [False, True])


@given(
    st.text("0123456789+-.eExX_: ", max_size=8) | st.text("nNaAiIfFtTrRuUeElLsSyY01", max_size=8),
    st.sampled_from([Bool, Int32, Int64, Float32, Float64]),
)
def test_what_a_value_is_does_not_depend_on_its_neighbours(text: str, dtype: DType) -> None:
    one(text, dtype)


@given(
    st.datetimes().map(datetime.isoformat) | st.text("0123456789", max_size=4),
    st.sampled_from(["", "Z", "z", "+00", "+0100", "+01:00", "-23:59", "+24:00", ".5", ",5", "+01:00:01", " "]),
    st.integers(0, 26),
)
def test_what_a_time_is_does_not_depend_on_its_neighbours(text: str, ending: str, length: int) -> None:
    one(text[:length] + ending, Timestamp)


def test_text_is_taken_as_it_is() -> None:
    texts = ["", " a ", "NULL", "nan", None]
    assert parsed(texts, String) == (texts, [False] * 5)


# -- files ----------------------------------------------------------------------------------------------------------


def pushed(folder: Path, text: str | bytes, *entities: Entity, **fields: DType) -> tuple[MemorySink, Summary]:
    path = folder / "rows.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    view = view_of(*(entities or (user,)), source=None, fields=fields)
    sink = MemorySink(view)
    return sink, push(view, path, sink, folders=ProjectFolders(folder, folder), engine=LocalEngine())


def values_of(sink: MemorySink) -> dict[Any, tuple[Any, ...]]:
    return {key[0] if len(key) == 1 else key: row.values for key, row in sink.rows.items()}


def reasons_of(summary: Summary) -> list[str]:
    assert summary.quarantine_file is not None
    return pq.read_table(summary.quarantine_file)["reason"].to_pylist()


def test_one_bad_value_makes_one_bad_row(tmp_path: Path) -> None:
    text = f"user_id,event_timestamp,visits,spent\n1,{AT},2,0.5\n2,{AT},two,0.5\n3,{AT},3.0,1e400\n4,{AT},4.0,inf\n"
    sink, summary = pushed(tmp_path, text, visits=Int32, spent=Float64)
    assert values_of(sink) == {1: (2, 0.5), 4: (4, math.inf)}
    assert (summary.source_rows, summary.written, summary.quarantined) == (4, 2, 2)
    assert reasons_of(summary) == ["visits: expected Int32, got 'two'", "spent: expected Float64, got '1e400'"]


def test_empty_is_null_and_a_quoted_empty_is_an_empty_string(tmp_path: Path) -> None:
    text = f'user_id,event_timestamp,title,visits\n1,{AT},,\n2,{AT},"",1\n3,{AT},NULL,2\n'
    sink, _ = pushed(tmp_path, text, title=String, visits=Int64)
    assert values_of(sink) == {1: (None, None), 2: ("", 1), 3: ("NULL", 2)}


def test_numbers_are_exact_and_in_range(tmp_path: Path) -> None:
    text = f"user_id,event_timestamp,small,single\n9223372036854775807,{AT},2147483647,1e38\n-9223372036854775808,{AT},2147483648,1\n3,{AT},1,1e39\n4,{AT},1,nan\n"
    sink, summary = pushed(tmp_path, text, small=Int32, single=Float32)
    assert sorted(values_of(sink)) == [4, 2**63 - 1]
    assert math.isnan(values_of(sink)[4][1])
    assert reasons_of(summary) == ["small: expected Int32, got '2147483648'", "single: expected Float32, got '1e39'"]


def test_keys_are_composite_text_and_numbers_and_never_null(tmp_path: Path) -> None:
    text = f"shop_id,slot_id,event_timestamp,v\n a,1,{AT},1\n,2,{AT},2\nb,,{AT},3\nc,x,{AT},4\n"
    sink, summary = pushed(tmp_path, text, shop, slot, v=Int32)
    assert values_of(sink) == {(" a", 1): (1,)}
    assert reasons_of(summary) == [
        "shop_id: expected String, got null",
        "slot_id: expected Int32, got null",
        "slot_id: expected Int32, got 'x'",
    ]


def test_the_latest_row_wins_whatever_the_offset_of_its_time(tmp_path: Path) -> None:
    rows = ["1,2026-01-01T12:00:00+02:00,1", "1,2026-01-01T11:00:00,2", "1,2026-01-01T05:30:00-05:00,3", "1,,4"]
    sink, summary = pushed(tmp_path, "\n".join(["user_id,event_timestamp,v", *rows]), v=Int32)
    assert values_of(sink) == {1: (2,)}
    assert reasons_of(summary) == ["event_timestamp: expected Timestamp, got null"]


def test_a_creation_time_may_be_empty(tmp_path: Path) -> None:
    rows = [f"1,{AT},2026-01-02,1", f"1,{AT},,2", f"1,{AT},never,3"]
    sink, summary = pushed(tmp_path, "\n".join(["user_id,event_timestamp,created_timestamp,v", *rows]), v=Int32)
    assert values_of(sink) == {1: (1,)}
    assert reasons_of(summary) == ["created_timestamp: expected Timestamp, got 'never'"]


def test_a_value_that_is_not_utf8_is_a_bad_row_and_not_a_bad_file(tmp_path: Path) -> None:
    text = b"user_id,event_timestamp,title\n1,2026-01-01,\xff\n2,2026-01-01,\xc3\xbc\n\xfe,2026-01-01,x\n"
    sink, summary = pushed(tmp_path, text, title=String)
    assert values_of(sink) == {2: ("ü",)}
    assert summary.quarantined == 2


def test_a_byte_order_mark_and_windows_lines_are_no_part_of_the_values(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbfuser_id,event_timestamp,v\r\n1,2026-01-01,5\r\n"
    assert values_of(pushed(tmp_path, text, v=Int32)[0]) == {1: (5,)}


def test_quotes_and_commas_are_read_and_other_columns_ignored(tmp_path: Path) -> None:
    text = f'event_timestamp,note,title,user_id\n{AT},?,"a, ""b""",1\n'
    assert values_of(pushed(tmp_path, text, title=String)[0]) == {1: ('a, "b"',)}


def test_a_quoted_value_may_have_several_lines(tmp_path: Path) -> None:
    lines = "".join(f'{i},{AT},"a\n{i}\n"\n' for i in range(100_000))
    sink, _ = pushed(tmp_path, "user_id,event_timestamp,title\n" + lines, title=String)
    assert values_of(sink) == {i: (f"a\n{i}\n",) for i in range(100_000)}


def test_a_file_of_many_blocks_is_read_whole(tmp_path: Path) -> None:
    lines = "".join(f"{i},{AT},{i / 2}\n" for i in range(100_000))
    sink, summary = pushed(tmp_path, "user_id,event_timestamp,v\n" + lines, v=Float64)
    assert values_of(sink) == {i: (i / 2,) for i in range(100_000)}
    assert summary.source_rows == 100_000


def test_a_header_alone_is_no_rows(tmp_path: Path) -> None:
    sink, summary = pushed(tmp_path, "user_id,event_timestamp,v\n", v=Int32)
    assert (sink.rows, summary.source_rows) == ({}, 0)


@pytest.mark.parametrize(
    ("text", "about"),
    [
        (
            f"user_id,event_timestamp,v\n1,{AT},1,9\n",
            "rows.csv, line 2: the header has 3 columns, and this row 4 values",
        ),
        (f"user_id,event_timestamp,v\n1,{AT}\n", "rows.csv, line 2: .*this row 2 values"),
        ("user_id,event_timestamp,v\n" + f"1,{AT},1\n" * 200_000 + f"1,{AT},1,9\n", "line 200002: .*this row 4 values"),
        ("", "rows.csv is empty: it has no header"),
    ],
    ids=["more values than the header", "fewer", "far down", "an empty file"],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str, about: str) -> None:
    with pytest.raises(DataError, match=f"push to stats: .*{about}"):
        pushed(tmp_path, text, v=Int32)


def test_a_missing_column_is_named_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="push to stats: column visits: expected a column of Int32, got none") as raised:
        pushed(tmp_path, f"user_id,event_timestamp,visit\n1,{AT},1\n", visits=Int32)
    assert "visit" in raised.value.hint


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column v: expected one column of that name"):
        pushed(tmp_path, f"user_id,event_timestamp,v,v\n1,{AT},1,2\n", v=Int32)


def test_a_header_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="push to stats"):
        pushed(tmp_path, b"user_id,event_timestamp,v,\xff\n1,2026-01-01,1,1\n", v=Int32)


def test_arrays_are_not_written_in_csv(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column v: .*got text.*Parquet"):
        pushed(tmp_path, f'user_id,event_timestamp,v\n1,{AT},"[1]"\n', v=Array(Int32))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    view = view_of(user, source=None, fields={"v": Int32})
    folders = ProjectFolders(tmp_path, tmp_path)
    with pytest.raises(DataError, match="push to stats"):
        push(view, tmp_path / "none.csv", MemorySink(view), folders=folders, engine=LocalEngine())
