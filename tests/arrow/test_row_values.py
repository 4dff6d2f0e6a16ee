"""Values of a source that fit the declared types: numbers, text and arrays."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from feature_store.arrow.rows import to_row_batch
from feature_store.definitions import Array, Bool, Float32, Float64, Int32, Int64, String, Timestamp
from feature_store.definitions.dtypes import DType
from tests.arrow.row_worlds import checked, one
from tests.engines.offline_worlds import shop, user, view_of

# -- numbers ----------------------------------------------------------------------------------------------------------


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
    beyond = pa.array(np.array([2048.0, -65504.0], np.float16))  # in float16, 2049 becomes 2048, too
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


# -- text -------------------------------------------------------------------------------------------------------------


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


# -- arrays -----------------------------------------------------------------------------------------------------------


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
