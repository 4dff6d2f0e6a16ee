"""Reads Kafka in micro-batches with Spark Structured Streaming. Spark's Kafka connector is a separate jar."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.streaming.query import StreamingQuery

from feature_store.engines.spark.session import VERSION, Session, spark_errors
from feature_store.errors import EngineError

Partition = tuple[str, int]
Offsets = dict[Partition, int]

COLUMNS = ("topic", "partition", "offset", "key", "value", "headers", "timestamp")
# The schema of a task's result: one row of text.
TOLD = "told string"
# Also used for newer versions of Spark. Their own connector was not published when this was written; this one works.
_NEWEST_CONNECTOR = "4.2.0"
_PACKAGES, _JARS, _EXCLUDES = "spark.jars.packages", "spark.jars", "spark.jars.excludes"
# Dependencies of the connector that every Spark already has: 60 MB that need no download.
_OF_SPARK = (
    "org.apache.hadoop:hadoop-client-api",
    "org.apache.hadoop:hadoop-client-runtime",
    "org.scala-lang.modules:scala-parallel-collections_2.13",
    "org.slf4j:slf4j-api",
)
_MISSING = "Failed to find data source: kafka"


def connector(version: str = VERSION) -> str:
    """The Maven coordinates of the Kafka connector for a Spark version."""
    own = min(version, _NEWEST_CONNECTOR, key=lambda text: [int(part) for part in text.split(".")[:2]])
    return f"org.apache.spark:spark-sql-kafka-0-10_2.13:{own}"


def with_connector(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a session that reads Kafka. Unless they name jars or packages, the connector is downloaded."""
    named = {name: value for name, value in settings.items() if name not in (_PACKAGES, _JARS) or value != ""}
    if _PACKAGES in settings or _JARS in settings:
        return named
    return {_PACKAGES: connector(), _EXCLUDES: ",".join(_OF_SPARK), **named}


def require_connector(session: Session) -> None:
    """Check that the session can read Kafka.

    Raises:
        EngineError: the session has no Kafka connector, or cannot be started.
    """
    try:
        with spark_errors():
            session.spark.readStream.format("kafka").load()
    except EngineError as error:
        # With a connector, Spark raises another error, because no topic is named.
        if _MISSING in error.got:
            hint = f"name it, as `{_PACKAGES}: {connector()}` in `spark:` of feature_store.yaml or with spark-submit"
            got = "none among its jars"
            raise EngineError("Spark", expected="its Kafka connector", got=got, hint=hint) from error


class KafkaQuery:
    """A streaming query that reads topics from given offsets, and passes on batch after batch until it is closed.

    Spark's checkpoint belongs to this query and is deleted with it. The caller alone decides where to begin.

    Args:
        session: a session with the connector.
        options: options of the source `kafka`.
        starts: the offset to begin at in each partition of the topics. Partitions that are added later begin at their
            first offset.
        take: is called with each batch: a frame of `COLUMNS` with one partition for each Kafka partition that has
            messages, and the offsets up to which the batch has all messages. One thread of Spark makes all calls.

    Raises:
        EngineError: Spark cannot start the query.
    """

    def __init__(
        self,
        session: Session,
        options: Mapping[str, str],
        starts: Offsets,
        take: Callable[[DataFrame, Offsets], None],
    ) -> None:
        topics = sorted({topic for topic, _ in starts})
        self._take = take
        self._folder = tempfile.TemporaryDirectory(prefix="feature-store-stream-", ignore_cleanup_errors=True)
        wanted = {
            "subscribe": ",".join(topics),
            "startingOffsets": _written(starts),
            "includeHeaders": "true",
            "failOnDataLoss": "true",  # else Spark would skip deleted messages without an error
        }
        try:
            with spark_errors():
                frame = session.spark.readStream.format("kafka").options(**{**options, **wanted}).load()
                writer = frame.select(*COLUMNS).writeStream.foreachBatch(self._hand_on)
                writer = writer.option("checkpointLocation", Path(self._folder.name).as_uri())
                self._query: StreamingQuery = writer.start()
        except EngineError:
            self._folder.cleanup()
            raise

    def wait(self, seconds: float) -> None:
        """Wait for some seconds, or until the query ends.

        Raises:
            EngineError: the query ended.
        """
        with spark_errors():
            ended = self._query.awaitTermination(seconds)  # type: ignore[arg-type]  # it takes fractions, too
        if ended:
            raise EngineError("Spark", problem="the streaming query stopped unexpectedly")

    def ends(self) -> Offsets:
        """The end offset of each partition when the last batch began. Empty before the first batch."""
        with spark_errors():
            progress = self._query.lastProgress
        return _read(progress.sources[0].latestOffset) if progress is not None and progress.sources else {}

    def close(self) -> None:
        """Stop the query and cancel the batch that is under way."""
        try:
            with spark_errors():
                self._query.stop()
        finally:
            self._folder.cleanup()

    def _hand_on(self, frame: DataFrame, number: int) -> None:
        # Spark writes a batch's offsets to its checkpoint before it runs the batch. The last line is Kafka's.
        text = (Path(self._folder.name) / "offsets" / str(number)).read_text()
        self._take(frame, _read(text.splitlines()[-1]))


class ArrowMessage:
    """One row of a batch, with the methods of confluent-kafka's Message."""

    __slots__ = ("_batch", "_offset", "_partition", "_row", "_value")

    def __init__(self, batch: pa.RecordBatch, row: int, partition: Partition, offset: int, value: bytes | None) -> None:
        self._batch, self._row, self._partition, self._offset, self._value = batch, row, partition, offset, value

    def topic(self) -> str:
        """The topic's name."""
        return self._partition[0]

    def partition(self) -> int:
        """The partition's number."""
        return self._partition[1]

    def offset(self) -> int:
        """The message's offset in its partition."""
        return self._offset

    def value(self) -> bytes | None:
        """The message's value; None for a tombstone."""
        return self._value

    def key(self) -> bytes | None:
        """The message's key, or None."""
        key: bytes | None = self._batch["key"][self._row].as_py()
        return key

    def headers(self) -> list[tuple[str, bytes | None]]:
        """The message's headers: (name, value)."""
        found = self._batch["headers"][self._row].as_py() or []
        return [(header["key"], header["value"]) for header in found]

    def timestamp(self) -> tuple[int, int]:
        """The type of the message's time, 0 if it has none, and the time: milliseconds since 1970."""
        time_ms: int | None = self._batch["timestamp"][self._row].cast(pa.timestamp("ms", "UTC"), safe=False).value
        return (0, -1) if time_ms is None else (1, time_ms)

    def __len__(self) -> int:
        return len(self._value or b"")


def messages(batch: pa.RecordBatch) -> Iterator[tuple[Partition, list[ArrowMessage]]]:
    """The messages of a batch of `COLUMNS`, grouped by partition. Each group keeps the order of the batch."""
    found: dict[Partition, list[ArrowMessage]] = {}
    columns = (batch[name].to_pylist() for name in ("topic", "partition", "offset", "value"))
    for row, (topic, number, offset, value) in enumerate(zip(*columns, strict=True)):
        partition = (topic, number)
        found.setdefault(partition, []).append(ArrowMessage(batch, row, partition, offset, value))
    yield from found.items()


def row_of(text: str) -> pa.RecordBatch:
    """A result row with the schema `TOLD`."""
    return pa.record_batch({"told": pa.array([text])})


def _written(offsets: Offsets) -> str:
    topics: dict[str, dict[str, int]] = {}
    for (topic, number), at in offsets.items():
        topics.setdefault(topic, {})[str(number)] = at
    return json.dumps(topics)


def _read(text: str | None) -> Offsets:
    topics = json.loads(text or "null") or {}
    return {(topic, int(number)): at for topic, found in topics.items() for number, at in found.items()}
