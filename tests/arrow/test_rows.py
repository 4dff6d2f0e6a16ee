"""Rows of a source: keys and times, the reasons why rows do not fit, and the columns that a view takes."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from feature_store.arrow.rows import CREATED_TS, EVENT_TS, SEQUENCE, source_columns
from feature_store.definitions import Array, Float32, Int32, Int64, String, Timestamp
from feature_store.errors import DataError
from tests.arrow.row_worlds import FIRST_US, LAST_US, checked, one
from tests.engines.offline_worlds import NOW_US, shop, slot, user, view_of

# -- keys and times ---------------------------------------------------------------------------------------------------


def test_rows_that_fit_keep_their_place_in_the_source() -> None:
    good, bad = checked(view_of(user, fields={"value": Int32}), {"value": pa.array([1, 2**31, None, 4])}, first=100)
    assert good["value"].to_pylist() == [1, None, 4]
    assert good[SEQUENCE].to_pylist() == [100, 102, 103]
    assert bad["user_id"].to_pylist() == [1]


def test_a_row_without_a_key_is_bad() -> None:
    view = view_of(shop, slot, fields={"value": Int32})
    keys = {"shop_id": pa.array(["a", None, "c"]), "slot_id": pa.array([None, 1, 2])}
    good, bad = checked(view, keys | {"value": [1, 2, 3]})
    assert good["shop_id"].to_pylist() == ["c"]
    assert bad["reason"].to_pylist() == ["slot_id: expected Int32, got null", "shop_id: expected String, got null"]


@pytest.mark.parametrize("key", [slot, user])
def test_a_row_with_a_key_out_of_range_is_bad(key: Any) -> None:
    good, bad = checked(
        view_of(key, fields={"value": Int32}), {key.join_key: pa.array([1, 2**64 - 1], pa.uint64()), "value": [1, 2]}
    )
    assert good[key.join_key].to_pylist() == [1]
    assert bad["reason"].to_pylist() == [f"{key.join_key}: expected {key.dtype}, got {2**64 - 1}"]


def test_a_row_without_an_event_time_is_bad() -> None:
    at = pa.array([NOW_US, None], pa.timestamp("us"))
    good, bad = checked(view_of(user, fields={"value": Int32}), {"at": at, "value": [1, 2]})
    assert good[EVENT_TS].to_pylist() == [NOW_US]
    assert bad["reason"].to_pylist() == ["at: expected Timestamp, got null"]


def test_a_row_without_a_creation_time_counts_as_created_at_its_event_time() -> None:
    made = pa.array([NOW_US - 5, None], pa.timestamp("us"))
    good, _ = checked(view_of(user, fields={"value": Int32}), {"made": made, "value": [1, 2]})
    assert good[CREATED_TS].to_pylist() == [NOW_US - 5, NOW_US]


@pytest.mark.parametrize("column", ["at", "made", "value"])
@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_a_time_outside_the_years_1_to_9999_is_bad(column: str, unit: str) -> None:
    per = {"s": 10**6, "ms": 10**3, "us": 1}[unit]
    raw = [FIRST_US // per - 1, FIRST_US // per, LAST_US // per, LAST_US // per + 1, 2**63 - 1, -(2**63) + 1]
    times = pa.array(raw, pa.int64()).cast(pa.timestamp(unit, "UTC"))
    values = {"value": pa.nulls(len(raw)), column: times}
    good, bad = checked(view_of(user, fields={"value": Timestamp}), values)
    stored = {"at": EVENT_TS, "made": CREATED_TS}.get(column, column)
    assert good[stored].to_pylist() == [FIRST_US, LAST_US // per * per]
    assert bad["user_id"].to_pylist() == [0, 3, 4, 5]
    assert all(reason.startswith(f"{column}: expected Timestamp, got ") for reason in bad["reason"].to_pylist())
    assert str(raw[3]) in bad["reason"][1].as_py()


@pytest.mark.parametrize("zone", [None, "UTC", "America/St_Johns"])
@pytest.mark.parametrize(("unit", "raw"), [("s", 1), ("ms", 1000), ("us", 1_000_000), ("ns", 1_000_000_999)])
def test_times_of_every_unit_and_zone_are_microseconds(unit: str, raw: int, zone: str | None) -> None:
    assert one(pa.array([raw, -raw, None], pa.timestamp(unit, zone)), Timestamp) == (
        [1_000_000, -1_000_000 - (unit == "ns"), None],
        [],
    )


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_a_date_is_its_midnight(kind: pa.DataType) -> None:
    days = pa.array([date(1970, 1, 2), date(1, 1, 1), date(9999, 12, 31), None], kind)
    midnights = [86_400_000_000, FIRST_US, LAST_US + 1 - 86_400_000_000, None]
    assert one(days, Timestamp) == (midnights, [])


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_a_date_outside_the_years_1_to_9999_is_bad(kind: pa.DataType) -> None:
    beyond = pa.array([-719_163, 0, 2_932_897], pa.int32()).cast(pa.date32()).cast(kind)
    good, reasons = one(beyond, Timestamp)
    assert good == [0]
    assert [reason.partition(", got ")[0] for reason in reasons] == ["value: expected Timestamp"] * 2


def test_a_date_that_overflows_is_bad() -> None:
    good, reasons = one(pa.array([2**62, -(2**62), 0], pa.int64()).cast(pa.date64()), Timestamp)
    assert good == [0]
    assert reasons == [f"value: expected Timestamp, got {raw}" for raw in (2**62, -(2**62))]


# -- reasons ----------------------------------------------------------------------------------------------------------


def test_a_reason_names_the_first_column_that_does_not_fit() -> None:
    view = view_of(user, fields={"a": Int32, "b": Int32})
    _, bad = checked(view, {"a": pa.array([2**31, 1]), "b": pa.array([2**32, 2**33])})
    assert bad["reason"].to_pylist() == [
        "a: expected Int32, got 2147483648",
        "b: expected Int32, got 8589934592",
    ]


def test_a_reason_is_short_even_when_the_value_is_long() -> None:
    (reason,) = one(pa.array([[1] * 100_000]), Array(Int64, 2))[1]
    assert len(reason) < 300


def test_bad_rows_keep_their_columns_beside_the_reason() -> None:
    columns = {"value": pa.array([2**31]), "reason": pa.array(["mine"]), "reason_": pa.array(["mine too"])}
    view = view_of(user, fields={"value": Int32, "reason": String, "reason_": String})
    good, bad = checked(view, columns)
    assert not len(good)
    assert bad.schema.names[-1] == "reason__"
    assert {name: bad[name].to_pylist() for name in ("value", "reason", "reason_", "reason__")} == {
        "value": [2**31],
        "reason": ["mine"],
        "reason_": ["mine too"],
        "reason__": ["value: expected Int32, got 2147483648"],
    }


@pytest.mark.parametrize("raw", [2**63 - 1, LAST_US + 1, FIRST_US - 1])
def test_a_time_that_no_datetime_holds_is_shown_as_a_number(raw: int) -> None:
    (reason,) = one(pa.array([raw], pa.timestamp("us")), Timestamp)[1]
    assert reason == f"value: expected Timestamp, got {raw}"


def test_an_array_of_such_times_is_shown_too() -> None:
    values = pa.array([[LAST_US + 1], [0]], pa.list_(pa.timestamp("us")))
    good, reasons = one(values, Array(Timestamp))
    assert len(good) == 1
    assert reasons[0].startswith("value: expected Array(Timestamp), got ")


def test_an_array_of_text_that_is_not_utf8_is_shown_too() -> None:
    raw = pa.array([b"\xff", b"a"])
    texts = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    values = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), texts)
    good, reasons = one(values, Array(String))
    assert good == [["a"]]
    assert reasons[0].startswith("value: expected Array(String), got ")


# -- columns ----------------------------------------------------------------------------------------------------------


VIEW = view_of(shop, slot, fields={"likes": Int32, "vector": Array(Float32, 2)})
TYPES = {
    "shop_id": pa.string(),
    "slot_id": pa.int64(),
    "likes": pa.int64(),
    "vector": pa.list_(pa.float64()),
    "at": pa.timestamp("us"),
    "made": pa.timestamp("us"),
}


def test_columns_that_can_fit_are_taken() -> None:
    columns = source_columns(VIEW, pa.schema(list(TYPES.items())), "source x")
    assert columns.names == ["shop_id", "slot_id", "likes", "vector", "at", "made"]


@pytest.mark.parametrize("missing", TYPES)
def test_a_missing_column_is_refused_with_those_that_are_near(missing: str) -> None:
    schema = pa.schema([(name + "s" if name == missing else name, found) for name, found in TYPES.items()])
    with pytest.raises(DataError) as raised:
        source_columns(VIEW, schema, "source x")
    assert raised.value.where == f"source x: column {missing}"
    assert f"{missing}s" in raised.value.hint


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("shop_id", pa.int64()),
        ("shop_id", pa.binary()),
        ("slot_id", pa.string()),
        ("slot_id", pa.bool_()),
        ("likes", pa.bool_()),
        ("likes", pa.timestamp("us")),
        ("vector", pa.float32()),
        ("vector", pa.list_(pa.string())),
        ("vector", pa.list_(pa.list_(pa.float32()))),
        ("at", pa.int64()),
        ("at", pa.string()),
        ("made", pa.time64("us")),
    ],
)
def test_a_column_of_a_type_that_never_fits_is_refused(name: str, found: pa.DataType) -> None:
    with pytest.raises(DataError) as raised:
        source_columns(VIEW, pa.schema(list((TYPES | {name: found}).items())), "source x")
    assert raised.value.where == f"source x: column {name}"
    assert str(found) in raised.value.got


def test_a_column_that_is_there_twice_is_refused() -> None:
    with pytest.raises(DataError, match=r"column likes.*one column of that name.*got 2"):
        source_columns(VIEW, pa.schema([*TYPES.items(), ("likes", pa.int32())]), "source x")


def test_a_column_that_the_view_does_not_take_may_be_there_twice() -> None:
    assert source_columns(VIEW, pa.schema([*TYPES.items(), ("x", pa.int32()), ("x", pa.int32())]), "source x").types


def test_what_is_pushed_need_not_say_when_it_was_created() -> None:
    schema = pa.schema([item for item in TYPES.items() if item[0] != "made"])
    assert source_columns(VIEW, schema, "push", pushed=True).created_timestamp is None
    with pytest.raises(DataError, match="column made"):
        source_columns(VIEW, schema, "source x")


def test_a_view_without_a_source_takes_the_usual_names_of_times() -> None:
    view = view_of(user, source=None, fields={"value": Int32})
    schema = pa.schema(
        [("user_id", pa.int64()), ("value", pa.int32())]
        + [(name, pa.timestamp("us")) for name in ("event_timestamp", "created_timestamp")]
    )
    columns = source_columns(view, schema, "push", pushed=True)
    assert (columns.event_timestamp, columns.created_timestamp) == ("event_timestamp", "created_timestamp")


def test_times_may_be_written_with_any_offset() -> None:
    at = pa.array([datetime(2026, 1, 1, tzinfo=UTC)], pa.timestamp("ms", "+05:45"))
    good, _ = checked(view_of(user, fields={"value": Int32}), {"at": at, "value": [1]})
    assert good[EVENT_TS].to_pylist() == [1_767_225_600_000_000]
