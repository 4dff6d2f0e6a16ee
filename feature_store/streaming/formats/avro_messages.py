"""Decodes messages in Avro: with a Schema Registry, or all of one schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from feature_store.definitions.avro_format import AvroFormat
from feature_store.definitions.dtypes import DType, Timestamp
from feature_store.definitions.json_members import Typed, typed_member
from feature_store.definitions.source import KafkaSource
from feature_store.errors import DataError
from feature_store.streaming.decoder import Decoder
from feature_store.streaming.formats.avro_columns import Cursors, Read, Run, read_records
from feature_store.streaming.formats.avro_schema import as_datetimes, readers_of
from feature_store.streaming.formats.documents import LONGEST_REASON, NO_VALUE
from feature_store.streaming.formats.registries import opened_registry
from feature_store.streaming.formats.wire import PREFIX, UnknownSchemaError, schema_ids
from feature_store.streaming.messages import Message

Array = np.ndarray[Any, Any]
Fields = list[tuple[str, Read]]


@dataclass(frozen=True, slots=True)
class AvroMembers:
    """The members of messages. See `Members`.

    Attributes:
        count: the number of messages.
        runs: the values of each member, by name. Messages that no run has lack the member.
        rejected: the reason for each message that is not of the format, by place.
    """

    count: int
    runs: Mapping[str, Sequence[Run]]
    rejected: Mapping[int, str]

    def typed(self, name: str, dtype: DType, unit_us: int) -> Typed:
        """See Members."""
        runs = [run for run in self.runs.get(name, ()) if run.values is not None or run.refused]
        if len(runs) == 1 and len(runs[0].rows) == self.count and not runs[0].refused:
            return _typed(runs[0], dtype, unit_us)
        column, nulls, bad = typed_member([None] * self.count, dtype, unit_us)
        for run in runs:
            if run.refused:
                bad |= dict.fromkeys(run.rows.tolist(), f"expected {dtype.scalar.expected}, got {run.refused}")
                continue
            column[run.rows], nulls[run.rows], wrong = _typed(run, dtype, unit_us)
            bad |= {int(run.rows[i]): reason for i, reason in wrong.items()}
        return column, nulls, bad


class AvroDecoder(Decoder):
    """The decoder of AvroFormat.

    Raises:
        DataError: the schema of the format is not one of Avro.
        StreamError: the environment variable with the URL of the registry is not set.
    """

    def __init__(self, source: KafkaSource) -> None:
        super().__init__(source)
        assert isinstance(source.format, AvroFormat)
        self._wanted = {source.event_timestamp, *(field.name for field in source.fields)}
        registry, schema = source.format.registry, source.format.writer_schema
        self._registry = None if registry is None else opened_registry(registry)
        self._fixed: Fields = [] if schema is None else _checked_readers(schema)
        self._known: dict[int, Fields | str] = {}

    def check(self) -> str:
        """See Decoder."""
        return "" if self._registry is None else self._registry.check()

    def members(self, messages: Sequence[Message]) -> AvroMembers:
        """See Decoder."""
        values = [message.value() for message in messages]
        rejected = dict.fromkeys([i for i, value in enumerate(values) if value is None], NO_VALUE)
        known = [value or b"" for value in values] if rejected else values
        joined = b"".join(known)  # type: ignore[arg-type]  # none of them is None
        sizes = np.fromiter(map(len, known), np.int64, len(known))  # type: ignore[arg-type]
        ends = np.cumsum(sizes)
        starts = ends - sizes
        runs: dict[str, list[Run]] = {}
        for fields, rows, begins in self._groups(joined, starts, ends, rejected):
            cursors = Cursors(joined, begins, ends[rows])
            for name, found in read_records(fields, cursors, np.arange(len(rows)), self._wanted).items():
                runs.setdefault(name, []).extend(_at(run, rows) for run in found)
            rejected |= {int(rows[i]): f"it is not Avro of its schema: {why}" for i, why in cursors.bad.items()}
        return AvroMembers(len(values), runs, rejected)

    def _groups(
        self, joined: bytes, starts: Array, ends: Array, rejected: dict[int, str]
    ) -> list[tuple[Fields, Array, Array]]:
        """The messages of each schema: its fields, their places, and where their records begin."""
        if self._registry is None:
            rows = np.delete(np.arange(len(starts)), list(rejected))
            return [(self._fixed, rows, starts[rows])]
        ids = schema_ids(joined, starts, ends, rejected)
        groups = []
        for schema_id in np.unique(ids[ids >= 0]).tolist():
            rows, fields = np.flatnonzero(ids == schema_id), self._fields(schema_id)
            if isinstance(fields, str):
                rejected |= dict.fromkeys(rows.tolist(), fields[:LONGEST_REASON])
            else:
                groups.append((fields, rows, starts[rows] + PREFIX))
        return groups

    def _fields(self, schema_id: int) -> Fields | str:
        """The fields of a schema, or the reason why its messages cannot be decoded."""
        if schema_id not in self._known:
            assert self._registry is not None
            try:
                schema = self._registry.schema(schema_id, "AVRO")
                self._known[schema_id] = readers_of(schema.text, schema.referenced)
            except UnknownSchemaError as error:
                # It may be registered later, so that it is asked for again.
                return str(error)
            except ValueError as error:
                self._known[schema_id] = f"schema {schema_id}: {error}"
        return self._known[schema_id]


def _checked_readers(schema: str) -> Fields:
    try:
        return readers_of(schema)
    except ValueError as error:
        raise DataError("AvroFormat.schema", problem=str(error)) from None


def _at(run: Run, rows: Array) -> Run:
    return Run(rows[run.rows], run.values, run.unit_us, run.refused)


def _typed(run: Run, dtype: DType, unit_us: int) -> Typed:
    values: list[Any] = run.values or []
    if not run.unit_us:
        return typed_member(values, dtype, unit_us)
    if dtype is not Timestamp:
        return typed_member(as_datetimes(values, run.unit_us), dtype, unit_us)
    if run.unit_us < 1:
        return typed_member([round(value * run.unit_us) for value in values], dtype, 1)
    return typed_member(values, dtype, int(run.unit_us))
