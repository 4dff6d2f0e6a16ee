"""Scalar types: values that fit, and the forms that a value has."""

from __future__ import annotations

import decimal
import math
from datetime import UTC, date, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, strategies as st

from feature_store.definitions import (
    Array,
    Bytes,
    Date,
    Decimal,
    DType,
    Entity,
    Field,
    Float16,
    Float64,
    Int8,
    Int16,
    Timestamp,
)
from feature_store.definitions.expected import unexpected
from feature_store.errors import DataError, DefinitionError

PARAMETERS = st.integers(1, 18).flatmap(lambda p: st.tuples(st.just(p), st.integers(0, p)))
VALUES: dict[str, Any] = {
    "Int8": st.integers(-(2**7), 2**7 - 1),
    "Int16": st.integers(-(2**15), 2**15 - 1),
    "Float16": st.floats(width=16, allow_nan=False),
    "Bytes": st.binary(),
    "Date": st.dates(),
    "Timestamp": st.datetimes(timezones=st.just(UTC)),
    "Decimal(18, 0)": st.integers(1 - 10**18, 10**18 - 1).map(decimal.Decimal),
    "Decimal(10, 2)": st.integers(1 - 10**10, 10**10 - 1).map(lambda n: decimal.Decimal(n).scaleb(-2)),
}


@given(
    st.sampled_from(sorted(VALUES)).flatmap(lambda text: st.tuples(st.just(text), st.lists(VALUES[text], max_size=4)))
)
def test_each_form_of_a_value_is_inverted(world: tuple[str, list[Any]]) -> None:
    text, values = world
    dtype = DType.parse(text)
    fitted = [dtype.fit(value, "") for value in values]
    assert fitted == values
    assert [dtype.from_json(dtype.to_json(value)) for value in fitted] == values
    stored = [dtype.to_stored(value) for value in fitted]
    assert dtype.from_stored(np.array(stored, dtype.numpy).tolist() if dtype.width else stored) == values
    whole = Array(dtype)
    assert whole.from_stored([whole.to_stored(fitted), None]) == [fitted, None]
    assert DType.parse(str(whole)) == whole and DType.parse(str(Array(dtype, 3))) == Array(dtype, 3)


@given(PARAMETERS, st.decimals() | st.integers() | st.floats())
@example((10, 2), decimal.Decimal("1E+999999"))
@example((10, 2), decimal.Decimal("1E-999999"))
@example((10, 2), decimal.Decimal("sNaN"))
@example((18, 18), decimal.Decimal("0." + "9" * 18))
@example((10, 2), decimal.Decimal("1." + "0" * 60 + "1"))
@example((10, 2), 0.1)
def test_a_decimal_fits_exactly_or_not_at_all(parameters: tuple[int, int], value: Any) -> None:
    precision, scale = parameters
    dtype = Decimal(precision, scale)
    try:
        fitted = dtype.fit(value, "here")
    except DataError:
        if isinstance(value, float) or not decimal.Decimal(value).is_finite():
            return
        assume(not (value and abs(decimal.Decimal(value).adjusted()) > 1000))
        units = Fraction(value) * 10**scale
        assert units.denominator != 1 or abs(units) >= 10**precision
        return
    assert fitted.as_tuple().exponent == -scale and abs(Fraction(fitted)) * 10**scale < 10**precision
    assert float(fitted) == value if isinstance(value, float) else fitted == value


@given(PARAMETERS, st.integers(1 - 10**18, 10**18 - 1), st.sampled_from([np.float32, np.float64]))
def test_a_float_becomes_the_nearest_decimal(parameters: tuple[int, int], units: int, kind: Any) -> None:
    """This holds for few enough digits: longer decimals share floats."""
    precision, scale = parameters
    units = int(math.copysign(abs(units) % 10 ** min(precision, np.finfo(kind).precision), units))
    exact = decimal.Decimal(units).scaleb(-scale)
    assert Decimal(precision, scale).fit(kind(float(exact)), "") == exact


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (Int8, 128), (Int8, -129), (Int8, True), (Int16, 2**15), (Int16, 1.0), (Float16, 65536), (Float16, 10**400),
        (Float64, 10**400), (Bytes, "text"), (Date, datetime(2026, 1, 1, 0, 0, 1)), (Date, "2026-01-01"),
        (Date, np.datetime64("NaT")), (Decimal(4, 2), 100), (Decimal(4, 2), 0.125), (Decimal(4, 2), math.nan),
        (Decimal(4, 2), "1.5"), (Decimal(4, 2), True),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused(dtype: DType, value: Any) -> None:
    with pytest.raises(DataError, match=r"here: expected .*, got "):
        dtype.fit(value, "here")


def test_a_date_may_come_as_a_datetime_at_midnight() -> None:
    for value in (
        datetime(2026, 1, 2),
        datetime(2026, 1, 2, 2, tzinfo=timezone(timedelta(hours=2))),
        np.datetime64("2026-01-02"),
    ):
        assert Date.fit(value, "") == date(2026, 1, 2)


@pytest.mark.parametrize(
    ("dtype", "text", "value"),
    [
        (Decimal(10, 2), "12.3", decimal.Decimal("12.30")),
        (Bytes, "/wA=", b"\xff\x00"),
        (Date, "2026-01-31", date(2026, 1, 31)),
        (Array(Date), '["2026-01-31"]', [date(2026, 1, 31)]),
        (Array(Timestamp), '["2026-01-31"]', [datetime(2026, 1, 31, tzinfo=UTC)]),
        (Array(Decimal(4, 1)), '["0.1", 2]', [decimal.Decimal("0.1"), decimal.Decimal(2)]),
    ],
)
def test_values_are_typed_as_text(dtype: DType, text: str, value: Any) -> None:
    assert dtype.read(text, "here") == value
    with pytest.raises(DataError, match="here: expected"):
        dtype.read("é", "here")


@pytest.mark.parametrize(
    "text",
    [
        "Decimal",
        "Decimal(0, 0)",
        "Decimal(19, 2)",
        "Decimal(4, 5)",
        "Decimal(4)",
        "Array(Decimal)",
        "Array(Array(Int8))",
    ],
)
def test_unknown_types_are_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match="expected one of Bool, Int8"):
        DType.parse(text)


@pytest.mark.parametrize("arguments", [(0, 0), (19, 2), (4, 5), (4, -1), (True, 0), ("4", 1)])
def test_a_decimal_has_at_most_18_digits(arguments: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Decimal\.(precision|scale): expected a number from"):
        Decimal(*arguments)


@pytest.mark.parametrize("dtype", [Int8, Int16, Float16, Bytes, Date, Decimal(10, 0), Array(Int8, 2)])
def test_join_keys_are_wide_integers_and_strings(dtype: DType) -> None:
    with pytest.raises(DefinitionError, match="expected Int64, Int32 or String"):
        Entity("user", dtype=dtype)


def test_a_range_of_decimals_is_kept_and_checked() -> None:
    price = Field("price", Decimal(10, 2), default=0, min=decimal.Decimal("0.10"), max=99.99, allowed=[1, 0.1])
    document = price.model_dump(mode="json")
    assert (document["default"], document["min"], document["max"]) == ("0.00", "0.10", "99.99")
    assert document["allowed"] == ["1.00", "0.10"]
    assert Field(**document) == price
    stored = np.array([10, 9, 100, 10_000, 10], np.int64)
    outside = unexpected(stored, np.array([False] * 4 + [True]), price)
    assert outside.tolist() == [False, True, False, True, False]
