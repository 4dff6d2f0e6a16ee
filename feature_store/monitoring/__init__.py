"""Monitoring of what is served: client metrics and traces, the served log, freshness and skew."""

from typing import TYPE_CHECKING

from feature_store._lazy import lazy_names

if TYPE_CHECKING:
    from feature_store.monitoring.cache_metrics import CacheMetrics as CacheMetrics
    from feature_store.monitoring.client_metrics import ClientMetrics as ClientMetrics
    from feature_store.monitoring.parquet_sink import ParquetSink as ParquetSink
    from feature_store.monitoring.served_log import ServedLog as ServedLog
    from feature_store.monitoring.tracing import Tracing as Tracing

__getattr__, __dir__ = lazy_names(__name__)
