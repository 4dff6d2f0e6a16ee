"""Deprecated methods of FeatureStore that moved to its grouped faces. Release 1.0 removes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from feature_store._deprecation import deprecated
from feature_store.monitoring.freshness import FreshnessReport
from feature_store.monitoring.skew import SkewReport
from feature_store.project.monitoring import ProjectMonitoring
from feature_store.project.training import ProjectTraining

if TYPE_CHECKING:
    from feature_store.engines.report import Report
    from feature_store.monitoring.served_skew import ServedSkewReport
    from feature_store.training.training_set import TrainingSet


class _WithFaces(Protocol):
    @property
    def training(self) -> ProjectTraining: ...

    @property
    def monitoring(self) -> ProjectMonitoring: ...


class MovedMethods:
    """The methods that release 0.1 had on FeatureStore itself."""

    @deprecated(use="store.training.from_log(…)", since="0.2", removed_in="1.0")
    def training_set_from_log(
        self: _WithFaces,
        log: str | Path,
        labels: Any,
        service: str,
        *,
        version: int | None = None,
        take: Sequence[str] = (),
    ) -> TrainingSet:
        """See `FeatureStore.training`."""
        return self.training.from_log(log, labels, service, version=version, take=take)

    @deprecated(use="store.monitoring.freshness(…)", since="0.2", removed_in="1.0")
    def freshness(self: _WithFaces, service: str | None = None, *, at: datetime | None = None) -> FreshnessReport:
        """See `FeatureStore.monitoring`."""
        return self.monitoring.freshness(service, at=at)

    @deprecated(use="store.monitoring.skew(…)", since="0.2", removed_in="1.0")
    def skew(
        self: _WithFaces,
        service: str,
        at: datetime,
        entity_rows: Mapping[str, Any] | None = None,
        *,
        sample: int = 1000,
    ) -> SkewReport:
        """See `FeatureStore.monitoring`."""
        return self.monitoring.skew(service, at, entity_rows, sample=sample)

    @deprecated(use="store.monitoring.skew_of_log(…)", since="0.2", removed_in="1.0")
    def skew_of_log(
        self: _WithFaces,
        log: str | Path,
        service: str | None = None,
        *,
        training_set: str | Path | None = None,
        version: int | None = None,
        sample: int = 20_000,
        report: Report | None = None,
    ) -> ServedSkewReport:
        """See `FeatureStore.monitoring`."""
        return self.monitoring.skew_of_log(
            log, service, training_set=training_set, version=version, sample=sample, report=report
        )
