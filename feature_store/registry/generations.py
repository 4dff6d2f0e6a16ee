"""The life of a generation of stored rows or tiles, as transitions between serving plans.

A generation is one layout of a row group or of a stream view, in one number of buckets; its own number is part of its
keys. Rows and tiles have the
same life:

               create: the name is new, nothing is stored
    absent ───────────────────────────────────────────────▶ served ──replace──▶ retired ──drop──▶ absent
       └────begin────▶ filling ────────────serve────────────▲                      ▲
                          └─────────────────────abandon────────────────────────────┘

A plan names every stored generation in one of three states. One publication moves any number of them along the arrows
of `TRANSITIONS`. So no stored generation is forgotten, none is served before it is filled, and a number is not used
again while keys with it exist. The functions here are pure: plan in, plan out;
`materialize/rollout.py` publishes the plans and moves the data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import Enum
from typing import Literal, NamedTuple

from feature_store.errors import ConflictError, NotFoundError
from feature_store.registry.serving_plan import FORMAT, RowGroupPlan, ServingPlan, TilesPlan


class GenerationState(Enum):
    """Where a generation is in its life. The value is its name in errors."""

    ABSENT = "absent"
    FILLING = "being filled"
    SERVED = "served"
    RETIRED = "retired"


TRANSITIONS = {
    (GenerationState.ABSENT, GenerationState.FILLING): "begin",
    (GenerationState.ABSENT, GenerationState.SERVED): "create",
    (GenerationState.FILLING, GenerationState.SERVED): "serve",
    (GenerationState.FILLING, GenerationState.RETIRED): "abandon",
    (GenerationState.SERVED, GenerationState.RETIRED): "replace",
    (GenerationState.RETIRED, GenerationState.ABSENT): "drop",
}


class Generation(NamedTuple):
    """The identity of a generation within a project."""

    kind: Literal["rows", "tiles"]
    name: str
    number: int

    def __str__(self) -> str:
        return f"generation {self.number} of the {self.kind} of {self.name}"


def generation_of(plan: RowGroupPlan | TilesPlan) -> Generation:
    """The generation of a row group or stream view of a plan."""
    if isinstance(plan, RowGroupPlan):
        return Generation("rows", plan.name, plan.generation)
    return Generation("tiles", plan.view, plan.generation)


def states(plan: ServingPlan) -> dict[Generation, GenerationState]:
    """The state of each generation that a plan names. All others are ABSENT."""
    named: dict[GenerationState, tuple[RowGroupPlan | TilesPlan, ...]] = {
        GenerationState.RETIRED: (*plan.retired, *plan.retired_tiles),
        GenerationState.FILLING: (*plan.filling, *plan.filling_tiles),
        GenerationState.SERVED: (*plan.groups, *plan.tiles),
    }
    return {generation_of(item): state for state, items in named.items() for item in items}


def refuse_forbidden(old: ServingPlan, new: ServingPlan) -> None:
    """Raise a ConflictError when publishing `new` in place of `old` moves a generation along no arrow of TRANSITIONS.

    A generation may be created without being filled only if no generation of its name is served.
    """
    before, after = states(old), states(new)
    served = {(item.kind, item.name) for item, state in before.items() if state is GenerationState.SERVED}
    for generation in before.keys() | after.keys():
        move = before.get(generation, GenerationState.ABSENT), after.get(generation, GenerationState.ABSENT)
        if move[0] is move[1]:
            continue
        is_unfilled = TRANSITIONS.get(move) == "create" and (generation.kind, generation.name) in served
        if move not in TRANSITIONS or is_unfilled:
            raise ConflictError(
                str(generation),
                problem=f"it is {move[0].value}, and a publication would make it {move[1].value}",
                hint="apply again; if the error stays, tear the project down, apply and materialize",
            )


# -- numbers ----------------------------------------------------------------------------------------------------


def numbered_rows(group: RowGroupPlan, previous: ServingPlan | None) -> RowGroupPlan:
    """A row group with the number of its generation.

    Args:
        group: as compiled, with the version as its number.
        previous: the published plan.

    Returns:
        The group with the number of the served generation, if layout and buckets are the same; with the number of the
        generation that an apply was filling when it was killed, if it holds the same values; else with a number that
        no generation has.
    """
    if previous is None:
        return group
    served = next((item for item in previous.groups if item.name == group.name), None)
    if served is not None and _is_stored_as(served, group):
        return replace(group, generation=served.generation)
    # Another version may compute other values in the same layout. Rows that only change their buckets are copied.
    is_copied = served is not None and served.layout == group.layout
    for begun in previous.filling:
        is_of_this = is_copied or begun.generation == group.generation
        if begun.name == group.name and is_of_this and _is_stored_as(begun, group):
            return replace(group, generation=begun.generation)
    return replace(group, generation=_free_number(generation_of(group), previous))


def numbered_tiles(tiles: TilesPlan, previous: ServingPlan | None) -> TilesPlan:
    """A stream view with the number of its generation.

    Args:
        tiles: as compiled, with the version as its number.
        previous: the published plan.

    Returns:
        The view with the number of the served generation, or of a generation that is being filled, if it holds the same
        windows of the same events in the same buckets; else with a number that no generation has.
    """
    if previous is None:
        return tiles
    served = previous.tiles_of(tiles.view)
    if served is not None and served.event_time is None:
        served = replace(served, event_time=tiles.event_time)  # plans of release 0.1 lack it
    if served is not None and _is_stored_as(served, tiles):
        return replace(tiles, generation=served.generation, start_us=served.start_us)
    for begun in previous.filling_tiles:
        if replace(begun, generation=tiles.generation, start_us=None) == tiles:
            return replace(tiles, generation=begun.generation)
    return replace(tiles, generation=_free_number(generation_of(tiles), previous))


def _is_stored_as(stored: RowGroupPlan | TilesPlan, wanted: RowGroupPlan | TilesPlan) -> bool:
    """Whether a stored generation has the layout and the buckets that are wanted."""
    return stored.layout == wanted.layout and stored.buckets == wanted.buckets


def _free_number(wanted: Generation, plan: ServingPlan) -> int:
    """The wanted number, or if it is smaller, the one after the greatest of the same kind and name."""
    known = [item.number for item in states(plan) if (item.kind, item.name) == (wanted.kind, wanted.name)]
    return max([wanted.number, *(number + 1 for number in known)])


# -- a version --------------------------------------------------------------------------------------------------


def unfilled(old: ServingPlan, target: ServingPlan) -> tuple[tuple[RowGroupPlan, ...], tuple[TilesPlan, ...]]:
    """The generations of `target` that must be filled before they are served: row groups, and stream views.

    These are generations that replace a served one, and generations of views that a prune plan had left without
    features. A new view has no data yet.
    """
    served, back = states(old), set(old.unstored)
    names = {(item.kind, item.name) for item, state in served.items() if state is GenerationState.SERVED}

    def is_unfilled(item: RowGroupPlan | TilesPlan, views: Iterable[str]) -> bool:
        generation = generation_of(item)
        if (generation.kind, generation.name) not in names:
            return any(view in back for view in views)
        return served.get(generation) is not GenerationState.SERVED

    return (
        tuple(group for group in target.groups if is_unfilled(group, [segment.view for segment in group.segments])),
        tuple(tiles for tiles in target.tiles if is_unfilled(tiles, [tiles.view])),
    )


def under_way(old: ServingPlan, target: ServingPlan) -> tuple[TilesPlan, ...]:
    """The generations that backfills are filling, of stream views that do not change: these backfills go on."""
    return tuple(
        tiles
        for tiles in old.filling_tiles
        if all(
            served is not None and replace(served, generation=tiles.generation, start_us=tiles.start_us) == tiles
            for served in (old.tiles_of(tiles.view), target.tiles_of(tiles.view))
        )
    )


def begin(old: ServingPlan, target: ServingPlan) -> ServingPlan:
    """`old` with the `unfilled` generations of `target` as being filled. Others that were being filled are retired."""
    rows, tiles = unfilled(old, target)
    if not rows and not tiles:
        return old
    return _retiring(replace(old, filling=rows, filling_tiles=(*target.filling_tiles, *tiles), format=FORMAT), old)


def serve(old: ServingPlan, target: ServingPlan) -> ServingPlan:
    """`target`, with every generation retired that only `old` names."""
    return _retiring(target, old)


def abandon_rows(plan: ServingPlan) -> ServingPlan:
    """The plan, with the rows that are being filled retired."""
    return _retiring(replace(plan, filling=()), plan)


def drop(plan: ServingPlan) -> ServingPlan:
    """The plan without retired generations, whose keys are deleted."""
    return replace(plan, retired=(), retired_tiles=())


# -- a backfill -------------------------------------------------------------------------------------------------


def begin_tiles(plan: ServingPlan, view: str, start_us: int | None) -> tuple[ServingPlan, TilesPlan]:
    """The plan with a new generation of a stream view as being filled; and the generation.

    If a backfill from the same time is under way, its generation is returned. Others of the view are retired.

    Args:
        plan: the published plan.
        view: a stream view.
        start_us: where the topic takes over from the history, microseconds since 1970; None: there is no history.

    Raises:
        NotFoundError: the plan has no such stream view.
    """
    served = plan.tiles_of(view)
    if served is None:
        known = ", ".join(tiles.view for tiles in plan.tiles)
        raise NotFoundError(view, expected=f"a stream view: {known or 'none is applied'}", got=repr(view))
    tiles = replace(served, generation=_free_number(generation_of(served), plan), start_us=start_us)
    for filling in plan.filling_tiles:
        if replace(filling, generation=0) == replace(tiles, generation=0):
            return plan, filling
    others = tuple(item for item in plan.filling_tiles if item.view != view)
    return _retiring(replace(plan, filling_tiles=(*others, tiles)), plan), tiles


def serve_tiles(plan: ServingPlan, tiles: TilesPlan) -> ServingPlan:
    """The plan that serves a filled generation of a stream view and retires the one before.

    Raises:
        NotFoundError: the generation is no longer being filled: it is served, or another one was begun.
    """
    if tiles not in plan.filling_tiles:
        state = "already served" if tiles in plan.tiles else "no longer being filled: another backfill was begun"
        raise NotFoundError(f"generation {tiles.generation} of {tiles.view}", problem=f"it is {state}")
    return _retiring(
        replace(
            plan,
            tiles=tuple(tiles if item.view == tiles.view else item for item in plan.tiles),
            filling_tiles=tuple(item for item in plan.filling_tiles if item != tiles),
        ),
        plan,
    )


def _retiring(plan: ServingPlan, old: ServingPlan) -> ServingPlan:
    """A plan with every generation retired that only `old` names, so that no stored generation is forgotten."""
    kept = set(states(drop(plan)))
    rows = (*old.groups, *old.filling, *old.retired)
    tiles = (*old.tiles, *old.filling_tiles, *old.retired_tiles)
    return replace(
        plan,
        retired=tuple(group for group in rows if generation_of(group) not in kept),
        retired_tiles=tuple(item for item in tiles if generation_of(item) not in kept),
    )
