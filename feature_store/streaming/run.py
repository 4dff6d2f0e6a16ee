"""Streams the stream views of a project."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from feature_store.errors import NotFoundError, RequestError
from feature_store.streaming.metrics import Metrics
from feature_store.streaming.status import StreamStatus
from feature_store.streaming.subscription import Subscription
from feature_store.streaming.workers import stream as stream_with_workers

if TYPE_CHECKING:
    from feature_store.project.context import Project


def stream(
    project: Project,
    views: Sequence[str] | None,
    *,
    engine: str = "local",
    workers: int | None = None,
    until_caught_up: bool = False,
    metrics_port: int | None = None,
    report: Callable[[StreamStatus], None] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> StreamStatus:
    """Merge Kafka's events into windows until stopped; see `FeatureStore.stream`."""
    _check_engine(engine, workers)
    project.newest()
    subscription = Subscription(project.ref, None if views is None else tuple(views))
    with contextlib.ExitStack() as stack:
        reports = [report] if report is not None else []
        if metrics_port is not None:
            reports.append(stack.enter_context(Metrics(metrics_port)).update)

        def tell(status: StreamStatus) -> None:
            for one in reports:
                one(status)

        if engine == "local":
            return stream_with_workers(
                subscription, workers or 1, stopped=stopped, until_caught_up=until_caught_up, report=tell
            )
        from feature_store.engines.spark.kafka import with_connector
        from feature_store.engines.spark.session import Session
        from feature_store.engines.spark.settings import session_settings
        from feature_store.streaming.spark.options import source_options
        from feature_store.streaming.spark.stream import stream as stream_on_spark

        options = source_options(project.kafka(), project.config.spark)
        session = Session(with_connector(session_settings(project.config.spark)))
        stack.callback(session.close)
        return stream_on_spark(
            subscription, session, options, stopped=stopped, until_caught_up=until_caught_up, report=tell
        )


def _check_engine(engine: str, workers: int | None) -> None:
    """Check the engine's name and the number of workers.

    Raises:
        NotFoundError: no engine of that name can stream.
        RequestError: a number of workers is given, but the Spark engine has no workers.
    """
    if engine not in ("local", "spark"):
        raise NotFoundError("engine", expected="local or spark", got=repr(engine))
    if engine == "spark" and workers is not None:
        hint = "one Spark task merges one partition; `spark.master` or the cluster says how many run at once"
        raise RequestError("workers", expected="none with engine spark", got=str(workers), hint=hint)
