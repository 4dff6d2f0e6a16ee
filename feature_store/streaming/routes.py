"""Stream views with their sources, and the routes from each source to its views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from feature_store.definitions.source import KafkaSource
from feature_store.errors import FeatureStoreError, StaleWriteError, TopicReplacedError
from feature_store.online.store import OnlineStore
from feature_store.online.tile_writer import TileWriter
from feature_store.registry.serving_plan import TilesPlan
from feature_store.streaming.decoder import decoder_of
from feature_store.streaming.kafka import Partition
from feature_store.streaming.merging import ViewMerger
from feature_store.streaming.pipeline import Route


class StreamedView(NamedTuple):
    """A view's generation, and the source of its events."""

    tiles: TilesPlan
    source: KafkaSource


def intact(
    online: OnlineStore, views: Iterable[StreamedView], ids: Mapping[str, str]
) -> tuple[list[StreamedView], dict[str, FeatureStoreError]]:
    """The views that can be streamed, and by name the reason for each view that cannot.

    Args:
        online: the online store.
        views: the views.
        ids: topic ids by topic; a topic is left out if Kafka does not report its id.

    Raises:
        NotPublishedError: no serving plan is published.
        StoreConnectionError: Redis cannot be reached.
        StoreTimeoutError: Redis does not answer in time.
    """
    found = [(view, refusal_of(online, view.tiles, ids.get(view.source.topic, ""))) for view in views]
    lost = {view.tiles.view: error for view, error in found if error is not None}
    for view, error in found:
        if error is None:
            online.note_topic_id(view.tiles, ids.get(view.source.topic, ""))
    return [view for view, error in found if error is None], lost


def refusal_of(online: OnlineStore, tiles: TilesPlan, topic_id: str) -> FeatureStoreError | None:
    """The reason why no event may be merged into a generation. None: events may be merged.

    Args:
        online: the online store.
        tiles: the generation.
        topic_id: the id of its topic; empty: Kafka does not report it.
    """
    lost = online.lost_fences(tiles)
    if lost is not None or not topic_id or online.topic_id_of(tiles) in ("", topic_id):
        return lost
    return TopicReplacedError(
        f"topic {tiles.topic}",
        problem=f"the topic was deleted and created again, and {tiles.view} holds events of the first one; no event of "
        "the new topic is merged into it, since the same events may have been sent again",
        hint=f"run `feature-store backfill {tiles.view}` (with --until, if its source has a history), which fills the "
        "view again from the new topic",
    )


def routes_of(online: OnlineStore, views: Iterable[StreamedView]) -> list[Route]:
    """The routes to some views. Views with the same source share a route, so their events are decoded once.

    Raises:
        StaleWriteError, StoreConnectionError, StoreTimeoutError: see `writer_of`.
    """
    by_source: list[tuple[KafkaSource, list[StreamedView]]] = []
    for view in views:
        known = next((members for source, members in by_source if source == view.source), None)
        if known is None:
            by_source.append((view.source, [view]))
        else:
            known.append(view)
    return [
        Route(
            source.topic,
            decoder_of(source),
            [ViewMerger(writer_of(online, view), start_us=view.tiles.start_us) for view in members],
        )
        for source, members in by_source
    ]


def writer_of(online: OnlineStore, view: StreamedView) -> TileWriter:
    """A writer of a view's tiles.

    Raises:
        StaleWriteError: the published plan is not the plan that the view was read from.
        StoreConnectionError: Redis cannot be reached.
        StoreTimeoutError: Redis does not answer in time.
    """
    writer = online.tile_writer(view.tiles.view)
    if writer.plan != view.tiles:
        writer.close()
        raise StaleWriteError(view.tiles.view, expected="the plan that was read", got="another, published meanwhile")
    return writer


def wanted_of(views: Iterable[StreamedView], partitions: Iterable[Partition]) -> dict[str, set[Partition]]:
    """By view, the partitions of its topic among the given partitions."""
    found = set(partitions)
    return {view.tiles.view: {partition for partition in found if partition[0] == view.source.topic} for view in views}
