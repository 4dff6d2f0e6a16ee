"""How a worker takes messages that are no ordinary events, and changes of plans, topics and groups while it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from feature_store import FeatureStore
from feature_store.errors import NotFoundError, StreamError
from feature_store.streaming import worker
from feature_store.streaming.status import StreamStatus
from tests.streaming.running import until
from tests.streaming.streaming_worlds import (
    DEFINITIONS,
    SECOND_US,
    Click,
    differences,
    make_topic,
    project,
    received,
    send,
    some_clicks,
    value_of,
    work,
)

NOW_US = time.time_ns() // 1_000
TEN_MB = 10_000_000


@pytest.fixture
def store(tmp_path: Path, redis_url: str, kafka: str) -> Iterator[FeatureStore]:
    make_topic(kafka, "clicks", 2)
    with project(tmp_path, redis_url, kafka) as store:
        yield store


def click(ago_s: float = 0, **members: Any) -> Click:
    known = {"user_id": 1, "shop": "a", "price": 1.5, "ts": int(NOW_US // 1000 - ago_s * 1000)}
    return known | members


def has_read(count: int) -> Any:
    return lambda status: status.topic("clicks").messages >= count and status.lag == 0 and status.positions


def headers_of(message: Message) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in message.headers() or []}


def test_what_is_no_event_goes_to_the_dead_letters_and_the_worker_lives(store: FeatureStore, kafka: str) -> None:
    make_topic(kafka, "clicks.dead-letter", 1, **{"max.message.bytes": "12000000"})
    good = [
        click(shop="a"),
        click(ago_s=7000, price=2.5),
        click(price=None),
        click(new={"nested": [1]}),  # the producer's schema has a new member
        click(ago_s=-5),  # a clock that is fast, by less than is tolerated
        click(padding="x" * TEN_MB),
    ]
    odd: list[tuple[bytes | None, str, str]] = [
        (b"{", "malformed", "message"),
        (b"", "malformed", "message"),
        (None, "malformed", "message"),
        (b"x" * TEN_MB, "malformed", "message"),
        (b"[%s]" % value_of(click()), "malformed", "message"),
        (value_of(click(user_id="one")), "malformed", "user_id"),
        (value_of(click(price=True)), "malformed", "price"),
        (value_of(click(ts="never")), "malformed", "ts"),
        (json.dumps({"user_id": 1, "shop": "a", "price": 1.0}).encode(), "malformed", "ts"),
        (value_of(click(ago_s=-3600)), "future", "event time"),
        (value_of(click(user_id=None, shop="b")), "null key", "by_user"),
        (value_of(click(ago_s=86_400 * 9)), "late", "by_user"),
    ]
    # An event is late when it comes after newer events of the same entity.
    values = [*map(value_of, good), *(value for value, _, _ in odd)]
    send(kafka, "clicks", values, 1, **{"message.max.bytes": 12_000_000})
    status = work(store, has_read(len(values)))
    assert differences(store, [event for event in good if event["price"] is not None], NOW_US + SECOND_US * 6) == [
        "by_shop of b: expected nothing"
    ]
    user, shop = status.view("by_user"), status.view("by_shop")
    assert (user.merged, user.late, user.null_keys) == (len(good), 1, 1)
    assert (shop.merged, shop.late, shop.null_keys) == (len(good) + 1, 1, 0)
    assert (status.topic("clicks").malformed, status.topic("clicks").future) == (9, 1)

    letters = {}
    for message in received(kafka, "clicks.dead-letter"):
        headers = headers_of(message)
        assert (headers["topic"], headers["partition"]) == ("clicks", "0")
        assert headers["reason"]
        letters[int(headers["offset"]), headers["where"]] = (message.value() or None, headers["kind"])
    wanted = {(len(good) + i, where): (value or None, kind) for i, (value, kind, where) in enumerate(odd)}
    wanted[len(values) - 1, "by_shop"] = (odd[-1][0], "late")
    assert letters == wanted
    with store.online.tile_writer("by_user") as writer:
        assert writer.late() == 1


def test_a_letter_that_is_too_large_for_its_topic_says_so(store: FeatureStore, kafka: str) -> None:
    make_topic(kafka, "clicks.dead-letter", 1, **{"max.message.bytes": "2000"})
    send(kafka, "clicks", [b"x" * 100_000, value_of(click())], 1)
    status = work(store, has_read(2))
    assert status.view("by_user").merged == 1
    (letter,) = received(kafka, "clicks.dead-letter")
    assert letter.value() is None
    assert headers_of(letter)["left_out"] == "100000 bytes, more than the topic takes"


def test_letters_are_not_sent_again_by_whoever_reads_again(store: FeatureStore, kafka: str) -> None:
    send(kafka, "clicks", [b"{", value_of(click()), value_of(click(user_id=None))], 2)
    assert work(store, has_read(3)).dead == 2
    # A view that is new reads all messages.
    text = (
        DEFINITIONS
        + 'by_both = StreamFeatureView("by_both", entities=[user, shop], source=clicks, aggregations=['
        + ('Aggregation("price", "count", windows=[hour])])\n')
    )
    with project(store.config.folder, store.online_url, kafka, definitions=text) as changed:
        status = work(changed, has_read(3))
        assert (status.view("by_both").merged, status.view("by_both").null_keys) == (1, 1)
        assert status.topic("clicks").malformed == 0
    found = sorted(headers_of(letter)["where"] for letter in received(kafka, "clicks.dead-letter"))
    assert found == ["by_both", "by_user", "message"]


def test_a_view_that_is_far_behind_does_not_keep_the_others_waiting(
    store: FeatureStore, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FAR_BEHIND", 1_000)
    clicks = some_clicks(4_000, users=100, seed=1, start_us=NOW_US - 7200 * SECOND_US)
    send(kafka, "clicks", map(value_of, clicks[:3_000]), 2)
    work(store, has_read(3_000), "by_user")
    send(kafka, "clicks", map(value_of, clicks[3_000:]), 2)
    status = work(
        store, lambda status: status.view("by_shop").merged == 4_000 and status.view("by_user").merged == 1_000
    )
    # With one reader, the view that was far ahead would have gone through all messages, too.
    assert status.topic("clicks").messages == 5_000
    assert differences(store, clicks, NOW_US) == []


def test_what_kafka_has_deleted_is_told_and_the_rest_is_merged(store: FeatureStore, kafka: str) -> None:
    clicks = some_clicks(600, users=50, seed=2, start_us=NOW_US - 7200 * SECOND_US)
    send(kafka, "clicks", map(value_of, clicks[:200]), 2)
    work(store, has_read(200))
    send(kafka, "clicks", map(value_of, clicks[200:]), 2)
    admin = AdminClient({"bootstrap.servers": kafka})
    for deleted in admin.delete_records([TopicPartition("clicks", 0, 150), TopicPartition("clicks", 1, 100)]).values():
        deleted.result(10)
    status = work(store, lambda status: status.lag == 0 and sum(at for at, _ in status.positions.values()) == 600)
    assert status.topic("clicks").lost == 50
    kept = [event for i, event in enumerate(clicks) if i < 200 or i % 2 or i // 2 >= 150]
    assert differences(store, kept, NOW_US) == []


def test_a_plan_that_is_published_is_taken_up_at_once(store: FeatureStore, kafka: str) -> None:
    clicks = some_clicks(500, users=50, seed=3, start_us=NOW_US - 7200 * SECOND_US)
    send(kafka, "clicks", map(value_of, clicks[:250]), 2)
    rest = [value_of(event) for event in clicks[250:]]

    def done(status: StreamStatus) -> bool:
        if status.view("by_user").merged == 250 and rest:
            published = store.online.require_published()
            store.online.publish(published.plan, over=published)
            send(kafka, "clicks", rest, 2)
            rest.clear()
        return status.view("by_user").merged == status.view("by_shop").merged == 500

    assert work(store, done).reloads == 1
    assert differences(store, clicks, NOW_US) == []


def test_a_worker_whose_place_in_the_group_was_taken_joins_again(store: FeatureStore, kafka: str) -> None:
    """To the broker, a member with the same name is the worker, restarted. It fences the old member for good."""
    store.config.kafka["group.instance.id"] = "first"
    clicks = some_clicks(400, users=50, seed=4, start_us=NOW_US - 7200 * SECOND_US)
    send(kafka, "clicks", map(value_of, clicks[:200]), 2)
    rest = [value_of(event) for event in clicks[200:]]

    def done(status: StreamStatus) -> bool:
        if rest and has_read(200)(status):
            take_the_place(kafka, "feature-store-shop", "first")
            send(kafka, "clicks", rest, 2)
            rest.clear()
        return status.view("by_user").merged == status.view("by_shop").merged == 400

    work(store, done)
    assert differences(store, clicks, NOW_US) == []


def take_the_place(bootstrap: str, group: str, name: str) -> None:
    """Join a group under the name of a member that it has."""
    about = {"bootstrap.servers": bootstrap, "group.id": group, "group.instance.id": name}
    other = Consumer(about | {"session.timeout.ms": 1500, "partition.assignment.strategy": "roundrobin"})
    other.subscribe(["clicks"])
    until(lambda: other.poll(0.1) is None and other.assignment())
    other.close()


def test_views_and_topics_must_be_there(store: FeatureStore, tmp_path: Path, redis_url: str, kafka: str) -> None:
    with pytest.raises(NotFoundError, match="by_nobody: expected a stream view: by_shop, by_user"):
        store.stream(["by_nobody"], until_caught_up=True)
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.delete_topics(["clicks"])["clicks"].result(10)
    with pytest.raises(
        StreamError, match=r"no topic of that name.*kafka-topics --bootstrap-server .* --create --topic clicks"
    ):
        store.stream(until_caught_up=True)
    with (
        project(tmp_path, redis_url, "127.0.0.1:1") as unreachable,
        pytest.raises(StreamError, match="is the broker running"),
    ):
        unreachable.stream(until_caught_up=True)
