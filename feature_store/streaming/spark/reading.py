"""The state of a query that reads for some views, and the offsets at which it begins."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from feature_store.errors import FeatureStoreError
from feature_store.streaming.messages import Partition
from feature_store.streaming.pipeline import Pipeline
from feature_store.streaming.replay import earliest, go_on
from feature_store.streaming.routes import StreamedView

if TYPE_CHECKING:
    from feature_store.engines.spark.kafka import KafkaQuery

Offsets = dict[Partition, int]


@dataclass
class Reading:
    """A query for some views of one plan. It begins at their fences.

    Attributes:
        views: the views.
        pipeline: reads the fences of the views.
        firsts: by partition, the offset of its first message.
        at: by partition, the offset up to which messages are merged.
        ends: by partition, its last known end.
        others: the reading of the views that are far ahead of these views. None: there are none.
        query: the query; None before it starts.
        busy: a lock that is held while a batch is merged.
        closing: whether the query is ending, so that no further batch may begin.
        failure: the error that stopped the last batch; None: it was merged.
    """

    views: list[StreamedView]
    pipeline: Pipeline
    firsts: Offsets
    at: Offsets
    ends: Offsets
    others: Reading | None
    query: KafkaQuery | None = None
    busy: threading.Lock = field(default_factory=threading.Lock)
    closing: bool = False
    failure: FeatureStoreError | None = None


def start_offsets(pipeline: Pipeline, kept: Mapping[Partition, tuple[int, int]]) -> Offsets:
    """By partition, the offset to begin at: the lowest offset at which a view expects its next event.

    As in workers, messages that Kafka deleted before they were merged are reported and skipped.

    Args:
        pipeline: a pipeline that has loaded the fences of all partitions.
        kept: by partition, the first offset in Kafka and the offset after the last message.

    Raises:
        StreamError: a topic ends before a fence.
    """
    for partition, start in earliest(pipeline.starts()).items():
        first, end = kept[partition]
        if start is not None and not first <= start <= end:
            go_on(pipeline, partition, start, (first, end))
        pipeline.skip(partition, first)
    return {partition: start or 0 for partition, start in earliest(pipeline.starts()).items()}
