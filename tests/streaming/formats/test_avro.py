"""Avro: many records at once give what fastavro gives one by one; schemas of a registry; what is no Avro."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal as PythonDecimal
from typing import Any

import fastavro
import numpy as np
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from hypothesis import given, settings, strategies as st

from feature_store import (
    AvroFormat,
    Bool,
    Bytes,
    Date,
    Decimal,
    Field,
    Float32,
    Float64,
    Int32,
    Int64,
    KafkaSource,
    String,
    Timestamp,
)
from feature_store.definitions.dtypes import DType, to_microseconds
from feature_store.definitions.json_members import typed_member
from feature_store.errors import DataError, DefinitionError, StreamError
from feature_store.streaming.decoder import EventBatch, decoder_of
from feature_store.testing.formats import FormatSuite, messages_of
from tests.schema_registry_server import SchemaRegistryServer, schema_registry_server

AT = {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}
EVENT = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "at", "type": ["null", "long"]},
        {"name": "id", "type": ["null", "long"]},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
        {"name": "name", "type": ["string", "null"]},
        {"name": "score", "type": ["null", "double"]},
        {"name": "flag", "type": ["null", "boolean"]},
    ],
}


def bytes_of(schema: Any, document: Mapping[str, Any]) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), document)
    return stream.getvalue()


def prefixed(schema_id: int, value: bytes) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + value


def record(*fields: Mapping[str, Any], name: str = "Event") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [AT, *fields]}


def decoded(format: AvroFormat, fields: list[Field], values: list[bytes | None]) -> EventBatch:
    source = KafkaSource("events", topic="events", event_timestamp="at", schema=fields, format=format)
    return decoder_of(source).decode(messages_of(values))


@pytest.fixture
def registry() -> Iterator[SchemaRegistryServer]:
    with schema_registry_server() as server:
        yield server


class TestAvro(FormatSuite):
    garbage = (b"\x02", b"\xff" * 40, b"\x02\x80")

    @pytest.fixture
    def format(self) -> AvroFormat:
        return AvroFormat(schema=EVENT)

    def encoded(self, document: Mapping[str, Any]) -> bytes:
        return bytes_of(EVENT, {"tags": ["a", "b"]} | document)


class TestAvroOfRegistry(FormatSuite):
    garbage = (b"\x00\x00\x00", b"\x01\x00\x00\x00\x01", b'{"at": 1}', b"\0\0\0\x7f\x7f\x02")

    @pytest.fixture
    def format(self, registry: SchemaRegistryServer) -> AvroFormat:
        # Confluent's own serializer registers the schema.
        self.serialize = AvroSerializer(SchemaRegistryClient({"url": registry.url}), json.dumps(EVENT))
        return AvroFormat(registry=registry.url)

    def encoded(self, document: Mapping[str, Any]) -> bytes:
        about = SerializationContext("events", MessageField.VALUE)
        found: bytes = self.serialize({"tags": ["a", "b"]} | document, about)
        return found


# -- the slow way ---------------------------------------------------------------------------------------------------

TEXTS = st.text(max_size=12)
LONGS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.integers(-200, 200), st.sampled_from([2**55, 2**56, -(2**55) - 1])
)
TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
PLAIN: list[tuple[Any, Any]] = [
    ("boolean", st.booleans()),
    ("int", st.integers(-(2**31), 2**31 - 1)),
    ("long", LONGS),
    ("float", st.floats(width=32, allow_nan=False)),
    ("double", st.floats(allow_nan=False)),
    ("string", TEXTS),
    ("bytes", st.binary(max_size=9)),
    ({"type": "enum", "name": "E", "symbols": ["a", "b", "c"]}, st.sampled_from("abc")),
    ({"type": "fixed", "name": "F", "size": 3}, st.binary(min_size=3, max_size=3)),
    ({"type": "int", "logicalType": "date"}, st.dates()),
    ({"type": "long", "logicalType": "timestamp-micros"}, TIMES),
    ({"type": "long", "logicalType": "timestamp-millis"}, TIMES.map(lambda at: at.replace(microsecond=5000))),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        st.decimals(-9999, 9999, places=2, allow_nan=False),
    ),
]
TYPES = [Bool, Int32, Int64, Float32, Float64, String, Bytes, Date, Timestamp, Decimal(12, 3)]


@st.composite
def schemas(draw: st.DrawFn) -> tuple[Any, Any]:
    """A type of a field, and a strategy of its values."""
    kind, values = draw(st.sampled_from(PLAIN))
    form = draw(st.sampled_from(["plain", "null first", "null last", "union", "array", "map", "record"]))
    if form == "null first":
        return ["null", kind], st.one_of(st.none(), values)
    if form == "null last":
        return [kind, "null"], st.one_of(st.none(), values)
    if form == "union":
        return ["string", "null", "long", "boolean"], st.one_of(TEXTS, st.none(), LONGS, st.booleans())
    if form == "array":
        return {"type": "array", "items": kind}, st.lists(values, max_size=4)
    if form == "map":
        return {"type": "map", "values": kind}, st.dictionaries(TEXTS, values, max_size=3)
    if form == "record":
        inner = {
            "type": "record",
            "name": "Inner",
            "fields": [{"name": "x", "type": kind}, {"name": "y", "type": TREE}],
        }
        return inner, st.builds(lambda x, y: {"x": x, "y": y}, values, TREES)
    return kind, values


TREE = {
    "type": "record",
    "name": "Tree",
    "fields": [{"name": "n", "type": "long"}, {"name": "left", "type": ["null", "Tree"]}],
}
TREES = st.recursive(
    st.builds(lambda n: {"n": n, "left": None}, LONGS),
    lambda t: st.builds(lambda n, left: {"n": n, "left": left}, LONGS, t),
)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Any, list[Field], list[dict[str, Any]]]:
    kinds = draw(st.lists(schemas(), min_size=1, max_size=4))
    # Named types stand in a schema once.
    names = draw(st.permutations(range(len(kinds))))
    kinds = [kind for i, kind in enumerate(kinds) if "name" not in json.dumps(kind[0]) or i == names[0]]
    schema = record(*({"name": f"c{i}", "type": kind} for i, (kind, _) in enumerate(kinds)))
    fields = [
        Field(f"c{i}", draw(st.sampled_from(TYPES))) for i in range(len(kinds) + 1) if draw(st.booleans()) or not i
    ]
    one = st.fixed_dictionaries({"at": TIMES_OF_EVENTS} | {f"c{i}": values for i, (_, values) in enumerate(kinds)})
    return schema, fields, draw(st.lists(one, max_size=12))


TIMES_OF_EVENTS = st.integers(0, 10**9).map(lambda s: datetime(2001, 1, 1, tzinfo=UTC) + timedelta(seconds=s))


def slowly(schema: Any, fields: list[Field], values: list[bytes]) -> dict[int, dict[str, Any]]:
    """The events of messages, one by one, by fastavro."""
    events = {}
    for place, value in enumerate(values):
        document: Any = fastavro.schemaless_reader(io.BytesIO(value), fastavro.parse_schema(schema), None)
        event = {"at": to_microseconds(document["at"])}
        for field in fields:
            column, nulls, bad = typed_member([document.get(field.name)], field.dtype, 1000)
            if bad:
                break
            event[field.name] = None if nulls[0] else column.tolist()[0]
        else:
            events[place] = event
    return events


def quickly(batch: EventBatch) -> dict[int, dict[str, Any]]:
    events = {}
    for i, place in enumerate(batch.places.tolist()):
        columns = {name: None if nulls[i] else values.tolist()[i] for name, (values, nulls) in batch.columns.items()}
        events[place] = {"at": int(batch.event_us[i])} | columns
    return events


@given(batches())
@settings(deadline=None)
def test_many_records_at_once_are_what_they_are_one_by_one(case: tuple[Any, list[Field], list[dict[str, Any]]]) -> None:
    schema, fields, documents = case
    values = [bytes_of(schema, document) for document in documents]
    assert quickly(decoded(AvroFormat(schema=schema), fields, list(values))) == slowly(schema, fields, values)


@given(batches(), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255), st.booleans()), min_size=12, max_size=12))
@settings(deadline=None)
def test_damaged_records_harm_no_other(
    case: tuple[Any, list[Field], list[dict[str, Any]]], damages: list[tuple[int, int, bool]]
) -> None:
    schema, fields, documents = case
    good = [bytes_of(schema, document) for document in documents]
    values = []
    for value, (place, byte, cut) in zip(good, damages, strict=False):
        at = place % len(value)
        values += [value[:at] if cut else value[:at] + bytes([byte]) + value[at + 1 :], value]
    found = quickly(decoded(AvroFormat(schema=schema), fields, list(values)))
    whole = slowly(schema, fields, good)
    assert {place // 2: event for place, event in found.items() if place % 2} == whole
    for place, event in found.items():
        # What is accepted is what its bytes say.
        assert slowly(schema, fields, [values[place]]) == {0: event}


# -- what is refused ------------------------------------------------------------------------------------------------


def test_a_value_of_another_type_is_a_dead_letter_with_the_reason() -> None:
    schema = record({"name": "n", "type": ["string", "long", {"type": "array", "items": "long"}]})
    values = [bytes_of(schema, {"at": 1_700_000_000_000, "n": n}) for n in (7, "seven", [7])]
    found = decoded(AvroFormat(schema=schema), [Field("n", Int64)], [*values, values[0] + b"x", values[0][:-1]])
    assert found.columns["n"][0].tolist() == [7]
    assert [(place, one.where, one.reason) for place, one in sorted(found.rejected.items())] == [
        (1, "n", "expected an int in [-2**63, 2**63), got 'seven' (str)"),
        (2, "n", "expected an int in [-2**63, 2**63), got an array"),
        (3, "message", "it is not Avro of its schema: bytes follow the record"),
        (4, "message", "it is not Avro of its schema: its bytes end within a number"),
    ]


def test_times_of_every_unit() -> None:
    units = {"millis": 1_000, "micros": 1_000_000, "nanos": 1_000_000_000}
    for unit, per_second in units.items():
        kind = {"type": "long", "logicalType": f"timestamp-{unit}"}
        schema = {"type": "record", "name": "E", "fields": [{"name": n, "type": kind} for n in ("at", "day", "n")]}
        plain = json.loads(json.dumps(schema).replace("logicalType", "kept"))
        values: list[bytes | None] = [bytes_of(plain, {"at": 1_700_000_000 * per_second, "day": 0, "n": 0})]
        fields = [Field("day", Date)]
        found = decoded(AvroFormat(schema=schema), fields, values)
        assert found.event_us.tolist() == [1_700_000_000_000_000]
        assert found.columns["day"][0].tolist() == [0]
        refused = decoded(AvroFormat(schema=schema), [Field("n", Int64)], values)
        assert "got datetime" in refused.rejected[0].reason


def test_decimals_and_dates() -> None:
    amount = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    schema = record({"name": "amount", "type": amount}, {"name": "day", "type": {"type": "int", "logicalType": "date"}})
    at = datetime(2026, 1, 1, tzinfo=UTC)
    value = bytes_of(schema, {"at": at, "amount": PythonDecimal("-12.34"), "day": date(2026, 1, 2)})
    found = decoded(AvroFormat(schema=schema), [Field("amount", Decimal(9, 3)), Field("day", Date)], [value])
    assert found.columns["amount"][0].tolist() == [-12_340]
    assert found.columns["day"][0].tolist() == [(date(2026, 1, 2) - date(1970, 1, 1)).days]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: AvroFormat(), "exactly one place"),
        (lambda: AvroFormat(registry="env:X", schema=EVENT), "exactly one place"),
        (lambda: AvroFormat(registry="https://me:secret@host"), "neither env:NAME nor a URL"),
        (lambda: AvroFormat(schema='"long"'), "an Avro schema of a record"),
        (lambda: AvroFormat(schema="{"), "it is not JSON"),
        (
            lambda: KafkaSource("s", topic="s", event_timestamp="at", schema=[Field("n", Int64)], format="arvo"),
            "'avro'",
        ),
        (lambda: KafkaSource("s", topic="s", event_timestamp="at", schema=[Field("n", Int64)], format=7), "a format"),
    ],
)
def test_a_format_that_cannot_be_is_refused_where_it_is_declared(make: Any, text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        make()
    assert text in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_schema_that_is_no_schema_is_refused() -> None:
    broken = {"type": "record", "name": "E", "fields": [{"name": "at", "type": "no-such-type"}]}
    with pytest.raises(DataError, match="not one of Avro"):
        decoded(AvroFormat(schema=broken), [Field("n", Int64)], [])


# -- a registry -----------------------------------------------------------------------------------------------------


def test_messages_of_several_schemas_follow_each_other(registry: SchemaRegistryServer) -> None:
    price = {"name": "price", "type": "int"}
    first = record({"name": "user", "type": "long"}, price)
    second = record({"name": "shop", "type": "string"}, {"name": "user", "type": ["null", "long"]})
    third = record({"name": "price", "type": ["null", "double"]}, {"name": "user", "type": "long"})
    ids = [registry.register("clicks-value", schema) for schema in (first, second, third)]
    at = datetime(2026, 1, 1, tzinfo=UTC)
    documents = [{"user": 1, "price": 2}, {"shop": "a", "user": None}, {"price": 2.5, "user": 3}]
    written = [
        prefixed(schema_id, bytes_of(schema, {"at": at} | document))
        for schema_id, schema, document in zip(ids, (first, second, third), documents, strict=True)
    ]
    values: list[bytes | None] = [written[i] for i in np.random.default_rng(1).integers(0, 3, 200).tolist()]
    fields = [Field("user", Int64), Field("price", Float64), Field("new", String)]
    found = decoded(AvroFormat(registry=registry.url), fields, values)
    assert not found.rejected
    which = [int.from_bytes((value or b"")[1:5], "big") - 1 for value in values]
    assert column(found, "user") == [[1, None, 3][i] for i in which]
    assert column(found, "price") == [[2.0, None, 2.5][i] for i in which]
    assert column(found, "new") == [None] * 200
    assert registry.reads == 3


def column(batch: EventBatch, name: str) -> list[Any]:
    values, nulls = batch.columns[name]
    return [None if null else value for value, null in zip(values.tolist(), nulls.tolist(), strict=True)]


def test_a_schema_may_refer_to_others(registry: SchemaRegistryServer) -> None:
    shop = {"type": "enum", "name": "Shop", "namespace": "a.b", "symbols": ["here", "there"]}
    registry.register("shop", shop)
    click = record({"name": "shop", "type": "a.b.Shop"})
    schema_id = registry.register(
        "clicks-value", click, references=[{"name": "a.b.Shop", "subject": "shop", "version": 1}]
    )
    value = prefixed(schema_id, bytes_of(record({"name": "shop", "type": shop}), {"at": 10**12, "shop": "there"}))
    found = decoded(AvroFormat(registry=registry.url), [Field("shop", String)], [value])
    assert column(found, "shop") == ["there"]


def test_a_schema_that_the_registry_lacks_or_that_is_of_another_type_is_the_reason(
    registry: SchemaRegistryServer,
) -> None:
    schema_id = registry.register("clicks-value", "{}", schemaType="JSON")
    format = AvroFormat(registry=registry.url)
    found = decoded(format, [Field("n", Int64)], [prefixed(schema_id, b"{}"), prefixed(99, b"\x02")])
    assert found.rejected[0].reason == f"schema {schema_id}: expected a schema of the type AVRO, got JSON"
    assert found.rejected[1].reason == "the Schema Registry has no schema 99"


def test_a_registry_that_does_not_answer_rejects_nothing(registry: SchemaRegistryServer) -> None:
    schema = record({"name": "n", "type": "long"})
    schema_id = registry.register("clicks-value", schema)
    value = prefixed(schema_id, bytes_of(schema, {"at": 10**12, "n": 7}))
    source = KafkaSource(
        "e", topic="e", event_timestamp="at", schema=[Field("n", Int64)], format=AvroFormat(registry=registry.url)
    )
    decoder = decoder_of(source)
    registry.fails = 503
    with pytest.raises(StreamError, match="HTTP 503"):
        decoder.decode(messages_of([value]))
    registry.fails = 0
    assert decoder.decode(messages_of([value])).columns["n"][0].tolist() == [7]
    registry.fails = 500  # a schema never changes, so that it is not asked for again
    assert len(decoder.decode(messages_of([value]))) == 1


def test_a_registry_that_is_down_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "http://me:hunter22@127.0.0.1:9")
    with pytest.raises(StreamError) as caught:
        decoded(AvroFormat(registry="env:WHERE"), [Field("n", Int64)], [prefixed(1, b"\x02")])
    assert "${WHERE}" in str(caught.value)
    assert "hunter22" not in str(caught.value)
    monkeypatch.delenv("WHERE")
    with pytest.raises(StreamError, match="the environment variable WHERE is not set"):
        decoded(AvroFormat(registry="env:WHERE"), [Field("n", Int64)], [])


@pytest.mark.parametrize("where", ["in the URL", "beside it"])
def test_the_user_and_password_come_from_the_environment(
    registry: SchemaRegistryServer, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    schema = record({"name": "n", "type": "long"})
    value = prefixed(registry.register("clicks-value", schema), bytes_of(schema, {"at": 10**12, "n": 7}))
    registry.user_info = "me:p@ss/word"
    fields = [Field("n", Int64)]
    with pytest.raises(StreamError, match="refuses the user and password"):
        decoded(AvroFormat(registry=f"{registry.url}/"), fields, [value])
    if where == "in the URL":
        monkeypatch.setenv("WHERE", registry.url.replace("://", "://me:p@ss/word@"))
    else:
        monkeypatch.setenv("WHERE", registry.url)
        monkeypatch.setenv("SCHEMA_REGISTRY_USER_INFO", "me:p@ss/word")
    assert len(decoded(AvroFormat(registry="env:WHERE"), fields, [value])) == 1


def test_every_type_of_a_column_has_a_member(registry: SchemaRegistryServer) -> None:
    wanted: dict[DType, Any] = {Bool: "boolean", Int32: "int", Float32: "float", String: "string", Bytes: "bytes"}
    schema = record(*({"name": f"c{i}", "type": kind} for i, kind in enumerate(wanted.values())))
    document = {"at": 10**12, "c0": True, "c1": 7, "c2": 1.5, "c3": "é", "c4": b"\x00\xff"}
    fields = [Field(f"c{i}", dtype) for i, dtype in enumerate(wanted)]
    found = decoded(AvroFormat(schema=schema), fields, [bytes_of(schema, document)])
    assert [column(found, field.name)[0] for field in fields] == [True, 7, 1.5, "é", b"\x00\xff"]
