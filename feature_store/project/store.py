"""One project, whole: its definitions, registry, online store and jobs behind one object."""

from __future__ import annotations

import contextlib
import logging
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from feature_store.definitions.definition_set import find
from feature_store.definitions.dtypes import from_microseconds, given_duration, given_microseconds
from feature_store.definitions.files import passed_over
from feature_store.definitions.loading import load_definitions
from feature_store.definitions.names import given_name, given_names
from feature_store.definitions.pruned import pruned, refuse_unbound
from feature_store.errors import (
    ConfigError,
    ConflictError,
    DefinitionError,
    FeatureStoreError,
    NotFoundError,
    OnlineStoreError,
    RequestError,
    extra,
)
from feature_store.materialize.rollout import give_up, roll_out
from feature_store.online.client import OnlineClient
from feature_store.online.requests import feature_names
from feature_store.online.store import OnlineStore
from feature_store.project.applying import Applied, Fills, with_definitions, with_pruning, with_version
from feature_store.project.config import FILE_NAME, load_config
from feature_store.registry.identity import refuse_other_registry
from feature_store.registry.store import Registry, current_author, registry_exists

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Self

    from feature_store.definitions.definition_set import DefinitionSet
    from feature_store.definitions.feature_view import FeatureView
    from feature_store.definitions.pruning import Pruning
    from feature_store.definitions.stream_view import StreamFeatureView
    from feature_store.engines.local.engine import LocalEngine
    from feature_store.engines.report import Report
    from feature_store.engines.spark.engine import SparkEngine
    from feature_store.materialize.job import Folders, Summary
    from feature_store.monitoring.freshness import FreshnessReport
    from feature_store.monitoring.served_skew import ServedSkewReport
    from feature_store.monitoring.skew import SkewReport
    from feature_store.online.response import OnlineResponse
    from feature_store.project.applying import Target
    from feature_store.registry.diff import ChangePlan
    from feature_store.registry.serving_plan import ServingPlan
    from feature_store.registry.store import Version
    from feature_store.streaming.backfill import Backfill, Filled
    from feature_store.streaming.catalog import Setup
    from feature_store.streaming.status import Status
    from feature_store.training.training_set import Project, TrainingSet

# Where jobs keep files while they run; one that was killed leaves its own. What was quarantined is for people.
_JOB_FOLDERS = ("materialize", "backfill", "training", "spark")
# A worker's call may wait behind others' of some milliseconds each, and behind a Redis that starts and loads its data.
_STREAM_TIMEOUT_S = 5.0

_LOG = logging.getLogger("feature_store")


class FeatureStore:
    """A project's feature store.

    Args:
        repo: the folder of feature_store.yaml, with the definitions beside it.

    Raises:
        ConfigError: feature_store.yaml is missing or wrong.
    """

    def __init__(self, repo: str | Path = ".") -> None:
        self.config = load_config(Path(repo))
        self._exit = contextlib.ExitStack()

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.config.folder)!r}, project={self.project!r}, engine={self.config.engine!r})"

    @property
    def project(self) -> str:
        """The project's name."""
        return self.config.project

    @cached_property
    def definitions(self) -> DefinitionSet:
        """The definitions in the folder, applied or not. `plan` and `apply` read the files anew, as does `reload`.

        Raises:
            DefinitionError: they cannot be imported, or are wrong.
        """
        return load_definitions(self.config.folder, self.config.definitions)

    def reload(self) -> None:
        """Read the folder's definitions anew when they are asked for next."""
        self.__dict__.pop("definitions", None)

    @cached_property
    def registry(self) -> Registry:
        """The project's registry.

        Raises:
            RegistryError: its database cannot be opened.
        """
        registry = Registry(self.config.registry_url, self.project)
        self._exit.callback(registry.close)
        return registry

    @cached_property
    def online_url(self) -> str:
        """Where the online store is; the embedded server is started when no URL is configured.

        Raises:
            EmbeddedServerError: it cannot be started.
        """
        if self.config.online_url is not None:
            return self.config.online_url
        from feature_store.online.redis.embedded import EmbeddedServer

        server = EmbeddedServer(self.config.folder)
        url = server.ensure()
        self._exit.callback(server.release)
        return url

    @cached_property
    def online(self) -> OnlineStore:
        """The project's part of the online store."""
        store = OnlineStore(self.online_url, self.project)
        self._exit.callback(store.close)
        return store

    @cached_property
    def client(self) -> OnlineClient:
        """A client with the on-demand functions of the folder's definitions."""
        timeout_s = self.config.online_store.timeout_ms / 1000
        client = OnlineClient(
            self.online_url, self.project, timeout_s=timeout_s, transforms=self.definitions.on_demand_feature_views
        )
        self._exit.callback(client.close)
        return client

    # -- definitions --------------------------------------------------------------------------------------------

    def applied(self) -> DefinitionSet:
        """The definitions that are applied.

        Raises:
            NotFoundError: nothing is applied yet.
        """
        return self._newest().definitions()

    def models(self) -> dict[str, list[str]]:
        """The models of each service whose importances are kept: what the registry knows of who is served."""
        from feature_store.pruning.importance import Importances

        found: dict[str, list[str]] = {}
        for record in self.registry.prune_records("importances"):
            model = Importances.from_json(record.document).model
            if model and model not in found.setdefault(record.service, []):
                found[record.service].append(model)
        return found

    def plan(self, *, check_sources: bool = True) -> ChangePlan:
        """What `apply` would change. It changes nothing, and makes no registry where there is none.

        Args:
            check_sources: whether to compare the schemas of sources with what changed views take, and to compile SQL.

        Raises:
            DefinitionError: the definitions in the folder are wrong.
            ConflictError: a service has changed that a prune plan is applied to.
            RegistryError: the registry cannot be read.
        """
        self.reload()
        if "registry" not in self.__dict__ and not registry_exists(self.config.registry_url):
            return self._checked(with_definitions(None, self.definitions), check_sources).changes
        newest = self.registry.latest()
        target = self._checked(with_definitions(newest, self.definitions, self._readers()), check_sources)
        unfinished = newest is not None and newest.version in self.registry.rollouts()
        return replace(target.changes, unfinished=newest.version if newest is not None and unfinished else None)

    def apply(
        self, *, author: str | None = None, allow_destructive: bool = False, check_sources: bool = True
    ) -> Applied:
        """Make the folder's definitions a new version of the registry, and serve it.

        Views whose row layout changes are filled in a new generation before any reader sees it. An apply that fails
        leaves what was served; one that was killed is finished by the next.

        Args:
            author: who applies; FEATURE_STORE_AUTHOR or user@host unless given.
            allow_destructive: whether stored values may be deleted, and columns of services be taken away or changed.
            check_sources: as of `plan`; what does not fit is refused before anything is committed.

        Raises:
            RefusedError: a change cannot be carried out on stored data, or a source does not hold what its view takes,
                or a change is destructive and that is not allowed; it says which.
            ConflictError: somebody else applied in the meantime, or another registry's plan is published.
            DefinitionError, RegistryError, OnlineStoreError: as their names say.
        """
        self.reload()
        newest = self.registry.latest()
        target = self._checked(with_definitions(newest, self.definitions, self._readers()), check_sources)
        return self._apply(newest, target, author, allow_destructive=allow_destructive)

    def rollback(
        self,
        version: int,
        *,
        author: str | None = None,
        allow_destructive: bool = False,
        check_sources: bool = True,
    ) -> Applied:
        """Make the definitions and prunings of an earlier version a new version, and serve it, as `apply` does.

        The folder's files stay as they are: the next `apply` would go forward again.

        Args:
            version: the number of the earlier version.
            author, allow_destructive, check_sources: as of `apply`.

        Raises:
            NotFoundError: there is no such version.
            RefusedError: as of `apply`; or the folder has not the code of an on-demand function of that version.
            ConflictError: somebody else applied in the meantime.
            DefinitionError, RegistryError, OnlineStoreError: as their names say.
        """
        newest = self._newest()
        target = self._of_version(newest, version, check_sources)
        return self._apply(newest, target, author, allow_destructive=allow_destructive)

    def plan_rollback(self, version: int, *, check_sources: bool = True) -> ChangePlan:
        """What `rollback` would change.

        Raises:
            NotFoundError, RefusedError, DefinitionError, RegistryError: as of `rollback`.
        """
        return self._of_version(self._newest(), version, check_sources).changes

    def prune(self, service: str, pruning: Pruning | None, *, author: str | None = None) -> Applied:
        """Make what a prune plan takes from a service, or (None) that nothing is taken, a new version, and serve it.

        What is not stored any more is dropped once no reader needs it; what is stored again is filled, as by `apply`,
        before any reader sees it.

        Raises:
            NotFoundError: nothing is applied, or there is no such service, or nothing is pruned of it.
            ConflictError: the service is not what the plan was made for, or somebody else applied in the meantime.
            DefinitionError, RegistryError, OnlineStoreError: as their names say.
        """
        newest = self._newest()
        return self._apply(newest, with_pruning(newest, service, pruning), author, allow_destructive=True)

    def _of_version(self, newest: Version, version: int, check_sources: bool) -> Target:
        self.reload()
        earlier = self.registry.version(version)
        return self._checked(with_version(newest, earlier, self.definitions, self._readers()), check_sources)

    def _checked(self, target: Target, check_sources: bool) -> Target:
        if check_sources:
            target = target.with_sources_checked(self.config.folder)
        if self.config.definitions or all(change.action != "delete" for change in target.changes.changes):
            return target
        # Something goes: it may be in a file that the default does not read.
        if names := ", ".join(path.name for path in passed_over(self.config.folder)):
            note = f"Not read, because they make no definitions: {names}. If they do, name them under `definitions:`."
            target = replace(target, changes=replace(target.changes, notes=(*target.changes.notes, note)))
        return target

    def _readers(self) -> dict[str, list[str]]:
        """Who is known to read each service: the models whose importances are kept."""
        return {service: [f"model {model}" for model in models] for service, models in self.models().items()}

    def _apply(self, newest: Version | None, target: Target, author: str | None, *, allow_destructive: bool) -> Applied:
        target.refuse_unless_possible(allow_destructive=allow_destructive)
        refuse_other_registry(self.online.find_published().plan, self.registry)
        version = self.registry.commit(
            target.definitions, base=newest.version if newest is not None else None, author=author or current_author()
        )
        fills = Fills(
            pruned(target.definitions),
            folder=self.config.folder,
            online=self.online,
            engine=lambda: self._engine(self.config.engine),
            folders=lambda: self._folders,
            # The topic may have lost what follows a history that ended long ago; a change can be served nevertheless.
            backfill=lambda view: self._backfill(view, allow_gap=True),
        )
        try:
            plan = roll_out(
                target.definitions,
                version.version,
                project=self.project,
                online=self.online,
                registry=self.registry,
                fill=fills.rows,
                fill_tiles=fills,
                buckets=self.config.online_store.buckets,
                expire_keys=self.config.online_store.expire_keys,
            )
        except ConflictError:  # somebody else rolls out
            raise
        except Exception as error:
            # Where Redis or the registry is away, the version stays unfinished, and the next apply finishes it.
            with contextlib.suppress(FeatureStoreError):
                if give_up(version.version, self.online):
                    self.registry.withdraw(version.version, f"{type(error).__name__}: {error}")
            raise
        self.registry.finish(version.version)
        return Applied(version, target.changes, plan)

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
        """Write the latest row of every entity, among those with event times in `[start, end)`, to the online store.

        Args:
            start: None: what is not materialized yet, the times of late rows that files brought since they were read,
                and `lookback` before the last end again.
            end: None, or a time to come: now, by Redis's clock.
            views: names; None: every view that has a source.
            engine: `local` or `spark`; the configured one unless given.
            lookback: how far before the last end to read again, for values that were changed within a file.
            report: is told of the progress.

        Raises:
            NotFoundError: nothing is applied, or there is no such view.
            DataError: a source does not fit its view.
            OnlineStoreError, RegistryError: as their names say.
        """
        newest, _ = self._served()
        return [
            self._materialized(
                view,
                start_us=None if start is None else given_microseconds(start, "start"),
                end_us=None if end is None else given_microseconds(end, "end"),
                lookback_us=given_duration(lookback, "lookback"),
                engine=self._engine(self._engine_name(engine)),
                digest=newest.digest,
                report=report,
            )
            for view in self._chosen(newest.served_definitions(), views)
        ]

    def _materialized(self, view: FeatureView, **how: Any) -> Summary:
        with extra("local", "materialize"):
            from feature_store.materialize.job import materialize

        with self._telling_evictions(view.name):
            summary = materialize(
                view,
                source_folder=self.config.folder,
                destination=self.online.destination(view.name),
                progress=self.online.progress(view.name),
                folders=self._folders,
                **how,
            )
        for interval in summary.intervals:
            self.registry.note_materialized(view.name, *interval)
        return summary

    @contextlib.contextmanager
    def _telling_evictions(self, view: str) -> Iterator[None]:
        """Log an error when Redis drops keys while rows are written, whether the job fails of it or not."""
        before = self.online.evicted_keys()
        try:
            yield
        finally:
            with contextlib.suppress(OnlineStoreError):
                dropped = self.online.evicted_keys() - before
                if dropped > 0:
                    _LOG.error(
                        "Redis dropped %d keys for want of memory while %s was written: rows are missing. Set "
                        "maxmemory-policy noeviction, give it memory, then materialize again",
                        dropped,
                        view,
                    )

    def push(self, view: str, table: Any, *, report: Report | None = None) -> Summary:
        """Write rows of a view: an Arrow table, a DataFrame, or the path of a CSV or Parquet file.

        Raises:
            NotFoundError: nothing is applied, or there is no such view.
            DataError: the table does not fit the view.
        """
        with extra("local", "push"):
            from feature_store.materialize.job import push

        definition = self._served()[0].served_definitions().view(given_name(view, "view"))
        return push(
            definition,
            table,
            engine=self._engine("local"),  # the rows are here
            destination=self.online.destination(view),
            folders=self._folders,
            report=report,
        )

    def stream(
        self,
        views: Sequence[str] | None = None,
        *,
        engine: str = "local",
        workers: int | None = None,
        until_caught_up: bool = False,
        metrics_port: int | None = None,
        report: Callable[[Status], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Status:
        """Merge Kafka's events into the windows of stream views, each event once, until told to stop.

        Args:
            views: names; None: all stream views. Whoever streams other views is another consumer group.
            engine: `local`: worker processes on this machine; `spark`: Spark Structured Streaming. Either goes on where
                the other stopped. The configured engine has no say here.
            workers: of `local`, how many processes, 1 unless given; more than the topics have partitions is of no use.
            until_caught_up: end when all is merged that Kafka held at the start.
            metrics_port: where to serve Prometheus metrics; 0: on any free port.
            report: is told how it goes, several times a second.
            stopped: asked several times a second whether to finish.

        Raises:
            NotFoundError: nothing is applied, or there is no such view or engine.
            RequestError: a number of workers for Spark.
            StreamError: Kafka cannot be reached, or lacks a topic.
            EngineError: Spark cannot be started, has no Kafka connector, or fails again and again.
            OnlineStoreError, RegistryError: as their names say.
        """
        with extra("kafka", "stream"):
            from feature_store.streaming.catalog import Setup
            from feature_store.streaming.metrics import Metrics
            from feature_store.streaming.workers import stream
        _check_stream_engine(engine, workers)

        self._newest()
        setup = Setup(
            project=self.project,
            online_url=self.online_url,
            timeout_s=_STREAM_TIMEOUT_S,
            registry_url=self.config.registry_url,
            kafka=self._kafka(),
            views=None if views is None else tuple(views),
            dead_letters=self.config.streaming.dead_letters,
        )
        with contextlib.ExitStack() as stack:
            told = [report] if report is not None else []
            if metrics_port is not None:
                told.append(stack.enter_context(Metrics(metrics_port)).update)

            def tell(status: Status) -> None:
                for one in told:
                    one(status)

            if engine == "spark":
                return self._stream_on_spark(
                    setup, stack, stopped=stopped, until_caught_up=until_caught_up, report=tell
                )
            return stream(setup, workers or 1, stopped=stopped, until_caught_up=until_caught_up, report=tell)

    def backfill(
        self, view: str, until: datetime | None = None, *, allow_gap: bool = False, report: Report | None = None
    ) -> Filled:
        """Fill a stream view anew: from its source's history before a time, and from Kafka since then.

        Meanwhile the view is served and streamed as it was; then the new one takes its place at once.

        Args:
            view: a stream view.
            until: up to when the history is whole, UTC unless it says otherwise; None: the source has no history, and
                the view is filled from all that the topic holds.
            allow_gap: go on when Kafka may have deleted messages of after that time.
            report: is told of the progress.

        Raises:
            NotFoundError: nothing is applied, or there is no such stream view.
            DefinitionError: there is a time, though its source has no history.
            RequestError: the time is not past, or there is none though its source has a history.
            DataError, StreamError, OnlineStoreError: as their names say; run it again, and it goes on.
        """
        definitions = self._served()[0].served_definitions()
        definition = find(definitions.stream_feature_views, view, "stream view")
        return self._backfill(definition, allow_gap=allow_gap, report=report).run(
            None if until is None else given_microseconds(until, "until")
        )

    def get_online_features(
        self, service: str | Sequence[str], entity_rows: Mapping[str, Any], *, now: datetime | int | None = None
    ) -> OnlineResponse:
        """As OnlineClient.get_online_features."""
        return self.client.get_online_features(service, entity_rows, now=now)

    def get_historical_features(
        self,
        entity_df: Any,
        service: str | Sequence[str],
        engine: str | None = None,
        *,
        timestamp_column: str = "event_timestamp",
        prune_as_of: datetime | Literal["never"] | None = None,
        report: Report | None = None,
    ) -> TrainingSet:
        """Label rows with the features that serving would have given at each label's time.

        Every label row comes back once, in order, with all its columns; then the service's features. A row of a source
        counts for a label when both its event time and its creation time are not after the label's; its view's ttl
        counts from the label's time. Where there is no value is what `get_online_features(...).to_dict()` gives: the
        field's default, or null. A label whose entity key is null has no values of that entity.

        Args:
            entity_df: label rows with a time, the entity keys, and the fields that requests carry: a DataFrame, an
                Arrow table, the path of a Parquet file, or a query (`SELECT …`, `WITH …`) on the engine; of DuckDB,
                files in it may be relative to the project's folder.
            service: the name of an applied service, or feature references `view:feature`.
            engine: what joins; the configured one unless given.
            timestamp_column: the column of the labels' times; UTC unless its type says otherwise.
            prune_as_of: with the features that prune plans left at that time; "never": with all; None: with those that
                are served now.
            report: is told of the progress.

        Raises:
            NotFoundError: nothing is applied, or there is no such service.
            ConflictError: the service has changed since it was pruned as it was at that time.
            RequestError: a view keeps no history.
            DataError: the label rows lack something, or have a feature's name, or a value that does not fit; or a
                source cannot be read.
            TransformError: an on-demand function is missing, differs from the applied one, or failed.
        """
        with extra("local", "get_historical_features"):
            from feature_store.training.training_set import historical_features

        return historical_features(
            entity_df,
            feature_names(service),
            project=self._training_project(prune_as_of),
            engine=self._engine(self._engine_name(engine)),
            engine_name=self._engine_name(engine),
            timestamp_column=given_name(timestamp_column, "timestamp_column"),
            report=report,
        )

    def training_set_from_log(
        self,
        log: str | Path,
        labels: Any,
        service: str,
        *,
        version: int | None = None,
        take: Sequence[str] = (),
    ) -> TrainingSet:
        """Labels with the vectors that were served, as the log has them (`monitoring.ServedLog`, `ParquetSink`).

        Columns are the labels', then what is taken of the log, then the service's features, as of a training set. A
        label is of the record with its `request_id`, and its `request_row` when the labels have that column, else the
        service's join keys. Labels that were not logged are left out; the manifest says how many there were.

        Args:
            log: the folder of the log, or one of its files.
            labels: as entity_df of `get_historical_features`.
            service: whose records.
            version: only records of this version of the serving plan, with its features; unless given, all, which must
                have the features that are served now.
            take: columns of the log to be taken along, such as `served_at`, or names of log fields.

        Raises:
            NotFoundError: nothing is applied, or there is no such log, service or version.
            DataError: records have other features; or a label is of several records; or a column lacks, or is there
                twice; or something cannot be read.
        """
        with extra("local", "training_set_from_log"):
            from feature_store.training.served import training_set_from_log

        return training_set_from_log(
            Path(log),
            labels,
            service,
            project=self._training_project(None),
            engine=self._engine("local"),
            version=version,
            take=take,
        )

    def skew(
        self, service: str, at: datetime, entity_rows: Mapping[str, Any] | None = None, *, sample: int = 1000
    ) -> SkewReport:
        """Compare what is served with what the offline data say, at one time.

        The online store keeps the newest values, so `at` should be a time that it stands at: not before the end of the
        last materialization, nor before the newest streamed event.

        Args:
            service: whose features.
            at: the time, UTC unless it says otherwise.
            entity_rows: as of `get_online_features`; entities that the online store holds, combined at random, unless
                given. Request fields must be given, and can be given alone.
            sample: how many entity rows to make unless they are given.

        Raises:
            NotFoundError: nothing is applied, or there is no such service, or no entity to compare.
            RequestError, DataError, OnlineStoreError: as their names say.
        """
        from feature_store.monitoring.skew import compare

        rows = self._sampled_rows(service, sample) | dict(entity_rows or {})
        columns = {name: value if isinstance(value, list) else [value] for name, value in rows.items()}
        count = max(map(len, columns.values()))
        columns = {name: values * count if len(values) == 1 else values for name, values in columns.items()}
        online = self.get_online_features(service, columns, now=at).to_dict()
        with extra("local", "skew"):
            import pyarrow as pa
        labels = pa.table(columns | {"event_timestamp": pa.array([at] * count, pa.timestamp("us", "UTC"))})
        offline = self.get_historical_features(labels, service).to_arrow().select(list(online)).to_pydict()
        listed = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return compare(service, given_microseconds(at, "at"), listed, online, offline)

    def freshness(self, service: str | None = None, *, at: datetime | None = None) -> FreshnessReport:
        """How old the newest event time is that the online store holds of each view, and which are older than declared.

        Args:
            service: of the views that it reads; None: of all that are stored.
            at: the time that ages are counted to, UTC unless it says otherwise; None: now.

        Raises:
            NotFoundError: nothing is applied, or there is no such service.
            OnlineStoreError: Redis cannot be reached, or no plan is published.
        """
        from feature_store.monitoring.freshness import freshness_report

        definitions = self._newest().served_definitions()
        views = definitions.stored_views if service is None else definitions.stored_views_of(service)
        finished = self.online.finished_intervals()
        return freshness_report(
            views,
            self.online.newest_event_times(),
            {view: max(end for _, end in intervals) for view, intervals in finished.items() if intervals},
            at_us=given_microseconds(at or datetime.now(UTC), "at"),
        )

    def skew_of_log(
        self,
        log: str | Path,
        service: str | None = None,
        *,
        training_set: str | Path | None = None,
        version: int | None = None,
        sample: int = 20_000,
        report: Report | None = None,
    ) -> ServedSkewReport:
        """Compare what was served, as the log has it, with what the offline data say of the same rows at their times.

        What the sources have learnt since, with times of before, differs too: that is what serving did not know.

        Args:
            log: the folder of the log, or one of its files.
            service: whose records; needed when the log is of several.
            training_set: a Parquet file that distances are from; what is computed again unless given.
            version: only records of this version of the serving plan.
            sample: how many rows are compared at most, chosen at random, the same in every run.
            report: is told of the progress.

        Raises:
            NotFoundError: nothing is applied, or there is no such log, service or version.
            RequestError: the log is of several services; or a view keeps no history.
            DataError: the log is of several lists of features, or has one that the service has no more; or something
                cannot be read.
        """
        with extra("local", "skew_of_log"):
            import pyarrow.parquet as pq

            from feature_store.arrow.sources import reading
            from feature_store.monitoring.served_skew import compare_served, sample_of

        served = sample_of(Path(log), service, version, sample)
        recomputed = self.get_historical_features(
            served.entity_rows(), served.about.service, "local", timestamp_column="served_at", report=report
        )
        reference = None
        if training_set is not None:
            with reading(f"training set {training_set}"):
                reference = pq.read_table(training_set)
        return compare_served(served, recomputed.to_arrow(), reference)

    def delete(self, entity: str, join_keys: Mapping[str, Any]) -> int:
        """Delete everything the online store holds of one entity, composite keys included. Returns how many keys.

        It stays deleted while a changed layout is filled. But what sources hold of it comes back when they are read
        again (materialize, backfill, an apply that fills a changed view): delete it there first.

        Raises:
            NotFoundError: no view is of that entity.
            RequestError: the join key is missing, null or of a wrong type.
        """
        return self.online.delete(entity, join_keys)

    def teardown(self) -> int:
        """Delete this project's online data, registry and job files, and nobody else's. Returns how many keys."""
        import shutil

        deleted = self.online.teardown()
        self.registry.teardown()
        for name in _JOB_FOLDERS:
            shutil.rmtree(self.config.state_folder / name, ignore_errors=True)
        return deleted

    def close(self) -> None:
        """Close connections; the embedded server stops when nobody else uses it."""
        self._exit.close()
        for name in ("registry", "online_url", "online", "client", "_spark"):
            self.__dict__.pop(name, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- small parts --------------------------------------------------------------------------------------------

    def _training_project(self, prune_as_of: datetime | Literal["never"] | None) -> Project:
        from feature_store.training.training_set import Project

        newest = self._newest()
        has_functions = bool(newest.document["on_demand_feature_views"])
        return Project(
            self.project,
            self.config.folder,
            newest,
            self._pruned_as_of(newest, prune_as_of),
            self.definitions.on_demand_feature_views if has_functions else {},
            self.config.state_folder / "training",
            self.config.state_folder / "quarantine",
        )

    def _pruned_as_of(self, newest: Version, time: datetime | Literal["never"] | None) -> DefinitionSet:
        definitions = newest.definitions()
        if time is None:
            return definitions
        if isinstance(time, str) and time == "never":
            return definitions.with_prunings([])
        then = self.registry.version_at(from_microseconds(given_microseconds(time, "prune_as_of")))
        found = definitions.with_prunings(then.definitions().prunings.values() if then is not None else [])
        for pruning in found.prunings.values():
            refuse_unbound(found, pruning)
        return found

    def _sampled_rows(self, service: str, count: int) -> dict[str, Any]:
        """Entity rows of entities that are stored, each join key's values in an order of their own."""
        definitions = self._newest().served_definitions()
        rows: dict[str, list[Any]] = {}
        for view in definitions.stored_views_of(service):
            if not set(view.join_keys) <= rows.keys():
                found = self.online.sample_keys(view.name, count)
                rows |= {
                    key: list(values) for key, values in zip(view.join_keys, zip(*found, strict=True), strict=False)
                }
        if not rows:
            raise NotFoundError(f"skew of {service}", expected="entities in the online store", got="none")
        choose = random.Random(0)  # the same rows in every run
        return {key: [choose.choice(values) for _ in range(count)] for key, values in rows.items()}

    def _newest(self) -> Version:
        newest = self.registry.latest()
        if newest is None:
            raise NotFoundError(
                f"project {self.project}", expected="applied definitions", hint="run `feature-store apply`"
            )
        return newest

    def _served(self) -> tuple[Version, ServingPlan]:
        """The version that is served, which an apply that has not finished leaves as it is, and its plan."""
        self._newest()
        plan = self.online.require_published().plan
        refuse_other_registry(plan, self.registry)
        return self.registry.version(plan.version), plan

    def _chosen(self, definitions: DefinitionSet, views: Sequence[str] | None) -> list[FeatureView]:
        if views is None:
            return [view for view in definitions.feature_views.values() if view.source is not None]
        chosen = [definitions.view(name) for name in given_names(views, "views")]
        for view in chosen:
            if view.source is None:
                raise DefinitionError(f"{view.name}.source", expected="a source", got="none", hint="push its rows")
        return chosen

    @property
    def _folders(self) -> Folders:
        from feature_store.materialize.job import Folders

        return Folders(self.config.state_folder / "materialize", self.config.state_folder / "quarantine")

    def _kafka(self) -> dict[str, str | int | float | bool]:
        if "bootstrap.servers" not in self.config.kafka:
            where = f"{FILE_NAME}: kafka"
            raise ConfigError(where, expected="bootstrap.servers", got="none", hint="say where Kafka is")
        return dict(self.config.kafka)

    def _backfill(self, view: StreamFeatureView, *, allow_gap: bool, report: Report | None = None) -> Backfill:
        with extra("local", "backfill"), extra("kafka", "backfill"):
            from feature_store.streaming.backfill import Backfill

        return Backfill(
            view,
            online=self.online,
            source_folder=self.config.folder,
            kafka=self.config.kafka,
            state_folder=self.config.state_folder,
            allow_gap=allow_gap,
            report=report,
        )

    def _engine_name(self, given: str | None) -> str:
        return self.config.engine if given is None else given_name(given, "engine") or self.config.engine

    def _engine(self, name: str) -> LocalEngine | SparkEngine:
        if name == "local":
            from feature_store.engines.local.engine import LocalEngine

            return LocalEngine(self.config.local.memory_limit)
        if name == "spark":
            return self._spark
        raise NotFoundError("engine", expected="local or spark", got=repr(name))

    def _stream_on_spark(self, setup: Setup, stack: contextlib.ExitStack, **how: Any) -> Status:
        from feature_store.engines.spark.kafka import with_connector
        from feature_store.engines.spark.session import Session
        from feature_store.streaming.spark.options import session_settings, source_options
        from feature_store.streaming.spark.stream import stream

        options = source_options(self._kafka(), self.config.spark)
        session = Session(with_connector(session_settings(self.config.spark)))
        stack.callback(session.close)
        return stream(setup, session, options, **how)

    @cached_property
    def _spark(self) -> SparkEngine:
        from feature_store.engines.spark.engine import SparkEngine
        from feature_store.streaming.spark.options import session_settings

        engine = SparkEngine(session_settings(self.config.spark), self.config.state_folder / "spark")
        self._exit.callback(engine.close)
        return engine


def _check_stream_engine(engine: str, workers: int | None) -> None:
    """See to it that there is such an engine for streams, and that it has workers if some are asked for.

    Raises:
        NotFoundError, RequestError: there is none; it has none.
    """
    if engine not in ("local", "spark"):
        raise NotFoundError("engine", expected="local or spark", got=repr(engine))
    if engine == "spark" and workers is not None:
        hint = "a task of Spark merges a partition; how many run at once, `spark.master` or the cluster says"
        raise RequestError("workers", expected="none with engine spark", got=str(workers), hint=hint)
