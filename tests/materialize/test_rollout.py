"""Applied versions are rolled out over stream views and rows, whichever process is killed at whichever step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from feature_store._intervals import Interval
from feature_store.definitions import (
    Aggregation,
    DefinitionSet,
    FeatureView,
    Field,
    Float32,
    Int32,
    KafkaSource,
    StreamFeatureView,
)
from feature_store.errors import NotFoundError, StaleWriteError
from feature_store.materialize.rollout import begin_tiles, roll_out, serve_tiles
from feature_store.online import OnlineClient, OnlineStore
from feature_store.online.batch import RowBatch, Values
from feature_store.registry.serving_plan import RowGroupPlan, ServingPlan, TilesPlan
from feature_store.registry.store import Registry
from tests.online.stream_worlds import NOW_US, SECOND_US, merge_events, source, user
from tests.raw_redis import raw_client

HOUR = timedelta(hours=1)
START_US = NOW_US - 3600 * SECOND_US
EVENTS = [{"user_id": 1 + i % 3, "ts": NOW_US - i * SECOND_US, "price": float(i), "action": "buy"} for i in range(30)]
BATCHES = [EVENTS[start : start + 10] for start in (0, 10, 20)]
COUNT, MEAN, MAX = (Aggregation("price", name, windows=[HOUR]) for name in ("count", "mean", "max"))


def clicks(*aggregations: Aggregation, name: str = "clicks", source: KafkaSource = source) -> StreamFeatureView:
    return StreamFeatureView(name, entities=[user], source=source, aggregations=aggregations)


def profile(*fields: Field) -> FeatureView:
    return FeatureView("profile", entities=[user], schema=[Field("age", Int32), *fields])


FIRST = [clicks(COUNT), clicks(COUNT, name="steady"), profile()]
SECOND = [clicks(COUNT, MAX), clicks(COUNT, name="steady"), profile(Field("height", Float32))]
THIRD = [clicks(COUNT, MEAN), clicks(COUNT, name="steady"), profile(Field("weight", Float32))]


class Killed(BaseException):
    pass


class Mortal(OnlineStore):
    """A store whose process is killed at one of its steps. A step is right before or right after a change."""

    lives = 1 << 30

    def step(self) -> None:
        self.lives -= 1
        if self.lives < 0:
            raise Killed

    def publish(self, *args: Any, **options: Any) -> Any:
        return self._between_steps(super().publish, *args, **options)

    def drop_rows(self, *args: Any) -> Any:
        return self._between_steps(super().drop_rows, *args)

    def drop_tiles(self, *args: Any) -> Any:
        return self._between_steps(super().drop_tiles, *args)

    def copy_rows(self, *args: Any) -> Any:
        return self._between_steps(super().copy_rows, *args)

    def drop_epochs(self, *args: Any) -> Any:
        return self._between_steps(super().drop_epochs, *args)

    def _between_steps(self, change: Any, *args: Any, **options: Any) -> Any:
        self.step()
        result = change(*args, **options)
        self.step()
        return result


class Project:
    """A project with events in its streams and rows in its views."""

    def __init__(self, url: str, folder: Path) -> None:
        self.online, self.registry = Mortal(url, "test"), Registry(f"sqlite:///{folder}/registry.db", "test")
        if self.registry.latest() is None:
            self.registry.commit(DefinitionSet(FIRST), base=None, author="ada")
        self.client, self.redis = OnlineClient(url, "test"), raw_client(url)
        self.asked_for_starts: list[TilesPlan] = []
        self.served: dict[str, Any] = {}

    def close(self) -> None:
        self.client.close()
        self.online.close()
        self.redis.close()
        self.registry.close()

    def apply(self, version: int, definitions: list[Any], buckets: int = 1) -> ServingPlan:
        return roll_out(
            DefinitionSet(definitions),
            version,
            project="test",
            online=self.online,
            registry=self.registry,
            filler=self,
            buckets=buckets,
            expire_keys=False,
        )

    def fill_rows(self, view: str, group: RowGroupPlan, intervals: list[Interval]) -> None:
        """See Filler: the views have no sources."""

    def tiles_start_us(self, tiles: TilesPlan) -> int | None:
        """See Filler."""
        self.asked_for_starts.append(tiles)
        return START_US

    def fill_tiles(self, tiles: TilesPlan) -> None:
        """See Filler."""
        with self.online.tile_filler(tiles) as writer:
            merged = writer.fences()[0].get("clicks:0")
            for i, batch in enumerate(BATCHES):
                if i >= (merged or 0):
                    self.online.step()
                    merge_events(writer, batch, {"clicks:0": (i or None, i + 1)})
                    self.online.step()
        self.served = self.read()

    def backfill(self, *, is_whole: bool = True) -> None:
        """Backfill `clicks` or, unless `is_whole`, only begin to."""
        tiles = begin_tiles(self.online, "clicks", START_US)
        if is_whole:
            self.fill_tiles(tiles)
            serve_tiles(self.online, tiles)

    def begin(self, buckets: int = 1) -> None:
        """Apply the first version, and write events and rows as workers and jobs do."""
        self.online.teardown()
        self.apply(1, FIRST, buckets)
        for view in ("clicks", "steady"):
            with self.online.tile_writer(view) as writer:
                for i, batch in enumerate(BATCHES):
                    merge_events(writer, batch, {"clicks:0": (i or None, i + 1)})
        times = np.full(3, NOW_US)
        ages = {"age": Values(np.array([10, 20, 30], np.int32))}
        with self.online.writer("profile") as writer:
            writer.write(RowBatch({"user_id": np.array([1, 2, 3])}, times, times, ages))

    def read(self, *more: str) -> dict[str, Any]:
        asked = ["clicks:price_count_1h", "profile:age", *more]
        found = self.client.get_online_features(asked, {"user_id": [1, 2, 3]}, now=NOW_US).to_dict()
        steady = self.client.get_online_features(["steady:price_count_1h"], {"user_id": [1, 2, 3]}, now=NOW_US)
        return found | {"steady": steady.to_dict()["price_count_1h"]}

    def stored(self) -> set[str]:
        """The kinds, names and generations of all stored rows, tiles and fences."""
        keys = [key.split(b":") for key in self.redis.scan_iter("*")]
        return {b":".join(key[1:4]).decode("latin-1").partition("}")[2] for key in keys if len(key) > 2}


SERVED = {"price_count_1h": [10, 10, 10], "age": [10, 20, 30], "steady": [10, 10, 10]}


@pytest.fixture
def project(redis_url: str, tmp_path: Path) -> Iterator[Project]:
    with contextlib.closing(Project(redis_url, tmp_path)) as project:
        project.begin()
        yield project


def generations(plan: ServingPlan) -> dict[str, int]:
    return {tiles.view: tiles.generation for tiles in plan.tiles}


def assert_whole(project: Project, plan: ServingPlan) -> None:
    """The plan is served, no change is under way, and nothing else is stored."""
    assert project.online.require_published().plan == plan
    assert not (plan.filling or plan.filling_tiles or plan.retired or plan.retired_tiles)
    assert project.read() == SERVED
    of_tiles = {f"{kind}:{tiles.view}:{tiles.generation}" for tiles in plan.tiles for kind in "tfm"}
    assert project.stored() == of_tiles | {f"r:{group.name}:{group.generation}" for group in plan.groups}


def test_a_changed_view_is_filled_beside_the_one_that_is_served(project: Project) -> None:
    plan = project.apply(2, SECOND)
    assert project.served == SERVED, "while it was filled"
    assert generations(plan) == {"clicks": 2, "steady": 1}
    assert {tiles.view: tiles.start_us for tiles in plan.tiles} == {"clicks": START_US, "steady": None}
    assert_whole(project, plan)
    assert project.read("clicks:price_max_1h")["price_max_1h"] == [27.0, 28.0, 29.0]
    with project.online.tile_writer("clicks") as writer:
        assert writer.fences() == [{"clicks:0": 3}], "workers go on where the fill ended"


@pytest.mark.parametrize("then", [SECOND, THIRD, FIRST], ids=["the same", "another", "the one before"])
def test_an_apply_killed_at_any_step_is_finished_or_given_up_by_the_next(
    redis_url: str, tmp_path: Path, then: list[Any]
) -> None:
    lives, killed = 0, True
    while killed:
        with contextlib.closing(Project(redis_url, tmp_path)) as project:
            project.begin()
            project.online.lives, killed = lives, False
            try:
                project.apply(2, SECOND)
            except Killed:
                killed = True
            project.online.lives = 1 << 30
            assert project.read() == SERVED
            assert_whole(project, project.apply(2 if then is SECOND else 3, then))
        lives += 1
    assert lives > 15


actions = st.tuples(st.sampled_from([FIRST, SECOND, THIRD, "begin", "backfill"]), st.integers(0, 25))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(story=st.lists(actions, min_size=1, max_size=6))
def test_whatever_was_applied_filled_and_killed_before_the_next_apply_is_whole(
    redis_url: str, tmp_path: Path, story: list[tuple[Any, int]]
) -> None:
    with contextlib.closing(Project(redis_url, tmp_path)) as project:
        project.begin()
        version = 1
        for action, lives in story:
            project.online.lives = lives
            with contextlib.suppress(Killed):
                if isinstance(action, list):
                    version += 1
                    project.apply(version, action)
                else:
                    project.backfill(is_whole=action == "backfill")
            project.online.lives = 1 << 30
            assert project.read() == SERVED
        if project.apply(version + 1, SECOND).filling_tiles:
            project.backfill()
        assert_whole(project, project.online.require_published().plan)


def test_an_apply_killed_again_and_again_goes_on_with_what_it_has_filled(project: Project) -> None:
    kills = 0
    while True:
        # An apply that goes on publishes, drops epochs and copies rows again, which takes six steps.
        project.online.lives = 7
        try:
            plan = project.apply(2, SECOND)
        except Killed:
            kills += 1
            assert project.read() == SERVED
        else:
            break
        if kills > 100:
            raise AssertionError("no progress")
    project.online.lives = 1 << 30
    assert kills > 2
    assert len(project.asked_for_starts) == 1, "a generation that is begun keeps where its stream goes on"
    assert generations(plan) == {"clicks": 2, "steady": 1}
    assert_whole(project, plan)


def test_a_change_of_names_alone_fills_nothing(project: Project) -> None:
    named = Aggregation("price", "count", windows=[HOUR], name="bought")
    plan = project.apply(2, [clicks(named), *FIRST[1:]])
    assert not project.asked_for_starts
    assert generations(plan) == {"clicks": 1, "steady": 1}
    found = project.client.get_online_features(["clicks:bought_1h"], {"user_id": [1, 9]}, now=NOW_US)
    assert found.to_dict() == {"bought_1h": [10, 0]}


def test_a_view_that_goes_is_deleted_and_one_that_comes_back_begins_anew(project: Project) -> None:
    plan = project.apply(2, FIRST[1:])
    assert generations(plan) == {"steady": 1}
    assert "t:clicks:1" not in project.stored()
    again = project.apply(3, FIRST)
    assert generations(again) == {"clicks": 3, "steady": 1}
    assert project.read()["price_count_1h"] == [0, 0, 0]


# -- backfills that are under way ---------------------------------------------------------------------------------------


def begun(project: Project) -> TilesPlan:
    """A backfill of `clicks` that has merged one batch."""
    tiles = begin_tiles(project.online, "clicks", START_US)
    with project.online.tile_filler(tiles) as writer:
        merge_events(writer, BATCHES[0], {"clicks:0": (None, 1)})
    return tiles


@pytest.mark.parametrize("changed", [FIRST, [FIRST[0], clicks(COUNT, MAX, name="steady"), SECOND[2]]])
def test_a_backfill_goes_on_through_an_apply_that_leaves_its_view_alone(project: Project, changed: list[Any]) -> None:
    tiles = begun(project)
    with project.online.tile_filler(tiles) as writer:
        plan = project.apply(2, changed)
        assert plan.filling_tiles == (tiles,)
        assert project.read() == SERVED
        with pytest.raises(StaleWriteError):
            merge_events(writer, BATCHES[1], {"clicks:0": (1, 2)})
    project.fill_tiles(tiles)
    serve_tiles(project.online, tiles)
    assert_whole(project, project.online.require_published().plan)


def test_a_backfill_is_given_up_when_its_view_changes(project: Project) -> None:
    """The number of its generation is not used again, so that its merged events count nowhere."""
    tiles = begun(project)
    assert tiles.generation == 2
    plan = project.apply(2, SECOND)
    assert generations(plan) == {"clicks": 3, "steady": 1}
    assert_whole(project, plan)
    with pytest.raises(NotFoundError):
        project.online.tile_filler(tiles)
    with pytest.raises(NotFoundError, match="no longer being filled"):
        serve_tiles(project.online, tiles)


def test_a_backfill_is_given_up_when_features_of_its_view_change_their_names(project: Project) -> None:
    """The backfill would serve the features under their old names."""
    begun(project)
    named = Aggregation("price", "count", windows=[HOUR], name="bought")
    plan = project.apply(2, [clicks(named), *FIRST[1:]])
    assert generations(plan) == {"clicks": 1, "steady": 1}
    assert not plan.filling_tiles
    assert project.stored() == {f"{kind}:{view}:1" for kind in "tfm" for view in ("clicks", "steady")} | {"r:user:1"}
