"""The whole MovieLens log, event by event: windows online, in training and computed from the ratings are equal."""

from __future__ import annotations

import random
import shutil
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Message

from feature_store import FeatureStore
from feature_store.definitions.dtypes import MICROSECOND, from_microseconds, to_microseconds
from feature_store.monitoring.skew import is_equal
from feature_store.streaming.formats.json_messages import JsonDecoder
from feature_store.streaming.kafka import MessageSpan
from feature_store.streaming.merging import ViewMerger
from feature_store.streaming.pipeline import Pipeline, Route
from feature_store.streaming.status import StreamStatus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POINTS, SEED = 1_000, 5
DAY_US = 86_400_000_000
VIEWS = ("user_activity", "movie_activity")
PARTITION = ("ratings", 0)
Rating = dict[str, Any]


@pytest.fixture
def store(data: Path, tmp_path: Path, redis_url: str) -> Iterator[FeatureStore]:
    shutil.copy(data.parent / "features.py", tmp_path)
    (tmp_path / "data").symlink_to(data)
    (tmp_path / "feature_store.yaml").write_text(
        f"project: movielens\ndefinitions: features.py\nonline_store: {{url: '{redis_url}'}}\n"
    )
    with FeatureStore(tmp_path) as store:
        store.apply()
        yield store


class Stream:
    """The log as messages of one partition, merged into all views as a worker does, up to a time."""

    def __init__(self, store: FeatureStore, log: list[Rating]) -> None:
        self._log, self._at = log, 0
        source = store.definitions.stream_feature_views[VIEWS[0]].source
        mergers = [ViewMerger(store.online.tile_writer(view), start_us=None) for view in VIEWS]
        self.status = StreamStatus()
        self._pipeline = Pipeline([Route("ratings", JsonDecoder(source), mergers)], None, self.status)
        self._pipeline.load({view: [PARTITION] for view in VIEWS})

    def up_to(self, time_us: int) -> None:
        end = self._at
        while end < len(self._log) and to_microseconds(self._log[end]["ts"]) <= time_us:
            end += 1
        if end > self._at:
            messages = [Message(*PARTITION, i, value=_json(self._log[i])) for i in range(self._at, end)]
            start = self._at or -1  # -1: the start of the partition
            self._pipeline.process({PARTITION: MessageSpan(start, end, messages)})
            self._at = end
        self._pipeline.settle()

    def close(self) -> None:
        self._pipeline.close()


def _json(rating: Rating) -> bytes:
    return orjson.dumps({**rating, "ts": int(rating["ts"].timestamp())})


def _expected(store: FeatureStore, view: str, own: list[tuple[int, float]], now_us: int) -> dict[str, Any]:
    """Every window of a view, computed from the ratings of one user or movie, `(microseconds, rating)`."""
    values: dict[str, Any] = {}
    for aggregation in store.definitions.stream_feature_views[view].aggregations:
        for window in aggregation.windows:
            hop = aggregation.hop_us(window)
            start = (now_us - window // MICROSECOND) // hop * hop
            held = [rating for at, rating in own if start <= at <= now_us]
            if aggregation.filter is not None:
                assert aggregation.filter == "rating >= 4"
                held = [rating for rating in held if rating >= 4]
            mean = sum(held) / len(held) if held else None
            values[aggregation.feature_name(window)] = len(held) if aggregation.function == "count" else mean
    return values


def test_windows_online_and_in_training_are_those_of_the_ratings(store: FeatureStore, data: Path) -> None:
    log = pq.read_table(data / "ratings.parquet").to_pylist()
    of: dict[tuple[str, int], list[tuple[int, float]]] = defaultdict(list)
    for rating in log:
        for key in ("user_id", "movie_id"):
            of[key, rating[key]].append((to_microseconds(rating["ts"]), rating["rating"]))
    choose = random.Random(SEED)
    points = []
    for _ in range(POINTS):
        near, other = choose.choice(log), choose.choice(log)
        now_us = to_microseconds(near["ts"]) + choose.choice([0, 0, choose.randrange(2 * DAY_US)])
        points.append((now_us, near["user_id"], choose.choice([near, other])["movie_id"]))
    points.sort()
    features = [f"{view}:{name}" for view in VIEWS for name in _expected(store, view, [], 0)]
    wanted, online = [], []
    stream = Stream(store, log)
    for now_us, user_id, movie_id in points:
        stream.up_to(now_us)
        request = {"user_id": user_id, "movie_id": movie_id}
        found = store.get_online_features(features, request, now=now_us).to_dict()
        online.append({name: values[0] for name, values in found.items()})
        wanted.append(
            _expected(store, "user_activity", of["user_id", user_id], now_us)
            | _expected(store, "movie_activity", of["movie_id", movie_id], now_us)
        )
    stream.close()
    labels = pa.table(
        {
            "event_timestamp": pa.array(
                [from_microseconds(now_us) for now_us, _, _ in points], pa.timestamp("us", "UTC")
            ),
            "user_id": [user_id for _, user_id, _ in points],
            "movie_id": [movie_id for _, _, movie_id in points],
        }
    )
    training = store.get_historical_features(labels, features).to_arrow().select(list(wanted[0])).to_pylist()
    for found in (online, training):
        for point, got, truth in zip(points, found, wanted, strict=True):
            assert got.keys() == truth.keys()
            assert all(is_equal(got[name], truth[name]) for name in truth), (point, got, truth)
    assert sum(point["user_count_1h"] > 0 for point in wanted) > POINTS // 4
