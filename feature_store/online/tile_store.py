"""The tiles of stream views and their fences: merge into a generation, begin it anew, delete it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_store.errors import NotFoundError
from feature_store.online import fence_marks, keys
from feature_store.online.tile_writer import TileWriter

if TYPE_CHECKING:
    from feature_store.errors import FencesLostError
    from feature_store.online.keyspace import Keyspace
    from feature_store.online.publication import PlanStore
    from feature_store.registry.serving_plan import TilesPlan


class TileStore:
    """The generations of a project's stream views.

    Args:
        keyspace: the project's keys.
        plans: the published plans.
    """

    def __init__(self, keyspace: Keyspace, plans: PlanStore) -> None:
        self._keyspace, self._plans = keyspace, plans

    def writer(self, view: str) -> TileWriter:
        """See `OnlineStore.tile_writer`."""
        published = self._plans.required()
        tiles = published.plan.tiles_of(view)
        if tiles is None:
            known = ", ".join(tiles.view for tiles in published.plan.tiles)
            raise NotFoundError(view, expected=f"a stream view: {known or 'none is applied'}", got=repr(view))
        return TileWriter(self._keyspace.topology, published, tiles)

    def filler(self, tiles: TilesPlan) -> TileWriter:
        """See `OnlineStore.tile_filler`."""
        published = self._plans.required()
        for begun in published.plan.filling_tiles:
            if begun == tiles:
                return TileWriter(self._keyspace.topology, published, begun)
        raise _not_filling(tiles)

    def begin_anew(self, tiles: TilesPlan) -> None:
        """See `OnlineStore.begin_tiles_anew`."""
        published = self._plans.required()
        begun = next((filling for filling in published.plan.filling_tiles if filling == tiles), None)
        if begun is None:
            raise _not_filling(tiles)
        self.drop(begun)
        for bucket in range(begun.buckets if begun.mark else 0):
            fence_marks.mark(self._keyspace, begun, bucket)

    def drop(self, tiles: TilesPlan) -> int:
        """See `OnlineStore.drop_tiles`."""
        deleted = 0
        for bucket in range(tiles.buckets):
            name = (self._keyspace.project, bucket, tiles)
            deleted += self._keyspace.unlink(bucket, [keys.fences_key(*name), keys.merges_key(*name)])
            deleted += self._keyspace.unlink_starting(bucket, keys.tiles_prefix(*name))
        return deleted

    def lost_fences(self, tiles: TilesPlan) -> FencesLostError | None:
        """See `OnlineStore.lost_fences`."""
        return fence_marks.lost(self._keyspace, tiles)

    def topic_id_of(self, tiles: TilesPlan) -> str:
        """See `OnlineStore.topic_id_of`."""
        return fence_marks.topic_id(self._keyspace, tiles)

    def note_topic_id(self, tiles: TilesPlan, topic_id: str) -> None:
        """See `OnlineStore.note_topic_id`."""
        fence_marks.note_topic_id(self._keyspace, tiles, topic_id)


def _not_filling(tiles: TilesPlan) -> NotFoundError:
    return NotFoundError(tiles.view, expected="a generation that is being filled", got=f"generation {tiles.generation}")
