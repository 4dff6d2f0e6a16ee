"""Every exit gives the values that went in, of all types and null: answers, training sets, files, logs and JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from feature_store import FeatureStore
from feature_store.arrow.served_log import plain
from feature_store.arrow.served_messages import as_json
from feature_store.cli.response import response_document
from feature_store.definitions import Field, Int64, KafkaSource
from feature_store.definitions.dtypes import DType, whole_number
from feature_store.errors import RequestError
from feature_store.monitoring import ServedLog
from feature_store.monitoring.skew import compare
from feature_store.online import OnlineClient, Status
from feature_store.online.arrow import arrow_type
from feature_store.streaming.formats.json_messages import JsonDecoder
from feature_store.testing.formats import messages_of
from feature_store.ui.samples import distribution
from tests.online.clients import CLIENTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

AT = datetime(2026, 1, 10, 12, tzinfo=UTC)
ODD = 2**53 + 1  # the first integer that no float64 holds
_TIME = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)).map(lambda t: t.replace(tzinfo=UTC))
SCALARS: dict[str, Any] = {
    "Bool": st.booleans(),
    "Int8": st.integers(-(2**7), 2**7 - 1),
    "Int16": st.integers(-(2**15), 2**15 - 1),
    "Int32": st.integers(-(2**31), 2**31 - 1),
    "Int64": st.one_of(st.sampled_from([ODD, -ODD, 2**63 - 1, -(2**63)]), st.integers(-(2**63), 2**63 - 1)),
    "Float16": st.floats(width=16, allow_nan=False, allow_infinity=False),
    "Float32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "Float64": st.floats(allow_nan=False, allow_infinity=False),
    "String": st.text(max_size=20),
    "Bytes": st.binary(max_size=20),
    "Decimal(10, 2)": st.decimals(min_value="-99999999.99", max_value="99999999.99", places=2),
    "Decimal(18, 0)": st.decimals(min_value=-(10**18 - 1), max_value=10**18 - 1, places=0),
    "Date": st.dates(),
    "Timestamp": _TIME,
}
VALUES = (
    SCALARS
    | {f"Array({name})": st.lists(of, max_size=3) for name, of in SCALARS.items()}
    | {f"Array({name}, 2)": st.lists(of, min_size=2, max_size=2) for name, of in SCALARS.items()}
)
ONE_OF_EACH: dict[str, Any] = {
    "Bool": True, "Int8": -8, "Int16": 300, "Int32": 1, "Int64": ODD, "Float16": 0.5, "Float32": 1.5, "Float64": 0.1,
    "String": "é", "Bytes": b"\xff\x00", "Decimal(10, 2)": Decimal("12.30"), "Decimal(18, 0)": Decimal(ODD),
    "Date": AT.date(), "Timestamp": AT,
}  # fmt: skip
ONE_OF_EACH |= {f"Array({name}{size})": [value] * 2 for name, value in ONE_OF_EACH.items() for size in ("", ", 2")}
NAMES = {text: f"f{i}" for i, text in enumerate(VALUES)}
TYPES = {name: DType.parse(text) for text, name in NAMES.items()}
FEATURES = f"""
from feature_store import *
user = Entity("user", join_key="user_id")
stats = FeatureView("stats", entities=[user], source=ParquetSource("stats.parquet", event_timestamp="event_timestamp"),
    schema=[{", ".join(f'Field("{name}", {text})' for text, name in NAMES.items())}])
ranking = FeatureService("ranking", features=[stats])
"""
PANDAS = {
    "Bool": "boolean",
    "Int8": "Int8",
    "Int16": "Int16",
    "Int32": "Int32",
    "Int64": "Int64",
    "Float16": "float16",
    "Float32": "float32",
    "Float64": "float64",
}
PANDAS |= {"Timestamp": "datetime64[us, UTC]", "Date": "object", "Bytes": "object"}
PANDAS |= {"Decimal(10, 2)": "object", "Decimal(18, 0)": "object"}
ROWS = st.lists(
    st.fixed_dictionaries({NAMES[text]: st.none() | values for text, values in VALUES.items()}), min_size=1, max_size=4
)


class Kept:
    """A sink that keeps its batches."""

    most_rows, most_seconds = 10_000, 0.0

    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        self.batches += batches

    def close(self, wait_s: float) -> None:
        pass


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, redis_process: Any) -> Iterator[FeatureStore]:
    folder = tmp_path_factory.mktemp("exact")
    (folder / "feature_store.yaml").write_text(f"project: exact\nonline_store:\n  url: {redis_process.url}\n")
    (folder / "features.py").write_text(FEATURES)
    pq.write_table(_table([]), folder / "stats.parquet")
    with FeatureStore(folder) as opened:
        opened.apply()
        yield opened


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    columns = {name: pa.array([row[name] for row in rows], arrow_type(dtype)) for name, dtype in TYPES.items()}
    at = pa.array([AT] * len(rows), pa.timestamp("us", "UTC"))
    return pa.table({"user_id": pa.array(range(len(rows)), pa.int64()), "event_timestamp": at} | columns)


def _labels(count: int) -> pa.Table:
    labels = _table([dict.fromkeys(TYPES)] * count).select(["user_id", "event_timestamp"])
    large = pa.array([ODD if i % 2 else None for i in range(count)], pa.int64())
    return labels.append_column("label", large).append_column("plain", pa.array([ODD] * count))


def _exits(store: FeatureStore, rows: list[dict[str, Any]], folder: Path) -> dict[str, dict[str, list[Any]]]:
    """The columns of each exit, as Python values."""
    pq.write_table(_table(rows), store.config.folder / "stats.parquet")
    store.push("stats", _table(rows))
    users = {"user_id": list(range(len(rows)))}
    sink = Kept()
    answer = store.get_online_features("ranking", users, now=AT)
    training = store.get_historical_features(_labels(len(rows)), "ranking")
    training.write_parquet(folder / "train.parquet")
    with ServedLog(sink, 1.0) as log:
        with OnlineClient(store.online_url, project="exact", observers=[log]) as client:
            client.get_online_features("ranking", users, now=AT)
        assert log.flush(60)
    served = plain(pa.Table.from_batches(sink.batches))
    messages = [row for batch in served.to_batches() for row in orjson.loads(as_json(batch))]
    said = orjson.loads(orjson.dumps(response_document(answer)))["features"]
    return {
        "to_dict": answer.to_dict(),
        "to_arrow": answer.to_arrow().to_pydict(),
        "to_pandas": _of_pandas(answer.to_pandas()),
        "get --json": {name: [_from_json(TYPES[name], value) for value in values] for name, values in said.items()},
        "training to_arrow": training.to_arrow().to_pydict(),
        "training to_pandas": _of_pandas(training.to_pandas()),
        "training file": pq.read_table(folder / "train.parquet").to_pydict(),
        "served log": served.to_pydict(),
        "served log as JSON": {
            name: [_from_json(dtype, row[name]) for row in messages] for name, dtype in TYPES.items()
        },
    }


def _of_pandas(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Columns as Python values. In columns of floats, NaN stands for null and becomes None."""
    return {name: [_python(value) for value in frame[name].array] for name in frame.columns}


def _python(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype == "datetime64[D]":
            return value.tolist()
        if value.dtype.kind == "M":
            return pa.array(value).cast(pa.timestamp("us", "UTC")).to_pylist()
        return [_python(item) for item in value]
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return None
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    return value.item() if isinstance(value, np.generic) else value


def _from_json(dtype: DType, value: Any) -> Any:
    if value is None:
        return None
    if dtype.element is not None:
        return [_from_json(dtype.element, item) for item in value]
    if dtype.scalar.is_text_in_json:
        return dtype.read(value, "")
    return dtype.fit(value, "") if dtype.numpy.kind == "f" else value  # JSON has the shortest text of a float32


def _is_same(found: Any, expected: Any) -> bool:
    """Whether two values are equal and of one type: True is not 1, and 1.0 is not 1."""
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(_is_same, found, expected))
    return type(found) is type(expected) and found == expected


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ROWS)
@example([dict.fromkeys(TYPES), dict.fromkeys(TYPES) | {NAMES["Int64"]: ODD, NAMES["Array(Int64)"]: [ODD]}])
def test_every_exit_gives_the_values_that_went_in(
    store: FeatureStore, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    for exit, found in _exits(store, rows, tmp_path).items():
        for name, dtype in TYPES.items():
            expected = [row[name] for row in rows]
            assert _is_same(found[name], expected), (exit, dtype, found[name], expected)
        if "label" in found:
            assert _is_same(found["label"], [ODD if i % 2 else None for i in range(len(rows))]), exit
            assert _is_same(found["plain"], [ODD] * len(rows)), exit


def test_the_types_of_a_frame_follow_from_the_declared_types(store: FeatureStore, tmp_path: Path) -> None:
    """They do not depend on whether a value is null."""
    full = {NAMES[text]: value for text, value in ONE_OF_EACH.items()}
    for rows in ([full], [full, dict.fromkeys(TYPES)], [dict.fromkeys(TYPES)]):
        pq.write_table(_table(rows), store.config.folder / "stats.parquet")
        store.push("stats", _table(rows))
        users = {"user_id": list(range(len(rows)))}
        for frame in (
            store.get_online_features("ranking", users, now=AT).to_pandas(),
            store.get_historical_features(_labels(len(rows)), "ranking").to_pandas(),
        ):
            types = {name: str(frame[name].dtype) for name in TYPES}
            text = str(pa.table({"s": ["a"]}).to_pandas()["s"].dtype)
            assert types == {
                name: "object" if dtype.element else PANDAS.get(dtype.name, text) for name, dtype in TYPES.items()
            }
            for name in ("user_id", "label", "plain"):
                assert name not in frame or str(frame[name].dtype) == "Int64"


def test_a_matrix_has_the_same_numbers_in_serving_and_training(store: FeatureStore) -> None:
    texts = ["Bool", "Int8", "Int16", "Int32", "Int64", "Float16", "Float32", "Float64", "Decimal(10, 2)"]
    wanted = [f"stats:{NAMES[text + size]}" for text in texts for size in ("", ", 2") if text + size in NAMES]
    wanted += [f"stats:{NAMES[f'Array({text}, 2)']}" for text in texts]
    full = {NAMES[text]: value for text, value in ONE_OF_EACH.items() if "Int64" not in text and "18" not in text}
    rows = [dict.fromkeys(TYPES) | full, dict.fromkeys(TYPES)]
    pq.write_table(_table(rows), store.config.folder / "stats.parquet")
    store.push("stats", _table(rows))
    served = store.get_online_features(wanted, {"user_id": [0, 1]}, now=AT).to_numpy()
    trained = store.get_historical_features(_labels(2), wanted).to_numpy()
    assert served.dtype == trained.dtype == np.float32
    assert served.tobytes() == trained.tobytes()
    decimals = [name.removeprefix("stats:") for name in wanted].index(NAMES["Decimal(10, 2)"])
    assert served[0, decimals] == np.float32(12.3)


@pytest.mark.parametrize("text", ["String", "Bytes", "Date", "Timestamp", "Array(Date, 2)", "Array(Bytes, 2)"])
def test_a_matrix_refuses_what_is_not_a_number(store: FeatureStore, text: str) -> None:
    wanted = [f"stats:{NAMES[text]}"]
    for answer in (
        store.get_online_features(wanted, {"user_id": [0]}, now=AT),
        store.get_historical_features(_labels(1), wanted),
    ):
        with pytest.raises(RequestError, match=r"expected numbers of fixed width, got .*Hint: "):
            answer.to_numpy()


def test_a_matrix_refuses_identifiers_alike_in_serving_and_training(store: FeatureStore) -> None:
    row = dict.fromkeys(TYPES)
    for text, value, is_taken in (
        ("Int64", 2**53, True), ("Int64", ODD, False), ("Int64", -ODD, False), ("Decimal(18, 0)", 2 * ODD, False),
    ):  # fmt: skip
        rows = [row | {NAMES[text]: value}]
        pq.write_table(_table(rows), store.config.folder / "stats.parquet")
        store.push("stats", _table(rows))
        wanted = [f"stats:{NAMES[text]}"]
        for answer in (
            store.get_online_features(wanted, {"user_id": [0]}, now=AT),
            store.get_historical_features(_labels(1), wanted),
        ):
            if is_taken:
                assert answer.to_numpy().tolist() == [[float(value)]]
            else:
                with pytest.raises(
                    RequestError, match=r"(an integer of magnitude 9007199254740993|a number of magnitude 1.8)"
                ):
                    answer.to_numpy()


@pytest.mark.parametrize("client", list(CLIENTS))
def test_a_key_may_be_a_float_that_stands_for_one_integer_alone(store: FeatureStore, client: str) -> None:
    """As pandas has it of a column with a missing value, and as materialize and label rows take it."""
    rows = [dict.fromkeys(TYPES) | {NAMES["Int32"]: i} for i in range(3)]
    store.push("stats", _table(rows))
    reader = CLIENTS[client](store.online_url, project="exact")

    def ask(keys: Any) -> Any:
        return reader.get_online_features([f"stats:{NAMES['Int32']}"], {"user_id": keys}, now=AT).to_dict()

    try:
        for keys in (
            [2.0, 1.0, 2.0],
            pd.Series([2, 1, 2], dtype="Int64"),
            pd.Series([2.0, 1.0, 2.0]),
            np.array([2, 1, 2], np.float32),
            [2, 1.0, np.float64(2)],
        ):
            assert ask(keys) == {NAMES["Int32"]: [2, 1, 2]}
        for keys, got in (
            ([float(2**53)], "9007199254740992.0"),
            ([1.5], "1.5"),
            (np.array([1, 2**24], np.float32), "16777216"),
            ([float("nan")], "nan"),
            ([True], "True"),
        ):
            with pytest.raises(RequestError, match=rf"user_id\[\d\]: expected an int .*got .*{got}"):
                ask(keys)
    finally:
        reader.close()


@given(st.floats(), st.sampled_from([np.float16, np.float32, np.float64]))
@example(2.0**53 - 1, np.float64)
@example(2.0**53, np.float64)
@example(2.0**53 + 2, np.float64)
def test_a_float_is_an_integer_when_it_stands_for_no_other(number: float, kind: Any) -> None:
    with np.errstate(over="ignore"):
        value = kind(number)
        # Beyond this, a float may stand for several integers, or lie between floats that do.
        is_alone = abs(float(value)) < 2.0 ** (np.finfo(kind).nmant + 1) and bool(value == np.trunc(value))
    assert isinstance(whole_number(value), int) == is_alone
    assert whole_number(value) == value or np.isnan(value)


@given(st.integers() | st.text() | st.booleans() | st.none())
def test_what_is_no_float_stays_as_it_is(value: Any) -> None:
    assert whole_number(value) is value


def test_integers_that_differ_by_one_differ_by_one_in_skew_and_samples() -> None:
    (feature,) = compare("ranking", 0, [{"user_id": 1}], {"f": [ODD]}, {"f": [ODD - 1]}).features
    assert (feature.differing, feature.worst, feature.online) == (1, 1.0, ODD)
    shown = distribution([ODD, ODD - 1, ODD], [Status.PRESENT] * 3, [Status.PRESENT] * 3)
    assert [(bar.label, bar.count) for bar in shown.bars] == [(str(ODD - 1), 1), (str(ODD), 2)]


def test_an_event_whose_number_stands_for_several_integers_is_rejected() -> None:
    source = KafkaSource("e", topic="e", event_timestamp="at", schema=[Field("n", Int64)])
    texts = [str(ODD), "3.0", "9007199254740993.0", str(2**63), str(2**64), "-9223372036854775808"]
    batch = JsonDecoder(source).decode(messages_of(f'{{"at": 1700000000000, "n": {text}}}'.encode() for text in texts))
    assert batch.columns["n"][0].tolist() == [ODD, 3, -(2**63)]
    assert sorted(batch.rejected) == [2, 3, 4]
    assert all("expected an int in [-2**63, 2**63), got" in one.reason for one in batch.rejected.values())
