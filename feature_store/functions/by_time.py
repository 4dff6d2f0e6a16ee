"""first, last and last_n: values by the time of their events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from feature_store.functions._arrays import Column, StateArrays, Values, WindowMask, sizes_of
from feature_store.functions._contract import ColumnType, Function, Part, State, StateSpec
from feature_store.functions._order import bits_of, with_ties
from feature_store.functions._parameters import Options, Parameter, whole
from feature_store.functions._sorted_values import SortedValues

_IS_LATER = """
local function is_less(x, y) -- raw bytes of a value, as an unsigned little-endian number
  for i = #x, 1, -1 do
    local p, q = string.byte(x, i), string.byte(y, i)
    if p ~= q then
      return p < q
    end
  end
  return false
end

local function is_later(at, value, other_at, other_value)
  if at ~= other_at then
    return at > other_at
  end
  return is_less(other_value, value)
end
"""


class _TimedValue(State):
    """Values with their times. A time of 0 means no value."""

    lua_helpers = _IS_LATER

    def __init__(self, part: Part, column: ColumnType) -> None:
        super().__init__(part, column)
        if column.width is None or column.element is not None:
            raise ValueError(f"{self.kind} takes scalar values of fixed width")

    @property
    def struct(self) -> str:
        """For each value its time and bytes."""
        return f"dc{self.column.width}" * self.part.n


class _FirstOrLast(_TimedValue):
    """The first or the last value by time: 8 bytes and the value."""

    is_last: ClassVar[bool]

    @property
    def fields(self) -> dict[str, Any]:
        """The event's time, and the value as in a row."""
        return {"at": "<f8", "value": self.column.numpy}

    def update(self, values: Column, at: Column, starts: Column) -> StateArrays:
        """The values at the ends of groups."""
        order = with_ties(values, at, starts)
        chosen = order[starts + sizes_of(starts, len(values)) - 1] if self.is_last else order[starts]
        return {"at": at[chosen].astype(np.float64), "value": values[chosen]}

    def merge(self, a: StateArrays, b: StateArrays) -> StateArrays:
        """The earlier or later of two values."""
        later = (b["at"] > a["at"]) | ((b["at"] == a["at"]) & (bits_of(b["value"]) > bits_of(a["value"])))
        takes_b = (b["at"] != 0) & ((a["at"] == 0) | (later if self.is_last else ~later))
        return {name: np.where(takes_b, b[name], a[name]) for name in ("at", "value")}

    def fold(self, states: StateArrays, window: WindowMask) -> StateArrays:
        """The earliest or latest values of windows."""
        # No two tiles have a time in common, so times alone decide. They are greater than 0, which is no value. So
        # `last` needs one copy of the times: 94 µs for 200 entities × 3 rings × 50 tiles, where it took 188.
        if self.is_last:
            at = np.where(window.mask, states["at"], 0.0)
            places = at.argmax(axis=1)
        else:
            at = np.where(window.mask & (states["at"] != 0), states["at"], np.inf)
            places = at.argmin(axis=1)
        rows = np.arange(len(at))
        found = at[rows, places]
        return {"at": np.where(np.isinf(found), 0.0, found), "value": states["value"][rows, places]}

    def of_ranges(self, events: SortedValues, starts: Column, ends: Column) -> StateArrays:
        """The values at the ends of ranges."""
        values, at = events.in_order
        state = self.zero(len(starts))
        filled = starts < ends
        places = ends[filled] - 1 if self.is_last else starts[filled]
        state["at"][filled], state["value"][filled] = at[places], values[places]
        return state


class First(_FirstOrLast):
    """See _FirstOrLast."""

    kind = "first"
    is_last = False
    lua = """
  if b[i] ~= 0 and (a[i] == 0 or is_later(a[i], a[i + 1], b[i], b[i + 1])) then
    a[i], a[i + 1] = b[i], b[i + 1]
  end
"""


class Last(_FirstOrLast):
    """See _FirstOrLast."""

    kind = "last"
    is_last = True
    lua = """
  if b[i] ~= 0 and (a[i] == 0 or is_later(b[i], b[i + 1], a[i], a[i + 1])) then
    a[i], a[i + 1] = b[i], b[i + 1]
  end
"""


class LastN(_TimedValue):
    """The n last values, newest first: n times 8 bytes and the value."""

    kind = "last_n"
    lua = """
  local merged, x, y = {}, i, i
  for k = 1, size, 2 do
    if b[y] ~= 0 and (a[x] == 0 or is_later(b[y], b[y + 1], a[x], a[x + 1])) then
      merged[k], merged[k + 1] = b[y], b[y + 1]
      y = y + 2
    else
      merged[k], merged[k + 1] = a[x], a[x + 1]
      x = x + 2
    end
  end
  for k = 1, size do
    a[i + k - 1] = merged[k]
  end
"""

    @property
    def fields(self) -> dict[str, Any]:
        """Records of time and value, so that the newest ones are at the front of the bytes."""
        return {"": (np.dtype([("at", "<f8"), ("value", self.column.numpy)]), (self.part.n,))}

    def update(self, values: Column, at: Column, starts: Column) -> StateArrays:
        """The last values of groups."""
        sizes = sizes_of(starts, len(values))
        group = np.repeat(np.arange(len(starts)), sizes)
        place = np.repeat(starts + sizes, sizes) - 1 - np.arange(len(values))  # from the group's end
        kept = place < self.part.n
        chosen = with_ties(values, at, starts)[kept]
        listed = self.zero(len(starts))
        listed[""]["at"][group[kept], place[kept]] = at[chosen]
        listed[""]["value"][group[kept], place[kept]] = values[chosen]
        return listed

    def merge(self, a: StateArrays, b: StateArrays) -> StateArrays:
        """The last values of two lists."""
        listed = np.concatenate([a[""], b[""]], axis=1)
        order = np.lexsort((bits_of(listed["value"]), listed["at"]), axis=1)[:, ::-1][:, : self.part.n]
        return {"": np.take_along_axis(listed, order, axis=1)}

    def fold(self, states: StateArrays, window: WindowMask) -> StateArrays:
        """The last values of windows."""
        # Tiles have no time in common. So if tiles are sorted by their newest values, all values are in order, and n
        # tiles suffice.
        newest = states[""]["at"][..., 0] * window.weights
        rows = np.arange(len(newest))[:, None]
        tiles = np.argsort(newest, axis=1)[:, ::-1][:, : self.part.n]
        listed = states[""][rows, tiles]
        listed["at"][newest[rows, tiles] == 0] = 0
        listed = listed.reshape(len(listed), listed.shape[1] * self.part.n)
        unused_last = np.argsort(listed["at"] == 0, axis=1, kind="stable")[:, : self.part.n]
        return {"": listed[rows, unused_last]}

    def of_ranges(self, events: SortedValues, starts: Column, ends: Column) -> StateArrays:
        """The last values of ranges."""
        values, at = events.in_order
        state = self.zero(len(starts))
        for i in range(self.part.n):
            filled = ends - 1 - i >= starts
            state[""]["at"][filled, i] = at[ends[filled] - 1 - i]
            state[""]["value"][filled, i] = values[ends[filled] - 1 - i]
        return state


class _ByTime(Function):
    notes = "Null without a value."
    takes = "fixed width"
    result = "column"

    def finalize(self, states: Sequence[StateArrays], options: Options) -> Values:
        """The values; null without a value."""
        (state,) = states
        return state["value"], state["at"] == 0


class FirstFunction(_ByTime):
    """See `summary`."""

    name = "first"
    summary = "the value of the earliest event"
    kinds = ("first",)


class LastFunction(_ByTime):
    """See `summary`."""

    name = "last"
    summary = "the value of the latest event"
    kinds = ("last",)


class LastNFunction(Function):
    """See `summary`."""

    name = "last_n"
    summary = "the values of the n latest events, newest first"
    notes = "Fewer if there are fewer, and an empty list without a value."
    takes = "fixed width"
    default: ClassVar[Any] = []
    parameters: ClassVar[Mapping[str, Parameter]] = {"n": whole(1, 100)}

    def states(self, options: Options) -> tuple[StateSpec, ...]:
        """A state of n values."""
        return (StateSpec("last_n", n=options["n"]),)

    def at_read(self, options: Options) -> Options:
        """No parameters: the state has n."""
        return {}

    def fits(self, parts: Sequence[Part], options: Options) -> bool:
        """Whether the part is a list of any n."""
        return [(part.kind, part.options) for part in parts] == [("last_n", "")]

    def dtype(self, column: str, options: Options) -> str:
        """A list of the column's values."""
        return f"Array({column})"

    def label(self, options: Options) -> str:
        """`last3`."""
        return f"last{options['n']}"

    def values_kept(self, options: Options) -> int:
        """n values."""
        return int(options["n"])

    def finalize(self, states: Sequence[StateArrays], options: Options) -> Values:
        """Lists; none is null."""
        entries = states[0][""]
        counts = (entries["at"] != 0).sum(axis=1)
        listed = np.empty(len(entries), object)
        for i, count in enumerate(counts.tolist()):
            listed[i] = entries["value"][i, :count]
        return listed, np.zeros(len(listed), bool)
