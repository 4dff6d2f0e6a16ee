"""Checked rows of a view, for the tests of rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from feature_store.arrow.rows import Checked, check, source_columns
from feature_store.definitions import FeatureView, String
from feature_store.definitions.dtypes import DType
from tests.engines.offline_worlds import NOW_US, user, view_of

FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999


def checked(view: FeatureView, columns: dict[str, Any], first: int = 0) -> Checked:
    """The checked rows of columns. Unless given, keys are 0, 1, …, event times are now, and created times are null."""
    count = len(next(iter(columns.values())))
    keys = {entity.join_key: _some_keys(entity.dtype, count) for entity in view.entities}
    times = {"at": pa.array([NOW_US] * count, pa.timestamp("us")), "made": pa.nulls(count, pa.timestamp("us"))}
    batch = pa.record_batch(keys | times | columns)
    return check(batch, source_columns(view, batch.schema, "source"), view.join_keys, first)


def _some_keys(dtype: DType, count: int) -> pa.Array:
    return pa.array([str(i) for i in range(count)] if dtype == String else list(range(count)))


def one(values: pa.Array, dtype: DType) -> tuple[list[Any], list[str]]:
    """The values of a field that fit, and the reasons why the others do not."""
    good, bad = checked(view_of(user, fields={"value": dtype}), {"value": values})
    assert len(good) + len(bad) == len(values)
    return good["value"].to_pylist(), bad["reason"].to_pylist()
