"""Kafka → tiles → online store: workers that can be killed anywhere, exactly once."""

from typing import TYPE_CHECKING

from feature_store._lazy import lazy_names

if TYPE_CHECKING:
    from feature_store.streaming.served_log_sink import KafkaSink

__all__ = ["KafkaSink"]

__getattr__, __dir__ = lazy_names(__name__, {"KafkaSink": f"{__name__}.served_log_sink"})
