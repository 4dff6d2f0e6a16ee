"""Fills a new generation of a stream view: from the history up to a time T, and from the stream after T.

    begin     the plan names the new generation; readers and workers keep using the old one
    history   merges rows with event times before T, as far back as the longest window needs
    stream    merges events with times from T on, up to the topic's end
    serve     readers switch at once; workers continue at the fences of the new generation

A history has fences as a partition has: they count its merged rows. A killed backfill therefore resumes exactly where
it stopped. The fences' names contain a digest of the history's files, so a changed history starts over.

If the source has no history, the view is filled from all messages in the topic.

Kafka can look up an offset by message timestamp. If brokers set the timestamps
(`message.timestamp.type=LogAppendTime`), the look-up finds T in the topic. If producers set them, they may be wrong.
Such a topic is read from its start, and events before T are left out by their event times.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store._intervals import Interval
from feature_store._private_files import private_file, private_folder
from feature_store.aggregates.windows import EARLIEST_EVENT_US, LATEST_EVENT_US
from feature_store.arrow.quarantine import Quarantine
from feature_store.arrow.rows import EVENT_TS, SEQUENCE, check_events, source_columns, within
from feature_store.arrow.sources.opening import open_view
from feature_store.arrow.sources.source import OfflineSource
from feature_store.arrow.time_range import TimeRange
from feature_store.arrow.types import numpy_values
from feature_store.definitions.dtypes import DType, from_microseconds
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.engines.report import Report, Silent
from feature_store.errors import DefinitionError, FenceError, RequestError, StaleWriteError, StreamError
from feature_store.registry.serving_plan import TilesPlan
from feature_store.streaming.decoder import EventBatch, decoder_of
from feature_store.streaming.fences import fences_moved
from feature_store.streaming.kafka import Partition, PartitionConsumer
from feature_store.streaming.kafka_errors import missing_topic
from feature_store.streaming.kafka_topics import Topics
from feature_store.streaming.merging import Origin, ViewMerger
from feature_store.streaming.pipeline import Pipeline, Route
from feature_store.streaming.replay import Replay
from feature_store.streaming.routes import refusal_of
from feature_store.streaming.status import StreamStatus

if TYPE_CHECKING:
    import pyarrow as pa

    from feature_store.project.context import Project

# Rows per batch. A history has many distinct entities; one call, for a sixteenth of the batch, takes 4 ms.
_BATCH = 5_000
# Kafka looks up messages by the time they were sent, not by the event time. A message is assumed to be sent at most
# this long before its event time, so reading begins this much earlier.
_MARGIN_US = 3_600_000_000
# If Kafka has deleted the start of a partition, the oldest remaining messages show how far back its events reach. At
# most this many messages are read, for at most this many seconds.
_FIRST_MESSAGES, _FIRST_S = 100, 10.0
# The workers take over when at most this many messages are left. A poll waits at most _WAIT_S seconds.
_LEFT = 5_000
_WAIT_S = 0.2
# The prefix of the fences of a history. No topic can have such a name.
HISTORY = "@history"
_LOG = logging.getLogger("feature_store.streaming")


@dataclass(frozen=True)
class Filled:
    """The result of a backfill.

    Attributes:
        view: the view's name.
        generation: the number of the new generation.
        history_rows: history rows that were merged by this run and by earlier runs that were killed.
        quarantined: history rows that do not fit the source's schema.
        quarantine_file: the file with these rows; None: there are none.
        stream_events: stream events that this run merged.
        seconds: the duration of this run.
    """

    view: str
    generation: int
    history_rows: int = 0
    quarantined: int = 0
    quarantine_file: str | None = None
    stream_events: int = 0
    seconds: float = 0.0

    def to_document(self) -> dict[str, Any]:
        """The result as JSON types."""
        return asdict(self)


class Backfill:
    """Fills a generation of a stream view.

    Args:
        project: the project. Without Kafka settings, only the history is merged.
        view: the stream view.
        allow_gap: continue if Kafka may have deleted messages from after the history's end.
        report: gets the progress.
    """

    def __init__(
        self, project: Project, view: StreamFeatureView, *, allow_gap: bool = False, report: Report | None = None
    ) -> None:
        self._view, self._online, self._folders = view, project.online, project.folders
        self._kafka, self._allow_gap, self._report = project.config.kafka, allow_gap, report or Silent()

    def refuse_end(self, until_us: int | None) -> None:
        """Check that the view's history can end at a time.

        Args:
            until_us: the end of the history, microseconds since 1970. None: no end is given.

        Raises:
            DefinitionError: an end is given, but the view's source has no history.
            RequestError: the end is in the future by Redis's clock, or it is missing although the source has a history.
            DataError: the history cannot be read.
            StoreConnectionError: Redis cannot be reached.
            StoreTimeoutError: Redis does not answer in time.
        """
        where, now_us = f"backfill of {self._view.name}", self._online.now_us()
        if until_us is None:
            if self._view.history is not None:
                problem = "the source has a history, and nothing says up to when it is whole"
                raise RequestError(where, problem=problem, hint="say it: --until TIME")
            return
        if until_us > now_us:
            latest, got = from_microseconds(now_us).isoformat(), from_microseconds(until_us).isoformat()
            raise RequestError(where, expected=f"an end of the history before {latest}", got=got)
        self._rows()

    def fill(self, tiles: TilesPlan) -> Filled:
        """Fill a generation that the plan names as being filled. After a kill, another call resumes the work.

        Raises:
            DataError: the history cannot be read.
            StreamError: Kafka cannot be reached, or may have deleted messages from after the history's end.
            OnlineStoreError: Redis cannot be reached. Run the backfill again.
        """
        started = time.perf_counter()
        rows = events = 0
        with self._locked():
            quarantine = Quarantine(self._folders.quarantine, self._folders.work("backfill"), self._view.name)
            topic_id = Topics(self._kafka).ids([tiles.topic]).get(tiles.topic, "") if self._kafka else ""
            if refusal_of(self._online, tiles, topic_id) is not None:
                self._online.begin_tiles_anew(tiles)
            if tiles.start_us is not None:
                try:
                    rows = self._fill_from_history(tiles, tiles.start_us, quarantine)
                finally:
                    quarantine.close()
            if self._kafka:
                self._online.note_topic_id(tiles, topic_id)
                events = self._fill_from_stream(tiles)
        file = str(quarantine.path) if quarantine.path is not None else None
        seconds = time.perf_counter() - started
        return Filled(self._view.name, tiles.generation, rows, quarantine.rows, file, events, seconds)

    # -- history ------------------------------------------------------------------------------------------------

    def _fill_from_history(self, tiles: TilesPlan, until_us: int, quarantine: Quarantine) -> int:
        """Merge the rows of the history. Returns the number of its valid rows."""
        rows = self._rows()
        start_us = max(until_us - tiles.windows.longest_us, EARLIEST_EVENT_US)
        about = repr([rows.version, start_us, until_us])
        name = f"{HISTORY}:{hashlib.sha256(about.encode()).hexdigest()[:16]}"
        self._drop_unless_begun(tiles, name)
        while True:
            merger = ViewMerger(self._online.tile_filler(tiles), start_us=None)
            try:
                merger.load([name])
                return self._merge_history(merger, name, rows, (start_us, until_us), quarantine)
            except (StaleWriteError, FenceError) as error:
                _LOG.info("going on at the fences: %s", error)
            finally:
                merger.close()

    def _merge_history(
        self, merger: ViewMerger, name: str, rows: OfflineSource, interval: Interval, quarantine: Quarantine
    ) -> int:
        """Merge the rows that are not merged yet. Returns the number of all valid rows."""
        columns = source_columns(self._view, rows.schema, rows.where)
        self._report.started(f"{self._view.name}: history", rows.total)
        merged, first, at = 0, 0, -1
        for batch in rows.batches(columns.names, TimeRange(columns.event_timestamp, *interval)):
            # A row's place counts all rows in the interval, invalid ones included. It is the same in every run.
            inside = within(batch, columns, *interval)
            good, bad = check_events(inside, columns, self._view.join_keys, first)
            first += len(inside)
            quarantine.add(bad)
            for events, places in self._events(good, columns.checked):
                # All rows up to `at` are in this batch or an earlier one, or are invalid.
                at, begun = int(places[-1]) + 1, at
                if at > (merger.fences.start(name) or 0):
                    origin = Origin([name], [(begun, at)], np.zeros(len(events), np.intp), places)
                    merger.send(merger.prepare(events, origin))
                    _settle(merger, leave=1)
            merged += len(good)
            self._report.advanced(len(batch))
        _settle(merger)
        merger.send(merger.catch_up([name]))
        _settle(merger)
        self._report.finished()
        return merged

    def _rows(self) -> OfflineSource:
        if self._view.history is None:
            where = f"KafkaSource({self._view.source.name!r}).history"
            hint = "leave --until out to fill the view from the topic alone, or give the source a history"
            raise DefinitionError(where, expected="the events on disk", got="none", hint=hint)
        return open_view(self._view.history, self._view, self._folders.source)

    def _events(self, rows: pa.RecordBatch, types: Mapping[str, DType]) -> Iterator[tuple[EventBatch, Any]]:
        """Checked rows as batches of events, each with (n,) int64 places in the history."""
        for start in range(0, len(rows), _BATCH):
            part = rows.slice(start, _BATCH)
            columns = {}
            for column, dtype in types.items():
                values, nulls = numpy_values(part.column(column), dtype)
                columns[column] = values, np.zeros(len(part), bool) if nulls is None else nulls
            events = EventBatch(np.arange(len(part)), part.column(EVENT_TS).to_numpy(), columns, {})
            yield events, part.column(SEQUENCE).to_numpy()

    def _drop_unless_begun(self, tiles: TilesPlan, name: str) -> None:
        """Empty the generation unless it holds rows of this history only."""
        with self._online.tile_filler(tiles) as writer:
            known = {known.rpartition("/")[0] for fences in writer.fences() for known in fences}
        begun = {source for source in known if source.startswith(f"{HISTORY}:")}
        if begun != {name}:
            self._online.begin_tiles_anew(tiles)

    # -- stream -------------------------------------------------------------------------------------------------

    def _fill_from_stream(self, tiles: TilesPlan) -> int:
        """Merge the topic's events from after the history's end. Returns how many events this run merged."""
        topic, status = self._view.source.topic, StreamStatus()
        numbers = Topics(self._kafka).partitions([topic]).get(topic)
        if numbers is None:
            raise missing_topic(topic, self._kafka)
        partitions = [(topic, number) for number in numbers]
        reader = PartitionConsumer(self._kafka)
        try:
            firsts = self._firsts(reader, partitions, tiles.start_us)
            self._report.started(f"{self._view.name}: stream", None)
            while True:
                replay = self._replay(tiles, partitions, firsts, status)
                try:
                    self._follow(replay, reader, partitions)
                    self._report.finished()
                    return status.view(self._view.name).merged
                except (StaleWriteError, FenceError) as error:
                    _LOG.info("going on at the fences: %s", error)
                finally:
                    replay.close()
        finally:
            reader.close()

    def _replay(
        self, tiles: TilesPlan, partitions: list[Partition], firsts: Mapping[Partition, int], status: StreamStatus
    ) -> Replay:
        merger = ViewMerger(self._online.tile_filler(tiles), start_us=tiles.start_us)
        # No dead letters: the workers send those of this stream.
        pipeline = Pipeline([Route(tiles.topic, decoder_of(self._view.source), [merger])], None, status)
        return Replay(self._kafka, pipeline, {self._view.name: partitions}, firsts)

    def _follow(self, replay: Replay, reader: PartitionConsumer, partitions: list[Partition]) -> None:
        """Merge until at most _LEFT messages arrive in one round, then move all fences."""
        left = _LEFT + 1
        while left > _LEFT:
            goals = {partition: reader.range(partition)[1] for partition in partitions}
            left = 0
            while not replay.has_reached(goals):
                count = replay.turn(_WAIT_S)
                left += count
                self._report.advanced(count)
        replay.catch_up()

    def _firsts(
        self, reader: PartitionConsumer, partitions: list[Partition], start_us: int | None
    ) -> dict[Partition, int]:
        """By partition, the offset to begin at so that no message from after the history's end is missed.

        Raises:
            StreamError: Kafka may have deleted such messages, and `allow_gap` is False.
        """
        starts = {partition: reader.range(partition)[0] for partition in partitions}
        if start_us is None:
            return starts
        since_us, topic = start_us - _MARGIN_US, self._view.source.topic
        if Topics(self._kafka).are_times_of_brokers(topic):
            firsts = reader.offsets_at(topic, [number for _, number in partitions], since_us)
            kept = {partition: offset > starts[partition] for partition, offset in firsts.items()}
        else:
            _LOG.info("producers set the timestamps of topic %s: it is read from its start", topic)
            firsts = starts
            kept = {partition: self._begins_before(reader, partition, since_us) for partition in partitions}
        for partition, first in starts.items():
            if first > 0 and not kept[partition]:
                self._tell_of_gap(partition, first, start_us)
        return firsts

    def _begins_before(self, reader: PartitionConsumer, partition: Partition, since_us: int) -> bool:
        """Whether one of the oldest messages in a partition is an event from before a time."""
        first, end = reader.range(partition)
        wanted = min(end, first + _FIRST_MESSAGES)
        if first == 0 or first == end:
            return first == 0
        reader.place({partition: first})
        decoder = decoder_of(self._view.source)
        until = time.monotonic() + _FIRST_S
        while reader.positions[partition] < wanted and time.monotonic() < until:
            for span in reader.poll(_FIRST_MESSAGES, _WAIT_S).spans.values():
                events = decoder.decode(span.messages)
                if len(events) and events.event_us.min() < since_us:
                    return True
        reader.place({})
        return False

    def _tell_of_gap(self, partition: Partition, first: int, start_us: int) -> None:
        error = StreamError(
            f"{partition[0]}[{partition[1]}]",
            expected=f"messages since {from_microseconds(start_us - _MARGIN_US).isoformat()}, where the history ends",
            got=f"none before offset {first}: Kafka has deleted them",
            hint="end the history later, where the topic still has what follows; or allow the gap",
        )
        if not self._allow_gap:
            raise error
        _LOG.warning("%s", error)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the view's backfill for one process at a time. A second process waits, and finds the work done."""
        folder = private_folder(self._folders.work("backfill"))
        with private_file(folder / f"{self._view.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def history_end_us(view: StreamFeatureView, folder: Path) -> int | None:
    """The time right after the newest event of a view's history, microseconds since 1970. None: it has no event.

    Raises:
        DataError: the history cannot be read.
    """
    if view.history is None:
        return None
    rows = open_view(view.history, view, folder)
    columns = source_columns(view, rows.schema, rows.where)
    newest = -1
    times = TimeRange(columns.event_timestamp, EARLIEST_EVENT_US, LATEST_EVENT_US + 1)
    for batch in rows.batches(columns.names, times):
        good, _ = check_events(batch, columns, view.join_keys, 0)
        newest = max(newest, int(good[EVENT_TS].to_numpy().max(initial=-1)))
    return newest + 1 if newest >= 0 else None


def _settle(merger: ViewMerger, leave: int = 0) -> None:
    while merger.under_way > leave:
        _, refused = merger.settle()
        if refused:
            raise fences_moved("backfill")
