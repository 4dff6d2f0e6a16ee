"""Training–serving skew: online against offline values of the same entity rows at the same time, by feature.

Two values are equal if both are absent, both are NaN, or they are the same. Floats may differ by a relative 1e-9, since
sums may be added in another order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# The relative difference that adding floats in another order can make.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class FeatureSkew:
    """The skew of a feature.

    Attributes:
        feature: its name in the service.
        equal: the number of entity rows whose values are equal.
        differing: the number of entity rows whose values differ.
        worst: the largest absolute difference of two numbers; None if no two numbers differ.
        example: an entity row whose values differ, the worst one for numbers; None if there is none.
        online, offline: the two values of the example.
    """

    feature: str
    equal: int
    differing: int
    worst: float | None = None
    example: dict[str, Any] | None = None
    online: Any = None
    offline: Any = None


@dataclass(frozen=True)
class SkewReport:
    """The skew of a service at one time, `at_us`, microseconds since 1970."""

    service: str
    at_us: int
    rows: int
    features: tuple[FeatureSkew, ...]

    @property
    def differing(self) -> int:
        """The number of differing values."""
        return sum(feature.differing for feature in self.features)

    def to_document(self) -> dict[str, Any]:
        """The report as JSON types."""
        return asdict(self)

    def summary(self) -> dict[str, int]:
        """The time, and the numbers of compared and of differing values."""
        return {"at_us": self.at_us, "values": self.rows * len(self.features), "differing": self.differing}


def compare(
    service: str,
    at_us: int,
    entity_rows: Sequence[Mapping[str, Any]],
    online: Mapping[str, Sequence[Any]],
    offline: Mapping[str, Sequence[Any]],
) -> SkewReport:
    """Compare columns of Python values.

    Args:
        service: the service's name.
        at_us: the time of both, microseconds since 1970.
        entity_rows: n entity rows.
        online, offline: n values for each feature; None where there is no value.
    """
    features = [_compare(name, entity_rows, online[name], offline[name]) for name in online]
    return SkewReport(service, at_us, len(entity_rows), tuple(features))


def is_equal(one: Any, other: Any) -> bool:
    """Whether two values are equal, as the module says."""
    if one is None or other is None:
        return one is other
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(is_equal, one, other))
    if isinstance(one, float) or isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=TOLERANCE)
    return bool(one == other)


def _compare(
    name: str, entity_rows: Sequence[Mapping[str, Any]], online: Sequence[Any], offline: Sequence[Any]
) -> FeatureSkew:
    places = [i for i, (one, other) in enumerate(zip(online, offline, strict=True)) if not is_equal(one, other)]
    if not places:
        return FeatureSkew(name, len(entity_rows), 0)
    worst = max(places, key=lambda i: _distance(online[i], offline[i]))
    distance = _distance(online[worst], offline[worst])
    return FeatureSkew(
        name,
        len(entity_rows) - len(places),
        len(places),
        distance if distance >= 0 else None,
        dict(entity_rows[worst]),
        online[worst],
        offline[worst],
    )


def _distance(one: Any, other: Any) -> float:
    """The distance of two numbers; -1 if one is not a number."""
    if not all(isinstance(value, (int, float)) for value in (one, other)) or math.isnan(one) or math.isnan(other):
        return -1.0
    return float(abs(one - other))  # exact for integers
