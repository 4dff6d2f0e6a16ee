"""The memory that a server needs for string keys, computed without asking it.

It is what `used_memory` grows by: the allocations of the key, of its value and of its entry, rounded up as the server's
allocator rounds them, and the hash table. The numbers are those of the sources of Redis 7.0 and Valkey 9.1, and
`tests/project/test_size.py` compares them with `used_memory`:

    dict       Redis, and Valkey before 8.1: an entry of 24 bytes, the key, an object of 16 bytes. A value of at most 44
               bytes is in its object's allocation. A table is an array of pointers, a power of two in length.
    buckets    Valkey from 8.1: the key is in its object's allocation, and the value too if they fit into 128 bytes. A
               table is a power of two of buckets of 64 bytes, each for 7 keys. A fuller bucket goes on in another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_POINTER = 8
_OBJECT, _ENTRY = 16, 24
_EMBEDDED_VALUE = 44  # the longest value within its object (dict)
_EMBEDDED_ALL = 128  # the most bytes of an object with its key and value (buckets)
_BUCKET_BYTES, _BUCKET_KEYS = 64, 7


@dataclass(frozen=True)
class ServerMemory:
    """How a server stores strings.

    Attributes:
        has_buckets: whether it has the hash table of Valkey 8.1.
        is_jemalloc: whether its allocator is jemalloc; else glibc's.
    """

    has_buckets: bool = False
    is_jemalloc: bool = True

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> ServerMemory:
        """The server that answered INFO with `info`."""
        version = tuple(int(part) for part in str(info.get("valkey_version", "0")).split(".")[:2])
        return cls(version >= (8, 1), str(info.get("mem_allocator", "jemalloc")).startswith("jemalloc"))

    def allocated(self, size: int) -> int:
        """The bytes that the allocator takes for `size` bytes."""
        if not self.is_jemalloc:
            return max(24, (size + 23) // 16 * 16 - 8)
        if size <= 8:
            return 8
        if size <= 128:
            return -(-size // 16) * 16
        step = 1 << ((size - 1).bit_length() - 3)  # four sizes for each power of two
        return -(-size // step) * step

    def key_bytes(self, key: int, value: int, *, is_rewritten: bool = False, expires: bool = False) -> int:
        """The memory of a key and its string value, without the hash tables.

        Args:
            key: the length of the key, in bytes.
            value: the length of the value.
            is_rewritten: whether a part of the value was written again in place, which takes it out of the object.
            expires: whether the key expires.
        """
        if self.has_buckets:
            return self._bucketed(key, value, is_rewritten, expires)
        name = self.allocated(_text(key)) + self.allocated(_ENTRY) * (1 + expires)
        if value <= _EMBEDDED_VALUE and not is_rewritten:
            return name + self.allocated(_OBJECT + 3 + value + 1)
        return name + _OBJECT + self.allocated(_value(value))

    def uncounted_bytes(self, *, expires: bool = False) -> int:
        """The memory of a key that `MEMORY USAGE` does not count, besides the hash tables."""
        return 0 if self.has_buckets else self.allocated(_ENTRY) * (1 + expires) - _ENTRY

    def table_bytes(self, keys: int) -> float:
        """The memory of a hash table of `keys` keys. Keys that expire are in a second one, of the same kind."""
        return self._bucket_table(keys) if self.has_buckets else float(_POINTER * _power_of_two(keys))

    def _bucketed(self, key: int, value: int, is_rewritten: bool, expires: bool) -> int:
        head = 1 + _text(key) + 8 * expires
        together = _OBJECT - _POINTER + head + _value(value)
        if together <= _EMBEDDED_ALL and not is_rewritten:
            return self.allocated(together)
        return self.allocated(_OBJECT + head) + self.allocated(_value(value))

    def _bucket_table(self, keys: int) -> float:
        buckets = _power_of_two(keys / _BUCKET_KEYS)
        mean = keys / buckets
        # Keys fall into buckets at random: Poisson. A bucket with more than 7 keys is continued in another.
        fits = sum(math.exp(-mean) * mean**n / math.factorial(n) for n in range(_BUCKET_KEYS + 1))
        return _BUCKET_BYTES * buckets * (2 - fits)


def _text(length: int) -> int:
    """The size of a text that never grows, with its header and its end."""
    return length + 1 + (1 if length < 32 else _header(length))


def _value(length: int) -> int:
    return length + 1 + _header(length)


def _header(length: int) -> int:
    return 3 if length < 256 else 5 if length < 65_536 else 9


def _power_of_two(count: float) -> int:
    return 1 << max(0, math.ceil(math.log2(max(count, 1))))
