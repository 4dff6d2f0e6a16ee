"""Kafka → tiles → online store. Each event counts exactly once, even if a worker is killed at any point."""

from typing import TYPE_CHECKING

from feature_store._lazy import lazy_names

if TYPE_CHECKING:
    from feature_store.streaming.served_log_sink import KafkaSink as KafkaSink

__getattr__, __dir__ = lazy_names(__name__)
