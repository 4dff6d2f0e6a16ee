"""Batches merged into tiles on a real Redis, with a list of messages in place of Kafka. Wherever work is dropped or
done twice, the windows are those of the log."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message
from hypothesis import HealthCheck, given, settings, strategies as st

from feature_store import FeatureStore
from feature_store.errors import StaleWriteError
from feature_store.streaming import merging
from feature_store.streaming.formats.json_messages import JsonDecoder
from feature_store.streaming.kafka import MessageSpan
from feature_store.streaming.merging import ViewMerger
from feature_store.streaming.pipeline import Pipeline, Route
from feature_store.streaming.status import StreamStatus
from tests.streaming.streaming_worlds import SECOND_US, Click, differences, project, some_clicks, value_of

PARTITIONS = [("clicks", 0), ("clicks", 1)]
NOW_US = 1_700_000_000 * SECOND_US


@pytest.fixture(params=[1, 3])
def store(tmp_path: Path, redis_url: str, request: pytest.FixtureRequest) -> Iterator[FeatureStore]:
    with project(tmp_path, redis_url, buckets=request.param) as store:
        yield store


class Log:
    """Messages of two partitions. Some offsets are missing, as after compaction."""

    def __init__(self, clicks: list[Click], chance: random.Random) -> None:
        self.clicks = clicks
        self.messages: list[list[Message]] = [[], []]
        offsets = [0, 0]
        for click in clicks:
            partition = chance.randrange(2)
            offsets[partition] += chance.choice([1, 1, 1, 3])
            self.messages[partition].append(Message("clicks", partition, offsets[partition] - 1, value=value_of(click)))
        self.ends = offsets

    def read(self, partition: int, start: int, count: int) -> MessageSpan:
        """The next messages, from an offset on."""
        found = [message for message in self.messages[partition] if (message.offset() or 0) >= start][:count]
        return MessageSpan(start, (found[-1].offset() or 0) + 1 if found else max(start, self.ends[partition]), found)


class Reader:
    """Reads a log into the views as a worker does. A test can drop it anywhere."""

    def __init__(self, store: FeatureStore, log: Log, views: tuple[str, ...] = ("by_user", "by_shop")) -> None:
        self.log, self.views, self.status = log, views, StreamStatus()
        source = store.definitions.stream_feature_views["by_user"].source
        self.mergers = [ViewMerger(store.online.tile_writer(view), start_us=None) for view in views]
        self.pipeline = Pipeline([Route("clicks", JsonDecoder(source), self.mergers)], None, self.status)
        self.load()

    def load(self) -> None:
        self.pipeline.load(dict.fromkeys(self.views, PARTITIONS))
        starts = self.pipeline.starts().values()
        self.at = [
            min(-1 if found[partition] is None else found[partition] for found in starts) for partition in PARTITIONS
        ]

    def read(self, counts: list[int]) -> None:
        spans = {("clicks", i): self.log.read(i, self.at[i], count) for i, count in enumerate(counts) if count}
        spans = {partition: span for partition, span in spans.items() if span.end > span.start}
        for (_, i), span in spans.items():
            self.at[i] = span.end
        self.pipeline.process(spans)
        if self.pipeline.refused:
            self.pipeline.settle()
            self.load()

    def finish(self) -> None:
        while self.at != self.log.ends:
            self.read([50, 50])
        self.pipeline.catch_up(PARTITIONS)
        assert not self.pipeline.refused
        assert all(
            start == self.log.ends[i]
            for found in self.pipeline.starts().values()
            for i, start in enumerate(found.values())
        )

    def close(self) -> None:
        self.pipeline.close()


# Steps of two readers: read some messages; move all fences; drop the reader with work under way and begin again.
steps = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.one_of(st.tuples(st.integers(0, 30), st.integers(0, 30)), st.just("catch up"), st.just("drop")),
    ),
    max_size=30,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(schedule=steps, seed=st.integers(0, 1000))
def test_whoever_merges_and_is_dropped_every_click_counts_once(
    store: FeatureStore, schedule: list[tuple[int, Any]], seed: int
) -> None:
    store.online.teardown()
    store.apply()
    log = Log(some_clicks(200, users=40, seed=seed, start_us=NOW_US), random.Random(seed))
    readers = [Reader(store, log), Reader(store, log)]
    for who, step in schedule:
        if step == "drop":
            readers[who].close()
            readers[who] = Reader(store, log)
        elif step == "catch up":
            readers[who].pipeline.catch_up(PARTITIONS)
            if readers[who].pipeline.refused:
                readers[who].load()
        else:
            readers[who].read(list(step))
    for reader in readers:
        reader.close()
    last = Reader(store, log)
    last.finish()
    last.close()
    assert differences(store, log.clicks, NOW_US + 3600 * SECOND_US) == []


def test_a_large_batch_is_several_short_calls(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "ENTITIES_PER_CALL", 16)
    log = Log(some_clicks(2000, users=300, seed=1, start_us=NOW_US), random.Random(1))
    reader = Reader(store, log)
    merged: list[int] = []
    send = reader.mergers[0].send
    monkeypatch.setattr(
        reader.mergers[0],
        "send",
        lambda batch: (merged.extend(len(c.merge.entity_keys) for c in batch.calls), send(batch)),
    )
    reader.read([2000, 2000])
    reader.finish()
    assert len([count for count in merged if count]) > 8
    assert max(merged) < 100
    assert differences(store, log.clicks, NOW_US + 3600 * SECOND_US) == []
    reader.close()


def test_a_view_that_is_behind_is_left_out_until_it_has_what_came_before(store: FeatureStore) -> None:
    log = Log(some_clicks(200, users=20, seed=2, start_us=NOW_US), random.Random(2))
    ahead = Reader(store, log, ("by_user",))
    ahead.finish()
    ahead.close()

    both = Reader(store, log)
    assert both.at == [-1, -1]
    both.at = [40, 40]  # as if other workers had read up to there
    both.read([10, 10])
    both.pipeline.settle()
    assert "by_shop" not in both.status.views or both.status.views["by_shop"].merged == 0
    both.load()
    both.finish()
    assert both.status.views["by_user"].merged == 0
    assert both.status.views["by_shop"].merged == 200
    both.close()
    assert differences(store, log.clicks, NOW_US + 3600 * SECOND_US) == []


def test_a_new_plan_stops_the_merges_of_the_old_one(store: FeatureStore) -> None:
    log = Log(some_clicks(20, users=20, seed=3, start_us=NOW_US), random.Random(3))
    reader = Reader(store, log)
    reader.read([2, 2])
    store.apply()
    published = store.online.require_published()
    store.online.publish(published.plan, over=published)
    with pytest.raises(StaleWriteError):
        reader.finish()
    reader.close()
