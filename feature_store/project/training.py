"""Training sets of a project: `FeatureStore.training`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from feature_store._extras import requires_extra
from feature_store.definitions.names import given_name
from feature_store.online.request_forms import feature_names
from feature_store.project.context import Project

if TYPE_CHECKING:
    from feature_store.engines.report import Report
    from feature_store.training.training_set import TrainingSet


class ProjectTraining:
    """Training sets of a project.

    Args:
        project: the project.
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    def join(
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
        """Join the features of a service to label rows; see `FeatureStore.get_historical_features`."""
        with requires_extra("local", "get_historical_features"):
            from feature_store.training.training_set import historical_features

        return historical_features(
            self._project,
            entity_df,
            feature_names(service),
            engine=engine,
            timestamp_column=given_name(timestamp_column, "timestamp_column"),
            prune_as_of=prune_as_of,
            as_recorded=as_recorded,
            report=report,
        )

    def from_log(
        self,
        log: str | Path,
        labels: Any,
        service: str,
        *,
        version: int | None = None,
        take: Sequence[str] = (),
    ) -> TrainingSet:
        """Join labels to the vectors that were served, as the log of `monitoring.ServedLog` has them.

        The columns are those of the labels, then those taken from the log, then the features of the service. A label
        belongs to the record with its `request_id`, and with its `request_row` if the labels have that column, else
        with its join keys. Labels that were not logged are left out; the manifest counts them.

        Args:
            log: the folder of the log, or one of its files.
            labels: as `entity_df` of `get_historical_features`.
            service: the service whose records to use.
            version: use only records of this version of the serving plan, with its features; None: use all records,
                which must have the features that are served now.
            take: columns of the log to add, such as `served_at`, or names of log fields.

        Raises:
            NotFoundError: nothing is applied, or there is no such log, service or version.
            DataError: records have other features; or a label matches several records; or a column is missing or
                there twice; or a file cannot be read.
        """
        with requires_extra("local", "training_set_from_log"):
            from feature_store.training.served import training_set_from_log

        return training_set_from_log(self._project, Path(log), labels, service, version=version, take=take)
