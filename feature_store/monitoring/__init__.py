"""What is served, watched: metrics and traces of the clients, the log of what was served, skew."""

from typing import TYPE_CHECKING

from feature_store._lazy import lazy_names

if TYPE_CHECKING:
    from feature_store.monitoring.client_metrics import ClientMetrics
    from feature_store.monitoring.parquet_sink import ParquetSink
    from feature_store.monitoring.served_log import ServedLog
    from feature_store.monitoring.tracing import Tracing

__all__ = ["ClientMetrics", "ParquetSink", "ServedLog", "Tracing"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ClientMetrics": f"{__name__}.client_metrics",
        "ParquetSink": f"{__name__}.parquet_sink",
        "ServedLog": f"{__name__}.served_log",
        "Tracing": f"{__name__}.tracing",
    },
)
