"""The served log in Arrow: the columns of its records, and reading of its files.

A row of the log is a row of a request:

| column | |
|---|---|
| `request_id` | string; null when the caller gave none |
| `request_row` | int32, the number of the row in its request, from 0 |
| `served_at` | timestamp, microseconds, UTC: the time for which features were requested |
| `served_by` | string, the service |
| `served_version` | int64, the version of the serving plan |
| `served_plan` | string, the id of the prune plan that applied; null: all features were served |
| the join keys, then the fields that requests carried | of their declared types |
| the features | of their declared types: the served values, defaults included; null if no value was served |
| `served_status` | fixed-size binary: a byte for each feature, in their order, a `Status` code |
| the `log_fields` of callers | of the types that Arrow infers for each file; see `read_log` |

Columns with repeated values are stored as dictionaries. Reading decodes them.

The schema's metadata hold, under `feature_store.served`, a JSON document with the members `format`, `project`,
`service`, `version`, `plan`, `functions`, and `keys`, `request` and `features`, each `{name: type}` in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.arrow.reading import reading
from feature_store.arrow.rows import one_array
from feature_store.arrow.types import served_values, storage_type
from feature_store.definitions.dtypes import DType
from feature_store.errors import DataError, NotFoundError, RequestError
from feature_store.online.arrow import arrow_type
from feature_store.online.decode import RowValues, request_values, served_columns
from feature_store.online.entity_rows import is_scalar
from feature_store.online.joined_answers import JoinedAnswers
from feature_store.online.observer import Observed
from feature_store.online.status import Status

FORMAT = 1
REQUEST_ID, REQUEST_ROW, SERVED_AT, SERVED_BY = "request_id", "request_row", "served_at", "served_by"
SERVED_VERSION, SERVED_PLAN, SERVED_STATUS = "served_version", "served_plan", "served_status"
_METADATA = b"feature_store.served"
_UTC = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class About:
    """A description of records with one schema.

    Attributes:
        project, service: the project and the service that was served.
        version: the version of the serving plan.
        plan: the id of the prune plan. None: all features were served.
        keys, request, features: `{name: type}` of the join keys, the request fields and the features, in order.
        functions: for each on-demand view, the digest of the function that computed it. Empty in older logs.
    """

    project: str
    service: str
    version: int
    plan: str | None
    keys: dict[str, str]
    request: dict[str, str]
    features: dict[str, str]
    functions: dict[str, str] = field(default_factory=dict)

    @property
    def feature_types(self) -> dict[str, DType]:
        """The types of the features, by name."""
        return {name: DType.parse(text) for name, text in self.features.items()}

    def to_metadata(self) -> dict[bytes, bytes]:
        """The description as metadata of a schema."""
        return {_METADATA: orjson.dumps({"format": FORMAT} | asdict(self))}

    @classmethod
    def of(cls, schema: pa.Schema, where: str) -> About:
        """The inverse of `to_metadata`.

        Raises:
            DataError: the schema is not that of a served log in this format.
        """
        found = (schema.metadata or {}).get(_METADATA)
        document = orjson.loads(found) if found is not None else {}
        if document.pop("format", None) != FORMAT:
            raise DataError(where, expected=f"a log of what was served, format {FORMAT}", got="something else")
        return cls(**document)


class LogFile(NamedTuple):
    """A file of the log, and the description of its records."""

    path: Path
    about: About


# -- to Arrow ---------------------------------------------------------------------------------------------------------


def record_batch(requests: Sequence[Observed]) -> pa.RecordBatch:
    """Answered requests as rows of the log. All requests must be of the same compiled service.

    Raises:
        RequestError: a log field has a different length than its request, values of different types, or the name of
            another column.
        CorruptRowError: a stored row cannot be decoded.
        TransformError: an on-demand function failed.
    """
    responses = [request.response for request in requests if request.response is not None]
    response, rows = responses[0], JoinedAnswers([response.answer for response in responses])
    service = response.service
    keys, fields, features = rows.join_keys(), request_values(service, rows), served_columns(service, rows)
    about = About(
        service.plan.project,
        requests[0].service,
        response.plan_version,
        response.prune_plan,
        {name: str(dtype) for name, (dtype, _) in keys.items()},
        {name: str(dtype) for name, (dtype, _) in fields.items()},
        {name: str(column.dtype) for name, column in features.items()},
        response.transforms,
    )
    ids = pa.array([request.request_id for request in requests], pa.string())
    placed = _Placed()
    at_first = np.zeros(rows.count, np.int32)
    columns: dict[str, pa.Array] = {
        REQUEST_ID: placed.take(ids, np.repeat(np.arange(len(requests), dtype=np.int32), rows.sizes)),
        REQUEST_ROW: pa.array(np.concatenate([np.arange(size, dtype=np.int32) for size in rows.sizes])),
        SERVED_AT: pa.array(rows.times_us()).view(_UTC),
        SERVED_BY: placed.take(pa.array([about.service]), at_first),
        SERVED_VERSION: placed.take(pa.array([about.version]), at_first),
        SERVED_PLAN: placed.take(pa.array([about.plan], pa.string()), at_first),
    }
    _add(columns, {name: _typed(dtype, values, None) for name, (dtype, values) in (keys | fields).items()})
    _add(columns, {name: placed.served(column) for name, column in features.items()})
    columns[SERVED_STATUS] = _statuses(features, rows.count)
    _add(columns, _log_fields(requests, rows.sizes))
    return pa.RecordBatch.from_pydict(columns).replace_schema_metadata(about.to_metadata())


def _add(columns: dict[str, pa.Array], more: Mapping[str, pa.Array]) -> None:
    for name, column in more.items():
        if name in columns or name == SERVED_STATUS:
            hint = "rename it: the feature in its service, or the log field"
            raise RequestError(f"served log: {name}", expected="a name of its own", got="another column's", hint=hint)
        columns[name] = column


class _Placed:
    """Makes dictionary columns from values and places, so that no column is expanded to its full length.

    Columns with the same places share their indexes.
    """

    def __init__(self) -> None:
        self._indexes: dict[int, tuple[np.ndarray[Any, Any], pa.Array]] = {}

    def served(self, column: RowValues) -> pa.Array:
        """A feature's column with the served values."""
        values = _filled(column)
        return values if column.places is None else self.take(values, column.places)

    def take(self, values: pa.Array, places: np.ndarray[Any, Any]) -> pa.Array:
        """`values[places]`."""
        if pa.types.is_nested(values.type) or pa.types.is_boolean(values.type):  # Parquet has no dictionaries of them
            return values.take(self._index(places))
        if not values.null_count:
            return pa.DictionaryArray.from_arrays(self._index(places), values)
        is_there = values.is_valid().to_numpy(zero_copy_only=False)
        without_nulls = np.cumsum(is_there, dtype=np.int32) - np.int32(1)  # Parquet has no dictionaries with nulls
        index = pa.array(without_nulls[places], mask=~is_there[places])
        return pa.DictionaryArray.from_arrays(index, values.drop_null())

    def _index(self, places: np.ndarray[Any, Any]) -> pa.Array:
        found = self._indexes.get(id(places))
        if found is None:  # kept with the places, so that their id is not reused
            found = self._indexes[id(places)] = places, pa.array(places.astype(np.int32, copy=False))
        return found[1]


def _filled(column: RowValues) -> pa.Array:
    if column.status is None:
        return _typed(column.dtype, column.values, None)
    absent = column.status != Status.PRESENT
    if column.dtype.width is None:
        there = zip(column.values, absent.tolist(), strict=True)
        values = [column.default if gone else value for value, gone in there]
        return pa.array(values, arrow_type(column.dtype))
    if not absent.any():
        return _typed(column.dtype, column.values, None)
    if column.default is None:
        return _typed(column.dtype, column.values, absent)
    filled = np.array(column.values)
    filled[absent] = column.dtype.to_stored(column.default)
    return _typed(column.dtype, filled, None)


def _typed(dtype: DType, values: Any, absent: Any) -> pa.Array:
    """Numpy values (times in microseconds since 1970) as an Arrow array of the declared type."""
    arrow = arrow_type(dtype)
    if dtype.width is None:
        return pa.array(values, arrow)
    if dtype.element is not None:
        flat = served_values(
            pa.array(np.ascontiguousarray(values).reshape(-1), storage_type(dtype.element)), dtype.element
        )
        return pa.FixedSizeListArray.from_arrays(flat, type=arrow, mask=None if absent is None else pa.array(absent))
    return served_values(pa.array(values, storage_type(dtype), mask=absent), dtype)


def _statuses(features: Mapping[str, RowValues], count: int) -> pa.Array:
    """The status column. It is a dictionary, since few combinations occur: all PRESENT, or one view without a row."""
    found = {i: column.row_status() for i, column in enumerate(features.values())}
    each = {i: status for i, status in found.items() if status is not None}
    rows = count if each else 1
    packed = np.zeros((rows, len(features)), np.uint8)
    for i, status in each.items():
        packed[:, i] = status
    made = pa.FixedSizeBinaryArray.from_buffers(pa.binary(len(features)), rows, [None, pa.py_buffer(packed)])
    return made.dictionary_encode() if each else pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), made)


def _log_fields(requests: Sequence[Observed], sizes: Sequence[int]) -> dict[str, pa.Array]:
    names = dict.fromkeys(name for request in requests for name in request.log_fields or ())
    found = {}
    for name in names:
        values: list[Any] = []
        for request, size in zip(requests, sizes, strict=True):
            given = (request.log_fields or {}).get(name)
            values += [given] * size if is_scalar(given) else _as_many(name, given, size)
        try:
            found[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise RequestError(f"log field {name}", expected="values of one type", got=str(error)) from error
    return found


def _as_many(name: str, given: Any, size: int) -> list[Any]:
    values: list[Any] = given.tolist() if isinstance(given, np.ndarray) else list(given)
    if len(values) != size:
        expected = f"a value, or {size}, as the request has rows"
        raise RequestError(f"log field {name}", expected=expected, got=str(len(values)))
    return values


# -- from files -------------------------------------------------------------------------------------------------------


def log_files(path: Path, service: str | None = None, version: int | None = None) -> list[LogFile]:
    """The files of a log, sorted by name. Unfinished files are left out.

    Args:
        path: the folder of the log, or one file.
        service: only files of this service. None: of all services.
        version: only files of this version of the serving plan. None: of all versions.

    Raises:
        DataError: a file cannot be read, or is not a served log.
        NotFoundError: there is no such file.
    """
    paths = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    found = []
    for one in paths:
        if one.name.startswith("."):
            continue
        with reading(f"served log {one}"):
            about = About.of(pq.read_schema(one), f"served log {one}")
        if service in (None, about.service) and version in (None, about.version):
            found.append(LogFile(one, about))
    if not found:
        wanted = [f"of service {service}"] * (service is not None) + [f"of version {version}"] * (version is not None)
        expected = " ".join(["files", *wanted])
        raise NotFoundError(f"served log {path}", expected=expected, got="none", hint="was the log flushed?")
    return found


def read_log(files: Sequence[LogFile]) -> pa.Table:
    """All rows of files, with the columns of all files. A column that a file lacks is null.

    Callers choose the types of log fields, so files can differ in the type of a column. Such a column is read as a type
    that holds all values exactly, else as text. One caller's field then does not make other callers' records
    unreadable.

    Raises:
        DataError: a file cannot be read.
    """
    with reading(f"served log {files[0].path}"):
        tables = [plain(pq.read_table(file.path, partitioning=None)) for file in files]
        for name in dict.fromkeys(name for table in tables for name in table.column_names):
            tables = _of_one_type(tables, name)
        return pa.concat_tables(tables, promote_options="default").combine_chunks()


def _of_one_type(tables: list[pa.Table], name: str) -> list[pa.Table]:
    """The tables, with a column converted to one common type in all tables that have it."""
    found = {i: table[name] for i, table in enumerate(tables) if name in table.column_names}
    kinds = dict.fromkeys(column.type for column in found.values() if not pa.types.is_null(column.type))
    if len(kinds) < 2:
        return tables
    made = _cast_exactly(found, list(kinds)) or {i: _as_text(column) for i, column in found.items()}
    return [
        table.set_column(table.column_names.index(name), name, made[i]) if i in made else table
        for i, table in enumerate(tables)
    ]


def _cast_exactly(columns: Mapping[int, pa.ChunkedArray], kinds: Sequence[pa.DataType]) -> dict[int, Any] | None:
    """Columns converted to one type that holds all their values exactly. None: there is no such type."""
    try:
        schemas = [pa.schema([("", kind)]) for kind in kinds]
        one = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
        return {i: column.cast(one) for i, column in columns.items()}
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return None


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_nested(column.type):
        return column.cast(pa.string())
    texts = [None if value is None else orjson.dumps(value, default=str).decode() for value in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])


def one_feature_list(files: Sequence[LogFile], served: Mapping[str, DType] | None) -> About:
    """The description that fits all files. If several versions have the same features, that of the newest.

    Args:
        files: the files, at least one, all of one service.
        served: the expected features. None: the features of the newest version among the files.

    Raises:
        DataError: a file has other features. The error names the versions of such files.
    """
    newest = max(files, key=lambda file: file.about.version).about
    wanted = newest.features if served is None else {name: str(dtype) for name, dtype in served.items()}
    other = sorted({file.about.version for file in files if list(file.about.features.items()) != list(wanted.items())})
    if other:
        raise DataError(
            f"served log: service {newest.service}",
            expected=f"records of the features {f'of version {newest.version}' if served is None else 'served now'}",
            got=f"others, of version {', '.join(map(str, other))} of the serving plan",
            hint="take the records of one version, with its features: version=… or --version",
        )
    return newest


def functions_of(files: Sequence[LogFile]) -> dict[str, tuple[str, ...]]:
    """For each on-demand view, the digests of the functions that computed it, in the order of the files."""
    found: dict[str, dict[str, None]] = {}
    for file in files:
        for view, digest in file.about.functions.items():
            found.setdefault(view, {})[digest] = None
    return {view: tuple(digests) for view, digests in found.items()}


def plain(table: pa.Table) -> pa.Table:
    """A table with its dictionaries decoded."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields, table.schema.metadata))


def statuses_of(table: pa.Table, features: Sequence[str]) -> dict[str, np.ndarray[Any, np.dtype[np.uint8]]]:
    """For each feature, the Status codes of a log's rows: (n,) uint8.

    Args:
        table: rows of the log, without dictionaries.
        features: all features of the log, in order.
    """
    column, width = one_array(table[SERVED_STATUS]), len(features)
    data = np.frombuffer(column.buffers()[1], np.uint8)
    packed = data[column.offset * width : (column.offset + len(column)) * width].reshape(len(column), width)
    return {name: packed[:, i] for i, name in enumerate(features)}
