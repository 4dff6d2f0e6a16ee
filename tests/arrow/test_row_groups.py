"""Row groups: places of rows that stay the same, and columns that need no check because it would find nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from feature_store.arrow.sources.opening import open_view
from feature_store.arrow.sources.sequence import RowSequence
from feature_store.arrow.time_range import TimeRange
from feature_store.arrow.types import fit
from feature_store.definitions import Bool, Float32, Float64, Int32, Int64, String, Timestamp
from feature_store.definitions.dtypes import DType
from tests.engines.offline_worlds import SECOND_US, user, view_of, write_files

DAY_US = 86_400 * SECOND_US
ALWAYS = (-(1 << 62), 1 << 62)


def _groups(
    folder: Path, columns: dict[str, Any], *, interval: tuple[int, int] = ALWAYS, **fields: DType
) -> RowSequence:
    view = view_of(user, fields=fields)
    write_files(folder / "rows", pa.table(columns), files=3, row_group_size=7)
    return open_view(view.source, view, folder).sequence(TimeRange("at", *interval))


def _days(count: int) -> dict[str, Any]:
    at = pa.array(np.arange(count) * DAY_US, pa.timestamp("us"))
    return {"user_id": list(range(count)), "at": at, "made": at, "score": np.arange(count) / 2}


@given(st.lists(st.integers(0, 99), max_size=30, unique=True).map(sorted))
def test_rows_are_gathered_by_their_places(places: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        groups = _groups(Path(folder), _days(100), score=Float64)
        batches = groups.gather(["score"], np.array(places, np.int64))
        found = [value for batch in batches for value in batch["score"].to_pylist()]
        assert found == [place / 2 for place in places]


def test_row_groups_outside_of_the_interval_are_left_out(tmp_path: Path) -> None:
    groups = _groups(tmp_path, _days(100), interval=(40 * DAY_US, 50 * DAY_US), score=Float64)
    read = [value for batch in groups.batches(["score"]) for value in batch["score"].to_pylist()]
    assert groups.total == len(read) < 30
    assert {day / 2 for day in range(40, 50)} <= set(read)
    picked = np.array([0, len(read) - 1])
    assert [value for batch in groups.gather(["score"], picked) for value in batch["score"].to_pylist()] == [
        read[0],
        read[-1],
    ]


EDGES = [0, 1, -1, 2**24, 2**24 + 1, -(2**31), 2**31 - 1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
FLOATS = [0.0, -0.0, 1.5, 3.0e38, -3.5e38, 1e308, float("inf"), float("nan")]
COLUMNS = st.one_of(
    st.tuples(st.just(pa.int64()), st.lists(st.none() | st.sampled_from(EDGES), min_size=1, max_size=20)),
    st.tuples(st.just(pa.int32()), st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20)),
    st.tuples(st.just(pa.uint64()), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20)),
    st.tuples(st.just(pa.float64()), st.lists(st.none() | st.sampled_from(FLOATS), min_size=1, max_size=20)),
    st.tuples(st.just(pa.float32()), st.lists(st.none() | st.floats(width=32), min_size=1, max_size=20)),
)


@given(COLUMNS, st.sampled_from([Int32, Int64, Float32, Float64]))
def test_what_is_said_to_fit_fits(column: tuple[pa.DataType, list[Any]], dtype: DType) -> None:
    kind, values = column
    array = pa.array(values, kind)
    at = pa.array([0] * len(values), pa.timestamp("us"))
    with tempfile.TemporaryDirectory() as folder:
        columns = {"user_id": list(range(len(values))), "at": at, "made": at, "score": array}
        if _groups(Path(folder), columns, score=dtype).fits("score", dtype):
            assert not fit(array, dtype)[1].any()


@pytest.mark.parametrize(
    ("dtype", "array"),
    [
        (Float32, pa.array([0.5, None, 1e30])),
        (Int32, pa.array([5, None, -9])),
        (Float64, pa.array([5, None, 2**53])),
        (Int64, pa.array([5, None, 7], pa.int16())),
        (Float64, pa.array([5.0, None, 7.0], pa.float32())),
        (Bool, pa.array([True, None, False])),
        (String, pa.nulls(3)),
    ],
    ids=str,
)
def test_common_columns_are_spared_the_check(tmp_path: Path, dtype: DType, array: pa.Array) -> None:
    at = pa.array([0] * 3, pa.timestamp("us"))
    columns = {"user_id": [1, 2, 3], "at": at, "made": at, "score": array}
    view = view_of(user, fields={"score": dtype})
    write_files(tmp_path / "rows", pa.table(columns))
    assert open_view(view.source, view, tmp_path).sequence(TimeRange("at", *ALWAYS)).fits("score", dtype)


@pytest.mark.parametrize(
    ("dtype", "array"),
    [
        (Float32, pa.array([0.5, None, 1e300])),
        (Int32, pa.array([5, None, 2**31])),
        (Float64, pa.array([5, None, 2**53 + 1])),
        (Int64, pa.array([5.5, None, 7.0])),
        (String, pa.array(["a", None, "b"])),
        (Timestamp, pa.array([0, None, 2**62], pa.timestamp("us"))),
    ],
    ids=str,
)
def test_other_columns_are_not(tmp_path: Path, dtype: DType, array: pa.Array) -> None:
    at = pa.array([0] * 3, pa.timestamp("us"))
    columns = {"user_id": [1, 2, 3], "at": at, "made": at, "score": array}
    assert not _groups(tmp_path, columns, score=dtype).fits("score", dtype)
