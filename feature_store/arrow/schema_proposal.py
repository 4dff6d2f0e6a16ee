"""Proposes fields from data: types and expectations. People are meant to widen and correct the proposal.

Limits are the least and greatest value in the data. A null rate is rounded up to a hundredth. Strings are listed if
there are few distinct ones.
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

from feature_store.arrow.encoded import is_encoded
from feature_store.arrow.plain import plain_type
from feature_store.arrow.scalars import ARROW
from feature_store.arrow.sources.source import OfflineSource
from feature_store.arrow.types import fit, served_values
from feature_store.definitions.dtypes import SCALARS, Array, Decimal, DType, String
from feature_store.definitions.field import Field
from feature_store.definitions.scalars import MOST_DIGITS, DecimalType, IntegerType
from feature_store.errors import DefinitionError

# With more distinct strings, the column holds names rather than categories. Rows per distinct string must be at least
# _LEAST_SEEN on average.
_MOST_LISTED, _LEAST_SEEN = 20, 5


@dataclass(frozen=True)
class Proposal:
    """A proposed declaration of a column.

    Attributes:
        column: the name of the column.
        field: the proposed field. None: no field can be declared for the column.
        why: the reason, if there is no field.
    """

    column: str
    field: Field | None
    why: str = ""

    def to_code(self) -> str:
        """The proposal as a line of Python for a schema. Without a field, it is a comment with the reason."""
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
    """Propose fields from all rows of a source.

    Args:
        rows: the source.
        columns: the columns to propose fields for.
        dtypes: types that are already declared, by column. The type of any other column follows from its Arrow type.

    Raises:
        DataError: the source cannot be read.
    """
    seen = {name: _ColumnStatistics() for name in columns}
    for batch in rows.batches(list(seen)):
        for name, found in seen.items():
            found.add(_values(batch.column(name), dtypes.get(name, String)))
    return [_proposal(name, found, rows.schema.field(name).type, dtypes.get(name)) for name, found in seen.items()]


def _values(values: pa.Array, dtype: DType) -> pa.Array:
    """The values that statistics are of: those that fit, if the column is encoded text."""
    if not is_encoded(values.type):
        return values
    fitted, bad = fit(values, dtype)
    return served_values(fitted.filter(pa.array(~bad)), dtype)


class _ColumnStatistics:
    """Statistics of the values of a column that were added so far."""

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
        if values.type == pa.float16():  # Arrow cannot compare half floats
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
    if is_encoded(found):
        return String
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
    """A value as Python code. A decimal is written as a float; for the proposed decimals, that is exact."""
    return str(value) if isinstance(value, decimal.Decimal) else repr(value)


def _is_text(found: pa.DataType) -> bool:
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found))
