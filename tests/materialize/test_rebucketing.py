"""The number of buckets changes while rows are written and read, events are merged, and processes are killed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from feature_store.definitions import DefinitionSet
from feature_store.online import OnlineClient
from feature_store.online.batch import RowBatch, Values
from feature_store.online.layout import FINGERPRINT_BYTES
from feature_store.online.row_store import RowStore
from feature_store.registry.store import Registry
from tests.materialize.test_rollout import (
    FIRST,
    SERVED,
    Killed,
    Mortal,
    Project,
    assert_whole,
)
from tests.online.stream_worlds import NOW_US, merge_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from feature_store._intervals import Interval
    from feature_store.online.tile_writer import TileWriter
    from feature_store.registry.serving_plan import RowGroupPlan, ServingPlan, TilesPlan


def stored(project: Project) -> dict[tuple[bytes, bytes, bytes], Any]:
    """The values of all rows and tiles, by kind, name and entity key, wherever they are stored."""
    values: dict[tuple[bytes, bytes, bytes], Any] = {}
    for key in project.redis.scan_iter("*"):
        _, _, rest = key.partition(b"}")
        if rest[:2] in (b"r:", b"t:"):
            kind, name, _, entity = rest.split(b":", 3)
            value = project.redis.get(key)
            assert value is not None
            values[kind, name, entity] = value[FINGERPRINT_BYTES:]  # the fingerprint is of the generation too
    return values


def check_spread(project: Project, plan: ServingPlan, buckets: int) -> None:
    """Check that all keys are in the plan's buckets, each of which has its epoch, and that no other bucket has a key."""
    assert_whole(project, plan)
    assert plan.buckets == plan.all_buckets == buckets
    tags = {key.partition(b"}")[0] for key in project.redis.scan_iter("*")}
    assert tags == {b"{test:%d" % bucket for bucket in range(buckets)}
    assert {key for key in project.redis.scan_iter("*") if key.endswith(b"}epoch")} == {tag + b"}epoch" for tag in tags}


@pytest.mark.parametrize(("before", "then"), [(1, 3), (3, 2)])
def test_an_apply_of_other_buckets_killed_at_any_step_is_finished_by_the_next(
    redis_url: str, tmp_path: Path, before: int, then: int
) -> None:
    lives, killed = 0, True
    while killed:
        with contextlib.closing(Project(redis_url, tmp_path)) as project:
            project.begin(before)
            values = stored(project)
            project.online.lives, killed = lives, False
            try:
                project.apply(1, FIRST, then)
            except Killed:
                killed = True
            project.online.lives = 1 << 30
            assert project.read() == SERVED
            check_spread(project, project.apply(1, FIRST, then), then)
            assert stored(project) == values
        lives += 3
    assert lives > 15


def test_buckets_that_are_given_up_leave_nothing(redis_url: str, tmp_path: Path) -> None:
    with contextlib.closing(Project(redis_url, tmp_path)) as project:
        for lives in (4, 9, 14):
            project.begin()
            project.online.lives = lives
            with pytest.raises(Killed):
                project.apply(1, FIRST, 4)
            project.online.lives = 1 << 30
            project.apply(1, FIRST)
            assert project.read() == SERVED
            plan = project.online.require_published().plan
            assert (plan.buckets, plan.all_buckets, plan.filling, plan.filling_tiles) == (1, 1, (), ())


class Living(Mortal):
    """A store at each of whose steps something happens."""

    at_step: Callable[[], None] | None = None

    def step(self) -> None:
        if self.at_step is not None:
            self.at_step()


class World:
    """A project that is read and written, and whose events a worker merges, at each step of its rollouts."""

    def __init__(self, url: str, folder: Path, cache: dict[str, str] | None) -> None:
        self.online, self.registry = Living(url, "test"), Registry(f"sqlite:///{folder}/registry.db", "test")
        self.registry.commit(DefinitionSet(FIRST), base=None, author="ada")
        self.client = OnlineClient(url, "test", cache=cache, timeout_s=30)
        self.log: list[dict[str, Any]] = []
        self.steps = 0

    def close(self) -> None:
        self.client.close()
        self.online.close()
        self.registry.close()

    def apply(self, buckets: int) -> ServingPlan:
        return Project.apply(self, 1, FIRST, buckets)  # type: ignore[arg-type]

    def fill_rows(self, view: str, group: RowGroupPlan, intervals: list[Interval]) -> None:
        """See Filler: the view has no source."""

    def tiles_start_us(self, tiles: TilesPlan) -> int | None:
        """See Filler: there is no history."""

    def fill_tiles(self, tiles: TilesPlan) -> None:
        """See Filler."""
        with self.online.tile_filler(tiles) as writer:
            self.merge(writer)

    def merge(self, writer: TileWriter) -> None:
        """Merge what each bucket's fences say is not merged yet."""
        for bucket, fences in enumerate(writer.fences()):
            start = fences.get("clicks:0", 0)
            if start < len(self.log):
                merge_events(writer, self.log[start:], {"clicks:0": (start or None, len(self.log))}, only=bucket)

    def act(self) -> None:
        """Write rows, merge an event, and compare what a client reads."""
        self.steps += 1
        users = np.arange(40)
        times = np.full(40, NOW_US + self.steps)
        ages = {"age": Values(np.full(40, self.steps, np.int32))}
        with self.online.writer("profile") as writer:
            writer.write(RowBatch({"user_id": users}, times, times, ages))
        self.log.append({"user_id": self.steps % 7, "ts": NOW_US - 1, "price": 1.0, "action": "buy"})
        for view in ("clicks", "steady"):
            with self.online.tile_writer(view) as worker:
                self.merge(worker)
        self.compare()

    def compare(self) -> None:
        """Compare what the client reads with what was written."""
        asked = ["profile:age", "clicks:price_count_1h"]
        counts = [sum(event["user_id"] == user for event in self.log) for user in range(40)]
        expected = {"age": [self.steps] * 40, "price_count_1h": counts}
        for _ in range(200):  # the near-cache hears of a write within milliseconds
            found = self.client.get_online_features(asked, {"user_id": list(range(40))}, now=NOW_US).to_dict()
            if found == expected:
                return
        assert found == expected


@pytest.fixture(params=["one server", "one server, cached", "Cluster"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    url = request.getfixturevalue("cluster").url if request.param == "Cluster" else request.getfixturevalue("redis_url")
    cache = {"user": "1MB", "clicks": "1MB"} if "cached" in request.param else None
    with contextlib.closing(World(url, tmp_path, cache)) as world:
        yield world


def test_rows_and_counts_are_exact_at_each_step_of_a_change(world: World) -> None:
    world.apply(1)
    for buckets in (8, 3):
        world.act()
        world.online.at_step = world.act
        before = world.steps
        plan = world.apply(buckets)
        world.online.at_step = None
        assert world.steps > before + 8
        assert (plan.buckets, plan.all_buckets) == (buckets, buckets)
        world.act()


@pytest.mark.parametrize("when", ["_batches", "_copy"])
def test_an_entity_that_is_deleted_while_it_is_copied_stays_deleted(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """It is deleted after its row was read, or after the row was copied."""
    with contextlib.closing(World(redis_url, tmp_path, None)) as world:
        world.apply(1)
        world.act()
        original, deleted = getattr(RowStore, when), []

        def deleting(*args: Any) -> Any:
            result = original(*args)
            if not deleted:
                deleted.append(world.online.delete("user", {"user_id": 3}))
            return result

        monkeypatch.setattr(RowStore, when, deleting)
        world.apply(4)
        assert deleted
        asked = {"user_id": [2, 3, 4]}
        found = world.client.get_online_features(["profile:age"], asked, now=NOW_US).to_dict()
        assert found == {"age": [1, None, 1]}
