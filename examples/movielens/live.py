"""Ratings as they are given: the log replayed through Kafka, the windows of one user moving, and how soon that is.

`demo.py` runs it.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow.compute as pc
import pyarrow.parquet as pq
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from feature_store import FeatureStore

Rating = dict[str, Any]
TOPIC, PARTITIONS = "ratings", 2
STREAMED = ("user_activity", "movie_activity")
SHOWN = ("user_count_1h", "user_count_1d", "user_count_7d", "user_mean_1h", "user_mean_7d", "user_likes_1h")
# A worker's first partitions come half a session timeout (feature_store.yaml) after it asked.
# On a machine that is busy with other work, that and the start of a worker take many times as long.
PATIENCE_S = 90.0
POLL_S = 0.0005


def make_topic(address: str) -> None:
    admin = AdminClient({"bootstrap.servers": address})  # by a name: its end would end the request
    admin.create_topics([NewTopic(TOPIC, PARTITIONS)])[TOPIC].result(PATIENCE_S)


def ratings_between(folder: Path, start: datetime, end: datetime) -> list[Rating]:
    """The ratings of `[start, end)`, ordered by time."""
    log = pq.read_table(folder / "data" / "ratings.parquet")
    chosen = log.filter(pc.and_(pc.greater_equal(log["ts"], start), pc.less(log["ts"], end)))
    return chosen.to_pylist()


class Ratings:
    """Sends ratings to the topic, those of one user in one partition."""

    def __init__(self, address: str) -> None:
        # No linger: a rating is sent at once rather than in a larger batch.
        self._producer = Producer({"bootstrap.servers": address, "linger.ms": 0, "acks": "all"})

    def send(self, rating: Rating) -> None:
        """Give it to the client, which sends it at once."""
        event = {**rating, "ts": int(rating["ts"].timestamp())}
        while True:
            try:
                self._producer.produce(TOPIC, orjson.dumps(event), str(rating["user_id"]))
                break
            except BufferError:  # it has more to send than it may hold
                self._producer.poll(0.05)
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until the broker has acknowledged all ratings."""
        self._producer.flush(PATIENCE_S)


@contextmanager
def streaming(store: FeatureStore) -> Iterator[None]:
    """A worker that streams, for as long as the block runs. Its error, if it fails, is raised when the block ends."""
    end = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            store.stream(stopped=end.is_set)
        except BaseException as error:
            failed.append(error)

    worker = threading.Thread(target=run, name="stream")
    worker.start()
    try:
        yield
    finally:
        end.set()
        worker.join()
        if failed:  # it explains the error of a block that waited for the worker
            raise failed[0]


class Windows:
    """The windows of one user, read as a model server reads them."""

    def __init__(self, store: FeatureStore, user_id: int) -> None:
        self._client, self._user_id = store.client, user_id
        self._features = [f"user_activity:{name}" for name in SHOWN]

    def at(self, now: datetime) -> dict[str, Any]:
        """The windows at a given time."""
        found = self._client.get_online_features(self._features, {"user_id": self._user_id}, now=now)
        return {name: values[0] for name, values in found.to_dict().items()}

    def wait(self, now: datetime, is_there: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The windows as soon as they are as wanted.

        Raises:
            TimeoutError: they are not, for a long time.
        """
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = self.at(now)
            if is_there(found):
                return found
            time.sleep(POLL_S)
        raise TimeoutError(f"the windows of user {self._user_id} stay {self.at(now)} at {now}")


def replay(
    store: FeatureStore, address: str, ratings: list[Rating], user_id: int, advanced: Callable[[], None]
) -> Iterator[tuple[datetime, dict[str, Any]]]:
    """Send ratings as fast as they go; after each run of one user's, wait for it and yield its time and the windows."""
    out, windows = Ratings(address), Windows(store, user_id)
    seen = 0
    for i, rating in enumerate(ratings):
        out.send(rating)
        advanced()
        own = rating["user_id"] == user_id
        seen += own
        following = ratings[i + 1]["user_id"] if i + 1 < len(ratings) else None
        if own and following != user_id:
            out.flush()
            week = [one for one in ratings[: i + 1] if one["user_id"] == user_id]
            recent = sum((rating["ts"] - one["ts"]).total_seconds() <= 3600 for one in week)
            yield rating["ts"], windows.wait(rating["ts"], lambda found, least=recent: found["user_count_1h"] >= least)  # type: ignore[misc]
    out.flush()


def delays(
    store: FeatureStore, address: str, ratings: list[Rating], advanced: Callable[[], None]
) -> np.ndarray[Any, Any]:
    """Seconds from sending each rating until a client reads it, one after the other."""
    out, found = Ratings(address), []
    for rating in ratings:
        windows = Windows(store, rating["user_id"])
        before = windows.at(rating["ts"])["user_count_7d"]
        sent = time.perf_counter()
        out.send(rating)
        windows.wait(rating["ts"], lambda now, before=before: now["user_count_7d"] > before)  # type: ignore[misc]
        found.append(time.perf_counter() - sent)
        advanced()
    out.flush()
    return np.array(found)
