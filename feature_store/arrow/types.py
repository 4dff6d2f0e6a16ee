"""Scalar types in Arrow: which columns can hold their values, and columns as checked, stored and served.

A column passes through three types:

    as it comes    whatever type of Arrow can hold such values, made plain (`plain`)
    storage        checked values, whose elements are those that numpy and rows hold: a Timestamp is an int64
    served         the type that users get: a Timestamp is a timestamp[us, UTC] (`online.arrow.arrow_type`)

A value fits when nothing is lost: integers in range, floats that are whole where an integer is declared (below 2**53,
float32 below 2**24: a larger float stands for several integers), times in the years 1 to 9999. Only float → narrower
float and decimal → float round, because the declared types say so. NaN is a value; null is not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.arrow import csv_text
from feature_store.arrow.plain import plain
from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, largest_whole
from feature_store.definitions.scalars import MOST_DIGITS, DecimalType
from feature_store.definitions.type_table import TypeTable
from feature_store.errors import DataError
from feature_store.online.arrow import arrow_type
from feature_store.online.batch import Values
from feature_store.online.codec import object_column

if TYPE_CHECKING:
    from feature_store.definitions.dtypes import DType

Mask = np.ndarray[Any, np.dtype[np.bool_]]
TO_MICROSECONDS = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
_DAY_US = 86_400_000_000


class ArrowScalar(ABC):
    """What Arrow does with values of one scalar type.

    Args:
        storage: the type of checked values.

    Attributes:
        parsed: the type that CSV text is parsed to, before values are fitted; None: `fit_csv` does it all.
    """

    parsed: pa.DataType | None = None

    def __init__(self, storage: pa.DataType) -> None:
        self.storage = storage

    @abstractmethod
    def accepts(self, found: pa.DataType) -> bool:
        """Whether values of a plain type can be of this one."""

    @abstractmethod
    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        """Plain values that `accepts` takes as `storage`, and which do not fit: (n,) bool."""

    def parse(self, text: str) -> Any:
        """One CSV value as a Python value of `parsed`; None if the text is not a value of the type.

        Raises:
            TypeError: the type has no `parsed`.
        """
        raise TypeError(f"{type(self).__name__} reads CSV text without a parsed type")

    def always_fits(self, found: pa.DataType) -> bool:
        """Whether every value of a column's type fits, so that nobody needs to look."""
        return bool(found == self.storage)

    def limits(self, found: pa.DataType) -> tuple[float, float] | None:
        """The numbers between which every value of a column's type fits; None if there are no such limits."""
        return None

    def fit_csv(self, text: pa.StringArray, dtype: DType) -> tuple[pa.Array, Mask]:
        """`fit`, of CSV text."""
        if self.parsed is None:
            return _each_parsed(text, dtype, self.storage)
        parsed, not_parsed = csv_text.parse(text, self.parsed, self.parse)
        fitted, bad = self.fit(parsed, dtype)
        return fitted, bad | not_parsed

    @abstractmethod
    def is_proposed_for(self, found: pa.DataType) -> bool:
        """Whether `schema infer` proposes this type for a plain column."""

    def filled(self, values: pa.Array) -> np.ndarray[Any, Any]:
        """Storage as numpy holds it; any value stands for null."""
        filled = values.fill_null(0) if values.null_count else values
        found: np.ndarray[Any, Any] = filled.to_numpy(zero_copy_only=False)
        return found

    def served(self, values: pa.Array, dtype: DType) -> pa.Array:
        """Storage as users get it."""
        return values.cast(arrow_type(dtype))


class _Bool(ArrowScalar):
    parsed = pa.bool_()

    def accepts(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_boolean(found))

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        return values, _none_of(values)

    def parse(self, text: str) -> bool | None:
        return csv_text.truth(text)

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_boolean(found))

    def filled(self, values: pa.Array) -> np.ndarray[Any, Any]:
        filled: np.ndarray[Any, Any] = values.fill_null(False).to_numpy(zero_copy_only=False)
        return filled


class _Number(ArrowScalar):
    def accepts(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found))


class _Integer(_Number):
    parsed = pa.int64()

    def __init__(self, storage: pa.DataType, proposed: tuple[pa.DataType, ...]) -> None:
        super().__init__(storage)
        self._proposed = proposed

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        if values.type == self.storage:
            return values, _none_of(values)
        if pa.types.is_decimal(values.type):
            return _decimals_as_integers(values, self.storage)
        return _converted(values, self.storage, _as_integers, dtype.numpy)

    def parse(self, text: str) -> int | None:
        return csv_text.integer(text)

    def always_fits(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_signed_integer(found)) and found.bit_width <= self.storage.bit_width

    def limits(self, found: pa.DataType) -> tuple[float, float] | None:
        if not pa.types.is_integer(found):
            return None
        limits = np.iinfo(self.storage.to_pandas_dtype())
        return int(limits.min), int(limits.max)

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return found in self._proposed


class _Float(_Number):
    parsed = pa.float64()

    def __init__(self, storage: pa.DataType, proposed: tuple[pa.DataType, ...], limits: np.finfo[Any]) -> None:
        super().__init__(storage)
        self._proposed, self._limits = proposed, limits

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        if values.type == self.storage:
            return values, _none_of(values)
        if pa.types.is_decimal(values.type):
            values = values.cast(pa.float64())
        return _converted(values, self.storage, _as_floats, dtype.numpy)

    def parse(self, text: str) -> float | None:
        return csv_text.number(text)

    def always_fits(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_floating(found)) and found.bit_width <= self._limits.bits

    def limits(self, found: pa.DataType) -> tuple[float, float] | None:
        if pa.types.is_integer(found):  # integers up to these are exact as floats
            exact = 1 << (self._limits.nmant + 1)
            return -exact, exact
        return (float(self._limits.min), float(self._limits.max)) if pa.types.is_floating(found) else None

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return found in self._proposed or (self._limits.bits == 64 and bool(pa.types.is_decimal(found)))


class _Half(_Float):
    """Float16, whose storage in Arrow is float32: DuckDB has no half floats, and Arrow has few functions for them."""

    def __init__(self) -> None:
        super().__init__(pa.float32(), (pa.float16(),), np.finfo(np.float16))

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        if pa.types.is_decimal(values.type):
            values = values.cast(pa.float64())
        return _converted(values, self.storage, _as_floats, dtype.numpy)

    def filled(self, values: pa.Array) -> np.ndarray[Any, Any]:
        return super().filled(values).astype(np.float16)

    def served(self, values: pa.Array, dtype: DType) -> pa.Array:
        return pa.array(self.filled(values), mask=null_mask(values))


class _String(ArrowScalar):
    def accepts(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        return fit_text(values)

    def fit_csv(self, text: pa.StringArray, dtype: DType) -> tuple[pa.Array, Mask]:
        return text, _none_of(text)

    def always_fits(self, found: pa.DataType) -> bool:
        return False  # text in a file need not be UTF-8

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return self.accepts(found)


class _Bytes(ArrowScalar):
    def accepts(self, found: pa.DataType) -> bool:
        return bool(
            pa.types.is_binary(found) or pa.types.is_large_binary(found) or pa.types.is_fixed_size_binary(found)
        )

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        return values.cast(pa.binary()), _none_of(values)

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return self.accepts(found)


class _Decimal(_Number):
    """Decimals, whose storage counts units of 10**-scale."""

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        scalar = dtype.scalar
        assert isinstance(scalar, DecimalType)
        if pa.types.is_decimal(values.type):
            return _fit_decimals(values, scalar)
        return _converted(values, self.storage, lambda raw, _: _as_units(raw, scalar), dtype.numpy)

    def always_fits(self, found: pa.DataType) -> bool:
        return False  # storage does not tell the scale

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_decimal(found)) and 0 <= found.scale <= found.precision <= MOST_DIGITS

    def served(self, values: pa.Array, dtype: DType) -> pa.Array:
        """Each unit count as the lower 64 bits of an Arrow decimal's 128."""
        units = self.filled(values)
        words = np.column_stack([units, units >> 63]).astype("<i8")
        made = pa.Array.from_buffers(arrow_type(dtype), len(units), [None, pa.py_buffer(words.tobytes())])
        return pc.if_else(values.is_valid(), made, None) if values.null_count else made


class _Date(ArrowScalar):
    parsed = pa.date32()

    def accepts(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_timestamp(found) or pa.types.is_date(found))

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        times, bad = _fit_times(values)
        raw = times.fill_null(0).to_numpy()
        days, rest = np.divmod(raw, _DAY_US)
        return pa.array(days.astype(np.int32), mask=null_mask(times)), bad | (rest != 0)

    def parse(self, text: str) -> Any:
        return csv_text.day(text)

    def always_fits(self, found: pa.DataType) -> bool:
        return False  # a file can hold days that no date holds

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_date(found))


class _Timestamp(ArrowScalar):
    parsed = pa.timestamp("us")

    def accepts(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_timestamp(found) or pa.types.is_date(found))

    def fit(self, values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
        return _fit_times(values)

    def parse(self, text: str) -> Any:
        return csv_text.time(text)

    def always_fits(self, found: pa.DataType) -> bool:
        return False  # a file can hold times that no datetime holds

    def is_proposed_for(self, found: pa.DataType) -> bool:
        return bool(pa.types.is_timestamp(found))


ARROW: TypeTable[ArrowScalar] = TypeTable(
    {
        "Bool": _Bool(pa.bool_()),
        "Int8": _Integer(pa.int8(), (pa.int8(),)),
        "Int16": _Integer(pa.int16(), (pa.int16(), pa.uint8())),
        "Int32": _Integer(pa.int32(), (pa.int32(), pa.uint16())),
        "Int64": _Integer(pa.int64(), (pa.int64(), pa.uint32(), pa.uint64())),
        "Float16": _Half(),
        "Float32": _Float(pa.float32(), (pa.float32(),), np.finfo(np.float32)),
        "Float64": _Float(pa.float64(), (pa.float64(),), np.finfo(np.float64)),
        "Decimal": _Decimal(pa.int64()),
        "String": _String(pa.string()),
        "Bytes": _Bytes(pa.binary()),
        "Date": _Date(pa.int32()),
        "Timestamp": _Timestamp(pa.int64()),
    }
)


def storage_type(dtype: DType) -> pa.DataType:
    """The Arrow type of checked values: times as int64 microseconds, arrays as lists."""
    storage = ARROW[dtype].storage
    return storage if dtype.element is None else pa.list_(storage)


def can_fit(found: pa.DataType, dtype: DType) -> bool:
    """Whether values of a plain type can be of a declared one."""
    if pa.types.is_null(found):
        return True
    if dtype.element is not None:
        lists = pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found)
        return lists and can_fit(found.value_type, dtype.element)
    return ARROW[dtype].accepts(found)


def fit(values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
    """A column as `storage_type(dtype)`, and which values do not fit (any value may stand there): (n,) bool."""
    return fit_plain(plain(values), dtype)


def fit_plain(values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
    """`fit`, of a column that is plain."""
    if pa.types.is_null(values.type):
        return values.cast(storage_type(dtype)), _none_of(values)
    return _fit_lists(values, dtype) if dtype.element is not None else ARROW[dtype].fit(values, dtype)


def fit_csv(values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
    """`fit`, of a column of CSV text that is to be parsed as a scalar type."""
    text, not_text = fit_text(plain(values))
    fitted, bad = ARROW[dtype].fit_csv(text, dtype)
    return fitted, bad | not_text


def numpy_values(values: pa.Array, dtype: DType) -> Values:
    """Checked values as the online store takes them."""
    nulls = null_mask(values) if values.null_count else None
    if dtype.width is None:
        return Values(_objects(values, dtype), nulls)
    if dtype.element is None:
        return Values(ARROW[dtype].filled(values), nulls)
    stacked = np.zeros((len(values), dtype.size), dtype.numpy)
    there = ~nulls if nulls is not None else slice(None)
    stacked[there] = ARROW[dtype].filled(pc.list_flatten(values)).reshape(-1, dtype.size)
    return Values(stacked, nulls)


def served_values(values: pa.Array, dtype: DType) -> pa.Array:
    """Checked values as users get them, of `online.arrow.arrow_type(dtype)`."""
    scalar = ARROW[dtype]
    if dtype.element is None:
        return scalar.served(values, dtype)
    nulls = null_mask(values)
    elements = scalar.served(pc.list_flatten(values), dtype.element)
    if dtype.length is not None:
        # Arrow's cast to a fixed-size list leaves any bytes below a null, and pandas fails on days beyond the calendar.
        places = np.full((len(values), dtype.length), -1)
        places[~nulls] = np.arange(len(elements)).reshape(-1, dtype.length)
        elements = elements.take(pa.array(places.ravel(), mask=places.ravel() < 0))
        return pa.FixedSizeListArray.from_arrays(elements, type=arrow_type(dtype), mask=pa.array(nulls))
    lengths = pc.list_value_length(values).fill_null(0).to_numpy().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), elements, mask=pa.array(nulls))


def null_mask(values: pa.Array) -> Mask:
    """Which values are null: (n,) bool."""
    if not values.null_count:
        return _none_of(values)
    mask: Mask = values.is_null().to_numpy(zero_copy_only=False)
    return mask


# -- per kind of type -------------------------------------------------------------------------------------------------


def _none_of(values: pa.Array) -> Mask:
    return np.zeros(len(values), bool)


def _converted(values: pa.Array, storage: pa.DataType, convert: Any, wanted: np.dtype[Any]) -> tuple[pa.Array, Mask]:
    """Numbers converted by numpy: `convert(raw, wanted)` returns them and which do not fit."""
    raw = values.fill_null(0).to_numpy(zero_copy_only=False)
    fitted, bad = convert(raw, wanted)
    nulls = null_mask(values)
    return pa.array(fitted, storage, mask=nulls), bad & ~nulls


def _as_integers(raw: np.ndarray[Any, Any], wanted: np.dtype[Any]) -> tuple[np.ndarray[Any, Any], Mask]:
    limits = np.iinfo(wanted)
    if raw.dtype.kind == "f":
        wide, largest = raw.astype(np.float64), largest_whole(raw.dtype)
        # NaN compares false.
        fits = (wide >= max(limits.min, -largest)) & (wide <= min(limits.max, largest))
        fits &= np.trunc(wide) == wide
    else:
        fits = (raw <= limits.max) if raw.dtype.kind == "u" else (raw >= limits.min) & (raw <= limits.max)
    return np.where(fits, raw, 0).astype(wanted), ~fits


def _as_floats(raw: np.ndarray[Any, Any], wanted: np.dtype[Any]) -> tuple[np.ndarray[Any, Any], Mask]:
    with np.errstate(over="ignore", invalid="ignore"):
        fitted = raw.astype(wanted)
    if raw.dtype.kind == "f":
        return fitted, np.isfinite(raw) & (np.abs(raw.astype(np.float64)) > float(np.finfo(wanted).max))
    # One more than the greatest integer is a power of two and so a float. What rounding lifted to it changed.
    inside = np.isfinite(fitted) & (fitted < np.float64(np.iinfo(raw.dtype).max + 1))
    back = np.where(inside, fitted, 0).astype(raw.dtype)
    return fitted, ~inside | (back != raw)


def _as_units(raw: np.ndarray[Any, Any], scalar: DecimalType) -> tuple[np.ndarray[Any, Any], Mask]:
    """Integers and floats as units of a decimal type, and which do not fit. See DecimalType."""
    unit, most = 10**scalar.scale, 10**scalar.precision
    if raw.dtype.kind != "f":
        beyond = (raw >= most // unit) if raw.dtype.kind == "u" else (raw >= most // unit) | (raw <= -(most // unit))
        return np.where(beyond, 0, raw).astype(np.int64) * unit, beyond
    with np.errstate(over="ignore", invalid="ignore"):
        units = np.rint(raw.astype(np.float64) * unit)
        fits = np.abs(units) < min(most, 10 ** np.finfo(raw.dtype).precision)  # NaN compares false
        units[~fits] = 0
        fits &= (units / unit).astype(raw.dtype) == raw
    return np.where(fits, units, 0).astype(np.int64), ~fits


def _fit_decimals(values: pa.Array, scalar: DecimalType) -> tuple[pa.Array, Mask]:
    wanted = pa.decimal128(scalar.precision, scalar.scale)
    nulls = null_mask(values)
    bad = _none_of(values)
    if values.type != wanted:
        wide = values.cast(pa.decimal256(76, values.type.scale))  # comparing needs digits for both sides
        whole, most = pc.trunc(wide).cast(pa.decimal256(76, 0)), 10 ** (scalar.precision - scalar.scale)
        inside = pc.and_(pc.greater(whole, -most), pc.less(whole, most))
        cut = pc.if_else(inside, wide, None).cast(pa.decimal256(76, scalar.scale), safe=False)
        fits = pc.and_(inside, pc.equal(cut.cast(wide.type, safe=False), wide)).fill_null(False)
        bad = ~fits.to_numpy(zero_copy_only=False) & ~nulls
        values = pc.if_else(fits, cut, None).cast(wanted)
    raw = values.fill_null(0) if values.null_count else values
    words = np.frombuffer(raw.buffers()[1], "<i8")[2 * raw.offset : 2 * (raw.offset + len(raw))]
    return pa.array(words[::2], pa.int64(), mask=nulls), bad


def _each_parsed(text: pa.StringArray, dtype: DType, storage: pa.DataType) -> tuple[pa.Array, Mask]:
    """Text parsed value by value, as a person's input is: decimals, and bytes in base64."""
    stored: list[Any] = []
    bad = _none_of(text)
    for i, value in enumerate(text.to_pylist()):
        try:
            stored.append(None if value is None else dtype.to_stored(dtype.read(value.strip(), "")))
        except DataError:
            stored.append(None)
            bad[i] = True
    return pa.array(stored, storage), bad


def _decimals_as_integers(values: pa.Array, storage: pa.DataType) -> tuple[pa.Array, Mask]:
    limits = np.iinfo(storage.to_pandas_dtype())
    values = values.cast(pa.decimal256(76, values.type.scale))  # comparing needs digits for both sides
    whole = pc.trunc(values)
    integers = whole.cast(pa.decimal256(76, 0))
    inside = pc.and_(pc.greater_equal(integers, int(limits.min)), pc.less_equal(integers, int(limits.max)))
    fits = pc.and_(pc.equal(whole, values), inside)
    bad: Mask = ~fits.fill_null(True).to_numpy(zero_copy_only=False)
    return pc.if_else(fits, integers, None).cast(storage), bad


def _fit_times(values: pa.Array) -> tuple[pa.Array, Mask]:
    if pa.types.is_timestamp(values.type) and values.type.unit == "us":
        integers = values.cast(pa.int64())
        if not _any_beyond(pc.min_max(integers).as_py()):  # 1 ms for 1M times; the rest of this function takes 14
            return integers, _none_of(values)
    nulls = null_mask(values)
    if pa.types.is_date32(values.type):
        raw, (times, parts) = values.cast(pa.int32()).fill_null(0).to_numpy().astype(np.int64), (_DAY_US, 1)
    else:
        raw = values.cast(pa.int64()).fill_null(0).to_numpy()
        times, parts = TO_MICROSECONDS["ms" if pa.types.is_date64(values.type) else values.type.unit]
    # Compared before multiplying, which could overflow.
    fits = (raw // parts >= MIN_TIMESTAMP_US // times) & (raw // parts <= MAX_TIMESTAMP_US // times)
    microseconds = np.where(fits, raw, 0) * times // parts
    return pa.array(microseconds, pa.int64(), mask=nulls), ~fits & ~nulls


def _any_beyond(ends: dict[str, int | None]) -> bool:
    least, most = ends["min"], ends["max"]
    return least is not None and most is not None and not MIN_TIMESTAMP_US <= least <= most <= MAX_TIMESTAMP_US


def fit_text(values: pa.Array) -> tuple[pa.Array, Mask]:
    """Text as pa.string(), and which values are not UTF-8: (n,) bool."""
    try:
        values.validate(full=True)
        return values.cast(pa.string()), _none_of(values)
    except pa.ArrowInvalid:  # Parquet files can hold any bytes as text
        raw = values.cast(pa.binary()).to_pylist()
        bad = np.array([value is not None and not _is_utf8(value) for value in raw])
        listed = [None if value is None or wrong else value.decode() for value, wrong in zip(raw, bad, strict=True)]
        return pa.array(listed, pa.string()), bad


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _fit_lists(values: pa.Array, dtype: DType) -> tuple[pa.Array, Mask]:
    assert dtype.element is not None
    nulls = null_mask(values)
    lengths = pc.list_value_length(values).fill_null(0).to_numpy().astype(np.int64)
    lengths[nulls] = 0
    elements, bad_elements = fit(pc.list_flatten(values), dtype.element)
    owner = np.repeat(np.arange(len(values)), lengths)
    bad = _none_of(values)
    bad[owner[bad_elements | null_mask(elements)]] = True
    if dtype.length is not None:
        bad |= ~nulls & (lengths != dtype.length)
    lengths[bad] = 0
    kept = elements.filter(pa.array(~bad[owner]))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), kept, mask=pa.array(nulls)), bad


def _objects(values: pa.Array, dtype: DType) -> np.ndarray[Any, Any]:
    if dtype.element is None or not dtype.scalar.code:
        return object_column(values.to_pylist())
    scalar = ARROW[dtype]
    return object_column([None if item.values is None else scalar.filled(item.values) for item in values])
