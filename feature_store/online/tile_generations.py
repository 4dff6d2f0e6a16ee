"""Generations of a stream view: a new one is filled beside the one that is served, then served in its place at once.

    begin    the plan names the new generation as being filled; readers and workers go on with the old one
    (fill)   the history, then the stream from where the history ends, up to where the workers are
    serve    readers change over, each request whole; workers go on at the fences of the new one; the old one is deleted

Each step can be repeated: whoever was killed begins again, and goes on with what is there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from feature_store.errors import NotFoundError

if TYPE_CHECKING:
    from feature_store.online.store import OnlineStore
    from feature_store.registry.serving_plan import ServingPlan, TilesPlan


def begin(online: OnlineStore, view: str, start_us: int | None) -> TilesPlan:
    """Name a new generation, to be filled; the one that an earlier call named when it starts at the same time.

    Args:
        online: the online store.
        view: a stream view.
        start_us: where the stream goes on after the history, microseconds since 1970; None: there is no history.

    Raises:
        NotPublishedError, NotFoundError: there is no plan, or no such stream view in it.
        ConflictError: somebody else publishes at the same time.
    """
    published = online.require_published()
    plan = published.plan
    served = plan.tiles_of(view)
    if served is None:
        known = ", ".join(tiles.view for tiles in plan.tiles)
        raise NotFoundError(view, expected=f"a stream view: {known or 'none is applied'}", got=repr(view))
    generations = [served, *_of(view, plan.filling_tiles), *_of(view, plan.retired_tiles)]
    tiles = replace(served, generation=max(item.generation for item in generations) + 1, start_us=start_us)
    for filling in _of(view, plan.filling_tiles):
        if replace(filling, generation=0) == replace(tiles, generation=0):
            return filling
    abandoned = _of(view, plan.filling_tiles)
    begun = online.publish(
        replace(
            plan,
            filling_tiles=(*(item for item in plan.filling_tiles if item.view != view), tiles),
            retired_tiles=(*plan.retired_tiles, *abandoned),
        ),
        over=published,
    )
    drop_retired(online)
    return _of(view, begun.plan.filling_tiles)[0]


def serve(online: OnlineStore, tiles: TilesPlan, written_to: bytes = b"") -> None:
    """Serve a generation that is filled, in the place of the one before, which is deleted.

    Args:
        online: the online store.
        tiles: what is filled.
        written_to: `OnlineStore.server_id` of before it was filled.

    Raises:
        LostWriteError: another server answers, which may lack tiles that the other acknowledged.
        NotFoundError: it is not being filled any more: somebody else began another.
        ConflictError: somebody else publishes at the same time.
    """
    published = online.require_published()
    plan = published.plan
    if tiles not in plan.filling_tiles:
        got = "served already" if tiles in plan.tiles else "given up"
        raise NotFoundError(f"generation {tiles.generation} of {tiles.view}", expected="being filled", got=got)
    online.publish(
        replace(
            plan,
            tiles=tuple(tiles if item.view == tiles.view else item for item in plan.tiles),
            filling_tiles=tuple(item for item in plan.filling_tiles if item != tiles),
            retired_tiles=(*plan.retired_tiles, *_of(tiles.view, plan.tiles)),
        ),
        over=published,
        written_to=written_to,
    )
    drop_retired(online)


def drop_retired(online: OnlineStore) -> ServingPlan:
    """Delete generations that are served no more; returns the plan that is then published.

    Raises:
        ConflictError: somebody else publishes at the same time.
    """
    published = online.require_published()
    if not published.plan.retired_tiles:
        return published.plan
    for tiles in published.plan.retired_tiles:
        online.drop_tiles(tiles)
    return online.publish(replace(published.plan, retired_tiles=()), over=published).plan


def _of(view: str, generations: tuple[TilesPlan, ...]) -> list[TilesPlan]:
    return [tiles for tiles in generations if tiles.view == view]
