from __future__ import annotations

import decimal
import math
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from feature_store.arrow.schema_proposal import Proposal, propose
from feature_store.arrow.sources.parquet.rows import path_rows
from feature_store.arrow.types import fit, numpy_values
from feature_store.definitions import Float64, Int32, Int64, String
from feature_store.definitions.expected import unexpected
from feature_store.errors import DataError


def proposed(folder: Path, column: pa.Array, dtype: Any = None) -> Proposal:
    pq.write_table(pa.table({"c": column}), folder / "t.parquet", row_group_size=3)
    rows = path_rows("t", folder / "t.parquet")
    (found,) = propose(rows, ["c"], {} if dtype is None else {"c": dtype})
    return found


@pytest.mark.parametrize(
    ("column", "code"),
    [
        (pa.array([3, None, -2, 5], pa.int16()), 'Field("c", Int16, min=-2, max=5, max_null_rate=0.25),'),
        (pa.array([2**40, 0]), 'Field("c", Int64, min=0, max=1099511627776, max_null_rate=0.0),'),
        (pa.array([1, 2], pa.uint32()), 'Field("c", Int64, min=1, max=2, max_null_rate=0.0),'),
        (pa.array([2**63], pa.uint64()), "# 'c': no type for a column of uint64"),
        (pa.array([0.5, math.nan, math.inf]), 'Field("c", Float64, min=0.5, max=0.5, max_null_rate=0.0),'),
        (pa.array([math.nan]), 'Field("c", Float64, max_null_rate=0.0),'),
        (pa.array([decimal.Decimal("1.25")]), 'Field("c", Decimal(3, 2), min=1.25, max=1.25, max_null_rate=0.0),'),
        (pa.array([decimal.Decimal(10**20)]), 'Field("c", Float64, min=1e+20, max=1e+20, max_null_rate=0.0),'),
        (pa.array([decimal.Decimal(10**17)]), 'Field("c", Decimal(18, 0), max_null_rate=0.0),'),
        (pa.array([1.5], pa.float16()), 'Field("c", Float16, min=1.5, max=1.5, max_null_rate=0.0),'),
        (pa.array([7], pa.uint8()), 'Field("c", Int16, min=7, max=7, max_null_rate=0.0),'),
        (pa.array([0], pa.date32()), 'Field("c", Date, max_null_rate=0.0),'),
        (pa.array([b"a"]), 'Field("c", Bytes, max_null_rate=0.0),'),
        (pa.array([True, None]), 'Field("c", Bool, max_null_rate=0.5),'),
        (pa.array(["b", "a"] * 5), """Field("c", String, allowed=['a', 'b'], max_null_rate=0.0),"""),
        (
            pa.array(["b", "a"] * 5).dictionary_encode(),
            """Field("c", String, allowed=['a', 'b'], max_null_rate=0.0),""",
        ),
        (pa.array(["a", "b"]), 'Field("c", String, max_null_rate=0.0),'),
        (pa.array([f"{i % 21}" for i in range(500)]), 'Field("c", String, max_null_rate=0.0),'),
        (pa.array([0], pa.timestamp("ns")), 'Field("c", Timestamp, max_null_rate=0.0),'),
        (pa.array([[1.0]], pa.list_(pa.float32(), 1)), 'Field("c", Array(Float32, 1), max_null_rate=0.0),'),
        (pa.array([["x"]]), 'Field("c", Array(String), max_null_rate=0.0),'),
        (pa.array([{"a": 1}]), "# 'c': no type for a column of struct<a: int64>"),
        (pa.array([1] * 300 + [None]), 'Field("c", Int64, min=1, max=1, max_null_rate=0.01),'),
        (pa.array([], pa.int32()), 'Field("c", Int32),'),
    ],
)
def test_what_a_column_could_be(tmp_path: Path, column: pa.Array, code: str) -> None:
    assert proposed(tmp_path, column).to_code() == code


def test_a_name_that_no_field_may_have_is_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a b": [1]}), tmp_path / "t.parquet")
    (found,) = propose(path_rows("t", tmp_path / "t.parquet"), ["a b"], {})
    assert found.field is None
    assert found.to_code().startswith("# 'a b': Field('a b').name: expected a name of letters")


def test_a_declared_type_stays(tmp_path: Path) -> None:
    found = proposed(tmp_path, pa.array([1.0, 2.0]), Int32).field
    assert found is not None
    assert (found.dtype, found.min, found.max) == (Int32, 1, 2)


@given(
    st.sampled_from(
        [(Int64, st.integers(-(2**63), 2**63 - 1)), (Float64, st.floats()), (String, st.sampled_from("abc"))]
    ),
    st.data(),
)
def test_data_are_as_is_proposed_of_them(kind: tuple[Any, Any], data: st.DataObject) -> None:
    dtype, values = kind
    column = pa.array(
        data.draw(st.lists(st.none() | values, max_size=20)),
        {Int64: pa.int64(), Float64: pa.float64()}.get(dtype, pa.string()),
    )
    with tempfile.TemporaryDirectory() as folder:
        found = proposed(Path(folder), column).field
    assert found is not None
    fitted, bad = fit(column, dtype)
    assert not bad.any()
    seen = numpy_values(fitted, dtype)
    wrong = unexpected(seen.values, seen.nulls, found)
    assert all(
        isinstance(value, float) and not math.isfinite(value) for value in column.filter(pa.array(wrong)).to_pylist()
    )
    assert found.max_null_rate is None or column.null_count <= found.max_null_rate * len(column) + 1e-9


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        path_rows("t", tmp_path / "nothing.parquet")
