"""Recovery of a project whose serving plan is lost: which of the stored generations a new plan can adopt.

A generation is *adopted* if the stored keys prove that it is whole and has the wanted layout: every value has the
layout's fingerprint and length, and lies in the bucket that its key belongs to. Rows are adopted only if one generation
is stored. During a rollout there are two, and no key tells how far the rollout is. Tiles are adopted if the fences of
all buckets have one mark and record that the generation was served under this layout. Everything else is deleted, and
its generation numbers are not used again.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import replace
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from feature_store.aggregates.windows import Ring, Window, Windows
from feature_store.errors import ConfigError
from feature_store.functions import Part
from feature_store.online import keys
from feature_store.online.layout import RowLayout
from feature_store.online.publication import layout_digest
from feature_store.online.tile_layout import TileValueLayout
from feature_store.registry.serving_plan import RowGroupPlan, TilesPlan

if TYPE_CHECKING:
    from feature_store.online.keyspace import Keyspace
    from feature_store.registry.serving_plan import ServingPlan

FITS = files("feature_store.online").joinpath("lua/fits.lua").read_text()
_KEY = re.compile(rb"\{[^:}]+:(\d+)\}([prvtfm]):([^:]+):(\d+)(?::|$)", re.DOTALL)
# The start of the names of a history's fences; see streaming/backfill.py.
_HISTORY = b"@history:"


# The smallest windows that a plan accepts.
_UNKNOWN = Windows(
    (Ring(1_000_000, 1, (Part("count", "", "Int64"),)),), (Window("count", "count", 1_000_000, 0, (0,), "Int64"),)
)


class Generation(NamedTuple):
    """A generation of a row group or of a stream view. `kinds` are the kinds of its keys: `prv` or `tfm`."""

    kinds: str
    name: str
    number: int


class Remains:
    """Looks through the keys of a project that has no readable plan.

    Args:
        keyspace: the project's keys.
    """

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace, self._project = keyspace, keyspace.project

    def adopted(self, target: ServingPlan) -> ServingPlan:
        """The target with each stored generation that can be adopted. All other generations are retired.

        Args:
            target: the plan to serve, compiled as if nothing were stored.

        Raises:
            ConfigError: keys are stored under more buckets than the plan has.
        """
        stored = self._stored(target.buckets)
        groups = tuple(self._group(group, stored, target.buckets) for group in target.groups)
        tiles = tuple(self._tiles(one, stored, target.buckets) for one in target.tiles)
        named = {Generation("prv", group.name, group.generation) for group in groups}
        named |= {Generation("tfm", one.view, one.generation) for one in tiles}
        left = sorted(stored - named)
        return replace(
            target,
            groups=groups,
            tiles=tiles,
            retired=tuple(_retired_rows(one) for one in left if one.kinds == "rv"),
            retired_tiles=tuple(_retired_tiles(one) for one in left if one.kinds == "tfm"),
        )

    def _stored(self, buckets: int) -> set[Generation]:
        found = set()
        for names in self._keyspace.scan_all():
            for name in names:
                parts = _KEY.match(name)
                if parts is not None:
                    _refuse_bucket(int(parts[1]), buckets)
                    kinds = "prv" if parts[2] in b"prv" else "tfm"
                    found.add(Generation(kinds, parts[3].decode(), int(parts[4])))
        return found

    # -- rows ---------------------------------------------------------------------------------------------------

    def _group(self, group: RowGroupPlan, stored: set[Generation], buckets: int) -> RowGroupPlan:
        numbers = _numbers(stored, "prv", group.name)
        if len(numbers) == 1:
            adopted = replace(group, generation=numbers[0])
            if self._fit(RowLayout(adopted), buckets) is not None:
                return adopted
        return replace(group, generation=max([group.generation, *(number + 1 for number in numbers)]))

    # -- tiles --------------------------------------------------------------------------------------------------

    def _tiles(self, tiles: TilesPlan, stored: set[Generation], buckets: int) -> TilesPlan:
        numbers = _numbers(stored, "tfm", tiles.view)
        for number in reversed(numbers):
            adopted = self._adopted_tiles(replace(tiles, generation=number), buckets, alone=len(numbers) == 1)
            if adopted is not None:
                return adopted
        return replace(tiles, generation=max([tiles.generation, *(number + 1 for number in numbers)]))

    def _adopted_tiles(self, tiles: TilesPlan, buckets: int, *, alone: bool) -> TilesPlan | None:
        filled = self._fit(TileValueLayout(tiles), buckets)
        if filled is None:
            return None
        found = self._fences(tiles, buckets)
        if found is None:
            return None
        marks = {fences.get(b"born", b"") for fences, _ in found}
        if marks == {b""}:
            is_whole = all(fences or bucket not in filled for bucket, (fences, _) in enumerate(found))
            return tiles if alone and is_whole and _is_of_topic_alone(tiles, [fences for fences, _ in found]) else None
        layout = layout_digest(tiles).encode()
        if len(marks) > 1 or any(
            fences.get(b"layout") != layout or fences.get(b"merges", b"") != merges for fences, merges in found
        ):
            return None
        start = found[0][0].get(b"start", b"")
        return replace(tiles, mark=marks.pop().decode(), start_us=int(start) if start else None)

    def _fences(self, tiles: TilesPlan, buckets: int) -> list[tuple[dict[bytes, bytes], bytes]] | None:
        """Per bucket, the fences and how often they were moved; None when a key has another type."""
        found = []
        for bucket in range(buckets):
            names = keys.fences_key(self._project, bucket, tiles), keys.merges_key(self._project, bucket, tiles)
            with self._keyspace.commands(bucket) as redis:
                types = [redis.type(name) for name in names]
                if types[0] not in (b"hash", b"none") or types[1] not in (b"string", b"none"):
                    return None
                found.append((redis.hgetall(names[0]), redis.get(names[1]) or b""))
        return found

    def _fit(self, layout: RowLayout | TileValueLayout, buckets: int) -> set[int] | None:
        """The buckets that hold values of a layout; None when a value has another layout, or is in the wrong bucket."""
        filled: set[int] = set()
        for bucket in range(buckets):
            prefix = layout.prefix(self._project, bucket)
            for names in self._keyspace.scan(bucket, prefix):
                if any(zlib.crc32(name[len(prefix) :]) % buckets != bucket for name in names):
                    return None
                with self._keyspace.commands(bucket) as redis:
                    if redis.eval(FITS, len(names), *names, layout.fingerprint, layout.size):
                        return None
                filled.add(bucket)
        return filled


def _retired_rows(generation: Generation) -> RowGroupPlan:
    """A row group that names the keys of a generation, to delete them. Its layout is unknown."""
    entities = tuple(generation.name.split("+"))
    join_keys = tuple((f"{entity}_key", "Int64") for entity in entities)
    return RowGroupPlan(generation.name, entities, join_keys, generation.number, ())


def _retired_tiles(generation: Generation) -> TilesPlan:
    """Tiles that name the keys of a generation, to delete them. Their layout is unknown."""
    entities, join_keys = ("entity",), (("entity_key", "Int64"),)
    return TilesPlan(generation.name, entities, join_keys, generation.number, "", _UNKNOWN)


def _numbers(stored: set[Generation], kinds: str, name: str) -> list[int]:
    return sorted(one.number for one in stored if (one.kinds, one.name) == (kinds, name))


def _is_of_topic_alone(tiles: TilesPlan, fences: list[dict[bytes, bytes]]) -> bool:
    """Whether fences without a mark belong to the view's topic alone. Only the lost plan knew where a history ends."""
    sources = [name for found in fences for name in found if b":" in name]
    return all(name.startswith(tiles.topic.encode() + b":") and not name.startswith(_HISTORY) for name in sources)


def _refuse_bucket(bucket: int, buckets: int) -> None:
    if bucket >= buckets:
        raise ConfigError(
            "feature_store.yaml: online_store.buckets",
            expected=f"more than {bucket}, since keys are stored in bucket {bucket}",
            got=str(buckets),
            hint="tear the project down first, or keep the number",
        )
