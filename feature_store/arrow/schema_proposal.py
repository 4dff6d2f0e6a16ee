"""Fields proposed from data: types, and what may be expected of values. A beginning, for people to widen and correct.

Limits are those that the data have; a share of nulls is rounded up to a hundredth; few different strings are listed.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.arrow.plain import plain_type
from feature_store.arrow.scalars import ARROW
from feature_store.arrow.sources.source import OfflineSource
from feature_store.definitions.dtypes import SCALARS, Array, Decimal, DType, String
from feature_store.definitions.field import Field
from feature_store.definitions.scalars import MOST_DIGITS, DecimalType, IntegerType
from feature_store.errors import DefinitionError

# More different strings are no list of kinds but names; and each should have been seen several times.
_MOST_LISTED, _LEAST_SEEN = 20, 5


@dataclass(frozen=True)
class Proposal:
    """A proposed declaration of a column.

    Attributes:
        column: its name.
        field: as it could be declared; None: it cannot.
        why: it cannot.
    """

    column: str
    field: Field | None
    why: str = ""

    def to_code(self) -> str:
        """A line of Python for a schema."""
        if self.field is None:
            return f"# {self.column!r}: {self.why}"
        expected = {
            "min": self.field.min,
            "max": self.field.max,
            "allowed": None if self.field.allowed is None else list(self.field.allowed),
            "max_null_rate": self.field.max_null_rate,
        }
        said = "".join(f", {name}={_code(value)}" for name, value in expected.items() if value is not None)
        return f'Field("{self.column}", {self.field.dtype}{said}),'


def propose(rows: OfflineSource, columns: Iterable[str], dtypes: Mapping[str, DType]) -> list[Proposal]:
    """Propose fields by all rows of a source.

    Args:
        rows: the source.
        columns: which of its columns.
        dtypes: the types that are declared already; the type of another column follows from the source's.

    Raises:
        DataError: the source cannot be read.
    """
    seen = {name: _ColumnStatistics() for name in columns}
    for batch in rows.batches(list(seen)):
        for name, found in seen.items():
            found.add(batch.column(name))
    return [_proposal(name, found, rows.schema.field(name).type, dtypes.get(name)) for name, found in seen.items()]


class _ColumnStatistics:
    """Statistics of the values of a column so far."""

    def __init__(self) -> None:
        self.rows = self.nulls = 0
        self.least: Any = None
        self.most: Any = None
        self.texts: set[str] | None = set()

    def add(self, values: pa.Array) -> None:
        self.rows += len(values)
        self.nulls += values.null_count
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
            self._add_numbers(values)
        elif _is_text(values.type) and self.texts is not None:
            self.texts |= set(pc.unique(values.drop_null()).to_pylist())
            self.texts = self.texts if len(self.texts) <= _MOST_LISTED else None

    def _add_numbers(self, values: pa.Array) -> None:
        if pa.types.is_decimal(values.type):
            values = values.cast(pa.float64())
        if values.type == pa.float16():  # Arrow compares no half floats
            values = values.cast(pa.float32())
        if pa.types.is_floating(values.type):
            values = values.filter(pc.fill_null(pc.is_finite(values), False))
        ends = pc.min_max(values).as_py()
        if ends["min"] is not None:
            self.least = ends["min"] if self.least is None else min(self.least, ends["min"])
            self.most = ends["max"] if self.most is None else max(self.most, ends["max"])


def _proposal(name: str, seen: _ColumnStatistics, found: pa.DataType, declared: DType | None) -> Proposal:
    dtype = declared or _dtype_of(found, seen)
    if dtype is None:
        return Proposal(name, None, f"no type for a column of {found}")
    expected: dict[str, Any] = {}
    if dtype.is_number and seen.least is not None:
        whole = isinstance(dtype.scalar, IntegerType)
        expected = {"min": int(seen.least), "max": int(seen.most)} if whole else {"min": seen.least, "max": seen.most}
    if dtype == String and seen.texts and seen.rows - seen.nulls >= _LEAST_SEEN * len(seen.texts):
        expected = {"allowed": sorted(seen.texts)}
    if seen.rows:
        expected["max_null_rate"] = math.ceil(seen.nulls / seen.rows * 100) / 100
    if isinstance(dtype.scalar, DecimalType) and dtype.scalar.precision > np.finfo(np.float64).precision:
        expected = {key: value for key, value in expected.items() if key not in ("min", "max")}
    try:
        return Proposal(name, Field(name, dtype, **expected))
    except DefinitionError as error:
        return Proposal(name, None, error.reason)


def _dtype_of(found: pa.DataType, seen: _ColumnStatistics) -> DType | None:
    if pa.types.is_dictionary(found):
        return _dtype_of(found.value_type, seen)
    if pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found):
        element = _dtype_of(found.value_type, seen)
        length = found.list_size if pa.types.is_fixed_size_list(found) else None
        return None if element is None or element.element is not None else Array(element, length)
    if found == pa.uint64() and seen.most is not None and seen.most >= 1 << 63:
        return None
    plain = plain_type(found)
    if pa.types.is_decimal(plain) and 0 <= plain.scale <= plain.precision <= MOST_DIGITS:
        return Decimal(plain.precision, plain.scale)
    return next((dtype for dtype in SCALARS.values() if ARROW[dtype].is_proposed_for(plain)), None)


def _code(value: Any) -> str:
    """A value in Python. A float stands for a decimal: of those that are proposed, for one decimal alone."""
    return str(value) if isinstance(value, decimal.Decimal) else repr(value)


def _is_text(found: pa.DataType) -> bool:
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found))
