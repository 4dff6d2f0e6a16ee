"""A new generation from history and stream: no gap and nothing twice, wherever it is killed. The view stays served."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from feature_store import FeatureStore
from feature_store.definitions.dtypes import from_microseconds
from feature_store.errors import DefinitionError, RequestError, StreamError
from feature_store.materialize.rollout import begin_tiles
from feature_store.streaming.backfill import Backfill
from tests.raw_redis import raw_client
from tests.streaming.running import merged_up_to, streaming, until
from tests.streaming.streaming_worlds import (
    DEFINITIONS,
    SECOND_US,
    Click,
    differences,
    has_read,
    make_topic,
    project,
    send,
    some_clicks,
    value_of,
    work,
)

NOW_US = time.time_ns() // 1_000
# Ten days of clicks: more than the longest window holds.
START_US, DAYS = NOW_US - 10 * 86_400 * SECOND_US, 10
CLICKS = 6_000


def history_of(folder: Path, clicks: list[Click], name: str = "history.parquet") -> None:
    columns: dict[str, Any] = {key: [click[key] for click in clicks] for key in ("user_id", "shop", "price")}
    columns["ts"] = pa.array([click["ts"] * 1000 for click in clicks], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table(columns), folder / name, row_group_size=1000)


@pytest.fixture
def clicks() -> list[Click]:
    return some_clicks(CLICKS, users=300, seed=1, start_us=START_US, seconds=DAYS * 86_400)


@pytest.fixture
def store(tmp_path: Path, redis_url: str, kafka: str, clicks: list[Click]) -> Iterator[FeatureStore]:
    make_topic(kafka, "clicks", 3)
    history_of(tmp_path, clicks)
    with project(tmp_path, redis_url, kafka, history=True) as store:
        yield store


def days(count: float) -> int:
    return START_US + int(count * 86_400) * SECOND_US


def kept(clicks: list[Click]) -> list[Click]:
    """The clicks that some window can still hold. The entities of older clicks may be stored or not."""
    return [click for click in clicks if click["ts"] * 1000 > NOW_US - (7 * 86_400 + 3 * 3600) * SECOND_US]


def wrong(store: FeatureStore, clicks: list[Click]) -> list[str]:
    return [found for found in differences(store, clicks, NOW_US) if "expected nothing" not in found]


def test_history_before_a_time_and_the_stream_from_then_on(
    store: FeatureStore, kafka: str, clicks: list[Click]
) -> None:
    send(kafka, "clicks", map(value_of, clicks), 3)
    filled = store.backfill("by_user", from_microseconds(days(8.3)))
    assert filled.history_rows == sum(
        days(8.3) - (7 * 86_400 + 12_600) * SECOND_US <= click["ts"] * 1000 < days(8.3) for click in clicks
    )
    assert filled.stream_events == sum(click["ts"] * 1000 >= days(8.3) for click in clicks)
    assert [found for found in wrong(store, clicks) if "by_user" in found] == []

    # A worker goes on where the backfill ended. Earlier messages that it reads are not counted again.
    more = some_clicks(500, users=300, seed=2, start_us=NOW_US - 60 * SECOND_US, seconds=60)
    send(kafka, "clicks", map(value_of, more), 3)
    status = work(store, has_read(CLICKS + 500))
    assert status.view("by_user").merged == 500
    assert wrong(store, [*clicks, *more]) == []


def test_everything_lost_and_rebuilt_though_kafka_has_only_the_end(
    store: FeatureStore, kafka: str, clicks: list[Click]
) -> None:
    send(kafka, "clicks", map(value_of, clicks), 3)
    work(store, has_read(CLICKS))
    admin = AdminClient({"bootstrap.servers": kafka})
    first = CLICKS // 3 * 9 // 10
    for deleted in admin.delete_records([TopicPartition("clicks", number, first) for number in range(3)]).values():
        deleted.result(10)
    with raw_client(store.online_url) as client:
        client.flushall()
    store.apply()
    gone = from_microseconds(days(8.5))
    with pytest.raises(StreamError, match=r"messages since .*, got none before offset"):
        store.backfill("by_user", gone)
    for view in ("by_user", "by_shop"):
        # Kafka's message times are times of sending, so all are now. Only the caller can know that nothing is missing.
        store.backfill(view, from_microseconds(days(9.5)), allow_gap=True)
    assert wrong(store, clicks) == []


KILLED = """
import os, signal, sys
from datetime import datetime
from feature_store import FeatureStore
from feature_store.streaming import backfill

class Dying:
    # Kills the process at a step of a phase: after so many batches, or at its very end.
    def started(self, phase, total_rows): self.left = steps.get(phase)
    def advanced(self, rows):
        if self.left is not None:
            self.left -= 1
            if self.left < 0: os.kill(os.getpid(), signal.SIGKILL)
    def finished(self):
        if self.left is not None: os.kill(os.getpid(), signal.SIGKILL)

steps = {sys.argv[3]: int(sys.argv[4])} if sys.argv[3:] else {}

backfill._BATCH = 200
with FeatureStore(sys.argv[1]) as store:
    print(store.backfill("by_user", datetime.fromisoformat(sys.argv[2]), report=Dying()).to_document(), flush=True)
"""


def test_killed_again_and_again_it_goes_on_where_it_was(store: FeatureStore, kafka: str, clicks: list[Click]) -> None:
    chance = random.Random(3)
    send(kafka, "clicks", map(value_of, clicks), 3)
    command = [sys.executable, "-c", KILLED, str(store.config.folder), from_microseconds(days(8)).isoformat()]
    for phase in ["by_user: history", "by_user: stream"] * 3:
        killed = subprocess.run([*command, phase, str(chance.randrange(20))], check=False)
        assert killed.returncode == -signal.SIGKILL
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "'generation': 2" in done.stdout
    assert [found for found in wrong(store, clicks) if "by_user" in found] == []
    plan = store.online.require_published().plan
    assert plan.filling_tiles == plan.retired_tiles == ()


def test_another_history_begins_anew(store: FeatureStore, clicks: list[Click]) -> None:
    time_of = from_microseconds(days(10))
    fewer = clicks[: CLICKS // 2]
    history_of(store.config.folder, fewer)
    tiles = begin_tiles(store.online, "by_user", days(10))
    Backfill(store.context, store.definitions.stream_feature_views["by_user"]).fill(
        tiles
    )  # killed before the new generation is served
    history_of(store.config.folder, clicks)
    filled = store.backfill("by_user", time_of)
    assert filled.generation == tiles.generation
    assert [found for found in wrong(store, clicks) if "by_user" in found] == []


@contextlib.contextmanager
def reading(store: FeatureStore, now_us: int) -> Iterator[list[dict[str, Any]]]:
    """The different answers to one request while the block runs."""
    answers: list[dict[str, Any]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            found = store.get_online_features(["by_user:price_count_7d"], {"user_id": [0, 1, 2]}, now=now_us).to_dict()
            if found not in answers:
                answers.append(found)
            time.sleep(0.002)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield answers
    finally:
        done.set()
        thread.join()


def test_served_and_streamed_meanwhile_nothing_is_lost_or_doubled(
    store: FeatureStore, kafka: str, clicks: list[Click], tmp_path: Path
) -> None:
    first = clicks[:5_000]
    at_us = max(click["ts"] for click in first) * 1000
    send(kafka, "clicks", map(value_of, first), 3)
    with streaming(tmp_path, "--workers", "2") as running:
        until(lambda: set(merged_up_to(store).values()) == {5_000}, 60, running.log)
        # The stream reads one partition after the other, so some events are late. A backfill goes by time: none is.
        store.backfill("by_user", from_microseconds(days(6)))
        with reading(store, at_us) as answers:
            for view in ("by_shop", "by_user", "by_user"):
                store.backfill(view, from_microseconds(days(7)))
            until(lambda: set(merged_up_to(store).values()) == {5_000}, 60, running.log)
        assert len(answers) == 1
        rest = threading.Thread(target=send, args=(kafka, "clicks", map(value_of, clicks[5_000:]), 3))
        rest.start()
        store.backfill("by_user", from_microseconds(days(8)))
        rest.join()
        until(lambda: wrong(store, clicks) == [], 60, running.log)
        assert running.stop()["restarts"] == 0


def test_a_changed_view_is_filled_before_it_is_served(store: FeatureStore, kafka: str, clicks: list[Click]) -> None:
    send(kafka, "clicks", map(value_of, clicks), 3)
    work(store, has_read(CLICKS))
    text = DEFINITIONS.replace(
        'Aggregation("price", "sum", windows=[hour, week])',
        'Aggregation("price", "sum", windows=[hour, week]), Aggregation("price", "min", windows=[week])',
    )
    with project(store.config.folder, store.online_url, kafka, history=True, definitions=text) as changed:
        assert wrong(changed, clicks) == []
        found = changed.get_online_features(["by_user:price_min_7d"], {"user_id": [1]}, now=NOW_US).to_dict()
        prices = [
            click["price"]
            for click in clicks
            if click["user_id"] == 1 and click["ts"] * 1000 > NOW_US - 7 * 86_400 * SECOND_US
        ]
        assert found["price_min_7d"] == [min(prices)]


def test_what_cannot_be_filled_says_why(store: FeatureStore, tmp_path: Path, redis_url: str, kafka: str) -> None:
    with pytest.raises(RequestError, match="expected an end of the history before"):
        store.backfill("by_user", from_microseconds(NOW_US) + timedelta(days=1))
    with (
        project(tmp_path, redis_url, kafka) as without,
        pytest.raises(DefinitionError, match="expected the events on disk, got none"),
    ):
        without.backfill("by_user", from_microseconds(days(5)))


def test_bad_rows_are_set_aside(store: FeatureStore, clicks: list[Click]) -> None:
    bad = [clicks[-1] | {"user_id": None}, clicks[-2] | {"ts": 5_000_000_000_000}]
    history_of(store.config.folder, [*clicks, *bad])
    filled = store.backfill("by_user", from_microseconds(NOW_US))
    assert filled.quarantined == 1
    assert filled.quarantine_file is not None
    assert pq.read_table(filled.quarantine_file)["reason"].to_pylist() == ["user_id: expected Int64, got null"]
    assert [found for found in wrong(store, clicks) if "by_user" in found] == []
