"""Kernels that convert Arrow columns to checked values, one for each pair of kinds.

Each kernel takes a plain column, and returns the column as stored and a mask of the values that do not fit: (n,) bool.
Where the mask is True, the stored value is arbitrary. A null fits and stays null.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, DType, largest_whole
from feature_store.definitions.scalars import DecimalType
from feature_store.errors import DataError

Mask = np.ndarray[Any, np.dtype[np.bool_]]
TO_MICROSECONDS = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
DAY_US = 86_400_000_000


def null_mask(values: pa.Array) -> Mask:
    """A mask of the null values: (n,) bool."""
    if not values.null_count:
        return no_mask(values)
    mask: Mask = values.is_null().to_numpy(zero_copy_only=False)
    return mask


def no_mask(values: pa.Array) -> Mask:
    """An empty mask: (n,) bool, all False."""
    return np.zeros(len(values), bool)


def converted(values: pa.Array, storage: pa.DataType, convert: Any, wanted: np.dtype[Any]) -> tuple[pa.Array, Mask]:
    """Numbers converted by `convert(raw, wanted)`, a kernel over numpy arrays without nulls."""
    raw = values.fill_null(0).to_numpy(zero_copy_only=False)
    fitted, bad = convert(raw, wanted)
    nulls = null_mask(values)
    return pa.array(fitted, storage, mask=nulls), bad & ~nulls


def as_integers(raw: np.ndarray[Any, Any], wanted: np.dtype[Any]) -> tuple[np.ndarray[Any, Any], Mask]:
    """Numbers as integers of another type. Integers fit if they are in range; floats must also be whole."""
    limits = np.iinfo(wanted)
    if raw.dtype.kind == "f":
        wide, largest = raw.astype(np.float64), largest_whole(raw.dtype)
        # NaN compares false.
        fits = (wide >= max(limits.min, -largest)) & (wide <= min(limits.max, largest))
        fits &= np.trunc(wide) == wide
    else:
        fits = (raw <= limits.max) if raw.dtype.kind == "u" else (raw >= limits.min) & (raw <= limits.max)
    return np.where(fits, raw, 0).astype(wanted), ~fits


def as_floats(raw: np.ndarray[Any, Any], wanted: np.dtype[Any]) -> tuple[np.ndarray[Any, Any], Mask]:
    """Numbers as floats. Floats fit if they are in range; integers fit if the float is exact."""
    with np.errstate(over="ignore", invalid="ignore"):
        fitted = raw.astype(wanted)
    if raw.dtype.kind == "f":
        return fitted, np.isfinite(raw) & (np.abs(raw.astype(np.float64)) > float(np.finfo(wanted).max))
    # One more than the greatest integer is a power of two, and exact as a float. A value that was rounded up to it does
    # not fit.
    inside = np.isfinite(fitted) & (fitted < np.float64(np.iinfo(raw.dtype).max + 1))
    back = np.where(inside, fitted, 0).astype(raw.dtype)
    return fitted, ~inside | (back != raw)


def as_units(raw: np.ndarray[Any, Any], scalar: DecimalType) -> tuple[np.ndarray[Any, Any], Mask]:
    """Integers and floats as units of a decimal type, `10**-scale`. See DecimalType."""
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


def fit_decimals(values: pa.Array, scalar: DecimalType) -> tuple[pa.Array, Mask]:
    """Decimals of any precision and scale as units of a declared decimal type."""
    wanted = pa.decimal128(scalar.precision, scalar.scale)
    nulls = null_mask(values)
    bad = no_mask(values)
    if values.type != wanted:
        wide = values.cast(pa.decimal256(76, values.type.scale))  # a comparison needs digits for both sides
        whole, most = pc.trunc(wide).cast(pa.decimal256(76, 0)), 10 ** (scalar.precision - scalar.scale)
        inside = pc.and_(pc.greater(whole, -most), pc.less(whole, most))
        cut = pc.if_else(inside, wide, None).cast(pa.decimal256(76, scalar.scale), safe=False)
        fits = pc.and_(inside, pc.equal(cut.cast(wide.type, safe=False), wide)).fill_null(False)
        bad = ~fits.to_numpy(zero_copy_only=False) & ~nulls
        values = pc.if_else(fits, cut, None).cast(wanted)
    raw = values.fill_null(0) if values.null_count else values
    words = np.frombuffer(raw.buffers()[1], "<i8")[2 * raw.offset : 2 * (raw.offset + len(raw))]
    return pa.array(words[::2], pa.int64(), mask=nulls), bad


def each_parsed(text: pa.StringArray, dtype: DType, storage: pa.DataType) -> tuple[pa.Array, Mask]:
    """CSV text parsed value by value: decimals, and bytes in base64."""
    stored: list[Any] = []
    bad = no_mask(text)
    for i, value in enumerate(text.to_pylist()):
        try:
            stored.append(None if value is None else dtype.to_stored(dtype.read(value.strip(), "")))
        except DataError:
            stored.append(None)
            bad[i] = True
    return pa.array(stored, storage), bad


def decimals_as_integers(values: pa.Array, storage: pa.DataType) -> tuple[pa.Array, Mask]:
    """Decimals as integers. They fit if they are whole and in range."""
    limits = np.iinfo(storage.to_pandas_dtype())
    values = values.cast(pa.decimal256(76, values.type.scale))  # a comparison needs digits for both sides
    whole = pc.trunc(values)
    integers = whole.cast(pa.decimal256(76, 0))
    inside = pc.and_(pc.greater_equal(integers, int(limits.min)), pc.less_equal(integers, int(limits.max)))
    fits = pc.and_(pc.equal(whole, values), inside)
    bad: Mask = ~fits.fill_null(True).to_numpy(zero_copy_only=False)
    return pc.if_else(fits, integers, None).cast(storage), bad


def fit_times(values: pa.Array) -> tuple[pa.Array, Mask]:
    """Timestamps and dates of any unit as int64 microseconds since 1970."""
    if pa.types.is_timestamp(values.type) and values.type.unit == "us":
        integers = values.cast(pa.int64())
        if not _any_beyond(pc.min_max(integers).as_py()):  # 1 ms for 1M times; the rest of this function takes 14 ms
            return integers, no_mask(values)
    nulls = null_mask(values)
    if pa.types.is_date32(values.type):
        raw, (times, parts) = values.cast(pa.int32()).fill_null(0).to_numpy().astype(np.int64), (DAY_US, 1)
    else:
        raw = values.cast(pa.int64()).fill_null(0).to_numpy()
        times, parts = TO_MICROSECONDS["ms" if pa.types.is_date64(values.type) else values.type.unit]
    # Check the range before the multiplication, which could overflow.
    fits = (raw // parts >= MIN_TIMESTAMP_US // times) & (raw // parts <= MAX_TIMESTAMP_US // times)
    microseconds = np.where(fits, raw, 0) * times // parts
    return pa.array(microseconds, pa.int64(), mask=nulls), ~fits & ~nulls


def _any_beyond(ends: dict[str, int | None]) -> bool:
    least, most = ends["min"], ends["max"]
    return least is not None and most is not None and not MIN_TIMESTAMP_US <= least <= most <= MAX_TIMESTAMP_US


def fit_text(values: pa.Array) -> tuple[pa.Array, Mask]:
    """Text as `pa.string()`. Text that is not UTF-8 does not fit."""
    try:
        values.validate(full=True)
        return values.cast(pa.string()), no_mask(values)
    except pa.ArrowInvalid:  # text in Parquet files can be any bytes
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
