"""Importances of features: measured (`measure.py`), read from a file, or reported by a fitted model."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from feature_store.errors import DataError

FORMAT = 1


@dataclass(frozen=True)
class FeatureImportance:
    """The importance of a feature.

    Attributes:
        feature: the name of the served column, or `view:feature`, as given.
        importance: its importance, in the unit of the metric if measured, else of the method. Larger is better.
        std: its standard deviation over repetitions, in the same unit; None: not known.
        row: its row in the file that it was read from, where row 1 follows the header.

    Example:
        >>> from feature_store.pruning import FeatureImportance
        >>> FeatureImportance("user_stats:orders_30d", importance=0.004, std=0.001).importance
        0.004
    """

    feature: str
    importance: float
    std: float | None = None
    row: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ViewImportance:
    """The importance of a view as a whole.

    Attributes:
        view: the view's name.
        importance: its importance, which its features share.
        std: the standard deviation of `left_out` over the seeds.
        left_out: the loss of the metric if the model is fitted without the view's features and with all others. It is
            much less than `importance` if other views can replace this one.
        features: the names of its features.
    """

    view: str
    importance: float
    std: float | None
    left_out: float
    features: tuple[str, ...]


@dataclass(frozen=True)
class Importances:
    """The importances of one model's features, by one method.

    Attributes:
        method: the method.
        model: the model.
        measured_at: the time of the measurement, UTC.
        features: one for each feature, in the order of the model's columns.
        views: one for each view if measured by view, in the order of their first feature.
        noise: the importance that a useless feature can reach by chance. An importance up to it is ε. None: not known.
        clusters: clusters of nearly identical features. The first of each represents the others.
        cluster_gains: for each cluster, the loss of the metric if the model is fitted without all of it.
        metric: the name of the metric; empty if none was measured.

    Example:
        >>> from datetime import UTC, datetime
        >>> from feature_store.pruning import FeatureImportance, Importances
        >>> features = (FeatureImportance("price", 0.02), FeatureImportance("clicks_7d", 0.001))
        >>> Importances("imported", "ranker", datetime(2026, 1, 1, tzinfo=UTC), features).features[0].feature
        'price'
    """

    method: str
    model: str
    measured_at: datetime
    features: tuple[FeatureImportance, ...]
    views: tuple[ViewImportance, ...] = ()
    noise: float | None = None
    clusters: tuple[tuple[str, ...], ...] = ()
    cluster_gains: tuple[float, ...] = ()
    metric: str = ""

    def by_name(self) -> dict[str, float]:
        """The importance of each feature."""
        return {item.feature: item.importance for item in self.features}

    def to_json(self) -> bytes:
        """A JSON document: the same bytes for the same importances. Values that are not finite become null."""
        return orjson.dumps({"format": FORMAT} | asdict(self), option=orjson.OPT_INDENT_2)

    @classmethod
    def from_json(cls, document: bytes | str) -> Importances:
        """Read a document of `to_json`.

        Raises:
            DataError: it is not such a document.
        """
        try:
            return _from_document(orjson.loads(document))
        except (KeyError, TypeError, ValueError) as error:
            got = f"{type(error).__name__}: {error}"
            raise DataError("importances", expected=f"a document of format {FORMAT}", got=got) from error


def _from_document(found: dict[str, Any]) -> Importances:
    if found["format"] != FORMAT:
        raise ValueError(f"format {found['format']}")
    return Importances(
        method=found["method"],
        model=found["model"],
        measured_at=datetime.fromisoformat(found["measured_at"]),
        features=tuple(_feature_from(item) for item in found["features"]),
        views=tuple(ViewImportance(**item | {"features": tuple(item["features"])}) for item in found["views"]),
        noise=found["noise"],
        clusters=tuple(tuple(names) for names in found["clusters"]),
        cluster_gains=tuple(found["cluster_gains"]),
        metric=found["metric"],
    )


def _feature_from(item: dict[str, Any]) -> FeatureImportance:
    importance = math.nan if item["importance"] is None else item["importance"]
    return FeatureImportance(item["feature"], importance, item["std"], item["row"])


def checked(importances: Importances, features: Sequence[str]) -> Importances:
    """Check that there is exactly one valid importance for each feature. Returns them in the order of `features`.

    Args:
        importances: the importances to check.
        features: the names of the features.

    Raises:
        DataError: importances are unknown, missing, duplicated, negative or not finite. The error names all of them,
            with their rows if they come from a file.
    """
    by_name = defaultdict(list)
    for item in importances.features:
        by_name[item.feature].append(item)
    wrong = {
        "unknown": [item for item in importances.features if item.feature not in set(features)],
        "given more than once": [item for same in by_name.values() if len(same) > 1 for item in same],
        "negative or not finite": [item for item in importances.features if not _is_good(item)],
    }
    problems = [f"{what}: {', '.join(map(_named, items))}" for what, items in wrong.items() if items]
    missing = [name for name in features if name not in by_name]
    if missing:
        problems.append(f"missing: {', '.join(missing)}")
    if problems:
        expected = f"one importance ≥ 0 for each of the {len(features)} features"
        hint = "importances must be those of the features that are served now: measure them again"
        raise DataError(f"importances by {importances.method}", expected=expected, got="; ".join(problems), hint=hint)
    ordered = tuple(by_name[name][0] for name in features)
    return Importances(**{**vars(importances), "features": ordered})


def _is_good(item: FeatureImportance) -> bool:
    return all(math.isfinite(value) and value >= 0 for value in (item.importance, item.std or 0.0))


def _named(item: FeatureImportance) -> str:
    value = f"{item.feature} ({item.importance:g}"
    value += f" ± {item.std:g})" if item.std is not None and not (math.isfinite(item.std) and item.std >= 0) else ")"
    return value if item.row is None else f"row {item.row} {value}"


def now() -> datetime:
    """The time of a measurement."""
    return datetime.now(UTC)
