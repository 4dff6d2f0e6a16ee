"""OpenTelemetry spans for the requests of online clients. The package's only import of opentelemetry-api."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_store._extras import requires_extra
from feature_store.online.observer import Observed, Observer
from feature_store.online.response import OnlineResponse

with requires_extra("tracing", "Tracing"):
    from opentelemetry.trace import SpanKind, StatusCode, get_current_span, get_tracer

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_NAME = "feature_store.get_online_features"


class Tracing(Observer):
    """Traces requests: `OnlineClient(…, observers=[Tracing()])`. Each request is a child span of the current span.

    Attributes of a span: `feature_store.service`, `.request_id` (if given), `.rows`, `.keys`, `.sent_bytes`,
    `.received_bytes`, `.plan_version`, `.prune_plan` (if one is applied), `.skipped` (if row groups were skipped), and
    `.values.<status>`, the number of values with each status. A failed request records its error and has the status
    ERROR. A dead idle connection is an event of the current span. No span holds feature values or entity keys.

    Args:
        tracer: makes the spans; None: a tracer of the global provider.

    Raises:
        MissingDependencyError: opentelemetry-api is not installed (`feature-store[tracing]`).

    Example:
        >>> from feature_store.monitoring import Tracing
        >>> from feature_store.online import OnlineClient
        >>> client = OnlineClient(redis_url, project="shop", definitions="features.py", observers=[Tracing()])
        >>> client.close()
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer if tracer is not None else get_tracer("feature_store")

    def request(self, request: Observed) -> None:
        """See Observer."""
        span = self._tracer.start_span(
            _NAME,
            kind=SpanKind.CLIENT,
            attributes={"feature_store.service": request.service},
            start_time=request.started_ns,
        )
        if span.is_recording():
            _describe(span, request)
        span.end(request.started_ns + int(request.seconds * 1e9))

    def reconnected(self) -> None:
        """See Observer."""
        get_current_span().add_event("feature_store.reconnected")


def _describe(span: Span, request: Observed) -> None:
    if request.request_id is not None:
        span.set_attribute("feature_store.request_id", request.request_id)
    if request.error is not None:
        span.record_exception(request.error)
        span.set_status(StatusCode.ERROR, type(request.error).__name__)
    if request.response is not None:
        _describe_answer(span, request.response)


def _describe_answer(span: Span, response: OnlineResponse) -> None:
    keys, sent, received = response.traffic
    described: dict[str, int | str | list[str]] = {
        "rows": len(response),
        "keys": keys,
        "sent_bytes": sent,
        "received_bytes": received,
        "plan_version": response.plan_version,
    }
    described |= {f"values.{status.name.lower()}": count for status, count in response.status_counts().items()}
    if response.prune_plan is not None:
        described["prune_plan"] = response.prune_plan
    if skipped := response.skipped:
        described["skipped"] = skipped
    span.set_attributes({f"feature_store.{name}": value for name, value in described.items()})
