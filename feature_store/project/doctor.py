"""The doctor: asks every part of a project for its state. `monitoring/checks.py` judges the answers."""

from __future__ import annotations

import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from feature_store._extras import requires_extra
from feature_store._formatting import counted
from feature_store._redaction import redacted
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.message_format import FORMATS
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.errors import (
    FeatureStoreError,
    StoreConnectionError,
    StoreTimeoutError,
    StreamError,
    TopicReplacedError,
)
from feature_store.monitoring import checks
from feature_store.monitoring.checks import Finding
from feature_store.monitoring.freshness import freshness_of
from feature_store.online.status import Status
from feature_store.project.applying import plan
from feature_store.project.context import Project
from feature_store.registry.compile import compile_plan
from feature_store.registry.identity import refuse_other_registry

if TYPE_CHECKING:
    from feature_store.streaming.kafka import Partition


# Seconds that Kafka may take to answer. A check should not be silent for longer.
_KAFKA_S = 4.0
# The most entities that are sampled of a view.
_SAMPLED = 200


def diagnose(project: Project) -> Iterator[Finding]:
    """Run all checks, and yield each finding at once.

    A failed check does not stop the others, except those that need the same unreachable server. Kafka is asked in a
    thread beside the others, since a broker that is down takes seconds to time out.
    """
    yield Finding("library", "ok", f"feature-store {version('feature-store')}, Python {platform.python_version()}")
    yield from _checked("definitions", _definitions, project)
    kafka = _Beside("kafka", _kafka, project)
    offline: tuple[tuple[str, _Check], ...] = (
        ("registry", _registry),
        ("sources", _sources),
        ("formats", _formats),
    )
    for name, check in offline:
        yield from _checked(name, check, project)
        yield from kafka.findings(wait=False)
    reached = yield from _redis(project, kafka)
    yield from kafka.findings(wait=True)
    if reached and not kafka.failed:
        yield from _checked("stream", _stream, project)


def _redis(project: Project, kafka: _Beside) -> Generator[Finding, None, bool]:
    """Run the checks of Redis. Returns whether it could be reached."""
    for name, check in _OF_REDIS:
        try:
            yield from check(project)
        except FeatureStoreError as error:
            yield Finding(name, "failed", error.reason, error.hint)
            if name == "online store" or isinstance(error, (StoreConnectionError, StoreTimeoutError)):
                return False
        yield from kafka.findings(wait=False)
    return True


def _checked(name: str, check: _Check, project: Project) -> Iterator[Finding]:
    try:
        yield from check(project)
    except FeatureStoreError as error:
        yield Finding(name, "failed", error.reason, error.hint)


class _Beside:
    """A check that runs in a thread beside the others."""

    def __init__(self, name: str, check: _Check, project: Project) -> None:
        self.failed = False  # whether the server could not be reached
        self._found: list[Finding] = []
        self._shown = 0
        self._thread = threading.Thread(target=self._run, args=(name, check, project), daemon=True)
        self._thread.start()

    def _run(self, name: str, check: _Check, project: Project) -> None:
        try:
            self._found.extend(check(project))
        except FeatureStoreError as error:
            self.failed = True
            self._found.append(Finding(name, "failed", error.reason, error.hint))

    def findings(self, *, wait: bool) -> Iterator[Finding]:
        """The findings that were not returned yet, once the check is done. `wait`: wait for that."""
        if wait:
            self._thread.join()
        if not self._thread.is_alive():
            yield from self._found[self._shown :]
            self._shown = len(self._found)


def _definitions(project: Project) -> Iterator[Finding]:
    definitions = project.definitions
    counts = {
        "view": len(definitions.feature_views),
        "stream view": len(definitions.stream_feature_views),
        "on-demand view": len(definitions.on_demand_feature_views),
        "service": len(definitions.feature_services),
    }
    defined = ", ".join(counted(count, thing) for thing, count in counts.items() if count) or "nothing"
    yield Finding("definitions", "ok", f"{defined} in {project.config.folder}")


def _registry(project: Project) -> Iterator[Finding]:
    newest = project.registry.latest()
    if newest is None:
        yield Finding("registry", "warning", "nothing is applied yet", "run `feature-store apply`")
        return
    about = f"version {newest.version}, applied {newest.applied_at:%Y-%m-%d %H:%M} UTC by {newest.author}"
    changes = plan(project, check_sources=False)  # the check `sources` reads them
    if changes.is_empty:
        yield Finding("registry", "ok", about)
    else:
        about = f"{about}; the files are not applied: {changes.summary()}"
        yield Finding("registry", "warning", about, "see `feature-store plan`")


def _sources(project: Project) -> Iterator[Finding]:
    with requires_extra("local", "doctor"):
        from feature_store.arrow.sources.opening import open_view

    for view in project.definitions.feature_views.values():
        if view.source is None:
            continue
        try:
            rows = open_view(view.source, view, project.config.folder)
        except FeatureStoreError as error:
            yield Finding("sources", "failed", f"{view.name}: {error.reason}", error.hint)
        else:
            yield Finding("sources", "ok", f"{view.name}: {_row_count(rows.total)} in {view.source.name}")


def _row_count(total: int | None) -> str:
    return "rows" if total is None else counted(total, "row")


def _kafka(project: Project) -> Iterator[Finding]:
    topics = _topics(project)
    if not topics and not project.config.kafka:
        return
    if "bootstrap.servers" not in project.config.kafka:
        hint = "set kafka.bootstrap.servers in feature_store.yaml"
        yield Finding("kafka", "failed", f"kafka.bootstrap.servers is not set, and {_readers(topics)} need it", hint)
        return
    with requires_extra("kafka", "doctor"):
        from feature_store.streaming.kafka_topics import Topics

    servers = redacted(str(project.config.kafka["bootstrap.servers"]))
    try:
        partitions = Topics(project.config.kafka, _KAFKA_S).partitions(topics)
    except StreamError as error:
        raise StreamError(f"Kafka at {servers}", got=error.got, hint=error.hint) from error
    yield Finding("kafka", "ok", f"{servers} answers")
    yield from checks.of_topics(topics, partitions)


def _formats(project: Project) -> Iterator[Finding]:
    """Check what the formats of messages need: their libraries, and their Schema Registry."""
    for source in {
        view.source.name: view.source for view in project.definitions.stream_feature_views.values()
    }.values():
        if source.format.kind == FORMATS.unnamed:
            continue
        with requires_extra("kafka", "doctor"):
            from feature_store.streaming.decoder import decoder_of
        about = f"{source.name}: messages are {source.format.kind}"
        try:
            told = decoder_of(source).check()
        except FeatureStoreError as error:
            yield Finding("formats", "failed", f"{about}; {error.where}: {error.reason}", error.hint)
        else:
            yield Finding("formats", "ok", f"{about}; {told}" if told else about)


def _server(project: Project) -> Iterator[Finding]:
    yield from checks.of_server(project.online.info(), project.online.shown_url, project.online.ping_us())
    yield from checks.of_clock(time.time_ns() // 1000 - project.online.now_us())


def _memory(project: Project) -> Iterator[Finding]:
    for info in project.online.infos():
        yield from checks.of_memory(info, expire_keys=project.config.online_store.expire_keys)


def _persistence(project: Project) -> Iterator[Finding]:
    append_only, save = project.online.config("appendonly"), project.online.config("save")
    yield from checks.of_persistence(project.online.info(), append_only, save)


def _serving_plan(project: Project) -> Iterator[Finding]:
    published, newest = project.online.require_published().plan, project.registry.latest()
    target = None
    refuse_other_registry(published, project.registry)
    if newest is not None:
        target = compile_plan(
            newest.definitions(),
            project=project.name,
            version=newest.version,
            previous=published,
            registry=project.registry.id(),
            buckets=project.buckets,
            expire_keys=project.config.online_store.expire_keys,
        )
    yield from checks.of_plan(published, target)


def _rows(project: Project) -> Iterator[Finding]:
    published = project.online.published()
    if published is not None:
        yield from checks.of_rows(project.online.statistics(), [tiles.view for tiles in published.plan.tiles])


def _freshness(project: Project) -> Iterator[Finding]:
    newest = project.registry.latest()
    if project.online.published() is None or newest is None:
        return
    yield from checks.of_freshness(freshness_of(project))
    for view in newest.served_definitions().stored_views:
        keys = project.online.sample_keys(view.name, _SAMPLED)
        if keys:
            yield _of_values(project, view, keys)


def _of_values(
    project: Project, view: FeatureView | StreamFeatureView, keys: Sequence[tuple[int | str, ...]]
) -> Finding:
    """Check the statuses of a request for stored entities."""
    rows = {name: list(values) for name, values in zip(view.join_keys, zip(*keys, strict=True), strict=True)}
    (statuses,) = project.client.get_online_features([f"{view.name}:{view.fields[0].name}"], rows).status.values()
    counts = Counter(statuses)
    ttl = None if isinstance(view, StreamFeatureView) else view.ttl
    return checks.of_values(view.name, ttl, len(keys), counts[Status.EXPIRED], counts[Status.MISSING])


def _fences(project: Project) -> Iterator[Finding]:
    """Check whether the fences of stream views belong to their tiles."""
    published = project.online.published()
    tiles = published.plan.tiles if published is not None else ()
    if tiles:
        lost = {one.view: project.online.lost_fences(one) for one in tiles}
        yield from checks.of_fences(lost, [one.view for one in tiles if not one.mark])


def _stream(project: Project) -> Iterator[Finding]:
    """Check how far each stream view is behind, by its fences. Other checks report what this one lacks."""
    published = project.online.published()
    if published is None or not published.plan.tiles or "bootstrap.servers" not in project.config.kafka:
        return
    with requires_extra("kafka", "doctor"):
        from feature_store.streaming.fences import Fences
        from feature_store.streaming.kafka_topics import Topics
        from feature_store.streaming.routes import refusal_of

    topics = Topics(project.config.kafka, _KAFKA_S)
    there = topics.partitions({tiles.topic for tiles in published.plan.tiles})
    ranges = topics.ranges([(topic, number) for topic, numbers in there.items() for number in numbers])
    ids = topics.ids(sorted(there))
    for tiles in published.plan.tiles:
        refusal = refusal_of(project.online, tiles, ids.get(tiles.topic, ""))
        if isinstance(refusal, TopicReplacedError):
            yield Finding("stream", "failed", refusal.reason, refusal.hint)
        if refusal is not None:
            continue
        partitions = [(tiles.topic, number) for number in there.get(tiles.topic, ())]
        with project.online.tile_writer(tiles.view) as writer:
            fences = Fences(writer.fences(), [f"{topic}:{number}" for topic, number in partitions])
        if partitions:
            yield checks.of_lag(tiles.view, *_lag(fences.start, partitions, ranges))


def _lag(
    start: Callable[[str], int | None], partitions: Sequence[Partition], ranges: dict[Partition, tuple[int, int]]
) -> tuple[int, int]:
    """The number of messages that wait, and of messages that Kafka deleted before they were merged."""
    behind = lost = 0
    for topic, number in partitions:
        first, end = ranges[topic, number]
        at = start(f"{topic}:{number}")
        behind += max(0, end - max(first, at if at is not None else first))
        # Messages that were deleted before the view was first streamed are not lost: it never needed them.
        lost += max(0, first - at) if at is not None else 0
    return behind, lost


def _topics(project: Project) -> dict[str, list[str]]:
    """The topics of the folder's stream views, each with its views."""
    topics: dict[str, list[str]] = {}
    for view in project.definitions.stream_feature_views.values():
        topics.setdefault(view.source.topic, []).append(view.name)
    return topics


def _readers(topics: dict[str, list[str]]) -> str:
    return ", ".join(view for views in topics.values() for view in views)


_Check = Callable[["Project"], "Iterator[Finding]"]
# The first must succeed for the others to run.
_OF_REDIS: tuple[tuple[str, _Check], ...] = (
    ("online store", _server),
    ("memory", _memory),
    ("persistence", _persistence),
    ("serving plan", _serving_plan),
    ("rows", _rows),
    ("freshness", _freshness),
    ("fences", _fences),
)
