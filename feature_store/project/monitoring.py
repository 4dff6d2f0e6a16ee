"""Monitoring of a project: `FeatureStore.monitoring`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_store._extras import requires_extra
from feature_store.definitions.dtypes import given_microseconds
from feature_store.errors import NotFoundError
from feature_store.materialize.schedules import ViewSchedule, schedules
from feature_store.monitoring.checks import Finding
from feature_store.monitoring.freshness import FreshnessReport, freshness_of
from feature_store.monitoring.score import Score, score_of
from feature_store.monitoring.skew import SkewReport, compare
from feature_store.project.context import Project
from feature_store.project.size import ProjectSize, size_of

if TYPE_CHECKING:
    from feature_store.engines.report import Report
    from feature_store.monitoring.served_skew import ServedSkewReport


class ProjectMonitoring:
    """Freshness, skew, checks and the score of a project.

    Args:
        project: the project.
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    def freshness(self, service: str | None = None, *, at: datetime | None = None) -> FreshnessReport:
        """How old the newest stored event time of each view is, and which views are older than they declare.

        Args:
            service: report on the views that it reads; None: on all stored views.
            at: the time at which ages are measured, UTC unless it has a time zone; None: now.

        Raises:
            NotFoundError: nothing is applied, or there is no such service.
            NotPublishedError: no plan is published.
            StoreConnectionError, StoreTimeoutError: Redis cannot be reached, or does not answer in time.
        """
        return freshness_of(self._project, service, at=at)

    def schedules(self) -> list[ViewSchedule]:
        """When each view with a source is due, and the event times that no run of a job covered.

        Raises:
            NotFoundError: nothing is applied.
            OnlineStoreError, RegistryError: Redis or the registry cannot be reached.
        """
        return schedules(self._project)

    def size(
        self,
        entities: Mapping[str, int] | None = None,
        *,
        key_bytes: Mapping[str, int] | None = None,
        variable_bytes: Mapping[str, int] | None = None,
    ) -> ProjectSize:
        """The memory that the folder's definitions need in Redis, before anything is stored, and what is stored now.

        Args:
            entities: the number of entities, by entity name, or by names that are joined by `+` for views of several
                entities: `{"user": 1_000_000, "user+product": 5_000_000}`. Where no number is given, that of the stored
                entities is taken, if there are any.
            key_bytes: the mean length of an entity's String key, by entity name. Default: 16 bytes.
            variable_bytes: the mean bytes of the String, Bytes and ragged Array values of one row, by view name.
                Default: 16 bytes for each such field.

        Raises:
            NotFoundError: a name is not that of an entity, row group or view.
            RequestError: a number is negative.
            StoreReplyError: Redis refuses to answer, for example because of the user's rights.
        """
        return size_of(self._project, entities, key_bytes=key_bytes, variable_bytes=variable_bytes)

    def skew(
        self, service: str, at: datetime, entity_rows: Mapping[str, Any] | None = None, *, sample: int = 1000
    ) -> SkewReport:
        """Compare served values with values computed from offline data, at one time.

        The online store keeps only the newest values, so `at` should not be before the end of the last
        materialization, nor before the newest streamed event.

        Args:
            service: the service to compare.
            at: the time, UTC unless it has a time zone.
            entity_rows: see `get_online_features`; None: random combinations of stored entities. Request fields are
                required, and can be given alone.
            sample: the number of entity rows to draw when they are not given.

        Raises:
            NotFoundError: nothing is applied, or there is no such service, or no entity is stored.
            RequestError: an entity key or request field is missing, null, or of a wrong type or length.
            DataError: a source does not fit its view, or cannot be read.
            OnlineStoreError: Redis cannot be read.
        """
        with requires_extra("local", "skew"):
            from feature_store.arrow.labels import labels_at
            from feature_store.training.training_set import historical_features

        rows = self._sampled_rows(service, sample) | dict(entity_rows or {})
        columns = {name: value if isinstance(value, list) else [value] for name, value in rows.items()}
        count = max(map(len, columns.values()))
        columns = {name: values * count if len(values) == 1 else values for name, values in columns.items()}
        online = self._project.client.get_online_features(service, columns, now=at).to_dict()
        joined = historical_features(self._project, labels_at(columns, at), service)
        offline = joined.to_arrow().select(list(online)).to_pydict()
        listed = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return compare(service, given_microseconds(at, "at"), listed, online, offline)

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
        """Compare logged vectors with values computed from offline data for the same rows at the same times.

        Late rows make a difference, too: rows that reached the sources after serving, with earlier times.

        Args:
            log: the folder of the log, or one of its files.
            service: the service whose records to use; required when the log has several services.
            training_set: a Parquet file to measure distances of distributions from; None: the recomputed values.
            version: use only records of this version of the serving plan.
            sample: compare at most this many rows, drawn at random, the same rows in each run.
            report: gets the progress.

        Raises:
            NotFoundError: nothing is applied, or there is no such log, service or version.
            RequestError: the log has several services; or a view keeps no history.
            DataError: the log has several lists of features, or a feature that the service no longer has, or a file
                cannot be read.
        """
        with requires_extra("local", "skew_of_log"):
            from feature_store.arrow.parquet import read_parquet
            from feature_store.monitoring.served_skew import compare_served, sample_of
            from feature_store.training.training_set import historical_features

        served = sample_of(Path(log), service, version, sample)
        rows, of_service = served.entity_rows(), served.about.service
        recomputed = historical_features(
            self._project, rows, of_service, engine="local", timestamp_column="served_at", report=report
        )
        reference = None if training_set is None else read_parquet(Path(training_set), f"training set {training_set}")
        return compare_served(served, recomputed.to_arrow(), reference)

    def diagnose(self) -> Iterator[Finding]:
        """Check every part of the project: definitions, registry, sources, Redis, Kafka. Yields each finding at once.

        A part that cannot be reached is a finding, not an error.
        """
        from feature_store.project.doctor import diagnose

        return diagnose(self._project)

    def score(self) -> Score:
        """Score the project's features, views and services with the ML Test Score.

        Raises:
            NotFoundError: nothing is applied.
            RegistryError: the registry cannot be read.
        """
        from feature_store.project.evidence import evidence_of

        return score_of(evidence_of(self._project))

    def _sampled_rows(self, service: str, count: int) -> dict[str, Any]:
        """Random entity rows of stored entities. The values of each join key are drawn independently."""
        definitions = self._project.newest().served_definitions()
        rows: dict[str, list[Any]] = {}
        for view in definitions.stored_views_of(service):
            if not set(view.join_keys) <= rows.keys():
                keys = self._project.online.sample_keys(view.name, count)
                rows |= {
                    key: list(values) for key, values in zip(view.join_keys, zip(*keys, strict=True), strict=False)
                }
        if not rows:
            raise NotFoundError(f"skew of {service}", problem="there are no entities in the online store")
        choose = random.Random(0)  # the same rows in every run
        return {key: [choose.choice(values) for _ in range(count)] for key, values in rows.items()}
