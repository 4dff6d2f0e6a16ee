"""One project behind one object: its definitions, registry, online store and jobs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from feature_store._extras import requires_extra
from feature_store.definitions.dtypes import given_duration, given_microseconds
from feature_store.materialize.summary import Summary
from feature_store.online.response import OnlineResponse
from feature_store.project.context import JOBS
from feature_store.project.filling import backfill
from feature_store.project.monitoring import ProjectMonitoring
from feature_store.project.moved import MovedMethods
from feature_store.project.pruner import Pruner
from feature_store.project.training import ProjectTraining
from feature_store.project.versions import ProjectVersions
from feature_store.streaming.status import StreamStatus

if TYPE_CHECKING:
    from pathlib import Path

    from feature_store.engines.report import Report
    from feature_store.materialize.schedules import DueRun
    from feature_store.streaming.backfill import Filled
    from feature_store.training.training_set import TrainingSet


class FeatureStore(ProjectVersions, MovedMethods):
    """A project's feature store.

    Its parts (`definitions`, `registry`, `online`, `client`) open when they are first used; `close`, or the end of a
    `with` block, closes them.

    Args:
        repo: the folder of feature_store.yaml.

    Raises:
        ConfigError: feature_store.yaml is missing or wrong.

    Example:
        In a project that `feature-store init shop` made:

        >>> from feature_store import FeatureStore
        >>> with FeatureStore(".") as store:
        ...     version = store.apply().version.version
        ...     summaries = store.materialize()
        ...     rows = {"user_id": 1, "product_id": [1, 2], "basket_price": 40.0}
        ...     features = store.get_online_features("ranking", rows)
        >>> features.to_numpy().shape
        (2, 5)
    """

    @cached_property
    def training(self) -> ProjectTraining:
        """Training sets: joined to labels, or made from the log of what was served."""
        return ProjectTraining(self.context)

    @cached_property
    def monitoring(self) -> ProjectMonitoring:
        """Freshness, skew, checks and the score."""
        return ProjectMonitoring(self.context)

    @cached_property
    def pruning(self) -> Pruner:
        """Importances, costs and prune plans of services."""
        return Pruner(self)

    # -- data ---------------------------------------------------------------------------------------------------

    def materialize(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        views: Sequence[str] | None = None,
        engine: str | None = None,
        *,
        lookback: timedelta = timedelta(0),
        report: Report | None = None,
    ) -> list[Summary]:
        """Write the latest row of every entity, among rows with event times in `[start, end)`, to the online store.

        Args:
            start: start of the interval; None: all times that are not materialized yet, the times of late rows in files
                that arrived since, and `lookback` before the last end again.
            end: end of the interval; None, or a time in the future: now, by Redis's clock.
            views: names of views; None: all views with a source.
            engine: `local` or `spark`; None: the configured one.
            lookback: how far before the last end to read again, for values that were changed in place.
            report: gets the progress.

        Raises:
            NotFoundError: nothing is applied, or there is no such view.
            DataError: a source does not fit its view, or cannot be read; or a value breaches an expectation that
                blocks writes.
            OnlineStoreError, RegistryError: Redis or the registry cannot be reached. Run it again; it resumes.
        """
        with requires_extra("local", "materialize"):
            from feature_store.materialize import views as jobs
            from feature_store.materialize.span import Span

        span = Span(
            None if start is None else given_microseconds(start, "start"),
            None if end is None else given_microseconds(end, "end"),
            given_duration(lookback, "lookback"),
        )
        return jobs.materialize(self.context, views, span, engine=engine, report=report)

    def run_due(self, *, report: Report | None = None) -> list[DueRun]:
        """Materialize each view whose schedule says that it is due, up to its scheduled time.

        Call it as often as the schedules are fine, from one machine or from several: a lease in the registry lets one
        process run a view at a time. A view whose job fails does not keep the others from running, and is due again.

        Returns:
            The runs, of failed jobs too. Views that another process runs are left out.

        Raises:
            NotFoundError: nothing is applied.
            OnlineStoreError, RegistryError: Redis or the registry cannot be reached.
        """
        with requires_extra("local", "run-due"):
            from feature_store.materialize.schedules import run_due

        return run_due(self.context, report=report)

    def push(self, view: str, table: Any, *, report: Report | None = None) -> Summary:
        """Write rows of a view: an Arrow table, a DataFrame, or the path of a CSV or Parquet file.

        Raises:
            NotFoundError: nothing is applied, or there is no such view.
            DataError: the table does not fit the view, or cannot be read.
            OnlineStoreError: Redis cannot be reached, or refuses to write.
        """
        with requires_extra("local", "push"):
            from feature_store.materialize import views as jobs

        return jobs.push(self.context, view, table, report=report)

    def stream(
        self,
        views: Sequence[str] | None = None,
        *,
        engine: str = "local",
        workers: int | None = None,
        until_caught_up: bool = False,
        metrics_port: int | None = None,
        report: Callable[[StreamStatus], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> StreamStatus:
        """Merge Kafka's events into the windows of stream views, each event once, until stopped.

        Args:
            views: names of stream views; None: all. Each set of views is a consumer group of its own.
            engine: `local`: worker processes on this machine; `spark`: Spark Structured Streaming. Each resumes where
                the other stopped. The configured engine does not matter here.
            workers: the number of worker processes; None: 1. More than the topics have partitions do not help.
            until_caught_up: return when all events are merged that Kafka held at the start.
            metrics_port: serve Prometheus metrics on this port; 0: on any free port.
            report: gets the status, several times a second.
            stopped: called several times a second; True ends the stream.

        Raises:
            NotFoundError: nothing is applied, or there is no such view or engine.
            RequestError: `workers` is given for Spark.
            StreamError: Kafka cannot be reached, or lacks a topic.
            EngineError: Spark cannot be started, has no Kafka connector, or fails again and again.
            OnlineStoreError, RegistryError: Redis or the registry cannot be read at the start.
        """
        with requires_extra("kafka", "stream"):
            from feature_store.streaming.run import stream

        return stream(
            self.context,
            views,
            engine=engine,
            workers=workers,
            until_caught_up=until_caught_up,
            metrics_port=metrics_port,
            report=report,
            stopped=stopped,
        )

    def backfill(
        self, view: str, until: datetime | None = None, *, allow_gap: bool = False, report: Report | None = None
    ) -> Filled:
        """Fill a stream view again: from its source's history before a time, and from Kafka since then.

        Meanwhile the view is served and streamed as before. Then the new generation takes its place at once.

        Args:
            view: a stream view.
            until: the time up to which the history is complete, UTC unless it has a time zone; None: the source has no
                history, and the view is filled from all that the topic holds.
            allow_gap: go on when Kafka may have deleted messages from after that time.
            report: gets the progress.

        Raises:
            NotFoundError: nothing is applied, or there is no such stream view.
            DefinitionError: `until` is given, though the source has no history.
            RequestError: `until` is in the future, or missing though the source has a history.
            DataError: the history does not fit the view, or cannot be read.
            StreamError: Kafka cannot be reached, or may have deleted messages from after `until`.
            OnlineStoreError: Redis cannot be reached. Run it again; it resumes.
        """
        return backfill(self.context, view, until, allow_gap=allow_gap, report=report)

    def get_online_features(
        self,
        service: str | Sequence[str],
        entity_rows: Mapping[str, Any] | Sequence[Mapping[str, Any]] | Any,
        *,
        now: datetime | int | None = None,
        model_features: Sequence[str] | None = None,
        plan: str | None = None,
        deadline_ms: float | None = None,
        request_id: str | None = None,
        log_fields: Mapping[str, Any] | None = None,
    ) -> OnlineResponse:
        """Read features as a model server does: `OnlineClient.get_online_features` of `client`."""
        return self.client.get_online_features(
            service,
            entity_rows,
            now=now,
            model_features=model_features,
            plan=plan,
            deadline_ms=deadline_ms,
            request_id=request_id,
            log_fields=log_fields,
        )

    def get_historical_features(
        self,
        entity_df: Any,
        service: str | Sequence[str],
        engine: str | None = None,
        *,
        timestamp_column: str = "event_timestamp",
        prune_as_of: datetime | Literal["never"] | None = None,
        as_recorded: str | Path | None = None,
        report: Report | None = None,
    ) -> TrainingSet:
        """Join to label rows the features that serving would have given at each label's time.

        Every label row comes back once, in order, with all its columns, then the features of the service. A source row
        counts for a label when neither its event time nor its creation time is after the label's time; a ttl counts
        from the label's time. An absent value is what `get_online_features(...).to_dict()` gives: the field's default,
        or null. A label with a null entity key has no values of that entity.

        Args:
            entity_df: label rows with a time, the entity keys and the request fields: a DataFrame, an Arrow table, the
                path of a Parquet file, or a query (`SELECT …`, `WITH …`) on the engine. DuckDB finds files in a query
                relative to the project's folder.
            service: the name of an applied service, or feature references `view:feature`.
            engine: the engine that joins; None: the configured one.
            timestamp_column: the column of the labels' times; UTC unless its type has a time zone.
            prune_as_of: the time whose prune plans apply; "never": join all features; None: the features served now.
            as_recorded: the manifest of an earlier training set, whose versions of the sources are read again. A Delta
                table is opened at that version; a source that keeps no versions must be unchanged.
            report: gets the progress.

        Raises:
            NotFoundError: nothing is applied, or there is no such service.
            ConflictError: the service has changed since it was pruned at that time.
            RequestError: a view keeps no history.
            DataError: the label rows lack a column, or have a feature's name, or a value that does not fit; or a source
                cannot be read, or not in the version of `as_recorded`.
            TransformError: an on-demand function is missing, differs from the applied one, or failed.
        """
        return self.training.join(
            entity_df,
            service,
            engine,
            timestamp_column=timestamp_column,
            prune_as_of=prune_as_of,
            as_recorded=as_recorded,
            report=report,
        )

    def delete(self, entity: str, join_keys: Mapping[str, Any]) -> int:
        """Delete all that the online store holds of one entity, composite keys included. Returns the number of keys.

        The entity stays deleted while a changed layout is filled. Its rows come back when their sources are read again
        (materialize, backfill, an apply that fills a changed view), so delete them there first.

        Raises:
            NotFoundError: no view has that entity.
            RequestError: the join key is missing, null or of a wrong type.
        """
        return self.online.delete(entity, join_keys)

    def teardown(self) -> int:
        """Delete the online data, registry and job files of this project alone. Returns the number of keys."""
        deleted = self.online.teardown()
        self.registry.teardown()
        for job in JOBS:
            shutil.rmtree(self.context.folders.work(job), ignore_errors=True)
        return deleted
