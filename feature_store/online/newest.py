"""The newest stored event time of each view. Redis compares the times and sends no values."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from feature_store.online import keys
from feature_store.online.layout import ABSENT, FINGERPRINT_BYTES, RowLayout, decode_time
from feature_store.online.tile_layout import TileValueLayout

if TYPE_CHECKING:
    from feature_store.online.keyspace import Keyspace
    from feature_store.registry.serving_plan import RowGroupPlan, ServingPlan, TilesPlan

NEWEST = files("feature_store.online").joinpath("lua/newest.lua").read_text()


class Newest(NamedTuple):
    """The newest stored event time of a view.

    Attributes:
        event_us: microseconds since 1970; None when nothing is stored.
        rows: how many values were compared.
        whole: whether all stored values were compared.
    """

    event_us: int | None
    rows: int
    whole: bool


def newest_event_times(keyspace: Keyspace, plan: ServingPlan, limit: int) -> dict[str, Newest]:
    """Per view of a plan, the newest stored event time; see `OnlineStore.newest_event_times`."""
    searches = [*(_Search.of_rows(group) for group in plan.groups), *(_Search.of_tiles(tiles) for tiles in plan.tiles)]
    for bucket in range(plan.buckets):
        prefixes = {search.layout.prefix(keyspace.project, bucket): search for search in searches}
        for names in keyspace.scan(bucket, keys.tag(keyspace.project, bucket)):
            if all(search.rows == limit for search in searches):
                break
            for prefix, search in prefixes.items():
                _compare(keyspace, bucket, [name for name in names if name.startswith(prefix)], search, limit)
    return {view: newest for search in searches for view, newest in search.newest_by_view().items()}


def _compare(keyspace: Keyspace, bucket: int, names: list[bytes], search: _Search, limit: int) -> None:
    chosen = names[: limit - search.rows]
    search.whole &= len(chosen) == len(names)
    if chosen:
        with keyspace.commands(bucket) as redis:
            answers = redis.eval(NEWEST, len(chosen), *chosen, search.form, *search.places.values())
        search.add(len(chosen), answers)


@dataclass
class _Search:
    """A search for the newest times of one layout's values.

    Attributes:
        layout: the layout of the values.
        form: the format of a stored time for Redis's struct library; see lua/newest.lua.
        places: the offset of the time in a value, by view.
        newest: the greatest times so far, as stored, by view.
        rows, whole: as in `Newest`.
    """

    layout: RowLayout | TileValueLayout
    form: str
    places: dict[str, int]
    newest: dict[str, bytes] = field(default_factory=dict)
    rows: int = 0
    whole: bool = True

    @classmethod
    def of_rows(cls, group: RowGroupPlan) -> _Search:
        layout = RowLayout(group)
        return cls(layout, ">I4I4", {view: segment.offset for view, segment in layout.segments.items()})

    @classmethod
    def of_tiles(cls, tiles: TilesPlan) -> _Search:
        return cls(TileValueLayout(tiles), "<d", {tiles.view: FINGERPRINT_BYTES})

    def add(self, rows: int, answers: list[bytes]) -> None:
        """Add the greatest times of `rows` more values, one for each place."""
        self.rows += rows
        for view, stored in zip(self.places, answers, strict=True):
            self.newest[view] = max(self.newest.get(view, bytes(8)), stored, key=self._number)

    def newest_by_view(self) -> dict[str, Newest]:
        """The result, by view."""
        return {view: Newest(self._time(self.newest.get(view)), self.rows, self.whole) for view in self.places}

    def _time(self, stored: bytes | None) -> int | None:
        number = self._number(stored or bytes(8))
        if number == ABSENT:
            return None
        return int(number) if self.form == "<d" else decode_time(int(number))

    def _number(self, stored: bytes) -> float:
        """A time as it is stored: a double of tiles, a biased integer of rows."""
        return float(struct.unpack("<d", stored)[0]) if self.form == "<d" else int.from_bytes(stored, "big")
