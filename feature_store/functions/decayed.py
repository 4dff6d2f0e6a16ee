"""decayed_sum, decayed_count and decayed_mean: events count half after each half-life.

The weight of an event at time t is 2**(t / half_life), which grows without bound (forward decay: Cormode, Shkapenyuk,
Srivastava, Xu, Time Decaying Functions, ICDE 2009). So a state is relative to a landmark, the begin of the half-life
with its newest event:

    landmark  half-lives since 1970 until the newest event
    value     the sum of value × 2**(t / half_life - landmark)

Weights of the newest half-life are in [1, 2), and older ones are smaller: nothing overflows. Another landmark
multiplies the value by a power of two, which rounds nothing. So merges in any order differ only by the rounding of a
sum, and late events count as if they had been on time. A read multiplies by 2**-(now / half_life - landmark).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

import numpy as np

from feature_store.functions._arrays import Column, StateArrays, Values, WindowMask, sizes_of
from feature_store.functions._contract import CellFunction, ColumnType, Part, State, StateSpec, TimeSpan
from feature_store.functions._parameters import Options, Parameter, checked

_SECOND_US = 1_000_000
_LONGEST_US = 100 * 365 * 86_400 * _SECOND_US
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
# A double is 0 after fewer halvings.
_MOST_HALVINGS = 4_096


def _half_life(value: Any) -> int:
    """Microseconds of a timedelta, or of the number in a document."""
    us = value // timedelta(microseconds=1) if isinstance(value, timedelta) else value
    if type(us) is not int or us % _SECOND_US or not _SECOND_US <= us <= _LONGEST_US:
        raise ValueError
    return us


_PARAMETERS = {"half_life": Parameter("a timedelta of whole seconds, from a second to 100 years", _half_life)}


class _Decayed(State):
    """A sum of weights relative to a landmark: 12 bytes."""

    is_exact = False
    struct = "dI4"
    lua_helpers = f"""
local function halved(value, times)
  return math.ldexp(value, -math.min(times, {_MOST_HALVINGS}))
end
"""
    lua = """
  local ahead = b[i + 1] - a[i + 1]
  if ahead > 0 then
    a[i], a[i + 1] = halved(a[i], ahead) + b[i], b[i + 1]
  else
    a[i] = a[i] + halved(b[i], -ahead)
  end
"""

    def __init__(self, part: Part, column: ColumnType) -> None:
        super().__init__(part, column)
        self._half_life_us: int = checked(_PARAMETERS, self.options)["half_life"]

    @property
    def fields(self) -> dict[str, Any]:
        """The sum at the landmark, and the landmark in half-lives since 1970."""
        return {"value": "<f8", "landmark": "<u4"}

    def _weighed(self, values: Column, weights: Column) -> Column:
        raise NotImplementedError

    def update(self, values: Column, at: Column, starts: Column) -> StateArrays:
        """The sums of groups."""
        landmarks, within = np.divmod(at, self._half_life_us)
        newest = np.maximum.reduceat(landmarks, starts)
        halvings = np.repeat(newest, sizes_of(starts, len(at))) - landmarks
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            weights = _halved(np.exp2(within / self._half_life_us), halvings)
            sums = np.add.reduceat(self._weighed(values, weights), starts)
        return {"value": sums, "landmark": newest.astype(np.uint32)}

    def merge(self, a: StateArrays, b: StateArrays) -> StateArrays:
        """Sums at the later landmark."""
        landmark = np.maximum(a["landmark"], b["landmark"])
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            sums = _halved(a["value"], landmark - a["landmark"]) + _halved(b["value"], landmark - b["landmark"])
        return {"value": sums, "landmark": landmark}

    def fold(self, states: StateArrays, window: WindowMask) -> StateArrays:
        """Sums at the latest landmark."""
        landmarks = np.where(window.mask, states["landmark"], np.uint32(0))
        landmark = landmarks.max(axis=1)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            values = _halved(np.where(window.mask, states["value"], 0.0), landmark[:, None] - landmarks)
            return {"value": values.sum(axis=1), "landmark": landmark}


class DecayedSum(_Decayed):
    """See the head of the module."""

    kind = "decayed_sum"

    def _weighed(self, values: Column, weights: Column) -> Column:
        # The weight of an event long ago is 0, and 0 × inf is NaN.
        products: Column = values.astype(np.float64) * weights
        return np.where(np.isinf(values), values, products) if values.dtype.kind == "f" else products


class DecayedCount(_Decayed):
    """See the head of the module."""

    kind = "decayed_count"

    def _weighed(self, values: Column, weights: Column) -> Column:
        return weights


class _DecayedFunction(CellFunction):
    takes_windows = False
    parameters: ClassVar[Mapping[str, Parameter]] = _PARAMETERS

    def states(self, options: Options) -> tuple[StateSpec, ...]:
        """States of the half-life."""
        return tuple(StateSpec(kind, options=options) for kind in self.kinds)

    def suffix(self, window: str, options: Options) -> str:
        """The half-life: `_1h`."""
        seconds = options["half_life"] // _SECOND_US
        unit, size = next((unit, size) for unit, size in _UNITS.items() if seconds % size == 0)
        return f"_{seconds // size}{unit}"


class DecayedSumFunction(_DecayedFunction):
    """See `summary`."""

    name = "decayed_sum"
    summary = "the sum of the values, each of which counts half after each half-life"
    notes = (
        "At time t a value of time s counts `0.5 ** ((t - s) / half_life)`. All events count, and late events count as "
        "if they had been on time. Exact but for rounding, as `sum`. A sum of nothing is 0. Infinite values do not "
        "decay. It takes no windows: the feature is named after the half-life, such as `price_decayed_sum_1h`."
    )
    takes = "numbers"
    kinds = ("decayed_sum",)
    default = 0

    def finalize(self, states: Sequence[StateArrays], options: Options, span: TimeSpan | None = None) -> Values:
        """The sums at the end of the span; none is null."""
        return _at(states[0], options, span), np.zeros(len(states[0]["value"]), bool)


class DecayedCountFunction(_DecayedFunction):
    """See `summary`."""

    name = "decayed_count"
    summary = "the number of values, each of which counts half after each half-life"
    notes = "As `decayed_sum` of ones."
    kinds = ("decayed_count",)
    default = 0

    def finalize(self, states: Sequence[StateArrays], options: Options, span: TimeSpan | None = None) -> Values:
        """The counts at the end of the span; none is null."""
        return _at(states[0], options, span), np.zeros(len(states[0]["value"]), bool)


class DecayedMean(_DecayedFunction):
    """See `summary`."""

    name = "decayed_mean"
    summary = "the mean of the values, weighted so that each counts half after each half-life"
    notes = "`decayed_sum` divided by `decayed_count`. Null without a value."
    takes = "numbers"
    kinds = ("decayed_count", "decayed_sum")

    def finalize(self, states: Sequence[StateArrays], options: Options, span: TimeSpan | None = None) -> Values:
        """The means; null without a value. Both states have one landmark, and decay alike."""
        count, total = states
        with np.errstate(invalid="ignore", divide="ignore"):
            return total["value"] / count["value"], count["value"] == 0


def _halved(values: Column, times: Column) -> Column:
    """Values halved that many times: exact until they are too small for a double."""
    return np.ldexp(values, -np.minimum(times, _MOST_HALVINGS).astype(np.int32))


def _at(state: StateArrays, options: Options, span: TimeSpan | None) -> Column:
    """The sums at the end of a span; at their landmarks without one."""
    if span is None:
        values: Column = state["value"]
        return values
    half_life_us = options["half_life"]
    since_us = span.end_us - state["landmark"].astype(np.int64) * half_life_us
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        decayed: Column = state["value"] * np.exp2(-since_us / half_life_us)
    # 0 × inf is NaN: an infinite sum stays infinite.
    return np.where(np.isinf(state["value"]), state["value"], np.where(state["value"] == 0, 0.0, decayed))
