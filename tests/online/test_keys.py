from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from feature_store.definitions import Int32, Int64, String
from feature_store.errors import RequestError
from feature_store.online import keys
from feature_store.online.codec import object_column
from tests.online.worlds import plan_of

DTYPES = {Int32: st.integers(-(2**31), 2**31 - 1), Int64: st.integers(-(2**63), 2**63 - 1), String: st.text(max_size=8)}


@st.composite
def entity_keys(draw: st.DrawFn):
    dtypes = draw(st.lists(st.sampled_from(list(DTYPES)), min_size=1, max_size=3))
    return dtypes, draw(st.lists(st.tuples(*(DTYPES[dtype] for dtype in dtypes)), min_size=1, max_size=20))


@given(entity_keys())
def test_entity_keys_are_unambiguous(world) -> None:
    dtypes, rows = world
    columns = [
        object_column(column) if dtype == String else np.array(column, dtype.numpy)
        for dtype, column in zip(dtypes, zip(*rows, strict=True), strict=True)
    ]
    encoded = keys.encode(dtypes, columns)
    assert [keys.decode(dtypes, key) for key in encoded] == rows
    assert len(set(encoded)) == len(set(rows))
    width = keys.fixed_width(dtypes)
    assert width is None or {len(key) for key in encoded} == {width}


@given(entity_keys())
def test_keys_of_values_are_those_of_columns(world) -> None:
    dtypes, rows = world
    values = [list(column) for column in zip(*rows, strict=True)]
    columns = [
        object_column(column) if dtype == String else np.array(column, dtype.numpy)
        for dtype, column in zip(dtypes, values, strict=True)
    ]
    wanted = keys.encode(dtypes, columns)
    if String in dtypes:
        assert keys.encode_values(dtypes, values) == wanted
    else:
        assert keys.pack(dtypes, values) == b"".join(wanted)


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=300), max_size=9))
def test_texts_are_written_as_utf8_or_refused(texts: list[str]) -> None:
    try:
        wanted = [text.encode() for text in texts]
    except UnicodeEncodeError:
        with pytest.raises(RequestError):
            keys.encode_values([String], [texts])
    else:
        assert keys.encode_values([String], [texts]) == wanted
        of_two = [len(text).to_bytes(4, "big") + text for text in wanted]
        assert keys.encode_values([String, String], [texts, texts]) == [text + text for text in of_two]


def test_golden_keys() -> None:
    plan = plan_of(project="movielens", version=3)
    group = next(group for group in plan.groups if group.name == "user+movie")
    (key,) = keys.encode([Int64, Int64], [np.array([1]), np.array([-2])])
    assert keys.row_prefix("movielens", 0, group) + key == (
        b"{movielens:0}r:user+movie:3:\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xfe"
    )
    assert keys.variable_prefix("movielens", 2, group, "affinity") == b"{movielens:2}v:user+movie:3:affinity:"
    assert keys.plan_key("movielens") == b"{movielens:0}plan"
    assert keys.epoch_key("movielens", 1) == b"{movielens:1}epoch"


def test_buckets_do_not_change_between_versions() -> None:
    assert keys.buckets_of([b"a", b"b", b"c", b"d"], 7) == [4, 4, 0, 2]
