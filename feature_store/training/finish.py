"""Joined rows → rows of a training set: what a client would be served, from the columns that an engine has gathered.

Defaults, placeholders and on-demand functions are those of serving (`online/service.py`, `online/transforms.py`); only
whole columns are filled where a client fills single values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.arrow.labels import label_values
from feature_store.arrow.rows import one_array
from feature_store.arrow.types import numpy_values, served_values, storage_type
from feature_store.engines.join import Finished
from feature_store.errors import DataError
from feature_store.online.arrow import arrow_type
from feature_store.online.columns import ComputedColumn, PrunedColumn
from feature_store.online.transforms import decides_absence, run_transform, shown_input

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.definitions.dtypes import DType
    from feature_store.online.columns import TransformInput
    from feature_store.online.service import CompiledService

    Mask = np.ndarray[Any, np.dtype[np.bool_]]
    Outputs = tuple[dict[str, np.ndarray[Any, Any]], Mask]


class ServedColumns:
    """See engines.join.Finish.

    Args:
        service: what is served.
        labels: the schema of the label rows; `where` names them.

    Attributes:
        wanted: per view the fields that must be joined, in the order of `joined`.
        requests: the fields that are taken from the label rows.

    Raises:
        DataError: a label column has the name of a feature.
    """

    def __init__(self, service: CompiledService, labels: pa.Schema, where: str) -> None:
        self._service, self._where = service, where
        self.features: Sequence[str] = service.names
        for name in service.names:
            if name in labels.names:
                hint = f'rename one: the column, or the feature, view[["{name}"]].rename({{"{name}": "…"}})'
                raise DataError(f"{where}: column {name}", expected="a name that no feature has", got=name, hint=hint)
        self.wanted = _wanted(service)
        self._places = {
            origin: i
            for i, origin in enumerate((view, name) for view, fields in self.wanted.items() for name in fields)
        }
        self.requests: dict[str, TransformInput] = {
            item.name: item
            for transform in service.transforms.values()
            for item in transform.inputs
            if item.stored is None and not (item.default is not None and item.name not in labels.names)
        }
        fields = [pa.field(name, arrow_type(column.dtype)) for name, column in service.columns.items()]
        self.schema = pa.schema([*labels, *fields])

    def __call__(self, labels: pa.RecordBatch, joined: Sequence[pa.Array], first: int) -> Finished:
        """See Finish."""
        results: dict[str, Outputs] = {}
        features, missing = [], []
        for name, column in self._service.columns.items():
            if isinstance(column, ComputedColumn):
                if column.transform not in results:
                    results[column.transform] = self._run(column.transform, labels, joined, first)
                outputs, absent = results[column.transform]
                values = pa.array(outputs[column.output], storage_type(column.dtype), mask=absent)
            elif isinstance(column, PrunedColumn):
                values = pa.nulls(len(labels), storage_type(column.dtype))
            else:
                values = joined[self._places[self._service.origins[name]]]
            missing.append(values.null_count)
            features.append(served_values(_filled(values, column.dtype, column.default), column.dtype))
        return Finished(pa.RecordBatch.from_arrays([*labels.columns, *features], schema=self.schema), missing)

    def check(self, labels: pa.RecordBatch, first: int) -> None:
        """See Finish."""
        for item in self.requests.values():
            self._request_column(item, labels, first)

    def _run(self, name: str, labels: pa.RecordBatch, joined: Sequence[pa.Array], first: int) -> Outputs:
        transform = self._service.transforms[name]
        inputs, shown = {}, {}
        absent = np.zeros(len(labels), bool)
        for item, origin in zip(transform.inputs, transform.plan.inputs, strict=True):
            if item.stored is None:
                values = self._request_column(item, labels, first)
            else:
                values = joined[self._places[origin.view, origin.feature]]
            nulls = values.is_null().to_numpy(zero_copy_only=False)
            if decides_absence(transform.plan, item):
                absent |= nulls
            shown[item.name] = nulls.copy()  # Arrow's memory, which a function must not change
            inputs[item.name] = shown_input(item, _as_functions_see(values, item.dtype), nulls)
        return run_transform(transform, inputs, shown, len(labels)), absent

    def _request_column(self, item: TransformInput, labels: pa.RecordBatch, first: int) -> pa.Array:
        if item.name not in labels.schema.names:
            return pa.nulls(len(labels), storage_type(item.dtype))
        where = f"{self._where}: column {item.name}"
        values = one_array(label_values(pa.chunked_array([labels[item.name]]), item.dtype, where, first=first))
        if values.null_count and item.default is None:
            row = first + int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
            hint = "a request must carry it: fill the column, or give the request field a default"
            raise DataError(f"{where}, row {row}", expected=str(item.dtype), got="null", hint=hint)
        return values


def _wanted(service: CompiledService) -> dict[str, list[str]]:
    stored = [
        service.origins[name]
        for name, column in service.columns.items()
        if not isinstance(column, (ComputedColumn, PrunedColumn))
    ]
    for transform in service.transforms.values():
        stored += [(item.view, item.feature) for item in transform.plan.inputs if item.view]
    wanted: dict[str, list[str]] = {}
    for view, feature in dict.fromkeys(stored):
        wanted.setdefault(view, []).append(feature)
    return wanted


def _as_functions_see(values: pa.Array, dtype: DType) -> np.ndarray[Any, Any] | list[Any]:
    """As `shown_input` takes them."""
    if dtype.width is not None:
        return numpy_values(values, dtype).values
    return dtype.from_stored(values.to_pylist())


def _filled(values: pa.Array, dtype: DType, default: Any) -> pa.Array:
    if default is None or not values.null_count:
        return values
    return pc.coalesce(values, pa.scalar(dtype.to_stored(default), storage_type(dtype)))
