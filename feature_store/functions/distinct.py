"""distinct: the number of different values, approximately."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from feature_store.functions._arrays import Column, StateArrays, Values, WindowMask, sizes_of
from feature_store.functions._contract import Function, State
from feature_store.functions._parameters import Options

# A sketch has 2**7 registers of a byte. Its standard error is 1.04 / sqrt(128) = 9 %; with 256 registers it is 6.5 %.
SKETCH_BITS = 7
REGISTERS = 1 << SKETCH_BITS
_BIAS = 0.7213 / (1 + 1.079 / REGISTERS)
_POWERS = np.ldexp(1.0, -np.arange(256))  # by the value of a register's byte


class Sketch(State):
    """128 HyperLogLog registers of a byte (Flajolet et al. 2007). Merging is also idempotent."""

    kind = "sketch"
    struct = f"c{REGISTERS}"
    lua = """
  local x, y = a[i], b[i]
  if x == y then
    return
  end
  local merged = { string.byte(x, 1, -1) }
  local other = { string.byte(y, 1, -1) }
  for k = 1, #merged do
    if other[k] > merged[k] then
      merged[k] = other[k]
    end
  end
  a[i] = string.char(unpack(merged))
"""

    @property
    def fields(self) -> dict[str, Any]:
        """The registers."""
        return {"": ("u1", (REGISTERS,))}

    def update(self, values: Column, at: Column, starts: Column) -> StateArrays:
        """The registers of groups."""
        registers = self.zero(len(starts))
        group = np.repeat(np.arange(len(starts)), sizes_of(starts, len(values)))
        place, rank = register_of(values)
        np.maximum.at(registers[""].reshape(-1), group * REGISTERS + place, rank)
        return registers

    def merge(self, a: StateArrays, b: StateArrays) -> StateArrays:
        """The greater value of each register."""
        return {"": np.maximum(a[""], b[""])}

    def fold(self, states: StateArrays, window: WindowMask) -> StateArrays:
        """The greatest value of each register."""
        # Tile by tile: 0.35 ms for 200 entities × 50 tiles. All tiles at once take 1.2 ms.
        kept = window.mask.view(np.uint8)
        greatest = np.zeros((len(kept), REGISTERS), np.uint8)
        for i in range(kept.shape[1]):
            np.maximum(greatest, states[""][:, i] * kept[:, i, None], out=greatest)
        return {"": greatest}


class Distinct(Function):
    """See `summary`."""

    name = "distinct"
    summary = "the number of different values, approximately"
    notes = "A HyperLogLog sketch; standard error 9 %. Small numbers are nearly exact."
    kinds = ("sketch",)
    result = "Int64"
    default = 0

    def finalize(self, states: Sequence[StateArrays], options: Options) -> Values:
        """The estimates; none is null."""
        values = _estimate(states[0][""])
        return values, np.zeros(len(values), bool)


def register_of(values: Column) -> tuple[Column, Column]:
    """(n,) the register of each value, and (n,) its rank: the place of the first one bit of its hash."""
    hashes = hashes_of(values)
    place = (hashes >> np.uint64(64 - SKETCH_BITS)).astype(np.intp)
    rest = hashes << np.uint64(SKETCH_BITS)
    # A double's exponent is the place of the highest bit. Lower bits are cut off first, so that rounding cannot carry.
    top = (rest >> np.uint64(11)).astype(np.float64)
    _, exponent = np.frexp(top)
    rank = np.where(top == 0, 64 - SKETCH_BITS + 1, 54 - exponent)
    return place, np.minimum(rank, 64 - SKETCH_BITS + 1).astype(np.uint8)


def _bytes_of(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def hashes_of(values: Column) -> Column:
    """(n,) uint64, the same hash of a value everywhere."""
    if values.dtype == object:
        listed = values.tolist()
        digests = {value: hashlib.blake2b(_bytes_of(value), digest_size=8).digest() for value in set(listed)}
        return np.frombuffer(b"".join([digests[value] for value in listed]), "<u8")
    wide = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
    # splitmix64's finalizer (Steele, Lea and Flood 2014).
    x = wide.view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: Column = x ^ (x >> np.uint64(31))
    return result


def _estimate(registers: Column) -> Column:
    """HyperLogLog's estimate, by linear counting while many registers are empty: (n, REGISTERS) -> (n,) int64."""
    raw = _BIAS * REGISTERS**2 / _POWERS.take(registers).sum(axis=1)
    empty = REGISTERS - np.count_nonzero(registers, axis=1)
    linear = REGISTERS * np.log(REGISTERS / np.maximum(empty, 1))
    estimate = np.where((raw <= 2.5 * REGISTERS) & (empty > 0), linear, raw)
    whole: Column = np.rint(estimate).astype(np.int64)
    return whole
