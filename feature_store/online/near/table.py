"""A table of cached values: sets of eight entries in numpy arrays, like a processor's set-associative cache.

A hash of the entity key gives a set and a tag. The keys of a request are looked up all at once: the tags of their sets
are gathered and compared, the entries are copied, and the keys in the entries are compared, so that two keys with one
hash are never confused. For 200 keys among 200,000, a Python dict takes 120 µs (each look-up waits for memory three
times), and the table takes 30 µs. Beside its key and value, an entry takes 14 bytes instead of 200.

A full set evicts the entry with the fewest lives, which approximates the least recently used entry. A use gives an
entry seven lives, and each new entry takes one life from the others. A key enters a full set only if it was refused
lately, as in TinyLFU's doorkeeper: keys that a scan reads once never evict keys that are used.

Sources: the sets are those of processors' caches (J. Hennessy, D. Patterson, "Computer Architecture", appendix B); the
doorkeeper is of G. Einziger, R. Friedman, B. Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM ToS 2017.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from feature_store.online.near.hashing import LONGEST_KEY, WORD, KeyHashing, Keys, whole_words, words_of_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.functions import Column, Mask
    from feature_store.online.near.hashing import Tags
    from feature_store.online.rows import Bytes

# The variable values that belong to a stored value, one for each view of the group that has some; None: it has none.
Variables = tuple["bytes | None", ...]
# Stands for a variable value that was not read. It is compared by identity.
UNREAD = bytes(bytearray(b"unread"))

_WAYS = 8
_LIVES = 7
# Bytes of an entry beside its key and its value: tag 4, lives 1, two tags in the doorkeeper 8, and 1 for its share of
# the moment of the set's last change.
_ENTRY_BYTES = 14
# The assumed bytes of a variable value when the table is made. The true bytes are counted as values enter.
_VARIABLE_BYTES = 100
# 2**32 divided by the golden ratio: the upper bits of a product depend on all bits of a tag.
_SPREAD = np.uint32(0x9E3779B1)


class Lookup(NamedTuple):
    """The entries of n keys in a table.

    Attributes:
        cells: (n, bytes of key and value) uint8, a copy. Undefined where `is_hit` is False.
        is_hit: (n,) bool, True where the key has an entry.
        slots: (n,) int, the slot of each entry.
    """

    cells: Bytes
    is_hit: Mask
    slots: Column

    @property
    def has_all(self) -> bool:
        """Whether every key has an entry. all() takes three times as long for 200 keys."""
        return bool(np.count_nonzero(self.is_hit) == len(self.is_hit))


class Table:
    """Values by entity key, within a budget. It is not thread-safe: its owner holds a lock.

    Args:
        size: bytes of a value; all values have this width.
        key_width: bytes of an entity key; None when the width varies.
        variables: how many variable values belong to each value.
        budget: the most bytes that the table takes. It has at least two sets.

    Attributes:
        at: where the value starts in a cell; the key comes before it.
        cell_bytes: bytes of a cell.
        keys: makes keys as the table compares them; see KeyHashing.
        capacity: the most entries.
    """

    def __init__(self, size: int, key_width: int | None, variables: int, budget: int) -> None:
        self._key_width, self._budget = key_width, budget
        self.at = WORD * words_of_keys(key_width)
        self.cell_bytes = whole_words(self.at + size)  # keys aligned to whole words are compared twice as fast
        self._end = self.at + size
        self._entry_bytes = self.cell_bytes + _ENTRY_BYTES + (8 if variables else 0)
        self._sets = max(budget // (_WAYS * (self._entry_bytes + variables * _VARIABLE_BYTES)), 2)
        self.capacity = self._sets * _WAYS
        self._key_words = self.at // WORD
        self._hashing = KeyHashing(key_width, self._sets)
        self.keys = self._hashing.keys
        self._has_variables = variables > 0
        self._elsewhere = self._hashing.keys_of_other_sets()
        self.clear()

    def clear(self) -> None:
        """Drop all entries."""
        # Pages of zeros take no memory before they are written, so the arrays grow as the table fills.
        self._tags = np.zeros((self._sets, _WAYS), np.uint32)
        self._lives = np.zeros(self.capacity, np.uint8)
        self._cells: Bytes = np.zeros((self.capacity, self.cell_bytes), np.uint8)
        self._refused = np.zeros(2 * self.capacity, np.uint32)
        self._changed = np.zeros(self._sets, np.int64)
        self._variables: list[Variables | None] = [None] * self.capacity if self._has_variables else []
        self._count = self._variable_bytes = self._hand = 0
        self._mark_empty(np.arange(_WAYS))  # in the set of the all-zero key, an all-zero cell would match that key

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Bytes that the entries take."""
        return self._count * self._entry_bytes + self._variable_bytes

    def find(self, keys: Keys) -> Lookup:
        """The entries of keys. The entries found count as used."""
        found = self._entries(keys)
        self._lives[found.slots if found.has_all else found.slots[found.is_hit]] = _LIVES
        return found

    def _entries(self, keys: Keys) -> Lookup:
        words, sets, tags = keys
        # take is four times as fast as an index. At most one of the eight is True. With none, way 0 is compared.
        slots = (self._tags.take(sets, axis=0) == tags[:, None]).argmax(axis=1)
        slots += sets * _WAYS
        cells = self._cells.take(slots, axis=0)
        # The key in an empty cell belongs to another set: no look-up compares with it.
        same = cells.view(np.uint64)[:, : self._key_words] == words
        is_hit: Mask = same[:, 0] if self._key_words == 1 else same.all(axis=1)
        return Lookup(cells, is_hit, slots)

    def variables(self, slots: Column, is_hit: Mask, places: Sequence[int]) -> tuple[list[list[bytes | None]], Mask]:
        """The variable values of entries: for each place a list of n, None where there is no entry.

        Args:
            slots: (n,) where the entries are.
            is_hit: (n,) bool, whether there is one.
            places: which of the variable values.

        Returns:
            the values, and `is_hit` without the entries of which one of them was never read.
        """
        values: list[list[bytes | None]] = [[None] * len(slots) for _ in places]
        is_whole = is_hit.copy()
        for i in np.flatnonzero(is_hit).tolist():
            of_entry = self._variables[slots[i]] or ()
            for of_place, place in zip(values, places, strict=True):
                if of_entry[place] is UNREAD:
                    is_whole[i] = False
                else:
                    of_place[i] = of_entry[place]
        return values, is_whole

    def differs(self, keys: Keys, values: Bytes, variables: Sequence[Variables] | None) -> Mask:
        """(n,) bool, True for a key whose entry has another value or other variable values than these."""
        cells, is_hit, slots = self._entries(keys)
        differs: Mask = is_hit & (cells[:, self.at : self._end] != values).any(axis=1)
        if variables is not None:
            for i in np.flatnonzero(is_hit).tolist():
                differs[i] |= not _agree(self._variables[slots[i]] or (), variables[i])
        return differs

    def keep(self, keys: Keys, values: Bytes, variables: Sequence[Variables] | None, since: Column, moment: int) -> int:
        """Keep the values of keys that have no entry, except where the key's set has changed after `since`.

        A key that does not enter and a key that is evicted count as changes of their sets in `moment`. A key with
        several different values among these does not enter.

        Returns how many entered.

        Args:
            keys: the keys; a key may occur several times.
            values: (n, size) uint8.
            variables: (n,) the variable values, or None.
            since: (n,) int, the moment when each value's request began; see `forget`.
            moment: the moment of this call, later than all of `since`.
        """
        of_sets = self._tags.take(keys.sets, axis=0)
        may_enter = _any_of_eight(of_sets == 0) | self._was_refused(keys.sets, keys.tags)
        # In a full table, few keys are left.
        chosen = np.flatnonzero(may_enter | _any_of_eight(of_sets == keys.tags[:, None]))
        of_chosen = None if variables is None else [variables[i] for i in chosen.tolist()]
        is_kept = np.zeros(len(may_enter), np.bool_)
        some = keys.some(chosen), values[chosen], of_chosen, since[chosen], may_enter[chosen]
        count, is_kept[chosen] = self._keep(*some, moment)
        self._changed[keys.sets[~is_kept]] = moment
        return count

    def _keep(
        self,
        keys: Keys,
        values: Bytes,
        variables: Sequence[Variables] | None,
        since: Column,
        may_enter: Mask,
        moment: int,
    ) -> tuple[int, Mask]:
        """As `keep`. Returns how many entered, and (n,) bool, True for a value that an entry has now."""
        if not len(since):
            return 0, may_enter
        latest, is_one, of_given = self._latest(keys, values, variables, since)
        if variables is not None:
            variables = [variables[i] for i in latest.tolist()]
        keys, values, since, may_enter = keys.some(latest), values[latest], since[latest], may_enter[latest]
        _, found, slots = self._entries(keys)
        differs = self.differs(keys, values, variables)
        if variables is not None:
            is_new = found & ~differs & is_one & (self._changed[keys.sets] <= since)
            for i in np.flatnonzero(is_new).tolist():
                self._complete(int(slots[i]), variables[i])
        self.forget(keys.some(differs), moment)
        enters = may_enter & is_one & ~found & (self._changed[keys.sets] <= since)
        if self._key_width is None:
            enters &= keys.words[:, -1] <= LONGEST_KEY  # else it is too long
        stays = found & ~differs
        count, waiting = 0, np.flatnonzero(enters)
        for _ in range(_WAYS):
            if not len(waiting):
                break
            ways, is_full = self._places_for(keys.sets[waiting], keys.tags[waiting])
            # In each round, one key enters each set.
            first = np.unique(keys.sets[waiting], return_index=True)[1]
            chosen = waiting[first]
            full = keys.sets[chosen[is_full[first]]]
            self._changed[keys.sets[chosen]] = moment  # an entry may have been pushed out
            self._age(full)
            self._put(keys.sets[chosen] * _WAYS + ways[first], chosen, keys, values, variables, moment)
            stays[chosen] = True
            count += len(chosen)
            waiting = np.delete(waiting, first)
        return count, stays[of_given]

    def forget(self, keys: Keys, moment: int) -> int:
        """Drop the entries of keys that changed in `moment`, a number that grows. Returns how many were dropped."""
        sets, tags = keys.sets, keys.tags
        self._changed[sets] = moment
        # An entry of another key with the same tag is dropped too: once in millions of times.
        matches = self._tags[sets] == tags[:, None]
        if not matches.any():
            return 0
        slots = np.unique((sets[:, None] * _WAYS + np.arange(_WAYS))[matches])
        self._empty(slots)
        return len(slots)

    def forget_reads(self, moment: int) -> None:
        """Treat every key as changed in this moment."""
        self._changed[:] = moment

    def _mark_empty(self, slots: Column) -> None:
        """Write a key of another set into empty cells, so that no look-up matches them."""
        words = self._elsewhere.words[(slots // _WAYS == self._elsewhere.sets[0]).astype(np.intp)]
        self._cells[slots, : self.at] = words.view(np.uint8)

    def _latest(
        self, keys: Keys, values: Bytes, variables: Sequence[Variables] | None, since: Column
    ) -> tuple[Column, Mask, Column]:
        """Per distinct key, the index of its latest read and whether its values agree; per read, its key's index."""
        order = np.argsort(-since, kind="stable")
        places = (keys.sets.astype(np.uint64) << np.uint64(32)) | keys.tags
        _, first, inverse = np.unique(places[order], return_index=True, return_inverse=True)
        latest = order[first]
        of_each = latest[inverse]  # in the order of `order`
        same = (values[order] == values[of_each]).all(axis=1) & (keys.words[order] == keys.words[of_each]).all(axis=1)
        if variables is not None:
            pairs = zip(order.tolist(), of_each.tolist(), strict=True)
            same &= np.array([_agree(variables[i], variables[j]) for i, j in pairs])
        is_one = np.ones(len(latest), np.bool_)
        is_one[inverse[~same]] = False
        of_given = np.empty_like(inverse)
        of_given[order] = inverse
        return latest, is_one, of_given

    def _places_for(self, sets: Column, tags: Tags) -> tuple[Column, Mask]:
        """The way that a new entry of each set would take, and whether it would evict another entry."""
        of_sets = self._tags[sets]
        lives = self._lives.reshape(-1, _WAYS)[sets].astype(np.int16)
        # A tag occurs at most once in a set: replace the entry with the same tag first, then use an empty way.
        lives[of_sets == 0] = -1
        lives[of_sets == tags[:, None]] = -2
        ways = lives.argmin(axis=1)
        return ways, lives[np.arange(len(ways)), ways] >= 0

    def _was_refused(self, sets: Column, tags: Tags) -> Mask:
        """(n,) bool, True for a key that was refused lately. The other keys are noted as refused now."""
        # The set was chosen by the upper bits of the hash.
        places = sets * (2 * _WAYS) + ((tags * _SPREAD) >> np.uint32(28))
        refused: Mask = self._refused[places] == tags
        self._refused[places] = tags
        return refused

    def _age(self, sets: Column) -> None:
        """Take a life from each entry of full sets."""
        lives = self._lives.reshape(-1, _WAYS)
        of_sets = lives[sets]
        lives[sets] = of_sets - (of_sets > 0)

    def _put(
        self,
        slots: Column,
        chosen: Column,
        keys: Keys,
        values: Bytes,
        variables: Sequence[Variables] | None,
        moment: int,
    ) -> None:
        self._empty(slots[self._tags.reshape(-1)[slots] != 0])
        self._tags.reshape(-1)[slots] = keys.tags[chosen]
        self._lives[slots] = 1
        self._cells[slots, : self.at] = keys.words[chosen].view(np.uint8)
        self._cells[slots, self.at : self._end] = values[chosen]
        self._count += len(chosen)
        if variables is None:
            return
        for slot, i in zip(slots.tolist(), chosen.tolist(), strict=True):
            self._variables[slot] = variables[i]
            self._variable_bytes += _bytes_of(variables[i])
        while self.size_bytes > self._budget and self._count:
            self._make_room(moment)

    def _complete(self, slot: int, variables: Variables) -> None:
        """Add variable values that an entry lacks."""
        before = self._variables[slot] or ()
        merged = tuple([new if old is UNREAD else old for old, new in zip(before, variables, strict=True)])
        self._variables[slot] = merged
        self._variable_bytes += _bytes_of(merged) - _bytes_of(before)

    def _make_room(self, moment: int) -> None:
        """Give up the entry of the next set that has the fewest lives."""
        at, self._hand = self._hand, (self._hand + 1) % self._sets
        taken = at * _WAYS + np.flatnonzero(self._tags[at])
        if len(taken):
            self._changed[at] = moment
            self._empty(taken[[self._lives[taken].argmin()]])

    def _empty(self, slots: Column) -> None:
        self._tags.reshape(-1)[slots] = 0
        self._mark_empty(slots)
        self._count -= len(slots)
        if self._has_variables:
            for slot in slots.tolist():
                self._variable_bytes -= _bytes_of(self._variables[slot] or ())
                self._variables[slot] = None


def _any_of_eight(matches: Mask) -> Mask:
    """(n, 8) bool → (n,) bool, True where one of the eight is True."""
    found: Mask = matches.view(np.uint64)[:, 0] != 0
    return found


def _agree(one: Variables, other: Variables) -> bool:
    """Whether what was read of both is the same."""
    return all(a == b for a, b in zip(one, other, strict=True) if a is not UNREAD and b is not UNREAD)


def _bytes_of(variables: Variables) -> int:
    return sys.getsizeof(variables) + sum([sys.getsizeof(value) for value in variables if value is not None])
