"""What a stream reports while it runs and at its end: Prometheus metrics, and `--json`."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from feature_store import FeatureStore
from feature_store.errors import StreamError
from feature_store.online.tile_writer import Merge
from feature_store.streaming.metrics import Metrics
from feature_store.streaming.status import StreamStatus, TopicCounts, ViewCounts
from tests.kafka_server import free_ports
from tests.streaming.running import merged_up_to, streaming, until
from tests.streaming.streaming_worlds import (
    SECOND_US,
    Click,
    has_read,
    make_topic,
    project,
    send,
    some_clicks,
    value_of,
    work,
)

NOW_US = time.time_ns() // 1_000
NEWEST_US = NOW_US // 1000 * 1000
DAY_S = 86_400
GOOD = 300
# A value by name with labels.
Scraped = dict[str, float]


@pytest.fixture
def store(tmp_path: Path, redis_url: str, kafka: str) -> Iterator[FeatureStore]:
    make_topic(kafka, "clicks", 2)
    with project(tmp_path, redis_url, kafka) as store:
        yield store


def a_click(ago_s: float, **members: object) -> bytes:
    known: Click = {"user_id": 1, "shop": "shop 1", "price": 1.5, "ts": int(NOW_US // 1000 - ago_s * 1000)}
    return value_of(known | members)


def good_messages() -> list[bytes]:
    """Messages without errors. The newest is a click of user 1 on shop 1 at `NOW_US`."""
    clicks = some_clicks(GOOD - 1, users=50, seed=9, start_us=NOW_US - 7200 * SECOND_US)
    return [*map(value_of, clicks), a_click(0)]


def odd_messages() -> list[bytes]:
    late, of_the_future = 10 * DAY_S, -DAY_S
    return [b"{", a_click(0, price="much"), a_click(of_the_future), a_click(late), a_click(1, user_id=None)]


EXPECTED: Scraped = {
    'feature_store_events_total{outcome="merged",view="by_user"}': GOOD,
    'feature_store_events_total{outcome="late",view="by_user"}': 1,
    'feature_store_events_total{outcome="null_keys",view="by_user"}': 1,
    'feature_store_events_total{outcome="before_start",view="by_user"}': 0,
    'feature_store_events_total{outcome="merged",view="by_shop"}': GOOD + 1,
    'feature_store_events_total{outcome="late",view="by_shop"}': 1,
    'feature_store_events_total{outcome="null_keys",view="by_shop"}': 0,
    'feature_store_events_total{outcome="before_start",view="by_shop"}': 0,
    'feature_store_messages_total{topic="clicks"}': GOOD + 5,
    'feature_store_dead_total{kind="malformed",topic="clicks"}': 2,
    'feature_store_dead_total{kind="future",topic="clicks"}': 1,
    'feature_store_lost_total{topic="clicks"}': 0,
    'feature_store_lag{partition="0",topic="clicks"}': 0,
    'feature_store_lag{partition="1",topic="clicks"}': 0,
    "feature_store_refused_total": 0,
    "feature_store_plan_reloads_total": 0,
    "feature_store_worker_restarts_total": 0,
    "feature_store_waiting": 0,
}


def scraped(port: int) -> Scraped:
    """The metrics as a Prometheus server reads them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = [line.rpartition(" ") for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_metrics_and_the_last_word_of_workers_that_have_read_known_messages(store: FeatureStore, kafka: str) -> None:
    (port,) = free_ports(1)
    send(kafka, "clicks", good_messages(), 2)
    with streaming(store.config.folder, "--workers", "2", "--metrics-port", str(port)) as running:
        until(lambda: min(merged_up_to(store).values()) == GOOD, about=running.log)
        send(kafka, "clicks", odd_messages(), 2)
        last: Scraped = {}

        def is_told() -> bool:
            with contextlib.suppress(OSError):
                last.update(scraped(port))
            return EXPECTED.items() <= last.items()

        until(is_told, about=lambda: f"{EXPECTED.items() - last.items()} {running.log()}")
        assert last["feature_store_batches_total"] >= 2
        before = time.time()
        found = scraped(port)
        after = time.time()
        for view in ("by_user", "by_shop"):
            freshness = found[f'feature_store_freshness_seconds{{view="{view}"}}']
            assert before - NEWEST_US / 1e6 - 1e-3 <= freshness <= after - NEWEST_US / 1e6 + 1e-3
        document = running.stop()
    assert document.pop("batches") >= 2 and document.pop("merge_seconds") >= 0
    assert document == {
        "views": {
            "by_shop": counts(merged=GOOD + 1, late=1),
            "by_user": counts(merged=GOOD, late=1, null_keys=1),
        },
        "topics": {"clicks": {"messages": GOOD + 5, "malformed": 2, "future": 1, "lost": 0}},
        "partitions": [
            {"topic": "clicks", "partition": 0, "offset": 153, "end": 153},
            {"topic": "clicks", "partition": 1, "offset": 152, "end": 152},
        ],
        "lag": 0,
        "refused": 0,
        "reloads": 0,
        "restarts": 0,
        "stopped": {},
        "evicted": 0,
    }


def counts(**known: int) -> dict[str, int]:
    named = {"merged": 0, "late": 0, "null_keys": 0, "before_start": 0, "newest_us": NEWEST_US}
    return named | known


def test_a_merge_that_fences_refuse_is_told_once(store: FeatureStore, kafka: str) -> None:
    """Another worker has merged the next message of a partition."""
    send(kafka, "clicks", [a_click(3), a_click(2)], 2)
    messages = [[a_click(1), a_click(1)], [a_click(0), a_click(0)]]

    def done(status: StreamStatus) -> bool:
        if len(messages) == 2 and has_read(2)(status):
            take_next(store)
            send(kafka, "clicks", messages.pop(0), 2)
        elif len(messages) == 1 and status.refused and has_read(4)(status):
            send(kafka, "clicks", messages.pop(0), 2)
        return not messages and has_read(6)(status) and status.view("by_user").merged >= 5

    status = work(store, done, "by_user")
    with Metrics(0) as metrics:
        metrics.update(status)
        found = scraped(metrics.port)
    assert found["feature_store_refused_total"] == status.refused == 1
    assert found['feature_store_events_total{outcome="merged",view="by_user"}'] == 5, (
        "the one that somebody else took is not"
    )


def take_next(store: FeatureStore) -> None:
    """Move the fences of a partition by one, as another worker that merges its next message."""
    with store.online.tile_writer("by_user") as writer:
        moves = {name: (at, at + 1) for name, at in writer.fences()[0].items() if name.startswith("clicks:0/")}
        assert moves
        writer.merge(Merge(0, [], np.zeros(0, np.intp), np.zeros(0, writer.layout.tiles.record), moves))


def test_lag_is_told_where_the_end_is_known_and_freshness_where_something_was_merged() -> None:
    status = StreamStatus(
        views={"idle": ViewCounts(), "busy": ViewCounts(merged=1, newest_us=NOW_US)},
        topics={"clicks": TopicCounts(lost=3)},
        positions={("clicks", 0): (3, 10), ("clicks", 1): (-1, 5), ("clicks", 2): (4, None), ("clicks", 3): (9, 8)},
        trouble="Redis is away",
        restarts=2,
    )
    with Metrics(0) as metrics:
        assert scraped(metrics.port)["feature_store_waiting"] == 0
        metrics.update(status)
        found = scraped(metrics.port)
    lags = {name: value for name, value in found.items() if name.startswith("feature_store_lag")}
    assert lags == {f'feature_store_lag{{partition="{i}",topic="clicks"}}': lag for i, lag in ((0, 7), (1, 5), (3, 0))}
    fresh = [name for name in found if name.startswith("feature_store_freshness")]
    assert fresh == ['feature_store_freshness_seconds{view="busy"}']
    assert found['feature_store_lost_total{topic="clicks"}'] == 3
    assert found["feature_store_waiting"] == 1
    assert found["feature_store_worker_restarts_total"] == 2


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StreamError, match="expected a free port"):
        Metrics(taken.getsockname()[1])


def test_a_status_is_shown_as_json_types() -> None:
    assert json.loads(json.dumps(StreamStatus().to_document())) == StreamStatus().to_document()
