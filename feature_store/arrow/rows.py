"""Converts the rows of a source to the declared types, and separates invalid rows, with the reason.

`types` decides which values fit a declared type.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.aggregates.windows import EARLIEST_EVENT_US, LATEST_EVENT_US
from feature_store.arrow.conversions import Mask, null_mask
from feature_store.arrow.encoded import CsvText
from feature_store.arrow.plain import plain_batch, plain_type
from feature_store.arrow.types import can_fit, fit, numpy_values, storage_type
from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, DType, Timestamp
from feature_store.definitions.expected import unexpected
from feature_store.definitions.expressions.derived import Derivation
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.field import Field
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.errors import DataError
from feature_store.online.batch import RowBatch

# Names of columns of checked rows that no join key or field can have.
EVENT_TS, CREATED_TS, SEQUENCE = "event ts", "created ts", "place in source"
_SHOWN = 200  # characters of a value: enough to recognize it


class SourceColumns(NamedTuple):
    """The columns that a view takes from a source.

    Attributes:
        types: the declared type of each join key and field, by name.
        event_timestamp: the column of event times.
        created_timestamp: the column of creation times, or None.
        expecting: for events, the fields with expected values. Rows with other values do not fit.
        derivation: for events, the derived columns, which are computed from the others. None: there are none.
    """

    types: dict[str, DType]
    event_timestamp: str
    created_timestamp: str | None
    expecting: tuple[Field, ...] = ()
    derivation: Derivation | None = None

    @property
    def names(self) -> list[str]:
        """The names of all columns."""
        created = [self.created_timestamp] if self.created_timestamp is not None else []
        return [*self.types, self.event_timestamp, *created]

    @property
    def checked(self) -> dict[str, DType]:
        """The types of the columns of checked rows, by name."""
        return self.types | (self.derivation.types if self.derivation is not None else {})


class Checked(NamedTuple):
    """The rows of a batch after the check.

    Attributes:
        good: the valid rows, in the declared types (`checked_schema`).
        bad: the invalid rows, unchanged, with a further column `reason`.
    """

    good: pa.RecordBatch
    bad: pa.RecordBatch


def source_columns(
    view: FeatureView | StreamFeatureView, schema: pa.Schema, where: str, *, pushed: bool = False
) -> SourceColumns:
    """The columns that a view takes from data: its fields, or the columns of the events that it aggregates.

    Args:
        view: the view.
        schema: the schema of the data.
        where: names the data in an error.
        pushed: whether the rows are pushed. Pushed rows may lack the created timestamp.

    Raises:
        DataError: a column is missing, or its type cannot fit.
    """
    fields = view.event_columns if view.aggregations else {field.name: field.dtype for field in view.fields}
    derivation = _derivation(view)
    if derivation is not None:
        declared = dict(derivation.columns)
        read = dict.fromkeys([*(name for name in fields if name in declared), *derivation.inputs])
        fields = {name: declared[name] for name in read}
    types = {entity.join_key: entity.dtype for entity in view.entities} | fields
    event = view.history.event_timestamp if view.history is not None else "event_timestamp"
    created = view.history.created_timestamp if view.history is not None else "created_timestamp"
    if pushed and created not in schema.names:
        created = None
    times = {event: Timestamp} | ({created: Timestamp} if created is not None else {})
    for name, dtype in (types | times).items():
        refuse_column(f"{where}: column {name}", name, dtype, schema)
    return SourceColumns(types, event, created, _expecting(view), derivation)


def _derivation(view: FeatureView | StreamFeatureView) -> Derivation | None:
    """The derived columns of a view's events. None: there are none."""
    return view.source.derivation if isinstance(view, StreamFeatureView) and view.source.derive else None


def _expecting(view: FeatureView | StreamFeatureView) -> tuple[Field, ...]:
    """The fields of a view's events that have expected values."""
    if not view.aggregations or view.source is None:
        return ()
    return tuple(field for field in view.source.fields if field.of_values)


def checked_schema(columns: SourceColumns) -> pa.Schema:
    """The schema of checked rows."""
    fields = [pa.field(name, storage_type(dtype)) for name, dtype in columns.checked.items()]
    return pa.schema([*fields, *(pa.field(name, pa.int64()) for name in (EVENT_TS, CREATED_TS, SEQUENCE))])


def check(batch: pa.RecordBatch, columns: SourceColumns, keys: list[str], first: int) -> Checked:
    """Split a batch into valid and invalid rows.

    Args:
        batch: rows of the source.
        columns: the columns to take, from `source_columns`.
        keys: the join keys. They must not be null.
        first: the place of the batch's first row in the source.
    """
    batch = plain_batch(batch)
    reasons: dict[int, str] = {}
    fitted: list[pa.Array] = []
    for name, dtype in columns.types.items():
        values, bad = fit(batch.column(name), dtype)
        if name in keys:
            bad |= null_mask(values)
        _explain(reasons, bad, name, str(dtype), batch)
        fitted.append(values)
    for field in columns.expecting:
        found, nulls = numpy_values(fitted[list(columns.types).index(field.name)], field.dtype)
        _explain(reasons, unexpected(found, nulls, field), field.name, field.of_values, batch)
    events, bad = fit(batch.column(columns.event_timestamp), Timestamp)
    _explain(reasons, bad | null_mask(events), columns.event_timestamp, str(Timestamp), batch)
    fitted += _derived(columns, fitted, events, reasons)
    created = events
    if columns.created_timestamp is not None:
        created, bad = fit(batch.column(columns.created_timestamp), Timestamp)
        _explain(reasons, bad, columns.created_timestamp, str(Timestamp), batch)
        created = pc.coalesce(created, events)
    sequence = pa.array(np.arange(first, first + len(batch)))
    good = pa.RecordBatch.from_arrays([*fitted, events, created, sequence], schema=checked_schema(columns))
    places = sorted(reasons)
    if places:
        fits = np.ones(len(batch), bool)
        fits[places] = False
        good = good.filter(pa.array(fits))
    bad_rows = batch.take(pa.array(places, pa.int64()))
    about = "reason"
    while about in batch.schema.names:
        about += "_"
    return Checked(good, bad_rows.append_column(about, pa.array([reasons[i] for i in places], pa.string())))


def _derived(
    columns: SourceColumns, fitted: list[pa.Array], events: pa.Array, reasons: dict[int, str]
) -> list[pa.Array]:
    """The derived columns, of fitted columns and event times. A row that has no such column gets a reason."""
    if columns.derivation is None:
        return []
    known = {}
    for (name, dtype), column in zip(columns.types.items(), fitted, strict=True):
        values, nulls = numpy_values(column, dtype)
        known[name] = values, np.zeros(len(values), bool) if nulls is None else nulls
    found, failed = columns.derivation.computed(known, events.fill_null(0).to_numpy(zero_copy_only=False))
    for name, of_column in failed.items():
        for place, reason in of_column.items():
            reasons.setdefault(place, f"{name}: {reason}"[:_SHOWN])
    types = columns.derivation.types
    return [pa.array(values, storage_type(types[name]), mask=nulls) for name, (values, nulls) in found.items()]


def check_events(batch: pa.RecordBatch, columns: SourceColumns, keys: list[str], first: int) -> Checked:
    """`check` for events. An event whose time no window can contain is invalid, too."""
    good, bad = check(batch, columns, keys, first)
    times = good[EVENT_TS].to_numpy()
    outside = (times < EARLIEST_EVENT_US) | (times > LATEST_EVENT_US)
    if not outside.any():
        return Checked(good, bad)
    rows = plain_batch(batch).take(pa.array(good[SEQUENCE].to_numpy()[outside] - first))
    reason = f"{columns.event_timestamp}: expected an event between 1970-01-02 and 2106-02-07"
    more = rows.append_column(bad.schema.names[-1], pa.array([reason] * len(rows)))
    together = pa.Table.from_batches([bad, more]).combine_chunks().to_batches()[0]
    return Checked(good.filter(pa.array(~outside)), together)


def within(batch: pa.RecordBatch, columns: SourceColumns, start_us: int, end_us: int) -> pa.RecordBatch:
    """The rows with an event time in `[start_us, end_us)`, and the rows whose event time is null or does not fit."""
    if start_us <= MIN_TIMESTAMP_US and end_us > MAX_TIMESTAMP_US:
        return batch
    events, bad = fit(batch.column(columns.event_timestamp), Timestamp)
    times = events.fill_null(start_us).to_numpy()
    inside = bad | null_mask(events) | (times >= start_us) & (times < end_us)
    return batch if inside.all() else batch.filter(pa.array(inside))


def to_row_batch(rows: pa.RecordBatch | pa.Table, view: FeatureView) -> RowBatch:
    """Checked rows in the form that the online store takes."""
    column = {name: one_array(rows.column(name)) for name in rows.schema.names}
    return RowBatch(
        keys={entity.join_key: numpy_values(column[entity.join_key], entity.dtype).values for entity in view.entities},
        event_ts=column[EVENT_TS].to_numpy(),
        created_ts=column[CREATED_TS].to_numpy(),
        columns={field.name: numpy_values(column[field.name], field.dtype) for field in view.fields},
    )


# -- whether a column can fit at all --------------------------------------------------------------------------------


def refuse_column(where: str, name: str, dtype: DType, schema: pa.Schema) -> None:
    """Check that data has exactly one column of a name, with a type whose values can fit the declared type.

    Args:
        where: names the column in an error.
        name: the name of the column.
        dtype: the declared type.
        schema: the schema of the data.

    Raises:
        DataError: there is no such column, there are several, or its type cannot fit.
    """
    if name not in schema.names:
        near = difflib.get_close_matches(name, schema.names, n=3) or schema.names
        raise DataError(where, expected=f"a column of {dtype}", got="none", hint=f"there are {', '.join(near)}")
    if schema.names.count(name) > 1:
        raise DataError(where, expected="one column of that name", got=str(schema.names.count(name)))
    found = schema.field(name).type
    if isinstance(found, CsvText) and dtype.element is not None:
        hint = "text, such as that of a CSV file or of a folder's name, has no arrays: read them from a Parquet file"
        raise DataError(where, expected=f"values of {dtype}", got="text", hint=hint)
    if not can_fit(plain_type(found), dtype):
        raise DataError(where, expected=f"values of {dtype}", got=f"a column of {found}", hint=_hint(plain_type(found)))


def _hint(found: pa.DataType) -> str:
    """A hint for a column whose type fits no declared type."""
    if isinstance(found, pa.BaseExtensionType):
        return f"store it as {found.storage_type}, if that is what it means"
    if pa.types.is_binary(found) or pa.types.is_large_binary(found) or pa.types.is_fixed_size_binary(found):
        return "decode it: text is a column of strings in UTF-8"
    if pa.types.is_struct(found) or pa.types.is_map(found) or pa.types.is_union(found):
        return "store what is wanted of it as a column of its own"
    if pa.types.is_duration(found) or pa.types.is_time(found) or pa.types.is_interval(found):
        return "store it as a number, of seconds say"
    return ""


# -- one column -----------------------------------------------------------------------------------------------------


def _explain(reasons: dict[int, str], bad: Mask, name: str, expected: str, batch: pa.RecordBatch) -> None:
    for i in np.flatnonzero(bad).tolist():
        if i not in reasons:
            reasons[i] = f"{name}: expected {expected}, got {shown(batch.column(name)[i])[:_SHOWN]}"


def shown(value: pa.Scalar) -> str:
    """Render any Arrow scalar, including values that Python cannot represent."""
    if not value.is_valid:
        return "null"
    if isinstance(value, pa.ExtensionScalar):
        return shown(value.value)
    try:
        return repr(value.as_py())
    except (ValueError, OverflowError):  # a time outside the range of datetime, or text that is not UTF-8
        if isinstance(value, pa.ListScalar):  # fixed and large lists too
            return f"[{', '.join(shown(item) for item in value.values[:_SHOWN])}]"
        if pa.types.is_date32(value.type):
            return str(value.cast(pa.int32()))
        is_text = pa.types.is_string(value.type) or pa.types.is_large_string(value.type)
        return str(value.cast(pa.binary() if is_text else pa.int64()))


def one_array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    if not isinstance(values, pa.ChunkedArray):
        return values
    return values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
