"""Responses as Arrow tables and DataFrames. Serving imports pyarrow, pandas and polars only here, on first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from feature_store._extras import requires_extra
from feature_store.definitions.scalars import DecimalType
from feature_store.definitions.type_table import TypeTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from feature_store.definitions.dtypes import DType


def _decimal(arrow: Any, dtype: DType) -> Any:
    assert isinstance(dtype.scalar, DecimalType)
    return arrow.decimal128(dtype.scalar.precision, dtype.scalar.scale)


# The Arrow type of served values: `SERVED[dtype](pyarrow, dtype)`.
SERVED: TypeTable[Callable[[Any, DType], Any]] = TypeTable(
    {
        "Bool": lambda arrow, _: arrow.bool_(),
        "Int8": lambda arrow, _: arrow.int8(),
        "Int16": lambda arrow, _: arrow.int16(),
        "Int32": lambda arrow, _: arrow.int32(),
        "Int64": lambda arrow, _: arrow.int64(),
        "Float16": lambda arrow, _: arrow.float16(),
        "Float32": lambda arrow, _: arrow.float32(),
        "Float64": lambda arrow, _: arrow.float64(),
        "String": lambda arrow, _: arrow.string(),
        "Bytes": lambda arrow, _: arrow.binary(),
        "Decimal": _decimal,
        "Date": lambda arrow, _: arrow.date32(),
        "Timestamp": lambda arrow, _: arrow.timestamp("us", tz="UTC"),
    }
)


def arrow_type(dtype: DType) -> pa.DataType:
    """The Arrow type of a declared type.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    arrow = _pyarrow()
    scalar = SERVED[dtype](arrow, dtype)
    if dtype.element is None:
        return scalar
    return arrow.list_(scalar) if dtype.length is None else arrow.list_(scalar, dtype.length)


def to_arrow(columns: Mapping[str, list[Any]], types: Mapping[str, DType]) -> pa.Table:
    """Columns of Python values as a table. See OnlineResponse.to_arrow."""
    arrow = _pyarrow()
    return arrow.table({name: arrow.array(values, arrow_type(types[name])) for name, values in columns.items()})


def data_frame(table: pa.Table) -> pd.DataFrame:
    """A table as a DataFrame whose integers and booleans are pandas' nullable types (`Int64`, `boolean`, …).

    The types follow from the table's schema alone. numpy's types would turn a column of integers into floats as soon
    as it has one null, and 9007199254740993 into 9007199254740992.0.

    Raises:
        MissingDependencyError: pandas is not installed (`feature-store[pandas]`).
    """
    with requires_extra("pandas", "to_pandas()"):
        import pandas
    arrow = _pyarrow()
    nullable = {arrow.bool_(): pandas.BooleanDtype()}
    for bits in (8, 16, 32, 64):
        nullable[getattr(arrow, f"int{bits}")()] = getattr(pandas, f"Int{bits}Dtype")()
        nullable[getattr(arrow, f"uint{bits}")()] = getattr(pandas, f"UInt{bits}Dtype")()
    # The second setting is for integers inside lists and structs.
    frame: pd.DataFrame = table.to_pandas(types_mapper=nullable.get, integer_object_nulls=True)
    return frame


def polars_frame(table: pa.Table) -> pl.DataFrame:
    """A table as a DataFrame of polars.

    Raises:
        MissingDependencyError: polars is not installed (`feature-store[polars]`).
    """
    with requires_extra("polars", "to_polars()"):
        import polars
    frame = polars.from_arrow(table)
    assert isinstance(frame, polars.DataFrame)
    return frame


def _pyarrow() -> Any:
    with requires_extra("local", "to_arrow()"):
        import pyarrow
    return pyarrow
