"""Responses as Arrow tables and DataFrames. pyarrow and pandas are loaded here, on use, and nowhere else in serving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feature_store.errors import extra

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from feature_store.definitions.dtypes import DType
    from feature_store.online.decode import Decoder


def arrow_type(dtype: DType) -> pa.DataType:
    """The Arrow type of a declared type.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    arrow = _pyarrow()
    if dtype.element is not None:
        element = arrow_type(dtype.element)
        return arrow.list_(element) if dtype.length is None else arrow.list_(element, dtype.length)
    return {
        "Bool": arrow.bool_(),
        "Int32": arrow.int32(),
        "Int64": arrow.int64(),
        "Float32": arrow.float32(),
        "Float64": arrow.float64(),
        "String": arrow.string(),
        "Timestamp": arrow.timestamp("us", tz="UTC"),
    }[dtype.name]


def to_arrow(decoder: Decoder) -> pa.Table:
    """The response as a table. See OnlineResponse.to_arrow."""
    arrow = _pyarrow()
    columns = decoder.service.columns
    arrays = {
        name: arrow.array(decoder.python_column(name), arrow_type(column.dtype)) for name, column in columns.items()
    }
    return arrow.table(arrays)


def to_pandas(decoder: Decoder) -> pd.DataFrame:
    """The response as a DataFrame. See OnlineResponse.to_pandas."""
    return data_frame(to_arrow(decoder))


def data_frame(table: pa.Table) -> pd.DataFrame:
    """A table as a DataFrame whose integers and booleans are pandas' nullable types (`Int64`, `boolean`, …).

    The types follow from the table's schema alone. numpy's types would turn a column of integers into floats as soon
    as it has one null, and 9007199254740993 into 9007199254740992.0.

    Raises:
        MissingDependencyError: pandas is not installed (`feature-store[pandas]`).
    """
    with extra("pandas", "to_pandas()"):
        import pandas
    arrow = _pyarrow()
    nullable = {arrow.bool_(): pandas.BooleanDtype()}
    for bits in (8, 16, 32, 64):
        nullable[getattr(arrow, f"int{bits}")()] = getattr(pandas, f"Int{bits}Dtype")()
        nullable[getattr(arrow, f"uint{bits}")()] = getattr(pandas, f"UInt{bits}Dtype")()
    # The second setting is for integers inside lists and structs.
    frame: pd.DataFrame = table.to_pandas(types_mapper=nullable.get, integer_object_nulls=True)
    return frame


def _pyarrow() -> Any:
    with extra("local", "to_arrow()"):
        import pyarrow
    return pyarrow
