"""Arguments of `materialize`, `push`, `backfill` and training sets: any value is taken, or refused by this library."""

from __future__ import annotations

import warnings
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store._intervals import BEGINNING
from feature_store.errors import FeatureStoreError, RequestError
from feature_store.materialize.summary import Summary

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FEATURES = """
from datetime import timedelta
from feature_store import *
user = Entity("user", join_key="user_id")
stats = FeatureView("stats", entities=[user], source=ParquetSource("stats.parquet", event_timestamp="at"),
    schema=[Field("visits", Int64)])
pushed = FeatureView("pushed", entities=[user], schema=[Field("score", Float32)])
clicks = KafkaSource("clicks", topic="clicks", event_timestamp="ts", schema=[Field("user_id", Int64), Field("n", Int64)])
counts = StreamFeatureView("counts", entities=[user], source=clicks,
    aggregations=[Aggregation("n", "count", windows=[timedelta(hours=1)])])
"""
LABELS = {"user_id": [1], "event_timestamp": [NOW]}
ODD: list[Any] = [
    True, 0, 1, -1, 1.5, float("nan"), float("inf"), 10**30, -(10**30), "", "x", "2026-01-01", b"x", [], {}, (), set(), object(), print,
    date(2026, 1, 1), datetime(2026, 1, 1), NOW, datetime.min, datetime.max, datetime.max.replace(tzinfo=timezone(timedelta(hours=-23))),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=23))), time(1), timedelta(1), timedelta(-1), timedelta.max, timedelta.min,
    pd.NaT, pd.NA, pd.Timestamp("2026-01-01"), pd.Timedelta(1), pd.Series([1]), pd.DataFrame(), np.datetime64("2026-01-01"), np.datetime64("NaT"),
    np.int64(5), np.float64("inf"), np.array([1, 2]), np.array(["stats"]), np.array(1), pa.table({}), pa.table({"user_id": [1]}), Decimal(1), 1j,
    [1], [None], [["a"]], {"a": 1}, ["stats"], ["x"], ["stats", "stats"], "stats", "local", "never", "SELECT", "SELECT 1", "s3://x/y",
    "http://[::1", "\0", "a\0b.parquet", "x" * 5_000 + ".csv", "/dev/null", "~", "\ud800",
]  # fmt: skip
CELLS = ("user_id", "event_timestamp", "score")
ARGUMENTS = [
    *(("materialize", name) for name in ("start", "end", "views", "engine", "lookback")),
    ("push", "view"), ("push", "table"), *(("push cell", name) for name in CELLS),
    *(("labels", name) for name in ("entity_df", "service", "engine", "timestamp_column", "prune_as_of")),
    *(("label cell", name) for name in CELLS[:2]),
    ("backfill", "view"), ("backfill", "until"),
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "feature_store.yaml").write_text('project: shop\nkafka: {bootstrap.servers: "localhost:1"}\n')
    (folder / "features.py").write_text(FEATURES)
    times = pa.array([NOW], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"user_id": [1], "at": times, "visits": [1]}), folder / "stats.parquet")
    with FeatureStore(folder) as opened:
        opened.apply()
        yield opened


def frame_with(column: str, value: Any) -> pd.DataFrame:
    """A table with a cell of any kind."""
    frame = pd.DataFrame({"user_id": [1], "event_timestamp": [NOW], "score": [1.0]}).astype(object)
    cell = np.empty(1, object)
    cell[0] = value
    frame[column] = pd.Series(cell, dtype=object)
    return frame


def call(store: FeatureStore, method: str, name: str, value: Any) -> Any:
    match method:
        case "materialize":
            return store.materialize(**{name: value})
        case "push":
            return store.push(**{"view": "pushed", "table": pa.table(LABELS | {"score": [1.0]})} | {name: value})
        case "push cell":
            return store.push("pushed", frame_with(name, value))
        case "labels":
            labels = {"entity_df": pd.DataFrame(LABELS), "service": ["stats:visits"]} | {name: value}
            return store.get_historical_features(**labels).to_arrow()
        case "label cell":
            return store.get_historical_features(frame_with(name, value), ["stats:visits"]).to_arrow()
    return store.backfill(**{"view": "counts", "until": NOW} | {name: value})


@pytest.mark.parametrize(("method", "name"), ARGUMENTS)
def test_any_argument_is_taken_or_refused_in_our_words(store: FeatureStore, method: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for value in ODD:
            try:
                call(store, method, name, value)
            except FeatureStoreError as error:
                assert len(error.reason) < 8_000, value
            except Exception as error:
                raise AssertionError(f"{method} {name}={value!r}") from error


@pytest.mark.parametrize(
    ("method", "name", "value", "message"),
    [
        ("materialize", "start", date(2026, 1, 1), "start: expected a datetime"),
        ("materialize", "end", "2026-01-01", "end: expected a datetime"),
        ("materialize", "end", 1_700_000_000, "looks like seconds or milliseconds"),
        ("materialize", "start", datetime.max.replace(tzinfo=timezone(timedelta(hours=-23))), "years 1 to 9999"),
        ("materialize", "views", "stats", r"views: expected a list of names, got str. Hint: \['stats'\]"),
        ("materialize", "lookback", 3600, "lookback: expected a timedelta"),
        ("materialize", "lookback", timedelta(-1), "lookback: expected a timedelta of 0 or more"),
        ("labels", "prune_as_of", "2026-01-01", "prune_as_of: expected a datetime"),
        ("labels", "timestamp_column", 3, "timestamp_column: expected a name, got int"),
        ("labels", "service", None, "service: expected a service's name"),
        ("push", "view", ["pushed"], "view: expected a name, got list"),
    ],
)
def test_what_is_refused_is_named(store: FeatureStore, method: str, name: str, value: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        call(store, method, name, value)


def test_a_lookback_beyond_all_times_reads_everything_again(store: FeatureStore) -> None:
    store.materialize(views=["stats"])
    (summary,) = store.materialize(views=["stats"], lookback=timedelta.max)
    assert summary.source_rows == 1
    assert [start for start, _ in summary.intervals] == [BEGINNING]


def test_a_summary_shows_times_and_what_is_not_0() -> None:
    at = 1_767_225_600_000_000
    summary = Summary("stats", ((BEGINNING, at), (at, at + 3_600_000_000)), source_rows=3, written=2, seconds=0.12345)
    assert repr(summary) == (
        "Summary(stats, intervals=['the beginning to 2026-01-01T00:00:00+00:00', "
        "'2026-01-01T00:00:00+00:00 to 2026-01-01T01:00:00+00:00'], source_rows=3, written=2, seconds=0.123)"
    )
