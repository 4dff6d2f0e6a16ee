"""Entity keys as the table of a near-cache compares them: as words, with a set and a tag that a hash gives.

All keys of a request are hashed at once. Each call of numpy takes about 1 µs for 200 keys, so there are few of them.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.functions import Column, Mask

Words = np.ndarray[Any, np.dtype[np.uint64]]
Tags = np.ndarray[Any, np.dtype[np.uint32]]

# Entity keys of varying width are kept up to this length; longer ones are not cached.
LONGEST_KEY = 48
WORD = 8
_HALF = np.uint64(32)
# A constant of MurmurHash3's finalizer (A. Appleby, 2011).
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_ODD = np.uint32(1)


class Keys(NamedTuple):
    """Keys as the table compares them, with their sets and tags.

    Attributes:
        words: (n, words) uint64, the bytes of each key. If the width of keys varies, `_ending` gives the last word.
        sets: (n,) int, the set of each key.
        tags: (n,) uint32, the tag of each key.
    """

    words: Words
    sets: Column
    tags: Tags

    def some(self, chosen: Mask | Column) -> Keys:
        """Some of the keys, chosen by an (n,) bool mask or by their indexes."""
        return Keys(self.words[chosen], self.sets[chosen], self.tags[chosen])

    def at(self, places: Column) -> Keys:
        """The keys at some indexes. take needs half of the time of an index."""
        return Keys(self.words.take(places, axis=0), self.sets.take(places), self.tags.take(places))


class KeyHashing:
    """Gives keys their sets and tags.

    Args:
        width: bytes of an entity key; None when the width varies.
        sets: the number of sets.
    """

    def __init__(self, width: int | None, sets: int) -> None:
        self._width, self._words = width, words_of_keys(width)
        self._sets = np.uint64(sets)
        # Odd and random: a caller who chooses keys cannot choose their sets.
        self._factors = np.frombuffer(secrets.token_bytes(WORD * self._words), np.uint64) | np.uint64(1)

    def keys(self, packed: bytes, listed: Sequence[bytes] | None) -> Keys:
        """Keys as the table compares them. A key longer than LONGEST_KEY has no entry.

        Args:
            packed: the keys, one after the other, when their width is fixed.
            listed: each key, when the width varies; else None.
        """
        if listed is None:
            width = self._width or 1
            keys = np.frombuffer(packed, np.uint8).reshape(-1, width)
            if width != self._words * WORD:
                padded = np.zeros((len(keys), self._words * WORD), np.uint8)
                padded[:, :width] = keys
                keys = padded
            return self._placed(keys.view(np.uint64), self._words)
        longest = len(max(listed, key=len, default=b""))
        used = min(-(-longest // WORD), LONGEST_KEY // WORD) or 1
        words = np.zeros((len(listed), self._words), np.uint64)
        words[:, :used] = np.array(listed, f"S{used * WORD}").view(np.uint64).reshape(-1, used)
        if longest > LONGEST_KEY or b"\0" in b"".join(listed):
            words[:, -1] = [_ending(key) for key in listed]
            used = self._words
        return self._placed(words, used)

    def keys_of_other_sets(self) -> Keys:
        """Two keys of two different sets. For each set, at least one of them belongs to another set."""
        words = np.arange(4096 * self._factors.size, dtype=np.uint64).reshape(4096, -1)
        keys = self._placed(words, self._words)
        return keys.some(np.array([0, np.argmax(keys.sets != keys.sets[0])]))

    def _placed(self, words: Words, used: int) -> Keys:
        """Keys with their sets and tags.

        Args:
            words: the words of each key.
            used: how many of the words are not zero. Words of zero do not change a hash.
        """
        # A product carries bits upwards only, and keys may differ in the high bits of their words alone: integers are
        # stored with the high bytes first. So the high half is folded into the low half before.
        first = words if used == self._words else words[:, :used]
        of_words = first >> _HALF
        of_words ^= first
        # The sum of the products: 2 µs for 200 keys of 7 words, where a product and a reduction take 10.
        hashes = of_words @ self._factors[:used]
        # A product is a multiple of the key, and multiples may fall into few sets. Folding the halves prevents that.
        hashes ^= hashes >> _HALF
        hashes *= _MIX
        # One half gives the tag and the other the set, so that keys of one set differ in their tags.
        tags = hashes.view(np.uint32)[::2] | _ODD  # 0 is the tag of an empty entry
        hashes >>= _HALF
        hashes *= self._sets
        hashes >>= _HALF
        return Keys(words, hashes.view(np.intp), tags)


def _ending(key: bytes) -> int:
    """What tells a text from others with the same first bytes: the zero bytes at its end, or that it is too long."""
    return len(key) - len(key.rstrip(b"\0")) if len(key) <= LONGEST_KEY else len(key)


def words_of_keys(width: int | None) -> int:
    """The words of a key."""
    return LONGEST_KEY // WORD + 1 if width is None else whole_words(width) // WORD


def whole_words(size: int) -> int:
    """A number of bytes, rounded up to whole words."""
    return -(-size // WORD) * WORD
