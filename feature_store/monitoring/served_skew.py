"""Skew of a served log: logged values against values recomputed for the same rows at the same times, and the distance
between the distributions of served values and of training values.

Equality is that of `skew.py`. Values that were skipped to keep a deadline or that a prune plan drops were served as
defaults on purpose. They are counted apart and not compared.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.arrow.comparison import Distance, differing, distance
from feature_store.arrow.rows import one_array
from feature_store.arrow.served_log import (
    REQUEST_ID,
    REQUEST_ROW,
    SERVED_AT,
    About,
    log_files,
    one_feature_list,
    plain,
    read_log,
    statuses_of,
)
from feature_store.definitions.dtypes import DType
from feature_store.errors import DataError, RequestError
from feature_store.monitoring.skew import TOLERANCE, FeatureSkew, compare, is_equal
from feature_store.online.status import Status

if TYPE_CHECKING:
    import pyarrow as pa

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Numbers = np.ndarray[Any, np.dtype[np.float64]]

_LEFT_OUT = (Status.SKIPPED, Status.PRUNED)


@dataclass(frozen=True)
class ServedFeatureSkew:
    """The skew of a feature.

    Attributes:
        compared: the numbers of equal and differing rows, with an example. `online` is the served value.
        left_out: the number of rows whose value is SKIPPED or PRUNED.
        distance: the distance from the reference; None for arrays, and without rows.
    """

    compared: FeatureSkew
    left_out: int
    distance: Distance | None

    @property
    def differing_share(self) -> float:
        """The share of the compared rows that differ."""
        rows = self.compared.equal + self.compared.differing
        return self.compared.differing / rows if rows else 0.0


@dataclass(frozen=True)
class ServedSkewReport:
    """The skew of a service's log.

    Attributes:
        service: the service's name.
        versions: the versions of the serving plan in the compared records.
        records: the number of rows in the log.
        rows: the number of compared rows.
        reference: the name of the data that distances are measured from.
        features: the features in the order of the service.
    """

    service: str
    versions: tuple[int, ...]
    records: int
    rows: int
    reference: str
    features: tuple[ServedFeatureSkew, ...]

    def beyond(self, max_differing: float = 0.0, max_distance: float | None = None) -> list[str]:
        """The features that differ in a larger share of rows, or are farther from the reference."""

        def is_beyond(feature: ServedFeatureSkew) -> bool:
            far = max_distance is not None and feature.distance is not None and feature.distance.value > max_distance
            return far or feature.differing_share > max_differing

        return [feature.compared.feature for feature in self.features if is_beyond(feature)]

    def summary(self) -> dict[str, int]:
        """The numbers of compared and of differing values."""
        differing = sum(feature.compared.differing for feature in self.features)
        return {"values": self.rows * len(self.features), "differing": differing}

    def to_document(self) -> dict[str, Any]:
        """The report as JSON types."""
        return asdict(self) | {"features": [_document(feature) for feature in self.features]}


@dataclass(frozen=True)
class ServedSample:
    """Sampled rows of a log.

    Attributes:
        about: the service and its features.
        versions: the versions of the serving plan.
        records: the number of rows in the log.
        rows: the sampled rows.
    """

    about: About
    versions: tuple[int, ...]
    records: int
    rows: pa.Table

    def entity_rows(self) -> pa.Table:
        """The entity rows of the requests: join keys, request fields, and the time in the column SERVED_AT."""
        return self.rows.select([*self.about.keys, *self.about.request, SERVED_AT])


def sample_of(log: Path, service: str | None, version: int | None, count: int) -> ServedSample:
    """Sample at most `count` rows of a log, the same rows in every run.

    Raises:
        NotFoundError: there is no such log, service or version.
        RequestError: the log has several services, and none is named.
        DataError: the log cannot be read, or has several lists of features.
    """
    files = log_files(log, service, version)
    services = sorted({file.about.service for file in files})
    if len(services) > 1:
        raise RequestError(f"served log {log}", expected="the name of one service", got=f"{', '.join(services)}")
    about = one_feature_list(files, None)
    table = read_log(files)
    records = len(table)
    if records > count:
        chosen = np.sort(np.random.default_rng(0).choice(records, count, replace=False))
        table = table.take(chosen)
    return ServedSample(about, tuple(sorted({file.about.version for file in files})), records, table)


def compare_served(sample: ServedSample, recomputed: pa.Table, training_set: pa.Table | None) -> ServedSkewReport:
    """Compare served rows with recomputed rows one by one, and their distributions with a training set.

    Args:
        sample: the served rows.
        recomputed: the same rows with recomputed features.
        training_set: the reference of distances; None: the recomputed rows.

    Raises:
        DataError: a table lacks a feature, or has a type that cannot be compared.
    """
    reference = recomputed if training_set is None else plain(training_set)
    statuses = statuses_of(sample.rows, list(sample.about.features))
    features = []
    for name, dtype in sample.about.feature_types.items():
        for table, what in ((recomputed, "recomputed values"), (reference, "training set")):
            if name not in table.column_names:
                raise DataError(f"{what}: column {name}", expected=f"a feature ({dtype})", got="none")
        left_out = np.isin(statuses[name], _LEFT_OUT)
        served = one_array(sample.rows[name])
        compared = _compare(sample, name, dtype, served, one_array(recomputed[name]), left_out)
        kept = served.filter(~left_out)
        features.append(
            ServedFeatureSkew(compared, int(left_out.sum()), distance(kept, one_array(reference[name]), name))
        )
    about = "the recomputed values" if training_set is None else "the training set"
    return ServedSkewReport(
        sample.about.service, sample.versions, sample.records, len(sample.rows), about, tuple(features)
    )


def _compare(
    sample: ServedSample, name: str, dtype: DType, served: pa.Array, offline: pa.Array, left_out: Mask
) -> FeatureSkew:
    places = np.flatnonzero(differing(served, offline, dtype, is_equal, TOLERANCE) & ~left_out)
    compared = len(served) - int(left_out.sum())
    shown = sample.rows.select([REQUEST_ID, REQUEST_ROW, *sample.about.keys, SERVED_AT]).take(places)
    rows = [row | {SERVED_AT: row[SERVED_AT].isoformat()} for row in shown.to_pylist()]
    skew = compare(
        sample.about.service, 0, rows, {name: served.take(places).to_pylist()}, {name: offline.take(places).to_pylist()}
    )
    return replace(skew.features[0], equal=compared - len(places))


def _document(feature: ServedFeatureSkew) -> dict[str, Any]:
    compared = asdict(feature.compared)
    names = {"online": "served", "offline": "recomputed"}
    return {names.get(name, name): value for name, value in compared.items()} | {
        "differing_share": feature.differing_share,
        "left_out": feature.left_out,
        "distance": None if feature.distance is None else asdict(feature.distance),
    }
