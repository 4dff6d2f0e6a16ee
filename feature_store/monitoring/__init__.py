"""What is served, watched: metrics and traces of the clients, and skew between what is served and the offline data."""

from typing import TYPE_CHECKING

from feature_store._lazy import lazy_names

if TYPE_CHECKING:
    from feature_store.monitoring.client_metrics import ClientMetrics
    from feature_store.monitoring.tracing import Tracing

__all__ = ["ClientMetrics", "Tracing"]

__getattr__, __dir__ = lazy_names(
    __name__, {"ClientMetrics": f"{__name__}.client_metrics", "Tracing": f"{__name__}.tracing"}
)
