"""The parts of streaming on Spark that need no Spark: where to begin, gaps, and the settings of clients and tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from feature_store.engines.spark.kafka import ArrowMessage, connector, with_connector
from feature_store.engines.spark.settings import session_settings
from feature_store.errors import ConfigError, StreamError
from feature_store.streaming.fences import LANES, Fences, field
from feature_store.streaming.pipeline import Pipeline, Route
from feature_store.streaming.spark.options import source_options
from feature_store.streaming.spark.reading import start_offsets
from feature_store.streaming.spark.tasks import TaskOutcome, behind, outcome_of, outcome_text
from feature_store.streaming.status import StreamStatus, TopicCounts, ViewCounts

A, B = ("clicks", 0), ("clicks", 1)


class Merger:
    """The fences of a view, in place of its whole merger."""

    def __init__(self, view: str, at: dict[tuple[str, int], int]) -> None:
        stored = {field(f"{topic}:{number}", lane): to for (topic, number), to in at.items() for lane in range(LANES)}
        self.view, self.fences = view, Fences([stored], ["clicks:0", "clicks:1"])


def pipeline(**views: dict[tuple[str, int], int]) -> Pipeline:
    decoder: Any = None
    mergers: Any = [Merger(view, at) for view, at in views.items()]
    return Pipeline([Route("clicks", decoder, mergers)], None, StreamStatus())


def test_a_query_begins_where_the_view_that_is_least_far_goes_on() -> None:
    found = start_offsets(pipeline(a={A: 7, B: 50}, b={A: 40, B: 20}), {A: (0, 100), B: (0, 50)})
    assert found == {A: 7, B: 20}


def test_without_a_fence_it_begins_at_the_first_message() -> None:
    found = pipeline(a={A: 40})
    assert start_offsets(found, {A: (0, 100), B: (30, 50)}) == {A: 40, B: 30}
    assert found.status.topics == {}


def test_what_kafka_has_deleted_before_it_was_merged_is_counted() -> None:
    found = pipeline(a={A: 7, B: 50})
    assert start_offsets(found, {A: (10, 100), B: (50, 50)}) == {A: 10, B: 50}
    assert found.status.topic("clicks").lost == 3


def test_a_topic_that_ends_before_the_fences_is_another() -> None:
    with pytest.raises(StreamError, match=r"clicks\[0\]: the log ends at offset 5, before offset 7.*created again"):
        start_offsets(pipeline(a={A: 7, B: 0}), {A: (0, 5), B: (0, 5)})


offsets = st.none() | st.integers(0, 9)


@given(st.fixed_dictionaries({"a": st.fixed_dictionaries({A: offsets, B: offsets})}), st.integers(0, 9))
def test_a_view_is_behind_where_it_has_not_merged_all_that_is_before(
    starts: dict[str, dict[tuple[str, int], int | None]], at: int
) -> None:
    lacking = {partition for partition, start in starts["a"].items() if not set(range(at)) <= set(range(start or 0))}
    assert behind(starts, {A: at, B: at}) == ({"a": lacking} if lacking else {})
    assert behind(starts, {}) == {}, "a partition that is new begins at its start"


def test_what_a_task_tells_comes_as_it_was() -> None:
    status = StreamStatus({"a": ViewCounts(1, 2, 3, 4, 5)}, {"clicks": TopicCounts(6, 7, 8, 9)}, 10, 0, 11, 0.5)
    told = TaskOutcome(status, [A, B], "refused")
    assert outcome_of(outcome_text(told)) == told


def test_a_row_is_a_message() -> None:
    kind = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
    headers = pa.array([[{"key": "trace", "value": b"7"}], None], kind)
    times = pa.array([1_700_000_000_123_456, None], pa.timestamp("us", "UTC"))
    batch = pa.record_batch({"key": pa.array([b"k", None], pa.binary()), "headers": headers, "timestamp": times})
    first, second = ArrowMessage(batch, 0, A, 5, b"value"), ArrowMessage(batch, 1, B, 6, None)
    assert (first.topic(), first.partition(), first.offset(), first.key(), first.value()) == (
        "clicks",
        0,
        5,
        b"k",
        b"value",
    )
    assert (first.timestamp(), second.timestamp()) == ((1, 1_700_000_000_123), (0, -1))
    assert (len(first), first.headers()) == (5, [("trace", b"7")])
    assert (len(second), second.key(), second.value(), second.headers()) == (0, None, None, [])


# -- settings -------------------------------------------------------------------------------------------------------


def test_the_connector_is_fetched_unless_jars_are_named() -> None:
    found = with_connector({"spark.master": "local"})
    assert found["spark.jars.packages"] == connector()
    assert found["spark.master"] == "local"
    for named in ({"spark.jars": "a.jar"}, {"spark.jars.packages": "g:a:1"}):
        assert with_connector(named) == named
    assert with_connector({"spark.jars.packages": ""}) == {}


@pytest.mark.parametrize(
    ("version", "own"), [("4.1.2", "4.1.2"), ("4.2.0", "4.2.0"), ("4.3.0", "4.2.0"), ("5.0.0.dev1", "4.2.0")]
)
def test_the_connector_is_of_the_own_version_as_far_as_there_is_one(version: str, own: str) -> None:
    assert connector(version) == f"org.apache.spark:spark-sql-kafka-0-10_2.13:{own}"


def test_settings_of_the_client_are_translated(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    kafka = {
        "bootstrap.servers": "a:9093",
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": 'a "b\\',
        "ssl.ca.location": str(tmp_path / "ca.pem"),
        "queued.min.messages": 5,
        "session.timeout.ms": 1500,
    }
    assert source_options(kafka, {}) == {
        "kafka.isolation.level": "read_committed",
        "kafka.bootstrap.servers": "a:9093",
        "kafka.security.protocol": "SASL_SSL",
        "kafka.sasl.mechanism": "SCRAM-SHA-512",
        "kafka.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required "
        'username="me" password="a \\"b\\\\";',
        "kafka.ssl.truststore.certificates": "-----BEGIN CERTIFICATE-----",
        "kafka.ssl.truststore.type": "PEM",
    }


def test_sparks_own_words_win() -> None:
    spark = {"spark.master": "local", "kafka.ssl.keystore.location": "/keys.jks", "kafka.client.id": "spark"}
    found = source_options({"bootstrap.servers": "a:1", "client.id": "us", "ssl.keystore.location": "/keys.p12"}, spark)
    assert found["kafka.ssl.keystore.location"] == "/keys.jks"
    assert found["kafka.client.id"] == "spark"
    assert session_settings(spark) == {"spark.master": "local"}


@pytest.mark.parametrize(
    ("kafka", "told"),
    [
        ({"sasl.kerberos.keytab": "x"}, "kafka.sasl.kerberos.keytab: expected a setting that Spark's Kafka client has"),
        ({"ssl.ca.location": "/none.pem"}, "kafka.ssl.ca.location: expected a PEM file to read"),
        ({"sasl.username": "me", "sasl.mechanism": "GSSAPI"}, "kafka.sasl.mechanism: expected one of PLAIN"),
    ],
)
def test_what_cannot_be_translated_is_told_of(kafka: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        source_options(kafka, {})
