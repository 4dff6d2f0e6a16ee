"""What a near-cache knows of the keys of one request, joined with what was read."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from feature_store.online.entity_rows import EntityKeys
from feature_store.online.near.space import Read
from feature_store.online.rows import StoredRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.functions import Column
    from feature_store.online.near.space import Space
    from feature_store.online.near.table import Variables
    from feature_store.online.rows import Bytes

_NO_KEYS = EntityKeys(0, b"", None, None)


class Found:
    """What the cache knows of the keys that a request asks of one group.

    Args:
        space: the cached values of the group.
        views: the views whose variable values are read too.
        asked: the keys.
        is_active: whether values may be given; else all keys must be read.

    Attributes:
        space: as given.
        unread: the keys that must be read.
    """

    __slots__ = ("_cells", "_is_unchecked", "_keys", "_missing", "_read", "_variables", "_views", "space", "unread")

    def __init__(self, space: Space, views: Sequence[str], asked: EntityKeys, *, is_active: bool) -> None:
        self.space, self._views = space, views
        table = space.table
        self._keys = table.keys(asked.packed, asked.listed)
        found = table.find(self._keys)
        self._cells, is_hit, slots = found
        self._is_unchecked = not is_active
        self._read: tuple[Bytes, list[Variables] | None] | None = None
        self._variables: list[list[bytes | None]] | None = None
        # (missing,) int, the indexes of the keys that must be read; None: the cache has all.
        self._missing: Column | None = None
        if is_active and not views and found.has_all:  # the usual case costs no further call of numpy
            self.unread = _NO_KEYS
            return
        if not is_active:
            is_hit = np.zeros(asked.size, np.bool_)
        if views:
            self._variables, is_whole = table.variables(slots, is_hit, [space.views.index(view) for view in views])
            # What an entry lacks is read with the rest of its key, which may be newer than the entry.
            self._is_unchecked |= bool((is_whole != is_hit).any())
            is_hit = is_whole
        missing = (~is_hit).nonzero()[0]
        self.unread = _NO_KEYS
        if len(missing):
            self._missing, self.unread = missing, _some_of(asked, missing)

    def joined(
        self, read: StoredRows, variables: Sequence[Sequence[bytes | None]]
    ) -> tuple[StoredRows, Sequence[Sequence[bytes | None]]]:
        """The values of all keys, and per view their variable values.

        Args:
            read: the values of the keys that were read.
            variables: per view the variable values of these keys.
        """
        layout, cells, at = read.layout, self._cells, self.space.table.at
        if self._missing is not None:
            values = read.part(0, layout.size)
            cells[self._missing, at : at + layout.size] = values
            of_keys = self.space.variables_of(self._views, variables, len(values)) if self.space.views else None
            self._read = values, of_keys
        rows = StoredRows(layout, cells.reshape(-1).data, len(cells), at, cells.shape[1])
        return rows, self._joined_variables(variables)

    def _joined_variables(self, variables: Sequence[Sequence[bytes | None]]) -> Sequence[Sequence[bytes | None]]:
        if self._variables is None:
            return variables
        if self._missing is not None:
            places = self._missing.tolist()
            for joined, read in zip(self._variables, variables, strict=True):
                for i, value in zip(places, read, strict=True):
                    joined[i] = value
        return self._variables

    def keep(self, moment: int) -> None:
        """Give the space what was read, by a request that began in this moment. The caller holds the lock."""
        if self._read is None or self._missing is None or not self.space.is_open:
            return
        values, variables = self._read
        read = Read(self._keys.at(self._missing), values.copy(), variables, moment)
        self.space.add(read, is_unchecked=self._is_unchecked)


class Hits:
    """What the cache knows of the keys of a request.

    Attributes:
        unread: per group of the service the keys that must be read.
        found: per group that is cached what is known of its keys.
        moment: when the request began.
        is_deaf: whether no invalidations were heard then.
    """

    __slots__ = ("found", "is_deaf", "moment", "unread")

    def __init__(self, unread: list[EntityKeys], found: dict[int, Found], moment: int, *, is_deaf: bool) -> None:
        self.unread, self.found, self.moment, self.is_deaf = unread, found, moment, is_deaf


def _some_of(asked: EntityKeys, places: Column) -> EntityKeys:
    """The keys at some indexes, of those that are asked for."""
    count = len(places)
    if asked.listed is None:
        # As one value a key: half of the time of a row of bytes.
        each = np.frombuffer(asked.packed, f"V{len(asked.packed) // asked.size}")
        return EntityKeys(count, each.take(places).tobytes(), None, None)
    chosen = itemgetter(*places.tolist())(asked.listed)
    return EntityKeys(count, b"", list(chosen) if count > 1 else [chosen], None)
