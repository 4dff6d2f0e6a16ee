"""Joined columns → rows of a training set, with the values that a client would be served.

Defaults, placeholders and on-demand functions are those of serving (`online/service.py`, `online/transforms.py`). The
only difference: this module fills whole columns, while a client fills single values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.arrow.labels import label_values
from feature_store.arrow.rows import one_array
from feature_store.arrow.types import numpy_values, served_values, storage_type
from feature_store.definitions.dtypes import DType
from feature_store.engines.join import Finished
from feature_store.errors import DataError
from feature_store.online.arrow import arrow_type
from feature_store.online.service import CompiledService
from feature_store.online.transforms import (
    CompiledTransform,
    TransformInput,
    decides_absence,
    run_transform,
    shown_input,
)

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Outputs = tuple[dict[str, np.ndarray[Any, Any]], Mask]


class ServedColumns:
    """Computes the features of a service from joined columns; see engines.join.Finish.

    Args:
        service: the service whose features the training set has.
        labels: the schema of the label rows.
        where: names the label rows in errors.

    Attributes:
        service: the service.
        places: the index in `joined` of each joined field `(view, feature)`.
        wanted: by view, the fields that must be joined, in the order of `joined`.
        requests: the request fields that are taken from the label rows, by name.

    Raises:
        DataError: a label column has the name of a feature.
    """

    def __init__(self, service: CompiledService, labels: pa.Schema, where: str) -> None:
        self.service, self._where = service, where
        self.features: Sequence[str] = service.names
        for name in service.names:
            if name in labels.names:
                hint = f'rename one: the column, or the feature, view[["{name}"]].rename({{"{name}": "…"}})'
                raise DataError(f"{where}: column {name}", expected="a name that no feature has", got=name, hint=hint)
        self.wanted = _wanted(service)
        self.places = {
            origin: i
            for i, origin in enumerate((view, name) for view, fields in self.wanted.items() for name in fields)
        }
        self.requests: dict[str, TransformInput] = {
            item.name: item
            for transform in service.transforms.values()
            for item in transform.inputs
            if item.column is None and not (item.default is not None and item.name not in labels.names)
        }
        fields = [pa.field(name, arrow_type(column.dtype)) for name, column in service.columns.items()]
        self.schema = pa.schema([*labels, *fields])

    def __call__(self, labels: pa.RecordBatch, joined: Sequence[pa.Array], first: int) -> Finished:
        """See Finish."""
        rows = _Rows(self, labels, joined, first)
        features, missing = [], []
        for column in self.service.columns.values():
            values = column.from_join(rows)
            missing.append(values.null_count)
            features.append(served_values(_filled(values, column.dtype, column.default), column.dtype))
        return Finished(pa.RecordBatch.from_arrays([*labels.columns, *features], schema=self.schema), missing)

    def check(self, labels: pa.RecordBatch, first: int) -> None:
        """See Finish."""
        for item in self.requests.values():
            self.request_column(item, labels, first)

    def request_column(self, item: TransformInput, labels: pa.RecordBatch, first: int) -> pa.Array:
        """A request field as a column of the label rows; all null if they lack the column.

        Raises:
            DataError: a value does not fit the field's type, or is null although the field has no default.
        """
        if item.name not in labels.schema.names:
            return pa.nulls(len(labels), storage_type(item.dtype))
        where = f"{self._where}: column {item.name}"
        values = one_array(label_values(pa.chunked_array([labels[item.name]]), item.dtype, where, first=first))
        if values.null_count and item.default is None:
            row = first + int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
            hint = "a request must carry it: fill the column, or give the request field a default"
            raise DataError(f"{where}, row {row}", expected=str(item.dtype), got="null", hint=hint)
        return values


class _Rows:
    """One batch of label rows with the fields that were joined to them; see `JoinedRows`."""

    def __init__(self, columns: ServedColumns, labels: pa.RecordBatch, joined: Sequence[pa.Array], first: int) -> None:
        self._columns, self._labels, self._joined, self._first = columns, labels, joined, first
        self._outputs: dict[str, Outputs] = {}

    def field(self, view: str, feature: str) -> pa.Array:
        """See JoinedRows."""
        return self._joined[self._columns.places[view, feature]]

    def output(self, view: str, output: str, dtype: DType) -> pa.Array:
        """See JoinedRows."""
        if view not in self._outputs:
            self._outputs[view] = self._run(self._columns.service.transforms[view])
        outputs, absent = self._outputs[view]
        return pa.array(outputs[output], storage_type(dtype), mask=absent)

    def nothing(self, dtype: DType) -> pa.Array:
        """See JoinedRows."""
        return pa.nulls(len(self._labels), storage_type(dtype))

    def _run(self, transform: CompiledTransform) -> Outputs:
        inputs, shown = {}, {}
        absent = np.zeros(len(self._labels), bool)
        for item in transform.inputs:
            if item.column is None:
                values = self._columns.request_column(item, self._labels, self._first)
            else:
                values = item.column.from_join(self)
            nulls = values.is_null().to_numpy(zero_copy_only=False)
            if decides_absence(transform.plan, item):
                absent |= nulls
            shown[item.name] = nulls.copy()  # a copy: a function must not change Arrow's memory
            inputs[item.name] = shown_input(item, _as_functions_see(values, item.dtype), nulls)
        return run_transform(transform, inputs, shown, len(self._labels)), absent


def _wanted(service: CompiledService) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for view, feature in dict.fromkeys(needed for column in service.columns.values() for needed in column.needs):
        wanted.setdefault(view, []).append(feature)
    return wanted


def _as_functions_see(values: pa.Array, dtype: DType) -> np.ndarray[Any, Any] | list[Any]:
    """Values of an input in the form that `shown_input` takes."""
    if dtype.width is not None:
        return numpy_values(values, dtype).values
    return dtype.from_stored(values.to_pylist())


def _filled(values: pa.Array, dtype: DType, default: Any) -> pa.Array:
    if default is None or not values.null_count:
        return values
    return pc.coalesce(values, pa.scalar(dtype.to_stored(default), storage_type(dtype)))
