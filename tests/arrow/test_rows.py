"""Which values of a source fit the declared types, and what is said of those that do not."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from feature_store.arrow.rows import CREATED_TS, EVENT_TS, SEQUENCE, check, source_columns, to_row_batch
from feature_store.definitions import Array, Bool, Float32, Float64, Int32, Int64, String, Timestamp
from feature_store.errors import DataError
from tests.engines.offline_worlds import NOW_US, shop, slot, user, view_of

if TYPE_CHECKING:
    from feature_store.arrow.rows import Checked
    from feature_store.definitions import FeatureView
    from feature_store.definitions.dtypes import DType

FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999


def checked(view: FeatureView, columns: dict[str, Any], first: int = 0) -> Checked:
    """The rows of columns; keys 0, 1, … and times of now stand for those not given."""
    count = len(next(iter(columns.values())))
    keys = {entity.join_key: _some_keys(entity.dtype, count) for entity in view.entities}
    times = {"at": pa.array([NOW_US] * count, pa.timestamp("us")), "made": pa.nulls(count, pa.timestamp("us"))}
    batch = pa.record_batch(keys | times | columns)
    return check(batch, source_columns(view, batch.schema, "source"), view.join_keys, first)


def _some_keys(dtype: DType, count: int) -> pa.Array:
    return pa.array([str(i) for i in range(count)] if dtype == String else list(range(count)))


def one(values: pa.Array, dtype: DType) -> tuple[list[Any], list[str]]:
    """What becomes of a field's values: those that fit, and why the others do not."""
    good, bad = checked(view_of(user, fields={"value": dtype}), {"value": values})
    assert len(good) + len(bad) == len(values)
    return good["value"].to_pylist(), bad["reason"].to_pylist()


# -- keys and times -------------------------------------------------------------------------------------------------


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


# -- numbers --------------------------------------------------------------------------------------------------------

INTEGERS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64, "uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64}


@st.composite
def _integer_columns(draw: st.DrawFn) -> pa.Array:
    name = draw(st.sampled_from(sorted(INTEGERS)))
    bits = INTEGERS[name]
    low, high = (0, 2**bits - 1) if name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    edges = [sign * 2**power + off for power in (24, 31, 32, 53, 54, 63, 64) for off in (-1, 0, 1) for sign in (-1, 1)]
    values = st.integers(low, high) | st.sampled_from([low, high, *(edge for edge in edges if low <= edge <= high)])
    return pa.array(draw(st.lists(st.none() | values, min_size=1, max_size=8)), name)


@st.composite
def _float_columns(draw: st.DrawFn) -> pa.Array:
    width = draw(st.sampled_from([32, 64]))
    edges = [float(sign * 2**power + off) for power in (31, 63) for off in (-1, 0, 1) for sign in (-1, 1)]
    edges += [
        0.5,
        -0.0,
        math.nan,
        math.inf,
        -math.inf,
        float(np.finfo(np.float32).max),
        -float(np.finfo(np.float32).max),
        math.nextafter(float(np.finfo(np.float32).max), math.inf),
    ]
    edges += [math.nextafter(2.0**63, 0), math.nextafter(-(2.0**63), -math.inf), 1e300, 5e-324]
    with np.errstate(over="ignore"):
        fitted = [float(np.dtype(f"f{width // 8}").type(edge)) for edge in edges]
    values = st.floats(width=width) | st.sampled_from(fitted) | st.integers(-100, 100).map(float)
    listed = draw(st.lists(st.none() | values, min_size=1, max_size=8))
    typed = np.array([0.0 if value is None else value for value in listed], f"f{width // 8}")
    return pa.array(typed, mask=np.array([value is None for value in listed]))


def _fits(value: Any, dtype: DType, bits_of_floats: int = 53) -> bool:
    if value is None:
        return True
    if dtype in (Int32, Int64):
        bits = 32 if dtype == Int32 else 64
        whole = isinstance(value, int) or (abs(value) < 2**bits_of_floats and value == int(value))
        return whole and -(2 ** (bits - 1)) <= int(value) < 2 ** (bits - 1)
    if isinstance(value, int):
        return int(_as(value, dtype)) == value
    return dtype == Float64 or not math.isfinite(value) or abs(value) <= float(np.finfo(np.float32).max)


def _as(value: Any, dtype: DType) -> Any:
    if value is None:
        return None
    if dtype in (Int32, Int64):
        return int(value)
    return float(np.float32(value)) if dtype == Float32 else float(value)


def _same(a: list[Any], b: list[Any]) -> bool:
    return [repr(value) for value in a] == [repr(value) for value in b]


@given(_integer_columns() | _float_columns(), st.sampled_from([Int32, Int64, Float32, Float64]))
def test_numbers_fit_when_python_says_that_nothing_is_lost(values: pa.Array, dtype: DType) -> None:
    listed = values.to_pylist()
    good, reasons = one(values, dtype)
    fits = [_fits(value, dtype, 24 if values.type == pa.float32() else 53) for value in listed]
    assert _same(good, [_as(value, dtype) for value, is_good in zip(listed, fits, strict=True) if is_good])
    bad = [value for value, is_good in zip(listed, fits, strict=True) if not is_good]
    assert reasons == [f"value: expected {dtype}, got {value!r}" for value in bad]


@pytest.mark.parametrize(
    ("values", "dtype", "got"),
    [
        (pa.array([2**31]), Int32, "2147483648"),
        (pa.array([-(2**31) - 1]), Int32, "-2147483649"),
        (pa.array([2**63], pa.uint64()), Int64, "9223372036854775808"),
        (pa.array([2.0**63]), Int64, "9.223372036854776e+18"),
        (pa.array([float(2**53 + 1)]), Int64, "9007199254740992.0"),
        (pa.array([0.5]), Int64, "0.5"),
        (pa.array([math.nan]), Int32, "nan"),
        (pa.array([math.inf]), Int64, "inf"),
        (pa.array([1e39]), Float32, "1e+39"),
        (pa.array([2**53 + 1]), Float64, "9007199254740993"),
        (pa.array([2**63 - 1]), Float64, "9223372036854775807"),
        (pa.array([2**64 - 1], pa.uint64()), Float64, "18446744073709551615"),
        (pa.array([2**24 + 1]), Float32, "16777217"),
        (pa.array([2**31 - 1], pa.int32()), Float32, "2147483647"),
        (pa.array([2**32 - 1], pa.uint32()), Float32, "4294967295"),
    ],
)
def test_a_number_that_would_change_is_bad(values: pa.Array, dtype: DType, got: str) -> None:
    assert one(values, dtype) == ([], [f"value: expected {dtype}, got {got}"])


@pytest.mark.parametrize("dtype", [Int32, Int64, Float32, Float64])
def test_half_floats_are_numbers_too(dtype: DType) -> None:
    values = pa.array(np.array([1.0, -2047.0], np.float16))
    assert one(values, dtype) == ([1, -2047], [])
    beyond = pa.array(np.array([2048.0, -65504.0], np.float16))  # 2049 is rounded to 2048 too
    good, reasons = one(beyond, dtype)
    assert (good, len(reasons)) == (([], 2) if dtype in (Int32, Int64) else ([2048.0, -65504.0], 0))


@pytest.mark.parametrize("dtype", [Float32, Float64])
def test_nan_and_infinity_are_values_and_null_is_none(dtype: DType) -> None:
    values = pa.array([math.nan, math.inf, -math.inf, None])
    good, bad = checked(view_of(user, fields={"value": dtype}), {"value": values})
    column, nulls = to_row_batch(good, view_of(user, fields={"value": dtype})).columns["value"]
    assert not len(bad)
    assert np.isnan(column[0])
    assert np.isposinf(column[1])
    assert np.isneginf(column[2])
    assert nulls is not None
    assert nulls.tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("values", "dtype", "good", "bad"),
    [
        ([Decimal("3.00"), Decimal("3.50"), None], Int64, [3, None], ["3.50"]),
        ([Decimal("0.50"), Decimal("-1.25"), None], Float64, [0.5, -1.25, None], []),
        ([Decimal("9007199254740993.00")], Int64, [9007199254740993], []),
        (
            [Decimal("9223372036854775807.00"), Decimal("9223372036854775808.00")],
            Int64,
            [2**63 - 1],
            ["9223372036854775808.00"],
        ),
    ],
)
def test_decimals_are_taken_as_they_are(values: list[Any], dtype: DType, good: list[Any], bad: list[str]) -> None:
    found, reasons = one(pa.array(values, pa.decimal128(25, 2)), dtype)
    assert found == good
    assert reasons == [f"value: expected {dtype}, got Decimal('{text}')" for text in bad]


@pytest.mark.parametrize("dtype", [Bool, Int32, Float32, String, Timestamp, Array(Int64), Array(Float32, 2)])
def test_a_column_of_nothing_is_null_in_every_type(dtype: DType) -> None:
    assert one(pa.nulls(2), dtype) == ([None, None], [])
    batch = to_row_batch(
        checked(view_of(user, fields={"value": dtype}), {"value": pa.nulls(2)}).good,
        view_of(user, fields={"value": dtype}),
    )
    assert batch.columns["value"].nulls is not None
    assert batch.columns["value"].nulls.all()


# -- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_text_that_is_not_utf8_is_bad(kind: pa.DataType) -> None:
    raw = pa.array([b"a", b"\xff\xfe", "ü".encode(), b"\xed\xa0\x80", None, b""], _binary_of(kind))
    values = pa.Array.from_buffers(kind, len(raw), raw.buffers(), raw.null_count)
    good, reasons = one(values, String)
    assert good == ["a", "ü", None, ""]
    assert reasons == [r"value: expected String, got b'\xff\xfe'", r"value: expected String, got b'\xed\xa0\x80'"]


def _binary_of(kind: pa.DataType) -> pa.DataType:
    return pa.large_binary() if kind == pa.large_string() else pa.binary()


def test_a_key_that_is_not_utf8_is_bad() -> None:
    raw = pa.array([b"a", b"\xff"])
    keys = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    good, bad = checked(view_of(shop, fields={"value": Int32}), {"shop_id": keys, "value": [1, 2]})
    assert good["shop_id"].to_pylist() == ["a"]
    assert bad["reason"].to_pylist() == [r"shop_id: expected String, got b'\xff'"]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())], ids=str)
def test_text_of_every_arrow_kind_fits(kind: pa.DataType) -> None:
    assert one(pa.array(["a", None, "ü", "a"]).cast(kind), String) == (["a", None, "ü", "a"], [])


def test_a_null_in_a_dictionary_is_null() -> None:
    values = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), pa.array(["a", None]))
    assert one(values, String) == (["a", None, None], [])


# -- arrays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.large_list(pa.int64())], ids=str)
def test_an_array_of_another_length_or_with_a_null_is_bad(kind: pa.DataType) -> None:
    values = pa.array([[1, 2], [1], None, [], [1, None], [1, 2, 3], [3, 4]], kind)
    good, reasons = one(values, Array(Int64, 2))
    assert good == [[1, 2], None, [3, 4]]
    assert reasons == [f"value: expected Array(Int64, 2), got {got}" for got in ("[1]", "[]", "[1, None]", "[1, 2, 3]")]


def test_an_array_with_an_element_that_does_not_fit_is_bad() -> None:
    values = pa.array([[1, 2**31], [2**31 - 1], [], None])
    assert one(values, Array(Int32)) == ([[2**31 - 1], [], None], ["value: expected Array(Int32), got [1, 2147483648]"])


def test_a_null_array_hides_what_stands_in_its_place() -> None:
    elements = pa.array([1.0, 2.0, 1e300, math.nan, 5.0, 6.0])
    fixed = pa.FixedSizeListArray.from_arrays(elements, 2, mask=pa.array([False, True, False]))
    assert one(fixed, Array(Float32, 2)) == ([[1.0, 2.0], None, [5.0, 6.0]], [])
    ragged = pa.ListArray.from_arrays(pa.array([0, 2, 4, 6], pa.int32()), elements, mask=pa.array([False, True, False]))
    assert one(ragged, Array(Float32)) == ([[1.0, 2.0], None, [5.0, 6.0]], [])


def test_a_slice_of_arrays_is_its_own_rows() -> None:
    values = pa.array([[1.0, 2.0], [3.0], None, [4.0, 5.0], [6.0, 7.0]])
    assert one(values.slice(1, 3), Array(Float64)) == ([[3.0], None, [4.0, 5.0]], [])
    fixed = pa.array([[1.0, 2.0], None, [4.0, 5.0], [6.0, 7.0]], pa.list_(pa.float64(), 2))
    assert one(fixed.slice(1, 2), Array(Float64, 2)) == ([None, [4.0, 5.0]], [])


ELEMENTS = st.none() | st.sampled_from([0, 1, -(2**31), 2**31 - 1, 2**31])


@given(
    st.lists(st.none() | st.lists(ELEMENTS, max_size=4), min_size=1, max_size=8),
    st.sampled_from([Array(Int32), Array(Int32, 2)]),
    st.integers(0, 3),
)
def test_arrays_fit_when_each_element_does(rows: list[Any], dtype: DType, skipped: int) -> None:
    values = pa.array([[9]] * skipped + rows, pa.list_(pa.int64())).slice(skipped)

    def fits(row: list[int] | None) -> bool:
        if row is None:
            return True
        return dtype.length in (None, len(row)) and all(item is not None and item < 2**31 for item in row)

    good, reasons = one(values, dtype)
    assert good == [row for row in rows if fits(row)]
    assert reasons == [f"value: expected {dtype}, got {row}" for row in rows if not fits(row)]


# -- what is said ---------------------------------------------------------------------------------------------------


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


# -- columns --------------------------------------------------------------------------------------------------------

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
