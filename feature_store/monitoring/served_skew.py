"""Skew of what was served: the log's values against what the offline data say of the same rows at the same times, and
how far the distribution of what is served is from that of what models are trained on.

Two values are equal as in `skew.py`. What was not read to keep a deadline, and what a prune plan has dropped, was
served as its default on purpose: it is counted apart, and compared with nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.arrow.rows import one_array
from feature_store.arrow.served_log import (
    REQUEST_ID,
    REQUEST_ROW,
    SERVED_AT,
    log_files,
    one_feature_list,
    plain,
    read_log,
    statuses_of,
)
from feature_store.errors import DataError, RequestError
from feature_store.monitoring.skew import TOLERANCE, FeatureSkew, compare, is_equal
from feature_store.online.status import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from feature_store.arrow.served_log import About
    from feature_store.definitions.dtypes import DType

    Mask = np.ndarray[Any, np.dtype[np.bool_]]
    Numbers = np.ndarray[Any, np.dtype[np.float64]]

# Integers with more values than that are quantities, with fewer they may be categories.
_MOST_CATEGORIES = 50
# Quantiles of both samples together: enough to see a shift of a tenth, and some hundred rows in each of few thousand.
_BINS = 20
_LEFT_OUT = (Status.SKIPPED, Status.PRUNED)
L_INFINITY, JENSEN_SHANNON = "L∞", "Jensen–Shannon"


@dataclass(frozen=True)
class Distance:
    """How far two distributions are from each other, 0 (the same) to 1 (nothing in common).

    Attributes:
        measure: L_INFINITY: the largest difference of the shares of a category, of text, booleans and integers of few
            values; JENSEN_SHANNON: the divergence, to the base 2, on bins of quantiles that both share, of other
            numbers. Null is a category, and a bin, of its own.
        value: the distance.
    """

    measure: str
    value: float


@dataclass(frozen=True)
class ServedFeatureSkew:
    """How one feature compares.

    Attributes:
        compared: rows that are equal and differing, with an example; see FeatureSkew: online is what was served.
        left_out: rows whose value was not read in time, or is pruned.
        distance: from the reference; None of arrays, and when there are no rows.
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
    """How the log of a service compares.

    Attributes:
        service: its name.
        versions: of the serving plan, whose records were compared.
        records: rows in the log.
        rows: of them, those that were compared.
        reference: what distances are from.
        features: in the order of the service.
    """

    service: str
    versions: tuple[int, ...]
    records: int
    rows: int
    reference: str
    features: tuple[ServedFeatureSkew, ...]

    def beyond(self, max_differing: float = 0.0, max_distance: float | None = None) -> list[str]:
        """The names of the features that differ in a larger share of rows, or are farther from the reference."""

        def is_beyond(feature: ServedFeatureSkew) -> bool:
            far = max_distance is not None and feature.distance is not None and feature.distance.value > max_distance
            return far or feature.differing_share > max_differing

        return [feature.compared.feature for feature in self.features if is_beyond(feature)]

    def summary(self) -> dict[str, int]:
        """How many values were compared, and how many differ."""
        differing = sum(feature.compared.differing for feature in self.features)
        return {"values": self.rows * len(self.features), "differing": differing}

    def to_document(self) -> dict[str, Any]:
        """The report as JSON types."""
        return asdict(self) | {"features": [_document(feature) for feature in self.features]}


@dataclass(frozen=True)
class ServedSample:
    """Rows of a log.

    Attributes:
        about: what they are of.
        versions: of the serving plan.
        records: rows in the log.
        rows: those that were chosen.
    """

    about: About
    versions: tuple[int, ...]
    records: int
    rows: pa.Table

    def entity_rows(self) -> pa.Table:
        """The rows as they were asked for: join keys, request fields and time, in the column SERVED_AT."""
        return self.rows.select([*self.about.keys, *self.about.request, SERVED_AT])


def sample_of(log: Path, service: str | None, version: int | None, count: int) -> ServedSample:
    """Rows of a log, at random when there are more; the same in every run.

    Raises:
        NotFoundError: there is no such log, service or version.
        RequestError: the log is of several services, and none was named.
        DataError: the log cannot be read, or is of several lists of features.
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
        table = table.take(pa.array(chosen))
    return ServedSample(about, tuple(sorted({file.about.version for file in files})), records, table)


def compare_served(sample: ServedSample, recomputed: pa.Table, training_set: pa.Table | None) -> ServedSkewReport:
    """Compare row by row with what was computed again, and distributions with a training set's.

    Args:
        sample: what was served.
        recomputed: the same rows, with the same features.
        training_set: the reference; what was computed again unless given.

    Raises:
        DataError: a table lacks a feature, or has it of a type that cannot be compared.
    """
    reference = recomputed if training_set is None else plain(training_set)
    statuses = statuses_of(sample.rows, list(sample.about.features))
    features = []
    for name, dtype in sample.about.feature_types.items():
        for table, what in ((recomputed, "the offline data"), (reference, "the training set")):
            if name not in table.column_names:
                raise DataError(f"{what}: column {name}", expected=f"a feature ({dtype})", got="none")
        left_out = np.isin(statuses[name], _LEFT_OUT)
        served = one_array(sample.rows[name])
        compared = _compare(sample, name, dtype, served, one_array(recomputed[name]), left_out)
        kept = served.filter(pa.array(~left_out))
        features.append(
            ServedFeatureSkew(compared, int(left_out.sum()), distance(kept, one_array(reference[name]), name))
        )
    about = "what the offline data say" if training_set is None else "the training set"
    return ServedSkewReport(
        sample.about.service, sample.versions, sample.records, len(sample.rows), about, tuple(features)
    )


# -- row by row -------------------------------------------------------------------------------------------------------


def _compare(
    sample: ServedSample, name: str, dtype: DType, served: pa.Array, offline: pa.Array, left_out: Mask
) -> FeatureSkew:
    places = np.flatnonzero(_differ(served, offline, dtype) & ~left_out)
    compared = len(served) - int(left_out.sum())
    chosen = pa.array(places)
    shown = sample.rows.select([REQUEST_ID, REQUEST_ROW, *sample.about.keys, SERVED_AT]).take(chosen)
    rows = [row | {SERVED_AT: row[SERVED_AT].isoformat()} for row in shown.to_pylist()]
    found = compare(
        sample.about.service, 0, rows, {name: served.take(chosen).to_pylist()}, {name: offline.take(chosen).to_pylist()}
    )
    return replace(found.features[0], equal=compared - len(places))


def _differ(one: pa.Array, other: pa.Array, dtype: DType) -> Mask:
    """(n,) which values are not equal, as `skew.is_equal` says."""
    if dtype.element is not None:
        pairs = zip(one.to_pylist(), other.to_pylist(), strict=True)
        return np.array([not is_equal(*pair) for pair in pairs], bool)
    nulls, other_nulls = _nulls(one), _nulls(other)
    if dtype.numpy.kind == "f":
        differing = ~_close(_numbers(one), _numbers(other))
    else:
        differing = np.asarray(pc.fill_null(pc.not_equal(one, other), False).to_numpy(zero_copy_only=False))
    return np.where(nulls | other_nulls, nulls != other_nulls, differing)


def _close(one: Numbers, other: Numbers) -> Mask:
    with np.errstate(invalid="ignore", over="ignore"):
        within = np.abs(one - other) <= TOLERANCE * np.maximum(np.abs(one), np.abs(other))
        finite = np.isfinite(one) & np.isfinite(other)
        close: Mask = (within & finite) | (one == other) | (np.isnan(one) & np.isnan(other))
    return close


def _nulls(values: pa.Array) -> Mask:
    nulls: Mask = values.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _numbers(values: pa.Array) -> Numbers:
    """As float64, times in microseconds; what stands where there is none does not matter."""
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us")).view(pa.int64())
    if pa.types.is_date32(values.type):
        values = values.view(pa.int32())
    numbers: Numbers = values.cast(pa.float64(), safe=False).fill_null(0.0).to_numpy(zero_copy_only=False)
    return numbers


# -- distributions ----------------------------------------------------------------------------------------------------


def distance(one: pa.Array, other: pa.Array, name: str = "feature") -> Distance | None:
    """How far two samples of a feature are from each other; None of arrays, and of no values.

    Raises:
        DataError: they are of types that cannot be compared.
    """
    if not len(one) or not len(other) or pa.types.is_nested(one.type):
        return None
    if one.type != other.type:
        try:
            other = other.cast(one.type)
        except pa.ArrowException as error:
            raise DataError(f"column {name}", expected=f"values of {one.type}", got=str(other.type)) from error
    if _is_category(one, other):
        return Distance(L_INFINITY, _l_infinity(_shares(one), _shares(other)))
    edges = _edges(one, other)
    return Distance(JENSEN_SHANNON, jensen_shannon(_histogram(one, edges), _histogram(other, edges)))


def _is_category(one: pa.Array, other: pa.Array) -> bool:
    if pa.types.is_string(one.type) or pa.types.is_boolean(one.type) or pa.types.is_binary(one.type):
        return True
    if not pa.types.is_integer(one.type):
        return False
    return len(pc.unique(pa.chunked_array([one, other]))) <= _MOST_CATEGORIES


def _shares(values: pa.Array) -> dict[Any, float]:
    counted = pc.value_counts(values)
    return {item["values"]: item["counts"] / len(values) for item in counted.to_pylist()}


def _l_infinity(one: Mapping[Any, float], other: Mapping[Any, float]) -> float:
    return max(abs(one.get(value, 0.0) - other.get(value, 0.0)) for value in one.keys() | other.keys())


def _edges(one: pa.Array, other: pa.Array) -> Numbers:
    """The inner edges of bins. Each sample counts the same, however many rows it has."""
    each = [values[np.isfinite(values)] for values in _there(one, other)]
    steps = np.linspace(0, 1, _BINS + 1)[1:-1]
    found = [np.quantile(values, steps) for values in each if len(values)]
    return np.unique(np.concatenate(found)) if found else np.empty(0)


def _there(*samples: pa.Array) -> Iterator[Numbers]:
    for values in samples:
        yield _numbers(values.drop_null())


def _histogram(values: pa.Array, edges: Numbers) -> Numbers:
    """The shares of the bins, then of NaN, then of null."""
    (numbers,) = _there(values)
    is_nan = np.isnan(numbers)
    bins = np.bincount(np.searchsorted(edges, numbers[~is_nan], "right"), minlength=len(edges) + 1)
    shares: Numbers = np.array([*bins.tolist(), int(is_nan.sum()), values.null_count], np.float64) / len(values)
    return shares


def jensen_shannon(one: Numbers, other: Numbers) -> float:
    """The divergence of two lists of shares, to the base 2: 0 to 1."""
    middle = (one + other) / 2
    found = sum(
        float(np.sum(shares[shares > 0] * np.log2(shares[shares > 0] / middle[shares > 0]))) for shares in (one, other)
    )
    return min(1.0, max(0.0, found / 2))


def _document(feature: ServedFeatureSkew) -> dict[str, Any]:
    compared = asdict(feature.compared)
    names = {"online": "served", "offline": "recomputed"}
    return {names.get(name, name): value for name, value in compared.items()} | {
        "differing_share": feature.differing_share,
        "left_out": feature.left_out,
        "distance": None if feature.distance is None else asdict(feature.distance),
    }
