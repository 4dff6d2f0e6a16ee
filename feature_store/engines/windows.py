"""Windows of events for all engines: at the times of labels, and of all entities as of the end of an interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from feature_store.aggregates.at_times import Events, windows_at
from feature_store.aggregates.windows import compile_windows
from feature_store.definitions.dtypes import MIN_TIMESTAMP_US
from feature_store.engines.rows import CREATED_TS, EVENT_TS, numpy_values, one_array, storage_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from feature_store.aggregates.windows import Windows
    from feature_store.definitions.dtypes import DType
    from feature_store.definitions.feature_view import FeatureView
    from feature_store.definitions.stream_view import StreamFeatureView

    Values = tuple[NDArray[Any], NDArray[np.bool_]]


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


def windows_schema(view: FeatureView) -> pa.Schema:
    """Of what `windows_of_entities` makes."""
    keys = [pa.field(entity.join_key, storage_type(entity.dtype)) for entity in view.entities]
    features = [pa.field(field.name, storage_type(field.dtype)) for field in view.fields]
    return pa.schema([*keys, *features, *(pa.field(name, pa.int64()) for name in (EVENT_TS, CREATED_TS))])


def windows_of_entities(
    view: FeatureView, rows: pa.Table, entities: NDArray[np.int32], firsts: NDArray[np.int64], end_us: int
) -> pa.Table:
    """A row of each entity as of a time.

    Args:
        view: whose windows.
        rows: events, checked.
        entities: (n,) their entities' numbers, from 0.
        firsts: an event of each entity.
        end_us: the time.
    """
    fields = [field.name for field in view.fields]
    ends = np.full(len(firsts), end_us)
    found = values_at(view, rows, entities, np.arange(len(firsts), dtype=np.int32), ends, fields)
    columns = [one_array(rows[key].take(pa.array(firsts))) for key in view.join_keys]
    columns += [as_storage(found[field.name], field.dtype) for field in view.fields]
    times = pa.array(ends)
    return pa.table([*columns, times, times], schema=windows_schema(view))


def values_at(
    view: FeatureView | StreamFeatureView,
    rows: pa.Table,
    entities: NDArray[np.int32],
    label_entities: NDArray[np.int32],
    label_us: NDArray[np.int64],
    fields: Sequence[str],
) -> dict[str, Values]:
    """The windows of labels.

    Args:
        view: whose windows.
        rows: events, checked.
        entities: (n,) their entities' numbers.
        label_entities, label_us: (m,) the labels.
        fields: names of windows.
    """
    columns = {}
    for name, dtype in view.event_columns.items():
        values, nulls = numpy_values(one_array(rows[name]), dtype)
        columns[name] = values, np.zeros(len(values), bool) if nulls is None else nulls
    created = rows[CREATED_TS].to_numpy() if view.history is not None and view.history.created_timestamp else None
    events = Events(entities.astype(np.intp), rows[EVENT_TS].to_numpy(), columns, created)
    return windows_at(windows_of(view), events, label_entities.astype(np.intp), label_us, fields)


def as_storage(values: Values, dtype: DType) -> pa.Array:
    """Values of a window as `rows.storage_type`."""
    found, nulls = values
    if dtype.element is None:
        return pa.array(found, storage_type(dtype), mask=nulls)
    lengths = np.fromiter(map(len, found), np.int64, len(found))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = np.concatenate(found.tolist()) if len(found) else np.array([], dtype.numpy)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, storage_type(dtype.element)))
