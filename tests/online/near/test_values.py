"""What the near-cache gives and keeps: leases, invalidations that overtake replies, plans, budgets; without a server."""

from __future__ import annotations

from typing import Any

import numpy as np

from feature_store.definitions import FeatureService
from feature_store.online.entity_rows import entity_keys
from feature_store.online.layout import RowLayout
from feature_store.online.near.values import CachedValues, Hits
from feature_store.online.offered import Offered
from feature_store.online.rows import StoredRows
from feature_store.online.service import CompiledService
from tests.online.worlds import every_type, numbers, plan_of, profile


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class World:
    """A cache of movies' rows, and requests for them of one service."""

    def __init__(self, budget: int = 10**6, bound_s: float = 1.0) -> None:
        self.clock = Clock()
        self.values = CachedValues({"movie": budget}, bound_s, self.clock)
        self.follow()
        self.values.renew(self.clock.now)

    def follow(self, version: int = 1, **options: Any) -> None:
        plan = plan_of(FeatureService("s", features=[numbers, profile]), version=version, **options)
        self.plan = plan
        self.service = CompiledService(plan, plan.service("s"), Offered(), b"e" * 16)
        self.values.follow(plan)
        self.spaces = self.values.spaces(self.service.groups)
        ((self.group, self.space),) = self.spaces
        assert isinstance(self.space.group.layout, RowLayout)
        self.layout = self.space.group.layout

    def look_up(self, movies: list[int]) -> Hits:
        rows = {"user_id": 1, "movie_id": movies}
        asked = [entity_keys(group.join_keys, rows, len(movies)) for group in self.service.groups]
        return self.values.look_up(self.spaces, asked)

    def answer(self, hits: Hits, version: int = 0) -> list[int]:
        """Give what was not found, of a version, and return the version of each value."""
        found = hits.found[self.group]
        read = [self.row(version) for _ in range(found.unread.size)]
        rows = StoredRows.from_values(self.layout, list(read), str)
        joined, _ = found.joined(rows, [], may_keep=True)
        return [int(part[-1]) for part in joined.part(0, self.layout.size)]

    def read(self, movies: list[int], version: int = 0) -> list[int]:
        """A request from beginning to end; then the lease is renewed."""
        hits = self.look_up(movies)
        versions = self.answer(hits, version)
        self.values.keep(hits)
        self.values.renew(self.clock.now)
        return versions

    def row(self, version: int) -> bytes:
        return self.layout.fingerprint + bytes(self.layout.size - 5) + bytes([version])

    def key(self, movie: int) -> bytes:
        return self.layout.prefix("test", 0) + movie.to_bytes(8, "big", signed=True)


def test_values_that_were_read_are_found() -> None:
    world = World()
    assert world.read([1, 2, 3], version=1) == [1, 1, 1]
    assert world.read([3, 4, 2], version=2) == [1, 2, 1]
    stats = world.values.stats["movie"]
    assert (stats.hits, stats.misses, stats.entries, stats.kept) == (2, 4, 4, 4)


def test_a_change_takes_a_value_away() -> None:
    world = World()
    world.read([1, 2], version=1)
    world.values.invalidate([world.key(1), b"{test:0}r:other:0:x", b"{test:0}plan"])
    assert world.read([1, 2], version=2) == [2, 1]
    assert world.values.stats["movie"].invalidated == 1
    world.values.invalidate(None)
    assert world.read([1, 2], version=3) == [3, 3]


def test_a_reply_that_a_change_overtook_is_not_kept() -> None:
    world = World()
    hits = world.look_up([1, 2])
    world.values.invalidate([world.key(1)])
    assert world.answer(hits, version=1) == [1, 1]
    world.values.keep(hits)
    world.values.renew(0.0)
    assert world.read([1, 2], version=2) == [2, 1]


def test_a_reply_that_waits_when_a_change_comes_is_not_kept() -> None:
    world = World()
    hits = world.look_up([1, 2])
    world.answer(hits, version=1)
    world.values.keep(hits)
    world.values.invalidate([world.key(1)])
    world.values.renew(0.0)
    assert world.read([1, 2], version=2) == [2, 1]


def test_nothing_is_given_when_the_lease_is_over() -> None:
    world = World(bound_s=1.0)
    world.read([1])
    world.clock.now = 1.001
    assert world.look_up([1]).unread[world.group].size == 1
    world.values.renew(sent_at=0.5)
    assert world.look_up([1]).unread[world.group].size == 0
    world.clock.now = 1.501
    assert world.look_up([1]).unread[world.group].size == 1


def test_a_lost_connection_empties_it() -> None:
    world = World()
    world.read([1], version=1)
    before = world.look_up([1, 2])
    world.values.suspend()
    assert world.look_up([1]).unread[world.group].size == 1
    # What was read before the loss may have changed since, unheard.
    world.answer(before, version=1)
    world.values.keep(before)
    world.values.renew(0.0)
    assert world.read([1, 2], version=2) == [2, 2]


def test_a_plan_with_the_same_rows_keeps_the_values_and_another_generation_does_not() -> None:
    world = World()
    world.read([1], version=1)
    world.follow(version=2, previous=world.plan)
    assert world.read([1], version=2) == [1]
    other = plan_of(FeatureService("s", features=[numbers, profile]), views=[numbers, profile], previous=world.plan)
    assert other.groups != world.plan.groups
    old_service, old_spaces = world.service, world.spaces
    world.values.follow(other)
    world.service, world.spaces = old_service, old_spaces  # a request that began under the old plan
    hits = world.look_up([1])
    assert hits.unread[world.group].size == 1
    world.answer(hits, version=3)
    world.values.keep(hits)
    assert world.values.stats["movie"].entries == 0


def test_services_that_read_other_variable_values_share_the_budget() -> None:
    budget = 400_000
    values = CachedValues({"movie": budget}, 1.0)
    services = [
        FeatureService("a", features=[numbers]),
        FeatureService("b", features=[every_type]),
        FeatureService("c", features=[numbers, every_type]),
    ]
    plan = plan_of(*services)
    values.follow(plan)
    compiled = [CompiledService(plan, plan.service(name), Offered(), b"e" * 16) for name in "abc"]
    spaces = [values.spaces(service.groups)[0][1] for service in compiled]
    assert spaces[0] is not spaces[1]
    assert spaces[1] is spaces[2]  # numbers has no variable values
    assert sum(space.table.capacity * space.table.cell_bytes for space in set(spaces)) <= budget


def test_many_changes_at_once_are_all_taken() -> None:
    world = World()
    movies = list(range(1500))
    world.read(movies, version=1)
    world.values.invalidate([world.key(movie) for movie in movies if movie % 3])
    versions = world.read(movies, version=2)
    assert [movie for movie, version in zip(movies, versions, strict=True) if movie % 3 and version != 2] == []
    assert np.mean(versions) == 5 / 3
