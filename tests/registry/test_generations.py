"""The life of generations: random applies, backfills and kills against a model of what Redis holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from feature_store.definitions import (
    Aggregation,
    DefinitionSet,
    Entity,
    FeatureView,
    Field,
    Int32,
    Int64,
    KafkaSource,
    StreamFeatureView,
)
from feature_store.errors import ConflictError, NotFoundError
from feature_store.registry import generations
from feature_store.registry.compile import compile_plan
from feature_store.registry.generations import TRANSITIONS, Generation, GenerationState, generation_of, states
from feature_store.registry.plan_document import plan_from_json, plan_to_json
from feature_store.registry.serving_plan import RowGroupPlan, ServingPlan, TilesPlan

user, movie = Entity("user", join_key="user_id"), Entity("movie", join_key="movie_id")
EVENT = [Field("user_id", Int64), Field("movie_id", Int64), Field("price", Int32)]
clicks = KafkaSource("clicks", topic="clicks", event_timestamp="ts", schema=EVENT)


def definitions(rows: dict[str, int | None], streams: dict[str, int | None]) -> DefinitionSet:
    """Views by name with a number of fields or hours; None: the view does not exist."""
    entities = {"user": user, "movie": movie}
    batch = [
        FeatureView(f"of_{name}", entities=[entities[name]], schema=[Field(f"f{i}", Int32) for i in range(1 + size)])
        for name, size in rows.items()
        if size is not None
    ]
    counts = [
        StreamFeatureView(
            name, entities=[user], source=clicks,
            aggregations=[Aggregation("price", "count", windows=[timedelta(hours=1 + hours)])],
        )
        for name, hours in streams.items()
        if hours is not None
    ]  # fmt: skip
    return DefinitionSet([*batch, *counts])


sizes = st.one_of(st.none(), st.integers(0, 2))
versions = st.builds(
    definitions,
    st.fixed_dictionaries({"user": sizes, "movie": sizes}),
    st.fixed_dictionaries({"hot": sizes, "cold": sizes}),
)


def compiled(declared: DefinitionSet, version: int, previous: ServingPlan | None) -> ServingPlan:
    return compile_plan(declared, project="p", version=version, previous=previous)


def layout(item: RowGroupPlan | TilesPlan) -> tuple[object, ...]:
    return item.layout


class Life(RuleBasedStateMachine):
    """Steps of applies and backfills, each of which may be the last before a kill.

    The model has the layouts of the keys that Redis holds, by generation, and the set of whole generations. Writers
    write served generations, so a generation is whole once it is served or filled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.version = 1
        self.plan = ServingPlan("p", 1)
        self.target: ServingPlan | None = None
        self.begun: ServingPlan | None = None
        self.stored: dict[Generation, tuple[object, ...]] = {}
        self.whole: set[Generation] = set()
        self.dropping: list[Generation] = []

    # -- what the executor does -----------------------------------------------------------------------------------------

    def publish(self, plan: ServingPlan) -> None:
        """Publish as the rollout does. From then on, writers write the generations of the new plan."""
        before = {
            (item.kind, item.name) for item, state in states(self.plan).items() if state is GenerationState.SERVED
        }
        generations.refuse_forbidden(self.plan, plan)
        self.plan = plan
        for item in (*plan.groups, *plan.tiles):
            generation = generation_of(item)
            if (generation.kind, generation.name) not in before:
                self.whole.add(generation)  # its name is new, so no rows are missing
            assert self.stored.setdefault(generation, layout(item)) == layout(item), "of one number, two layouts"
        for filled in (*plan.filling, *plan.filling_tiles):
            generation = generation_of(filled)
            assert self.stored.setdefault(generation, layout(filled)) == layout(filled), "of one number, two layouts"

    def drop_retired(self, *, keys: int | None = None) -> None:
        """Delete retired generations. With `keys`, the process is killed after that number of keys."""
        retired = [item for item, state in states(self.plan).items() if state is GenerationState.RETIRED]
        for item in retired[:keys]:
            self.stored.pop(item, None)
            self.whole.discard(item)
        if keys is None:
            self.publish(generations.drop(self.plan))

    # -- what people do -------------------------------------------------------------------------------------------------

    @rule(declared=versions)
    def begin_an_apply(self, declared: DefinitionSet) -> None:
        self.version += 1
        target = compiled(declared, self.version, self.plan)
        self.target = replace(target, filling_tiles=generations.under_way(self.plan, target))
        self.publish(generations.begin(self.plan, self.target))
        self.begun = self.plan

    @precondition(lambda self: self.target is not None)
    @rule()
    def fill(self) -> None:
        for item in (*self.plan.filling, *self.plan.filling_tiles):
            self.whole.add(generation_of(item))

    @precondition(lambda self: self.target is not None and self.begun == self.plan)
    @rule(killed=st.booleans(), keys=st.integers(0, 3))
    def finish_the_apply(self, killed: bool, keys: int) -> None:
        self.fill()
        assert self.target is not None
        self.publish(generations.serve(self.plan, self.target))
        self.target = None
        self.drop_retired(keys=keys if killed else None)

    @rule(keys=st.one_of(st.none(), st.integers(0, 2)))
    def give_up(self, keys: int | None) -> None:
        self.target = None
        if self.plan.filling:
            self.publish(generations.abandon_rows(self.plan))
            self.drop_retired(keys=keys)

    @precondition(lambda self: bool(self.plan.tiles))
    @rule(place=st.integers(0, 1), start=st.integers(0, 1), keys=st.one_of(st.none(), st.integers(0, 2)))
    def begin_a_backfill(self, place: int, start: int, keys: int | None) -> None:
        view = self.plan.tiles[place % len(self.plan.tiles)].view
        plan, tiles = generations.begin_tiles(self.plan, view, start)
        self.publish(plan)
        assert [item for item in plan.filling_tiles if item.view == view] == [tiles]
        self.drop_retired(keys=keys)

    @precondition(lambda self: bool(self.plan.filling_tiles))
    @rule(place=st.integers(0, 1), keys=st.one_of(st.none(), st.integers(0, 2)))
    def finish_a_backfill(self, place: int, keys: int | None) -> None:
        tiles = self.plan.filling_tiles[place % len(self.plan.filling_tiles)]
        self.whole.add(generation_of(tiles))
        if self.plan.tiles_of(tiles.view) is None:
            return  # a killed apply was filling a view that comes back: there is nothing to replace
        self.publish(generations.serve_tiles(self.plan, tiles))
        self.drop_retired(keys=keys)

    # -- what always holds ----------------------------------------------------------------------------------------------

    @invariant()
    def what_is_stored_is_named(self) -> None:
        assert set(self.stored) <= set(states(self.plan))

    @invariant()
    def what_is_served_is_whole(self) -> None:
        served = {item for item, state in states(self.plan).items() if state is GenerationState.SERVED}
        assert served <= self.whole

    @invariant()
    def a_name_has_one_generation_in_each_state(self) -> None:
        for state in (GenerationState.SERVED, GenerationState.FILLING):
            named = [(item.kind, item.name) for item, at in states(self.plan).items() if at is state]
            assert len(named) == len(set(named))

    @invariant()
    def the_plan_is_read_as_it_was_written(self) -> None:
        assert plan_from_json(plan_to_json(self.plan)) == self.plan


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase


def in_state(state: GenerationState) -> ServingPlan:
    plan = compiled(definitions({"user": 1}, {"hot": 1}), 1, None)
    empty: dict[str, Any] = {"groups": (), "tiles": ()}
    return {
        GenerationState.ABSENT: replace(plan, **empty),
        GenerationState.SERVED: plan,
        GenerationState.FILLING: replace(plan, filling=plan.groups, filling_tiles=plan.tiles, **empty),
        GenerationState.RETIRED: replace(plan, retired=plan.groups, retired_tiles=plan.tiles, **empty),
    }[state]


@pytest.mark.parametrize("before", GenerationState)
@pytest.mark.parametrize("after", GenerationState)
def test_a_publication_moves_generations_only_along_the_table(before: GenerationState, after: GenerationState) -> None:
    old, new = in_state(before), in_state(after)
    if before is after or (before, after) in TRANSITIONS:
        generations.refuse_forbidden(old, new)
    else:
        with pytest.raises(ConflictError, match=f"it is {before.value}"):
            generations.refuse_forbidden(old, new)


def test_a_generation_that_replaces_a_served_one_must_be_filled() -> None:
    old = in_state(GenerationState.SERVED)
    new = compiled(definitions({"user": 2}, {"hot": 1}), 2, old)
    with pytest.raises(ConflictError, match="generation 2 of the rows of user"):
        generations.refuse_forbidden(old, generations.serve(old, new))


def test_tiles_that_are_not_being_filled_are_not_served() -> None:
    plan = in_state(GenerationState.SERVED)
    with pytest.raises(NotFoundError, match="already served"):
        generations.serve_tiles(plan, plan.tiles[0])
    with pytest.raises(NotFoundError, match="no longer being filled"):
        generations.serve_tiles(plan, replace(plan.tiles[0], generation=7))
    with pytest.raises(NotFoundError, match="a stream view: hot"):
        generations.begin_tiles(plan, "tepid", None)
