from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from feature_store import Bool, Field, Float32, Float64, Int32, Int64, KafkaSource, String, Timestamp
from feature_store.aggregates.windows import CLOCK_SKEW_US, EARLIEST_EVENT_US, LATEST_EVENT_US
from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, DType, to_microseconds
from feature_store.errors import DataError
from feature_store.streaming.decoder import FUTURE, MALFORMED, EventBatch, Rejection, without_future
from feature_store.streaming.formats.json_messages import JsonDecoder
from feature_store.testing.formats import messages_of

FIELDS = {"i32": Int32, "i64": Int64, "f32": Float32, "f64": Float64, "flag": Bool, "text": String, "at": Timestamp}
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
NOW_S = 1_700_000_000


def source_of(unit: str = "ms") -> KafkaSource:
    schema = [Field(name, dtype) for name, dtype in FIELDS.items()]
    return KafkaSource("clicks", topic="clicks", event_timestamp="ts", timestamp_unit=unit, schema=schema)


def decoded(messages: list[bytes | None], unit: str = "ms") -> EventBatch:
    return JsonDecoder(source_of(unit)).decode(messages_of(messages))


# -- the slow way ---------------------------------------------------------------------------------------------------


def refuse(text: str) -> Any:
    raise ValueError(text)


def finite(text: str) -> float:
    return float(text) if np.isfinite(float(text)) else refuse(text)


def time_of(value: Any, unit: str) -> int:
    if isinstance(value, str):
        try:
            found = to_microseconds(datetime.fromisoformat(value))
        except ValueError:
            raise DataError("time") from None
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if math.isinf(value * UNITS[unit]):
            raise DataError("time")
        found = round(value * UNITS[unit])
    else:
        raise DataError("time")
    if not MIN_TIMESTAMP_US <= found <= MAX_TIMESTAMP_US:
        raise DataError("time")
    return found


def value_of(value: Any, dtype: DType, unit: str) -> Any:
    if dtype is Timestamp:
        return time_of(value, unit)
    if dtype in (Int32, Int64) and isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)  # a larger float stands for several integers
    return dtype.fit(value, "")


def event_of(message: bytes | None, unit: str) -> dict[str, Any] | None:
    """The event of a message, decoded member by member; None: the message is no event."""
    try:
        document = json.loads((message or b"").decode(), parse_constant=refuse, parse_float=finite)
        if not isinstance(document, dict) or document.get("ts") is None:
            return None
        event: dict[str, Any] = {"ts": time_of(document["ts"], unit)}
        for name, dtype in FIELDS.items():
            value = document.get(name)
            event[name] = None if value is None else value_of(value, dtype, unit)
    except (ValueError, DataError):
        return None
    return event if EARLIEST_EVENT_US <= event["ts"] <= LATEST_EVENT_US else None


def events_of(batch: EventBatch) -> dict[int, dict[str, Any]]:
    events: dict[int, dict[str, Any]] = {}
    for i, place in enumerate(batch.places.tolist()):
        members = {name: None if nulls[i] else values[i] for name, (values, nulls) in batch.columns.items()}
        events[place] = {"ts": batch.event_us[i]} | members
    return events


# -- random messages ------------------------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**60), 2**60).map(float),
    st.sampled_from([2.0**63, -(2.0**63), 2**53 + 1, 2**24 + 1, 3.5e38, 2**31, -(2**31), 1e300]),
    st.text(max_size=5),
    st.sampled_from(["2024-02-29T12:00:00Z", "2024-02-30", "2024-01-01", "0001-01-01T00:00:00+23:59", "T", ""]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
)
fitting: dict[str, st.SearchStrategy[Any]] = {
    "ts": st.one_of(
        st.integers(NOW_S, NOW_S + 1000), st.floats(NOW_S, NOW_S + 1000), st.just("2024-01-01T00:00:00.5Z")
    ),
    "i32": st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)),
    "i64": st.integers(-(2**63), 2**63 - 1),
    "f32": st.one_of(st.none(), st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-9, 9)),
    "f64": st.floats(allow_nan=False, allow_infinity=False),
    "flag": st.booleans(),
    "text": st.one_of(st.none(), st.text(max_size=5)),
    "at": st.one_of(st.none(), st.integers(0, NOW_S)),
    "unknown": scalars,
}
good = st.fixed_dictionaries({"ts": fitting["ts"]}, optional={k: v for k, v in fitting.items() if k != "ts"})
nearly = st.tuples(good, st.sampled_from([*fitting, "ts"]), scalars).map(lambda found: found[0] | {found[1]: found[2]})


def dumped(document: Any) -> bytes:
    return json.dumps(document).encode()


messages = st.one_of(
    good.map(dumped),
    nearly.map(dumped),
    scalars.map(dumped),
    st.binary(max_size=6),
    st.none(),
    st.sampled_from(
        [
            b'{"ts": 1700000000},{"ts": 1700000000}',
            b'{"ts": NaN}',
            b"\xff",
            b"",
            b"{}",
            b'{"ts": 1e400}',
            b'{"ts": 1700000000, "f64": 1e400}',
        ]
    ),
)


@given(st.lists(messages, max_size=12), st.sampled_from(list(UNITS)))
@example([], "s")
@example([b'{"ts": 1, "i64": 9007199254740991.0}', b'{"ts": 1, "i64": 9007199254740992.0}'], "s")
@settings(max_examples=400)
def test_a_batch_is_what_its_messages_are_one_by_one(batch: list[bytes | None], unit: str) -> None:
    wanted = {i: event_of(message, unit) for i, message in enumerate(batch)}
    found = decoded(batch, unit)
    assert events_of(found) == {i: event for i, event in wanted.items() if event is not None}
    assert set(found.rejected) == {i for i, event in wanted.items() if event is None}
    assert all(rejection.kind == MALFORMED and rejection.reason for rejection in found.rejected.values())


@given(st.lists(good, min_size=1, max_size=8))
def test_columns_of_one_type_are_judged_as_a_whole(documents: list[dict[str, Any]]) -> None:
    found = decoded([dumped(document) for document in documents], "s")
    assert events_of(found) == {
        i: event for i, document in enumerate(documents) if (event := event_of(dumped(document), "s")) is not None
    }
    for name, (values, nulls) in found.columns.items():
        assert values.dtype == FIELDS[name].numpy
        assert (nulls.dtype, len(values), len(nulls)) == (np.dtype(bool), len(found), len(found))


# -- one by one -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "where", "reason"),
    [
        (None, "message", "expected a message with a value, got no value"),
        (b"{", "message", "expected a JSON object: unexpected end of data"),
        (b"[1]", "message", "expected a JSON object, got [1]"),
        (b"{}", "ts", "expected a time, got null"),
        (b'{"ts": true}', "ts", "expected a time: ISO 8601, or a number since 1970, got True"),
        (b'{"ts": "yesterday"}', "ts", "got 'yesterday'"),
        (b'{"ts": 0}', "ts", "expected 1970-01-02T00:00:00+00:00 to 2106-"),
        (
            b'{"ts": 1700000000000, "i32": 2147483648}',
            "i32",
            "expected an int in [-2**31, 2**31), got 2147483648 (int)",
        ),
        (b'{"ts": 1700000000000, "i64": 1.5}', "i64", "expected an int in [-2**63, 2**63), got 1.5 (float)"),
        (b'{"ts": 1700000000000, "f64": 9007199254740993}', "f64", "expected a number that float64 holds"),
        (b'{"ts": 1700000000000, "f32": 1e39}', "f32", "expected a number within float32's range"),
        (b'{"ts": 1700000000000, "flag": 1}', "flag", "expected a bool, got 1 (int)"),
        (b'{"ts": 1700000000000, "text": 1}', "text", "expected a str, got 1 (int)"),
    ],
)
def test_a_reason_says_where_expected_and_got(message: bytes | None, where: str, reason: str) -> None:
    rejection = decoded([message]).rejected[0]
    assert (rejection.kind, rejection.where) == (MALFORMED, where)
    assert reason in rejection.reason


@pytest.mark.parametrize(
    ("text", "unit", "time_us"),
    [
        ("1700000000.25", "s", 1_700_000_000_250_000),
        ("1700000000250", "ms", 1_700_000_000_250_000),
        ("1700000000250.125", "ms", 1_700_000_000_250_125),
        ("1700000000250001", "us", 1_700_000_000_250_001),
        ('"2023-11-14T22:13:20.25"', "ms", 1_700_000_000_250_000),
        ('"2023-11-14T23:13:20.250+01:00"', "ms", 1_700_000_000_250_000),
        ('"2023-11-14T22:13:20.25Z"', "s", 1_700_000_000_250_000),
    ],
)
def test_event_times(text: str, unit: str, time_us: int) -> None:
    assert decoded([b'{"ts": %s}' % text.encode()], unit).event_us.tolist() == [time_us]


def test_events_of_the_future_are_told_apart() -> None:
    now = datetime(2024, 1, 1, tzinfo=UTC)
    limit = now + timedelta(microseconds=CLOCK_SKEW_US)
    times = [now, limit, limit + timedelta(microseconds=1)]
    batch = decoded([b"{", *(dumped({"ts": time.isoformat(), "i32": 1}) for time in times)])
    found = without_future(batch, to_microseconds(now))
    assert found.places.tolist() == [1, 2]
    assert found.columns["i32"][0].tolist() == [1, 1]
    assert found.rejected[0].kind == MALFORMED
    reason = "expected at most 10 s ahead of the clock, got 2024-01-01T00:00:10.000001+00:00"
    assert found.rejected[3] == Rejection(FUTURE, "event time", reason)


def test_a_schema_may_gain_members_and_a_message_may_lack_some() -> None:
    found = decoded([b'{"ts": 1700000000000, "new": {"a": [1]}, "i64": 7}'])
    assert not found.rejected
    assert found.columns["i64"][0].tolist() == [7]
    assert all(nulls.tolist() == [name != "i64"] for name, (_, nulls) in found.columns.items())


@given(st.lists(st.one_of(st.none(), st.integers(-3, 3), st.sampled_from(["x", 1.5, 2**40])), max_size=12))
def test_a_value_that_is_not_expected_is_no_event(members: list[Any]) -> None:
    fields = [Field("n", Int32, min=-1, max=2), Field("text", String, allowed=["a", "b"])]
    decoder = JsonDecoder(KafkaSource("s", topic="t", event_timestamp="ts", schema=fields))
    texts = ["a" if i % 3 else "c" if i % 2 else None for i in range(len(members))]
    documents = [
        {"ts": 1_700_000_000_000, "n": member, "text": text} for member, text in zip(members, texts, strict=True)
    ]
    found = decoder.decode(messages_of(dumped(document) for document in documents))
    fits = [
        (n is None or (type(n) is int and -1 <= n <= 2)) and text in (None, "a", "b")
        for n, text in zip(members, texts, strict=True)
    ]
    assert found.places.tolist() == [i for i, fit in enumerate(fits) if fit]
    for i, rejection in found.rejected.items():
        if type(members[i]) is int and -3 <= members[i] < -1:
            assert rejection.reason == f"expected at least -1; at most 2, got {members[i]}"
