"""Arrow columns as scalar types: a column fits exactly where its single values fit."""

from __future__ import annotations

import decimal
from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from feature_store.arrow.encoded import CSV
from feature_store.arrow.types import can_fit, fit, numpy_values, served_values, storage_type
from feature_store.definitions.dtypes import DType, whole_number
from feature_store.definitions.json_members import typed_member
from feature_store.errors import DataError
from feature_store.online.arrow import arrow_type

CONTEXT = decimal.Context(prec=40)
COLUMNS: dict[str, tuple[pa.DataType, Any]] = {
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300)),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1) | st.integers(0, 300)),
    "double": (pa.float64(), st.floats() | st.integers(-(10**9), 10**9).map(lambda n: n / 100)),
    "float": (pa.float32(), st.floats(width=32)),
    "decimal128(20, 3)": (
        pa.decimal128(20, 3),
        st.integers(1 - 10**20, 10**20 - 1).map(lambda n: decimal.Decimal(n).scaleb(-3, CONTEXT)),
    ),
    "decimal128(10, 2)": (
        pa.decimal128(10, 2),
        st.integers(1 - 10**10, 10**10 - 1).map(lambda n: decimal.Decimal(n).scaleb(-2)),
    ),
}
NUMBERS = ["Int8", "Int16", "Float16", "Decimal(10, 2)", "Decimal(18, 0)", "Decimal(4, 4)"]


def expected(dtype: DType, value: Any) -> Any:
    """The stored value, or None when it does not fit."""
    if dtype.numpy.kind == "i" and "Int" in dtype.name:
        whole = isinstance(value, decimal.Decimal) and value == value.to_integral_value(context=CONTEXT)
        value = int(value) if whole else whole_number(value)
    elif isinstance(value, decimal.Decimal) and dtype.numpy.kind == "f":
        value = float(value)
    elif isinstance(value, int) and dtype.numpy.kind == "f":
        with np.errstate(over="ignore"):
            if float(dtype.numpy.type(float(value))) != value:
                return None  # integers in a column are not rounded
    try:
        return dtype.to_stored(dtype.fit(value, ""))
    except DataError:
        return None


@pytest.mark.parametrize("name", NUMBERS)
@given(st.data())
def test_a_column_fits_as_its_values_do(name: str, data: st.DataObject) -> None:
    dtype = DType.parse(name)
    found, values = COLUMNS[data.draw(st.sampled_from(sorted(COLUMNS)))]
    listed = data.draw(st.lists(st.none() | values, max_size=6))
    each = [None if value is None else np.float32(value) for value in listed] if found == pa.float32() else listed
    array = pa.array(listed, found)
    fitted, bad = fit(array.slice(1) if listed else array, dtype)
    assert fitted.type == storage_type(dtype)
    for got, is_bad, value in zip(fitted.to_pylist(), bad, each[1:], strict=True):
        wanted = None if value is None else expected(dtype, value)
        assert bool(is_bad) == (value is not None and wanted is None), (value, wanted)
        assert is_bad or got == wanted or (got != got and wanted != wanted)


@pytest.mark.parametrize(
    ("name", "column", "stored"),
    [
        ("Date", pa.array([date(1970, 1, 2), None]), [1, None]),
        ("Date", pa.array([datetime(1970, 1, 2), datetime(1970, 1, 2, 1)], pa.timestamp("ns")), [1, "bad"]),
        ("Date", pa.array([2**31 - 1], pa.int32()).cast(pa.date32()), ["bad"]),
        ("Bytes", pa.array([b"a", None], pa.large_binary()), [b"a", None]),
        ("Bytes", pa.array([b"ab"], pa.binary(2)), [b"ab"]),
        (
            "Decimal(4, 2)",
            pa.array([decimal.Decimal("1.5"), decimal.Decimal("1.555")], pa.decimal256(60, 30)),
            [150, "bad"],
        ),
        ("Array(Decimal(4, 2))", pa.array([[1.5, 2.0], None, [0.125]]), [[150, 200], None, "bad"]),
    ],
)
def test_columns_that_fit(name: str, column: pa.Array, stored: list[Any]) -> None:
    fitted, bad = fit(column, DType.parse(name))
    assert can_fit(column.type, DType.parse(name))
    assert ["bad" if is_bad else value for value, is_bad in zip(fitted.to_pylist(), bad, strict=True)] == stored


@pytest.mark.parametrize(
    ("name", "texts", "stored"),
    [
        ("Int8", ["5", "5.0", "500", "x"], [5, 5, "bad", "bad"]),
        ("Float16", ["1.5", "70000"], [1.5, "bad"]),
        ("Decimal(4, 2)", ["1.5", " 2 ", "1e1", "1.555", "100", "1_0"], [150, 200, 1000, "bad", "bad", "bad"]),
        ("Date", ["1970-01-02", "1970-13-01"], [1, "bad"]),
        ("Bytes", ["/wA=", "?"], [b"\xff\x00", "bad"]),
    ],
)
def test_csv_text(name: str, texts: list[str], stored: list[Any]) -> None:
    fitted, bad = fit(pa.ExtensionArray.from_storage(CSV, pa.array([*texts, None])), DType.parse(name))
    found = ["bad" if is_bad else value for value, is_bad in zip(fitted.to_pylist(), bad, strict=True)]
    assert found == [*stored, None]


@pytest.mark.parametrize(
    ("name", "members", "stored"),
    [
        ("Int8", [1, 2.0, 128, True], [1, 2, "bad", "bad"]),
        ("Float16", [1.5, 70000, 65504], [1.5, "bad", 65504.0]),
        ("Decimal(4, 2)", [1.5, 1, "1.25", 0.125, "x", True], [150, 100, 125, "bad", "bad", "bad"]),
        ("Date", ["1970-01-02", 1, "x"], [1, "bad", "bad"]),
        ("Bytes", ["/wA=", 1, "?"], [b"\xff\x00", "bad", "bad"]),
    ],
)
def test_members_of_json(name: str, members: list[Any], stored: list[Any]) -> None:
    values, nulls, bad = typed_member([*members, None], DType.parse(name), 1)
    assert ["bad" if i in bad else value for i, value in enumerate(values.tolist())][:-1] == stored
    assert nulls.tolist() == [False] * len(members) + [True]


@pytest.mark.parametrize("name", [*NUMBERS, "Date", "Bytes", "Timestamp", "String", "Bool"])
@pytest.mark.parametrize("form", ["{}", "Array({})", "Array({}, 2)"])
def test_storage_is_served_as_the_declared_type(name: str, form: str) -> None:
    dtype = DType.parse(form.format(name))
    one = dtype.scalar.from_stored([dtype.scalar.to_stored(dtype.scalar.zero)])[0]
    value = one if dtype.element is None else [one, one]
    stored = pa.array([dtype.to_stored(value), None], storage_type(dtype))
    served = served_values(stored, dtype)
    assert served.type == arrow_type(dtype) and served.to_pylist() == [value, None]
    served.validate(full=True)
    values = numpy_values(stored, dtype)
    assert values.values.dtype == (dtype.numpy if dtype.width is not None else object)
