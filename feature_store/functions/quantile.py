"""quantile: a quantile of the values, from a histogram of fixed size.

The histogram has *buckets* of numbers that share their leading bits. A number's key is its sign and the upper 32 bits
of its float64: the exponent and 20 bits of the mantissa. Keys have the order of the numbers. At *level* l, numbers
whose keys differ only in the last l bits share a bucket: at level 0 a power of two has 2**20 buckets, at level 20 one.

The level of a state is the lowest level at which all its values fit in its buckets. So a state depends on its values
alone, not on their order, and merging is exact. A merge takes the greater level of two states, adds the counts of equal
keys, and raises the level while there are too many keys. This is the uniform collapse of UDDSketch (Epicoco et al.
2020). Here the buckets are linear within a power of two and need no logarithm, so numpy and Lua agree on every bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from feature_store.functions._arrays import Column, StateArrays, Values, WindowMask, sizes_of
from feature_store.functions._contract import MOST_COUNTED, ColumnType, Function, Part, State, StateSpec
from feature_store.functions._order import starts_of
from feature_store.functions._parameters import Options, Parameter, checked, whole

BUCKETS = whole(8, 512, default=64)
_STATE_PARAMETERS = {"buckets": BUCKETS}
_DROPPED_BITS = 32
_MOST_LEVEL = 31  # keys have 31 bits and a sign
_INFINITE = np.uint64(0x7FF << 52)


class Histogram(State):
    """A level, and for each bucket a key and a count: 1 + 8 × buckets bytes. Used buckets come first, sorted by key."""

    kind = "histogram"
    leaf = 256
    lua = """
  local buckets = #a[i + 1] / 4
  local signed, unsigned = '<' .. string.rep('i4', buckets), '<' .. string.rep('I4', buckets)
  local level, keys, count_of = math.max(a[i], b[i]), {}, {}
  for _, state in ipairs({ a, b }) do
    local own, counts = { unpack_bytes(signed, state[i + 1]) }, { unpack_bytes(unsigned, state[i + 2]) }
    local joined = 2 ^ (level - state[i])
    for k = 1, buckets do
      if counts[k] > 0 then
        local key = floor(own[k] / joined)
        if not count_of[key] then
          keys[#keys + 1] = key
        end
        count_of[key] = (count_of[key] or 0) + counts[k]
      end
    end
  end
  while #keys > buckets do
    local fewer, sums = {}, {}
    for k = 1, #keys do
      local key = floor(keys[k] / 2)
      if not sums[key] then
        fewer[#fewer + 1] = key
      end
      sums[key] = (sums[key] or 0) + count_of[keys[k]]
    end
    level, keys, count_of = level + 1, fewer, sums
  end
  table.sort(keys)
  local counts = {}
  for k = 1, buckets do
    local count = keys[k] and count_of[keys[k]] or 0
    counts[k] = count < 4294967295 and count or 4294967295
    keys[k] = keys[k] or 0
  end
  a[i], a[i + 1], a[i + 2] = level, pack_bytes(signed, unpack(keys)), pack_bytes(unsigned, unpack(counts))
"""

    def __init__(self, part: Part, column: ColumnType) -> None:
        super().__init__(part, column)
        self._buckets = checked(_STATE_PARAMETERS, self.options)["buckets"]

    @property
    def fields(self) -> dict[str, Any]:
        """The level, the keys and the counts."""
        return {"level": "u1", "key": ("<i4", (self._buckets,)), "count": ("<u4", (self._buckets,))}

    @property
    def struct(self) -> str:
        """The level, the bytes of the keys and the bytes of the counts."""
        return f"Bc{4 * self._buckets}c{4 * self._buckets}"

    def update(self, values: Column, at: Column, starts: Column) -> StateArrays:
        """The histograms of groups."""
        group = np.repeat(np.arange(len(starts)), sizes_of(starts, len(values)))
        level = np.zeros(len(starts), np.int64)
        return self._capped(self._of(group, key_of(values), np.ones(len(values), np.int64), level))

    def merge(self, a: StateArrays, b: StateArrays) -> StateArrays:
        """Histograms with the buckets of both."""
        pair = {name: np.stack([a[name], b[name]], axis=1) for name in ("level", "key", "count")}
        return self._capped(self._joined(pair, pair["count"] > 0))

    def fold(self, states: StateArrays, window: WindowMask) -> StateArrays:
        """Histograms with the buckets of all tiles. Their counts do not stop at 2**32 - 1."""
        return self._joined(states, (states["count"] > 0) & window.mask[:, :, None])

    def _joined(self, states: StateArrays, used: Column) -> StateArrays:
        """(n, k) states merged along k. `used` is (n, k, buckets) bool: the buckets that count."""
        levels = np.minimum(states["level"], _MOST_LEVEL).astype(np.int64)
        level = np.where(used.any(axis=2), levels, 0).max(axis=1, initial=0)
        group, tile, bucket = np.nonzero(used)
        key = states["key"][group, tile, bucket].astype(np.int64) >> (level[group] - levels[group, tile])
        return self._of(group, key, states["count"][group, tile, bucket].astype(np.int64), level)

    def _of(self, group: Column, key: Column, count: Column, level: Column) -> StateArrays:
        """Histograms of n groups.

        Args:
            group, key, count: (m,) int of buckets in any order. The keys are at the level of their group.
            level: (n,) int64, the level of each group.
        """
        order = np.lexsort((key, group))
        group, key, count = _summed(group[order], key[order], count[order])
        more = self._levels_to_raise(group, key, len(level))
        group, key, count = _summed(group, key >> more[group], count)
        state = self.zero(len(level))
        # The count of a window may exceed the greatest that a tile stores.
        state["count"] = state["count"].astype(np.int64)
        place = np.arange(len(group)) - np.searchsorted(group, group)
        state["key"][group, place], state["count"][group, place] = key, count
        state["level"] = (level + more).astype(np.uint8)
        return state

    def _levels_to_raise(self, group: Column, key: Column, groups: int) -> Column:
        """The levels to add to each group so that it has at most `buckets` keys. Keys are sorted and distinct."""
        more = np.zeros(groups, np.int64)
        if len(group) <= self._buckets:
            return more
        neighbours = group[1:] == group[:-1]
        # Two neighbours share a bucket once all bits in which they differ are dropped, if they have the same sign.
        differing = (key[1:] ^ key[:-1])[neighbours]
        bits = np.where(differing < 0, _MOST_LEVEL + 1, np.frexp(differing.astype(np.float64))[1])
        owner = group[1:][neighbours]
        # At level l there is one bucket, and one more for each pair that differs in more than l bits. If a group's
        # pairs are sorted by their bits, greatest first, the pair at index `buckets - 1` and all after it must share a
        # bucket.
        order = np.lexsort((-bits, owner))
        bits, owner = bits[order], owner[order]
        place = np.arange(len(owner)) - np.searchsorted(owner, owner)
        decides = place == self._buckets - 1
        more[owner[decides]] = bits[decides]
        return more

    @staticmethod
    def _capped(state: StateArrays) -> StateArrays:
        return state | {"count": np.minimum(state["count"], MOST_COUNTED)}


class Quantile(Function):
    """See `summary`."""

    name = "quantile"
    summary = "the q-quantile of the values: the smallest value that a share of at least q does not exceed"
    notes = (
        "Nearest rank: of N sorted values, the one at place ceil(q N), as numpy's `inverted_cdf`. "
        "While a window holds at most `buckets` different values, the relative error is below 1e-6, and numbers with "
        "up to 21 significant bits are exact. With more values, neighbouring numbers share a bucket, and its middle is "
        "served. "
        "For values that span D powers of two (of both signs together), the relative error is at most "
        "D / (buckets - 2): from 1 ms to 1 s (10 powers of two) 4 % with 256 buckets; unevenly spread values have a "
        "smaller error. If D exceeds `buckets / 2`, there is no bound. "
        "Subnormal numbers count as 0. Null without a value. Quantiles of one column share their histogram, of "
        "1 + 8 × buckets bytes a tile. Serving and training agree exactly."
    )
    takes = "numbers"
    parameters: ClassVar[Mapping[str, Parameter]] = {
        "q": Parameter("a number between 0 and 1, exclusive", lambda value: _fraction(value)),
        "buckets": BUCKETS,
    }

    def states(self, options: Options) -> tuple[StateSpec, ...]:
        """A histogram."""
        return (StateSpec("histogram", options={"buckets": options["buckets"]}),)

    def label(self, options: Options) -> str:
        """`p99` for q=0.99, `p99_9` for q=0.999."""
        return f"p{options['q'] * 100:.10g}".replace(".", "_").replace("e-", "e_")

    def finalize(self, states: Sequence[StateArrays], options: Options) -> Values:
        """The quantiles; null without a value."""
        (state,) = states
        up_to = np.cumsum(state["count"], axis=1, dtype=np.int64)
        total = up_to[:, -1]
        # Rounded, because 0.07 × 100 is slightly more than 7 in float64.
        rank = np.maximum(np.ceil(np.round(options["q"] * total, 9)), 1)
        place = np.minimum((up_to < rank[:, None]).sum(axis=1), up_to.shape[1] - 1)
        return value_of(state["key"][np.arange(len(place)), place], state["level"]), total == 0


def key_of(values: Column) -> Column:
    """The keys of numbers at level 0: (n,) int64."""
    numbers = values.astype(np.float64)
    size = (np.abs(numbers).view(np.uint64) >> np.uint64(_DROPPED_BITS)).astype(np.int64)
    return np.where(numbers < 0, -1 - size, size)


def value_of(key: Column, level: Column) -> Column:
    """(n,) float64, the number that represents each bucket: at level 0 the smallest in size, else the middle."""
    key, level = key.astype(np.int64), np.minimum(level, _MOST_LEVEL).astype(np.uint64)
    size = np.where(key < 0, -1 - key, key).astype(np.uint64)
    dropped = level + np.uint64(_DROPPED_BITS)
    least = np.minimum(size << dropped, _INFINITE)
    beyond = np.minimum((size + np.uint64(1)) << dropped, _INFINITE)
    low, high = least.view(np.float64), np.maximum(beyond, np.uint64(1)) - np.uint64(1)
    with np.errstate(invalid="ignore"):
        middle = low + (high.view(np.float64) - low) / 2
    number = np.where((level == 0) | (size == 0) | (least == _INFINITE), low, middle)
    signed: Column = np.where(key < 0, -number, number)
    return signed


def _summed(group: Column, key: Column, count: Column) -> tuple[Column, Column, Column]:
    """Buckets that are sorted by group and key, with the counts of equal keys added up."""
    starts = starts_of(group, key)
    if len(starts) == len(group):
        return group, key, count
    return group[starts], key[starts], np.add.reduceat(count, starts)


def _fraction(value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not 0 < value < 1:
        raise ValueError
    return float(value)
