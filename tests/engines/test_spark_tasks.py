"""The code of Spark's tasks, run without Spark against slow oracles: latest rows, parts, packed batches, errors."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from feature_store import errors
from feature_store.arrow.rows import CREATED_TS, EVENT_TS, SEQUENCE
from feature_store.engines.spark.entities import latest_rows, parts_of
from feature_store.engines.spark.packed import SCHEMA, Packed, received, split, to_arrow, unpack
from feature_store.engines.spark.task_errors import ErrorCarrier, raised_by_a_task
from feature_store.errors import FeatureStoreError

INTEGERS = st.sampled_from([-(2**63), -1, 0, 1, 2**53, 2**53 + 1, 2**63 - 1])
TEXTS = st.sampled_from(["", "a", "A", "ä", "a\x00", "a\u0308"])
TIMES = st.integers(-2, 2)
ERRORS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, FeatureStoreError) and kind is not FeatureStoreError
]


@st.composite
def keyed_rows(draw: st.DrawFn) -> pa.RecordBatch:
    """Rows with keys `a` (integers), `b` (text) and `c`, in any order."""
    rows = draw(st.lists(st.tuples(INTEGERS, TEXTS, st.integers(0, 1), TIMES, TIMES), min_size=1, max_size=30))
    places = draw(st.permutations(range(len(rows))))
    a, b, c, event, created = zip(*rows, strict=True)
    columns = {
        "a": pa.array(a, pa.int64()),
        "b": pa.array(b),
        "c": pa.array(c, pa.int32()),
        EVENT_TS: pa.array(event, pa.int64()),
        CREATED_TS: pa.array(created, pa.int64()),
        SEQUENCE: pa.array(places, pa.int64()),
    }
    return pa.record_batch(columns)


KEYS = st.sampled_from([["a"], ["b"], ["b", "a"], ["c", "b", "a"]])


@given(keyed_rows(), KEYS)
def test_the_latest_row_of_each_entity_is_kept(rows: pa.RecordBatch, keys: list[str]) -> None:
    expected: dict[Any, Any] = {}
    for row in rows.to_pylist():
        key = tuple(row[name] for name in keys)
        order = row[EVENT_TS], row[CREATED_TS], row[SEQUENCE]
        if key not in expected or order > expected[key][0]:
            expected[key] = order, row
    found = latest_rows(rows, keys).to_pylist()
    assert sorted(found, key=repr) == sorted((row for _, row in expected.values()), key=repr)


def slow_part(key: tuple[Any, ...], parts: int) -> int:
    mixed = 0
    for value in key:
        number = zlib.crc32(value.encode()) if isinstance(value, str) else value % 2**64
        mixed = (mixed ^ number) * 0x9E3779B97F4A7C15 % 2**64
        mixed ^= mixed >> 32
    return mixed % parts


@given(keyed_rows(), KEYS, st.integers(1, 1000))
def test_the_part_of_an_entity_does_not_depend_on_the_process(
    rows: pa.RecordBatch, keys: list[str], parts: int
) -> None:
    expected = [slow_part(tuple(row[name] for name in keys), parts) for row in rows.to_pylist()]
    assert parts_of(rows, keys, parts).tolist() == expected


@pytest.mark.parametrize("keys", [range(10_000), range(0, 80_000, 8), [i << 32 for i in range(10_000)]], ids=str)
def test_parts_are_of_about_one_size(keys: Any) -> None:
    for column in (pa.array(keys, pa.int64()), pa.array([str(key) for key in keys])):
        counts = np.bincount(parts_of(pa.record_batch({"a": column}), ["a"], 7), minlength=7)
        assert 0.9 < counts.min() * 7 / 10_000 < counts.max() * 7 / 10_000 < 1.1


@given(keyed_rows(), st.data())
def test_rows_come_out_of_their_parts_as_they_went_in(rows: pa.RecordBatch, data: st.DataObject) -> None:
    parts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows))), np.int64)
    sent = to_arrow([*split(rows, parts, 7), Packed(2, 8, b"counts")])
    assert ", ".join(f"{field.name} {field.type}" for field in sent.schema) == SCHEMA.replace("int,", "int32,")
    found = list(received(iter([sent])))
    assert [(part, tag, value.to_pybytes()) for part, tag, value in found[-1:]] == [(2, 8, b"counts")]
    for part, tag, value in found[:-1]:
        assert tag == 7
        assert unpack(value, rows.schema).equals(rows.filter(pa.array(parts == part)))
    assert [part for part, _, _ in found[:-1]] == sorted(set(parts.tolist()))


def test_of_no_rows_nothing_is_sent() -> None:
    nothing = pa.record_batch({"a": pa.array([], pa.int64())})
    sent = to_arrow(list(split(nothing, np.array([], np.int64), 7)))
    assert len(sent) == 0
    assert list(received(iter([sent]))) == []


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_that_a_task_raises_reaches_the_driver_with_all_its_attributes(kind: type[FeatureStoreError]) -> None:
    attributes = {name: f'{name}\n}} ] "quoted"' for name in inspect.signature(FeatureStoreError).parameters}
    error = kind(**attributes)

    def failing(_: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        raise error
        yield

    with pytest.raises(RuntimeError) as raised:
        list(ErrorCarrier(failing).run(iter([])))
    found = raised_by_a_task(f"Traceback …\nRuntimeError: {raised.value}\n\n\tat org.apache.spark [JVM]\n")
    assert type(found) is kind
    assert vars(found) == vars(error)
    assert str(found) == str(error)


def test_other_errors_are_none_of_ours() -> None:
    assert raised_by_a_task("java.lang.OutOfMemoryError: Java heap space") is None
