"""Windows of events for all engines: at the times of labels, and for all entities at the end of an interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.aggregates.at_times import Events, windows_at
from feature_store.aggregates.windows import Windows, compile_windows
from feature_store.arrow.rows import CREATED_TS, EVENT_TS, one_array
from feature_store.arrow.types import numpy_values, storage_type
from feature_store.definitions.dtypes import MIN_TIMESTAMP_US, DType
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.stream_view import StreamFeatureView

# Longer than between any two times of labels and rows; a timedelta can be longer than int64 holds.
_EVER_US = 1 << 62


def windows_of(view: FeatureView | StreamFeatureView) -> Windows:
    """A view's aggregations, compiled."""
    return compile_windows(view.aggregations, view.event_columns)


def reached_us(view: FeatureView, start_us: int, end_us: int) -> int:
    """When the first event happened that windows at an interval's end can hold, or could at its start.

    The stored row of an entity whose last event has left all windows would else say for ever that it is in them.
    Entities of which nothing was stored before are passed over unless they have events in a window.
    """
    since = end_us if start_us <= MIN_TIMESTAMP_US else start_us
    return since - windows_of(view).longest_us


def visible_us(view: FeatureView | StreamFeatureView, first_us: int, last_us: int) -> tuple[int, int]:
    """The event times `[start, end)`, in microseconds, that labels of the times `[first_us, last_us]` may see.

    No label sees what comes after the last of them, nor what has expired, or left all windows, for the first.
    """
    if view.aggregations:
        longest_us = windows_of(view).longest_us
    else:
        longest_us = min(view.ttl_us, _EVER_US) if view.ttl_us is not None else _EVER_US
    return first_us - longest_us, last_us + 1


def windows_schema(view: FeatureView) -> pa.Schema:
    """Of what `windows_of_entities` makes."""
    keys = [pa.field(entity.join_key, storage_type(entity.dtype)) for entity in view.entities]
    features = [pa.field(field.name, storage_type(field.dtype)) for field in view.fields]
    return pa.schema([*keys, *features, *(pa.field(name, pa.int64()) for name in (EVENT_TS, CREATED_TS))])


def windows_of_entities(
    view: FeatureView, rows: pa.Table, entities: NDArray[np.int32], firsts: NDArray[np.int64], end_us: int
) -> pa.Table:
    """The row of each entity at a time.

    Args:
        view: whose windows.
        rows: events, checked.
        entities: (n,) their entities' numbers, from 0.
        firsts: an event of each entity.
        end_us: the time.
    """
    fields = [field.name for field in view.fields]
    ends = np.full(len(firsts), end_us)
    columns = [one_array(rows[key].take(pa.array(firsts))) for key in view.join_keys]
    columns += windows_of_labels(view, rows, entities, np.arange(len(firsts), dtype=np.int32), ends, fields)
    times = pa.array(ends)
    return pa.table([*columns, times, times], schema=windows_schema(view))


def windows_of_labels(
    view: FeatureView | StreamFeatureView,
    rows: pa.Table,
    entities: NDArray[np.int32],
    label_entities: NDArray[np.int32],
    label_us: NDArray[np.int64],
    fields: Sequence[str],
) -> list[pa.Array]:
    """The windows of labels.

    Args:
        view: whose windows.
        rows: (n,) events, checked, in any order; sums of floats depend on the order of the source in their last bits.
        entities: (n,) the events' entities, from 0.
        label_entities: (m,) the labels' entities; one that no event has, such as -1, has the windows of no events.
        label_us: (m,) the labels' times, microseconds.
        fields: names of windows.

    Returns:
        per field (m,) values, as `rows.storage_type`.
    """
    columns = {}
    for name, dtype in view.event_columns.items():
        values, nulls = numpy_values(one_array(rows[name]), dtype)
        columns[name] = values, np.zeros(len(values), bool) if nulls is None else nulls
    created = rows[CREATED_TS].to_numpy() if view.history is not None and view.history.created_timestamp else None
    events = Events(entities.astype(np.intp), rows[EVENT_TS].to_numpy(), columns, created)
    found = windows_at(windows_of(view), events, label_entities.astype(np.intp), label_us, fields)
    return [_as_storage(*found[name], view.field(name).dtype) for name in fields]


def _as_storage(found: NDArray[Any], nulls: NDArray[np.bool_], dtype: DType) -> pa.Array:
    if dtype.element is None:
        return pa.array(found, storage_type(dtype), mask=nulls)
    lengths = np.fromiter(map(len, found), np.int64, len(found))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    lists = found.reshape(-1) if dtype.length is not None else np.concatenate([*found, np.zeros(0, dtype.numpy)])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(lists, storage_type(dtype.element)))
