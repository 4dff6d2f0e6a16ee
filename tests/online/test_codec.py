from __future__ import annotations

from datetime import date
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, strategies as st

from feature_store.definitions import Array, Entity, FeatureView, Field, ParquetSource
from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, SCALARS, DType, from_microseconds
from feature_store.errors import CorruptRowError, DataError
from feature_store.online.batch import RowBatch, Values
from feature_store.online.codec import biased, decode_variable, encode_segments, encode_variables, unbiased
from feature_store.online.layout import RowLayout
from feature_store.online.rows import StoredRows
from tests.online.worlds import NOW_US, batch, every_type, numbers, plan_of

TIMES = st.integers(MIN_TIMESTAMP_US, MAX_TIMESTAMP_US)
INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = {
    "Bool": st.booleans(),
    "Int8": st.integers(-(2**7), 2**7 - 1),
    "Int16": st.integers(-(2**15), 2**15 - 1),
    "Float16": st.floats(width=16),
    "Bytes": st.binary(),
    "Date": st.dates(),
    "Decimal(10, 2)": st.decimals("-99999999.99", "99999999.99", places=2),
    "Int32": st.integers(-(2**31), 2**31 - 1),
    "Int64": INT64,
    "Float32": st.floats(width=32),
    "Float64": st.floats(),
    "String": st.text(),
    "Timestamp": TIMES.map(from_microseconds),
}
MOVIE = Entity("movie", join_key="movie_id")
WITHOUT_CREATED = ParquetSource("v.parquet", event_timestamp="at")
SOURCES = [None, WITHOUT_CREATED, ParquetSource("v.parquet", event_timestamp="at", created_timestamp="made")]


def layout(*views: FeatureView) -> RowLayout:
    return RowLayout(plan_of(views=views).groups[0])


def test_golden_bytes_of_a_row() -> None:
    view = FeatureView(
        "v",
        entities=[MOVIE],
        schema=[
            Field("flag", SCALARS["Bool"]),
            Field("year", SCALARS["Int32"]),
            Field("id", SCALARS["Int64"]),
            Field("gone", SCALARS["Float32"]),
            Field("pair", Array(SCALARS["Float32"], 2)),
            Field("title", SCALARS["String"]),
        ],
    )
    of_v = layout(view).segments["v"]
    row = {
        "movie_id": 1,
        "event_ts": 1,
        "created_ts": -1,
        "flag": True,
        "year": 1999,
        "id": -2,
        "pair": [1.0, -2.0],
        "title": "é",
    }
    rows = batch(view, [row])
    segments = encode_segments(of_v, rows)
    assert segments.tobytes().hex(" ") == " ".join(
        [
            "80 00 00 00 00 00 00 01",  # event_ts 1
            "7f ff ff ff ff ff ff ff",  # created_ts -1
            "08",  # field 3, gone, is null
            "fe ff ff ff ff ff ff ff",  # id -2
            "cf 07 00 00",  # year 1999
            "00 00 00 00",  # gone
            "00 00 80 3f 00 00 00 c0",  # pair 1.0, -2.0
            "01",  # flag
        ]
    )
    (variable,) = encode_variables(of_v, rows, segments)
    assert variable.hex(" ") == "80 00 00 00 00 00 00 01 7f ff ff ff ff ff ff ff 02 00 00 00 c3 a9"
    assert layout(view).empty[4:] == bytes(of_v.size)
    assert layout(view).fingerprint.hex() == "1db04d64"


def test_golden_bytes_of_a_row_without_a_creation_time() -> None:
    schema = [Field("year", SCALARS["Int32"]), Field("title", SCALARS["String"])]
    view = FeatureView("v", entities=[MOVIE], source=WITHOUT_CREATED, schema=schema)
    of_v = layout(view).segments["v"]
    rows = batch(view, [{"movie_id": 1, "event_ts": 1, "created_ts": -1, "year": None, "title": "é"}])
    segments = encode_segments(of_v, rows)
    assert segments.tobytes().hex(" ") == "80 00 00 00 00 00 00 01 01 00 00 00 00"
    (variable,) = encode_variables(of_v, rows, segments)
    assert variable.hex(" ") == "80 00 00 00 00 00 00 01 02 00 00 00 c3 a9"
    assert layout(view).fingerprint.hex() == "fa6ecaf8"


def test_golden_bytes_of_narrow_numbers_decimals_dates_and_bytes() -> None:
    names = ("Int8", "Float16", "Int16", "Date", "Decimal(10, 2)", "Bytes", "Array(Bytes, 2)")
    schema = [Field(f"f{i}", DType.parse(name)) for i, name in enumerate(names)]
    view = FeatureView("v", entities=[MOVIE], source=WITHOUT_CREATED, schema=schema)
    of_v = layout(view).segments["v"]
    values = [-2, 1.5, 258, date(1969, 12, 31), Decimal("12.30"), b"\xff", [b"", b"a"]]
    row = {"movie_id": 1, "event_ts": 1, "created_ts": 1} | {f"f{i}": value for i, value in enumerate(values)}
    rows = batch(view, [row])
    segments = encode_segments(of_v, rows)
    assert segments.tobytes().hex(" ") == " ".join(
        [
            "80 00 00 00 00 00 00 01",  # event_ts 1
            "00",  # no nulls
            "ce 04 00 00 00 00 00 00",  # Decimal 12.30: 1230 hundredths
            "ff ff ff ff",  # Date 1969-12-31: day -1
            "00 3e",  # Float16 1.5
            "02 01",  # Int16 258
            "fe",  # Int8 -2
        ]
    )
    (variable,) = encode_variables(of_v, rows, segments)
    assert variable.hex(" ") == "80 00 00 00 00 00 00 01 01 00 00 00 0a 00 00 00 ff 00 00 00 00 01 00 00 00 61"


@given(times=st.lists(TIMES, min_size=1))
def test_the_order_of_encoded_times_is_the_order_of_times(times: list[int]) -> None:
    stored = biased(np.array(times))
    packed = stored.astype(">u8").tobytes()
    encoded = [packed[i : i + 8] for i in range(0, len(packed), 8)]
    assert sorted(encoded) == [encoded[i] for i in np.argsort(times, kind="stable")]
    assert unbiased(stored).tolist() == times
    assert not any(value == bytes(8) for value in encoded)


@st.composite
def views_with_rows(draw: st.DrawFn) -> tuple[FeatureView, list[dict[str, object]]]:
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=12))
    fields = []
    strategies = {}
    for i, name in enumerate(names):
        shape = draw(st.sampled_from(["scalar", "fixed", "ragged"]))
        length = draw(st.integers(1, 4))
        scalar = DType.parse(name)
        dtype = scalar if shape == "scalar" else Array(scalar, length if shape == "fixed" else None)
        size = {"fixed": (length, length), "ragged": (0, 5)}.get(shape)
        strategies[f"f{i}"] = (
            VALUES[name] if size is None else st.lists(VALUES[name], min_size=size[0], max_size=size[1])
        )
        fields.append(Field(f"f{i}", dtype))
    row = st.fixed_dictionaries(
        {"event_ts": TIMES, "created_ts": TIMES, "movie_id": INT64}
        | {name: st.none() | s for name, s in strategies.items()}
    )
    return FeatureView("v", entities=[MOVIE], schema=fields, source=draw(st.sampled_from(SOURCES))), draw(
        st.lists(row, min_size=1, max_size=5)
    )


@given(views_with_rows())
def test_what_is_encoded_is_decoded(world: tuple[FeatureView, list[dict[str, object]]]) -> None:
    from feature_store.online.codec import python_values

    view, rows = world
    row_layout = layout(numbers, view)
    of_v = row_layout.segments["v"]
    segments = encode_segments(of_v, batch(view, rows))
    variables = encode_variables(of_v, batch(view, rows), segments) if of_v.variable_fields else [b""] * len(rows)
    values = [
        row_layout.empty[: of_v.offset] + segment.tobytes() + row_layout.empty[of_v.offset + of_v.size :]
        for segment in segments
    ]
    stored = StoredRows.from_values(row_layout, values, str)
    assert unbiased(stored.event_times(of_v)).tolist() == [row["event_ts"] for row in rows]
    for field in of_v.fields.values():
        status = stored.status(of_v, [field], 1)[:, 0].tolist()
        assert status == [int(row[field.name] is None) for row in rows]
        if field.slot < 0:
            decoded = python_values(field.dtype, stored.values(of_v, field))
        else:
            decoded = [decode_variable(value, of_v, field) for value in variables]
        for row, value in zip(rows, decoded, strict=True):
            if row[field.name] is not None:
                assert repr(value) == repr(field.dtype.fit(row[field.name], "")), "bit for bit: NaN and -0.0 too"


def test_nan_is_a_value_and_null_is_not() -> None:
    row_layout = layout(numbers)
    rows = [{"movie_id": 1, "event_ts": 1, "a": float("nan"), "b": None, "c": 1}]
    of_numbers = row_layout.segments["numbers"]
    stored = StoredRows.from_values(
        row_layout, [row_layout.fingerprint + encode_segments(of_numbers, batch(numbers, rows)).tobytes()], str
    )
    assert stored.status(of_numbers, list(of_numbers.fields.values()), 1).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(
    "damage", [lambda row: row[:-1], lambda row: row + b"x", lambda row: b"xxxx" + row[4:], lambda row: b""]
)
def test_a_damaged_row_is_named(damage) -> None:
    row_layout = layout(numbers)
    with pytest.raises(CorruptRowError, match="movie 1"):
        StoredRows.from_values(row_layout, [row_layout.empty, damage(row_layout.empty)], lambda i: f"movie {i}")


@pytest.mark.parametrize("cut", [0, 10, 20, -1])
def test_a_damaged_variable_value_is_found(cut: int) -> None:
    of_all = layout(every_type).segments["every_type"]
    rows = batch(
        every_type,
        [{"movie_id": 1, "event_ts": NOW_US, "title": "x", "ragged": [1], "words": ["a"], "vector": [1, 2, 3]}],
    )
    (value,) = encode_variables(of_all, rows, encode_segments(of_all, rows))
    assert decode_variable(value, of_all, of_all.fields["words"]) == ["a"]
    with pytest.raises(CorruptRowError):
        decode_variable(value[:cut], of_all, of_all.fields["words"])


def test_a_batch_that_does_not_fit_is_refused() -> None:
    of_numbers = layout(numbers).segments["numbers"]
    good = batch(numbers, [{"movie_id": 1, "event_ts": 1, "a": 1.0, "b": 1.0, "c": 1}])
    for name, values in {
        "a": Values(np.zeros(1, np.float64)),
        "b": Values(np.zeros((1, 2), np.float32)),
        "c": Values(np.zeros(1, np.int64)),
    }.items():
        with pytest.raises(DataError, match=f"numbers.{name}"):
            encode_segments(
                of_numbers, RowBatch(good.keys, good.event_ts, good.created_ts, good.columns | {name: values})
            )
    with pytest.raises(DataError, match=r"numbers\.a: expected a column"):
        encode_segments(of_numbers, RowBatch(good.keys, good.event_ts, good.created_ts, {}))
