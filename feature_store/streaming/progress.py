"""Tells whether all messages that topics held at one moment are merged. It reads the fences, so any consumer counts."""

from __future__ import annotations

import contextlib

from feature_store.errors import FeatureStoreError, OnlineStoreError, RegistryError
from feature_store.streaming.catalog import Catalog
from feature_store.streaming.fences import Fences
from feature_store.streaming.kafka import Partition, PartitionConsumer
from feature_store.streaming.kafka_topics import Topics
from feature_store.streaming.pipeline import source_name
from feature_store.streaming.routes import StreamedView, refusal_of
from feature_store.streaming.subscription import Subscription


class Goals:
    """The end offsets of all partitions at the time this object is created.

    Args:
        subscription: the views to stream, and their project.

    Raises:
        NotFoundError: a view is not served.
        NotPublishedError: no plan is published.
        StreamError: Kafka cannot be reached.
    """

    def __init__(self, subscription: Subscription) -> None:
        self._catalog = Catalog(subscription)
        topics = {view.source.topic for view in self._catalog.views()}
        kafka = Topics(subscription.kafka)
        found, self._ids = kafka.partitions(topics), kafka.ids(sorted(topics))
        consumer = PartitionConsumer(subscription.kafka)
        try:
            partitions: list[Partition] = [(topic, number) for topic, numbers in found.items() for number in numbers]
            ranges = {partition: consumer.range(partition) for partition in partitions}
        finally:
            consumer.close()
        self._lost: dict[str, FeatureStoreError] = {}
        # An empty partition has nothing to reach.
        self._ends = {partition: end for partition, (first, end) in ranges.items() if end > first}

    def are_reached(self) -> bool:
        """Whether every view has merged all messages up to the ends. Views that cannot be streamed count as done.

        Returns False while Redis or the registry cannot be read.
        """
        with contextlib.suppress(OnlineStoreError, RegistryError):
            return all(self._is_reached(view) for view in self._catalog.views())
        return False

    def close(self) -> None:
        """Close the connections."""
        self._catalog.close()

    def refuse_lost(self) -> None:
        """Check that every view could be streamed up to the ends.

        Raises:
            FencesLostError: the fences of a view are lost.
            TopicReplacedError: the topic of a view was deleted and created again.
        """
        for error in self._lost.values():
            raise error

    def _is_reached(self, view: StreamedView) -> bool:
        ends = {source_name(item): end for item, end in self._ends.items() if item[0] == view.source.topic}
        error = refusal_of(self._catalog.online, view.tiles, self._ids.get(view.source.topic, ""))
        self._lost.pop(view.tiles.view, None)
        if error is not None:
            self._lost[view.tiles.view] = error
            return True
        with self._catalog.writer(view) as writer:
            fences = Fences(writer.fences(), ends)
        return all((fences.start(source) or 0) >= end for source, end in ends.items())
