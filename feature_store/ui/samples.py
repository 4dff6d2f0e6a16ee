"""Distributions of a view's values, from a sample of the entities in the online store.

The sample is taken from served values, not from the source. It shows what a model gets, including missing and expired
values, for batch and stream views alike, and costs the store a few milliseconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from feature_store.definitions.dtypes import Date, to_microseconds
from feature_store.online.client import OnlineClient
from feature_store.online.status import Status
from feature_store.online.store import OnlineStore
from feature_store.ui.rendering import shortened

# The most entities of a sample. The error of a share is then at most 3 in 100, in 19 of 20 samples.
MOST_SAMPLED = 1000
# The most features that are read in one request.
_MOST_FEATURES = 500
_BINS = 24
# Bars span these quantiles, so that outliers do not squeeze all other values into one bar. The outermost bars count
# the outliers.
_BODY = (0.005, 0.995)
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_MOST_WORDS = 12
_LONGEST_WORD = 40


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram: of numbers in `[low, high)`, or of the value `label` if low and high are None."""

    label: str
    count: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Distribution:
    """The distribution of a feature's values.

    Attributes:
        sampled: the number of sampled entities.
        status: the number of entities with each Status.
        bars: a histogram of the stored values, expired ones included. Lists count by element.
        is_numeric: whether bars are ranges of numbers.
        quantiles: `(share, value)` of numbers.
        mean: the mean of numbers; None for other types.
        distinct: the number of distinct values; None for numbers.
    """

    sampled: int
    status: Mapping[Status, int]
    bars: tuple[Bar, ...] = ()
    is_numeric: bool = False
    quantiles: tuple[tuple[float, float], ...] = ()
    mean: float | None = None
    distinct: int | None = None

    def share(self, *statuses: Status) -> float | None:
        """The share of entities with one of these statuses; None without entities."""
        return sum(self.status.get(one, 0) for one in statuses) / self.sampled if self.sampled else None

    @property
    def missing_share(self) -> float | None:
        """The share of entities with no row, or an expired one."""
        return self.share(Status.MISSING, Status.EXPIRED)


@dataclass(frozen=True)
class Sample:
    """A sample of a view's stored entities.

    Attributes:
        view: the view's name.
        taken_at: the time of the sample.
        entities: the number of sampled entities.
        newest, median: the newest and the median event time of their rows; None: no row.
        features: the distributions by feature, without features that a prune plan drops.
    """

    view: str
    taken_at: datetime
    entities: int
    newest: datetime | None
    median: datetime | None
    features: Mapping[str, Distribution]


def sample(online: OnlineStore, client: OnlineClient, view: str, now: datetime, hidden: Collection[str] = ()) -> Sample:
    """Sample the entities of a stored view. No values of features in `hidden` are kept.

    Raises:
        OnlineStoreError: the store cannot be read.
    """
    plan = online.require_published().plan
    tiles = plan.tiles_of(view)
    if tiles is None and not any(segment.view == view for group in plan.groups for segment in group.segments):
        return Sample(view, now, 0, None, None, {})
    stored = plan.group_of(view) if tiles is None else tiles
    names = (
        [window.name for window in tiles.windows.features]
        if tiles is not None
        else [field.name for field in plan.group_of(view).segment(view).fields]
    )
    keys = online.sample_keys(view, MOST_SAMPLED)
    if not keys:
        return Sample(view, now, 0, None, None, {name: Distribution(0, {}) for name in names})
    rows = {key: list(values) for (key, _), values in zip(stored.join_keys, zip(*keys, strict=True), strict=True)}
    distributions: dict[str, Distribution] = {}
    times: list[datetime] = []
    for start in range(0, len(names), _MOST_FEATURES):
        chosen = names[start : start + _MOST_FEATURES]
        references = [f"{view}:{name}" for name in chosen]
        response = client.get_online_features(references, rows, now=now)
        status = {name: response.status[name] for name in chosen}
        times = sorted(time for time in response.event_timestamps[chosen[0]] if time is not None)
        if any(Status.EXPIRED in of_one for of_one in status.values()):
            # Expired values are stored but not served. Reading as of the oldest row's time returns them.
            response = client.get_online_features(references, rows, now=times[0])
        values, was = response.to_dict(), response.status
        distributions |= {
            name: distribution(values[name], was[name], status[name]) for name in chosen if name not in hidden
        }
        distributions |= {name: Distribution(len(keys), Counter(status[name])) for name in chosen if name in hidden}
    newest, median = (times[-1], times[len(times) // 2]) if times else (None, None)
    return Sample(view, now, len(keys), newest, median, distributions)


def distribution(values: Sequence[Any], was: Sequence[Status], status: Sequence[Status]) -> Distribution:
    """The distribution of values.

    Args:
        values: the value of each entity.
        was: their statuses when they were read. PRESENT values make the histogram.
        status: their statuses now, which are counted.
    """
    counts = Counter(status)
    present = [value for value, one in zip(values, was, strict=True) if one == Status.PRESENT]
    elements = [item for value in present for item in (value if isinstance(value, list) else [value])]
    missing = Distribution(len(values), counts)
    if not elements:
        return missing
    if isinstance(elements[0], datetime):
        elements = [to_microseconds(item) / 1e6 for item in elements]
    elif isinstance(elements[0], date):
        elements = [Date.to_stored(item) for item in elements]
    elif isinstance(elements[0], Decimal):
        elements = [float(item) for item in elements]
    if isinstance(elements[0], (bool, str, bytes)):
        words = Counter(shortened(str(item), _LONGEST_WORD) for item in elements)
        bars = tuple(Bar(word, count) for word, count in words.most_common(_MOST_WORDS))
        rest = sum(words.values()) - sum(bar.count for bar in bars)
        bars = (*bars, Bar(f"{len(words) - len(bars):,} others", rest)) if rest else bars
        return replace(missing, bars=bars, distinct=len(words))
    finite = [item for item in elements if item is not None and math.isfinite(item)]
    numbers = np.array(finite, np.float64)
    if not len(numbers):
        return missing
    quantiles = tuple(zip(_QUANTILES, np.quantile(numbers, _QUANTILES).tolist(), strict=True))
    with np.errstate(over="ignore"):
        mean = float(numbers.mean())
    return replace(missing, bars=_bars(finite, numbers), is_numeric=True, quantiles=quantiles, mean=mean)


def _bars(values: list[Any], numbers: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[Bar, ...]:
    """The bars of numeric values.

    Args:
        values: the exact values.
        numbers: the same as float64, which rounds large integers.
    """
    counted = sorted(Counter(values).items())
    if len(counted) <= _BINS // 2:  # few distinct values: a bar for each
        return tuple(
            Bar(str(value) if isinstance(value, int) else f"{value:.6g}", count, value, value)
            for value, count in counted
        )
    different = np.unique(numbers)
    low, high = np.quantile(numbers, _BODY).tolist()
    if not low < high:
        low, high = float(different[0]), float(different[-1])
    if not math.isfinite(high - low):  # the difference overflows a double
        low, high = low / 4, high / 4
    edges = np.linspace(low, high, _BINS + 1)
    places = np.clip(np.searchsorted(edges, numbers, "right") - 1, 0, _BINS - 1)
    counts = np.bincount(places, minlength=_BINS).tolist()
    return tuple(
        Bar(f"{start:.4g} to {end:.4g}", count, start, end)
        for start, end, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts, strict=True)
    )
