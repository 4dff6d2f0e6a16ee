"""What the online store holds of a view, by a sample of its entities: how values are spread, and how many there are.

The sample is of what is served, not of the source: it shows what a model gets, missing and expired values included, of
batch and stream views alike, and costs the store some milliseconds.
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

# Entities of a sample: a share is then right to 3 in 100, 19 times of 20, and is read in some milliseconds.
MOST_SAMPLED = 1000
# Values of features that are read in one request.
_MOST_FEATURES = 500
_BINS = 24
# Outliers would leave all others in one bar: what is beyond these quantiles is counted in the outermost bars.
_BODY = (0.005, 0.995)
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_MOST_WORDS = 12
_LONGEST_WORD = 40


@dataclass(frozen=True)
class Bar:
    """One bar: of numbers in `[low, high)`, or (low and high None) of a value as `label` shows it."""

    label: str
    count: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Distribution:
    """How the values of a feature are spread.

    Attributes:
        sampled: entities.
        status: how many are of each Status.
        bars: of values that are stored, expired or not (of their elements, where they are lists).
        is_numeric: whether bars are of ranges of numbers.
        quantiles: of numbers, `(share, value)`.
        mean: of numbers; None of others.
        distinct: how many different values; None of numbers.
    """

    sampled: int
    status: Mapping[Status, int]
    bars: tuple[Bar, ...] = ()
    is_numeric: bool = False
    quantiles: tuple[tuple[float, float], ...] = ()
    mean: float | None = None
    distinct: int | None = None

    def share(self, *statuses: Status) -> float | None:
        """Of the entities, the share of those that are of some status; None when there is none."""
        return sum(self.status.get(one, 0) for one in statuses) / self.sampled if self.sampled else None

    @property
    def missing_share(self) -> float | None:
        """The share for which there is no row, or one that has expired."""
        return self.share(Status.MISSING, Status.EXPIRED)


@dataclass(frozen=True)
class Sample:
    """A sample of the entities that are stored of a view.

    Attributes:
        view: its name.
        taken_at: when.
        entities: how many.
        newest, median: event times of those that have a row; None: none has.
        features: by name; those that a prune plan keeps from being stored are not there.
    """

    view: str
    taken_at: datetime
    entities: int
    newest: datetime | None
    median: datetime | None
    features: Mapping[str, Distribution]


def sample(online: OnlineStore, client: OnlineClient, view: str, now: datetime, hidden: Collection[str] = ()) -> Sample:
    """Read some entities of a stored view; of features in `hidden`, no value is kept.

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
    found: dict[str, Distribution] = {}
    times: list[datetime] = []
    for start in range(0, len(names), _MOST_FEATURES):
        chosen = names[start : start + _MOST_FEATURES]
        references = [f"{view}:{name}" for name in chosen]
        response = client.get_online_features(references, rows, now=now)
        status = {name: response.status[name] for name in chosen}
        times = sorted(time for time in response.event_timestamps[chosen[0]] if time is not None)
        if any(Status.EXPIRED in of_one for of_one in status.values()):
            # What has expired is not served, but it is there: as of the oldest row's time it shows.
            response = client.get_online_features(references, rows, now=times[0])
        values, was = response.to_dict(), response.status
        found |= {name: distribution(values[name], was[name], status[name]) for name in chosen if name not in hidden}
        found |= {name: Distribution(len(keys), Counter(status[name])) for name in chosen if name in hidden}
    newest, median = (times[-1], times[len(times) // 2]) if times else (None, None)
    return Sample(view, now, len(keys), newest, median, found)


def distribution(values: Sequence[Any], was: Sequence[Status], status: Sequence[Status]) -> Distribution:
    """How values are spread.

    Args:
        values: of each entity.
        was: their status when they were read: what was present is spread.
        status: their status now, which is counted.
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
    """Of values, and of the same as floats, to which large integers are rounded."""
    counted = sorted(Counter(values).items())
    if len(counted) <= _BINS // 2:  # few values: each has its bar
        return tuple(
            Bar(str(value) if isinstance(value, int) else f"{value:.6g}", count, value, value)
            for value, count in counted
        )
    different = np.unique(numbers)
    low, high = np.quantile(numbers, _BODY).tolist()
    if not low < high:
        low, high = float(different[0]), float(different[-1])
    if not math.isfinite(high - low):  # further apart than a double can say
        low, high = low / 4, high / 4
    edges = np.linspace(low, high, _BINS + 1)
    places = np.clip(np.searchsorted(edges, numbers, "right") - 1, 0, _BINS - 1)
    counts = np.bincount(places, minlength=_BINS).tolist()
    return tuple(
        Bar(f"{start:.4g} to {end:.4g}", count, start, end)
        for start, end, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts, strict=True)
    )
