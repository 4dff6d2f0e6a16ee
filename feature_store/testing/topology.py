"""The suite for Redis topologies: `TopologySuite`.

    class TestCluster(TopologySuite):
        @pytest.fixture
        def topology(self) -> Iterator[Topology]:
            topology = Cluster("redis+cluster://…", timeout_s=5.0)
            yield topology
            topology.close()

The suite uses the projects `suite` and `suited`. The servers must hold no keys of them, and the suite leaves none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from feature_store.definitions import (
    Aggregation,
    DefinitionSet,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Int32,
    Int64,
    KafkaSource,
    StreamFeatureView,
)
from feature_store.errors import ConflictError, DamagedPlanError, FeatureStoreError
from feature_store.online import fence_marks, keys
from feature_store.online.batch import RowBatch, Values
from feature_store.online.conversation import Conversation
from feature_store.online.keyspace import Keyspace
from feature_store.online.observer import Observers
from feature_store.online.offered import Offered
from feature_store.online.publication import PlanStore
from feature_store.online.published_plan import PublishedPlan
from feature_store.online.read_options import ReadOptions
from feature_store.online.redis.resp import argument
from feature_store.online.redis.script_connection import ScriptCalls
from feature_store.online.redis.topology import Topology
from feature_store.online.row_store import RowStore
from feature_store.online.tile_store import TileStore
from feature_store.registry.compile import compile_plan
from feature_store.registry.serving_plan import ServingPlan

_BUCKETS = 5
_NOW_US = 1_700_000_000_000_000
_user = Entity("user", join_key="user_id")
_EVENT = [Field("user_id", Int64), Field("price", Int32)]
_clicks = KafkaSource("clicks", topic="clicks", event_timestamp="ts", schema=_EVENT)


def _plan(version: int, *more: Field, windows: int = 0, previous: ServingPlan | None = None) -> ServingPlan:
    """A plan of a batch view with the fields `more`, and of `windows` stream views."""
    profile = FeatureView("profile", entities=[_user], schema=[Field("age", Int32), *more])
    counts = [Aggregation("price", "count", windows=[timedelta(hours=1)])]
    streams = [
        StreamFeatureView(f"w{i}", entities=[_user], source=_clicks, aggregations=counts) for i in range(windows)
    ]
    definitions = DefinitionSet([profile, *streams, FeatureService("s", features=[profile])])
    return compile_plan(definitions, project="suite", version=version, previous=previous, buckets=_BUCKETS)


class _Interrupted:
    """A topology that calls `act` when commands are sent for the `at`-th time."""

    def __init__(self, topology: Topology, at: int, act: Callable[[], None]) -> None:
        self._topology, self._left, self._act = topology, at, act

    def commands(self, key: bytes) -> AbstractContextManager[Any]:
        self._left -= 1
        if self._left == 0:
            self._act()
        return self._topology.commands(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._topology, name)


class _KilledError(Exception):
    """Simulates that the publisher is killed."""


def _kill() -> None:
    raise _KilledError


class TopologySuite:
    """Tests of one topology. A subclass has the fixture `topology`."""

    @pytest.fixture
    def keyspace(self, topology: Topology) -> Iterator[Keyspace]:
        """The keys of the project `suite`. They are deleted after the test."""
        keyspace = Keyspace(topology, "suite")
        keyspace.unlink_all()
        yield keyspace
        keyspace.unlink_all()

    def _set(self, keyspace: Keyspace, count: int = 40) -> dict[bytes, bytes]:
        values = {}
        for i in range(count):
            bucket = i % _BUCKETS
            key = keys.tag(keyspace.project, bucket) + b"r:g:1:%d" % i
            with keyspace.commands(bucket) as redis:
                redis.set(key, b"%d" % i)
            values[key] = b"%d" % i
        return values

    def test_each_key_is_on_one_node_and_scans_see_it(self, topology: Topology, keyspace: Keyspace) -> None:
        """A scan over all nodes returns each key once, and the node of a key holds it."""
        values = self._set(keyspace)
        assert sorted(name for names in keyspace.scan_all() for name in names) == sorted(values)
        for key, value in values.items():
            with topology.node(key).commands() as redis:
                assert redis.get(key) == value
        assert {topology.node(key) for key in values} <= set(topology.nodes())

    def test_keys_of_one_tag_are_on_one_node(self, topology: Topology) -> None:
        """The part of the key after the hash tag does not matter."""
        for bucket in range(_BUCKETS):
            tag = keys.tag("suite", bucket)
            assert len({topology.node(tag + rest) for rest in (b"plan", b"epoch", b"r:g:1:\x00\xff", b"")}) == 1

    def test_one_script_may_name_the_keys_of_a_group(self, topology: Topology, keyspace: Keyspace) -> None:
        """`together` partitions the keys; the first key is in the first group; one script may name a whole group."""
        names = [keys.epoch_key("suite", bucket) for bucket in range(_BUCKETS)]
        groups = topology.together(names)
        assert sorted(name for group in groups for name in group) == sorted(names)
        assert groups[0][0] == names[0]
        for group in groups:
            with topology.node(group[0]).commands() as redis:
                assert redis.eval("return #KEYS", len(group), *group) == len(group)

    def test_deleting_a_project_leaves_others(self, topology: Topology, keyspace: Keyspace) -> None:
        """Also a project whose name begins with the deleted project's name."""
        other = Keyspace(topology, "suited")
        try:
            kept, gone = self._set(other), self._set(keyspace)
            assert keyspace.unlink_all() == len(gone)
            assert not any(keyspace.scan_all())
            assert sorted(name for names in other.scan_all() for name in names) == sorted(kept)
        finally:
            other.unlink_all()

    def test_calls_of_a_script_reach_their_keys_and_are_answered_in_order(self, topology: Topology) -> None:
        """Several calls are under way, over all buckets. Nodes that lost the script get it again."""
        calls = ScriptCalls(topology, b"return KEYS[1] .. ARGV[1]", "test")
        try:
            for forgotten in (False, True):
                if forgotten:
                    for node in topology.nodes():
                        with node.commands() as redis:
                            redis.script_flush()
                expected = []
                for i in range(3 * _BUCKETS):
                    key, text = keys.epoch_key("suite", i % _BUCKETS), b"%d" % i
                    head = b"*5\r\n$7\r\nEVALSHA\r\n"
                    calls.send(key, head + b"".join(map(argument, (calls.sha, b"1", key, text))))
                    expected.append(key + text)
                assert [calls.answer() for _ in expected] == expected
            asked = [keys.epoch_key("suite", bucket) for bucket in range(_BUCKETS)]
            echo = [(key, b"*2\r\n$3\r\nGET\r\n" + argument(key)) for key in asked]
            assert calls.replies(echo) == [None] * _BUCKETS
        finally:
            calls.close()

    def test_rows_of_all_buckets_are_written_read_copied_and_dropped(self, keyspace: Keyspace) -> None:
        """With the same writers and clients that the library uses."""
        plans = PlanStore(keyspace)
        published = plans.publish(_plan(1), over=None)
        rows = RowStore(keyspace, plans)
        _write(rows, range(100))
        assert _read(keyspace, range(110)) == [*range(100), *[None] * 10]
        new = _plan(2, Field("height", Int32), previous=published.plan)
        rows.copy(published.plan.groups[0], new.groups[0])
        published = plans.publish(new, over=published)
        assert _read(keyspace, range(110)) == [*range(100), *[None] * 10]
        assert rows.drop(_plan(1).groups[0]) == 100
        assert _read(keyspace, range(100)) == list(range(100))

    def test_a_plan_is_published_over_the_one_that_was_read(self, keyspace: Keyspace) -> None:
        """If another plan was published since, the publisher gets a ConflictError."""
        plans = PlanStore(keyspace)
        assert plans.find().is_empty
        first = plans.publish(_plan(1), over=None)
        assert plans.required().plan == first.plan
        with pytest.raises(ConflictError):
            PlanStore(keyspace).publish(_plan(2), over=None)
        second = PlanStore(keyspace).publish(_plan(2, previous=first.plan), over=plans.find())
        with pytest.raises(ConflictError):
            plans.publish(_plan(3, previous=first.plan), over=first)
        assert plans.required().epoch == second.epoch

    def test_a_publisher_that_is_killed_leaves_what_can_be_published_again(self, keyspace: Keyspace) -> None:
        """The publisher is killed at each step. Meanwhile readers get the answer of one plan, or an error."""
        for at in range(1, 100):
            keyspace.unlink_all()
            plans = PlanStore(keyspace)
            old = plans.publish(_plan(1, windows=1), over=None)
            rows = RowStore(keyspace, plans)
            _write(rows, range(30))
            new = _plan(2, Field("height", Int32), windows=2, previous=old.plan)
            rows.copy(old.plan.groups[0], new.groups[0])
            interrupted: Any = _Interrupted(keyspace.topology, at, _kill)
            try:
                PlanStore(Keyspace(interrupted, "suite")).publish(new, over=old)
            except _KilledError:
                with contextlib.suppress(FeatureStoreError):
                    assert _read(keyspace, range(30)) == list(range(30))
                found = plans.find()
                assert found.plan is not None
                assert found.problem is None or isinstance(found.problem, DamagedPlanError)
                again = _plan(2, Field("height", Int32), windows=2, previous=found.plan)
                _assert_whole(keyspace, plans.publish(again, over=found))
                assert _read(keyspace, range(30)) == list(range(30))
            else:
                assert at > 1
                return
        pytest.fail("a publication has fewer steps")

    def test_of_two_publishers_one_wins(self, keyspace: Keyspace) -> None:
        """The second publisher publishes at each step of the first."""
        for at in range(1, 100):
            keyspace.unlink_all()
            plans = PlanStore(keyspace)
            old = plans.publish(_plan(1, windows=1), over=None)
            winners: list[PublishedPlan] = []

            def publish(plans: PlanStore = plans, winners: list[PublishedPlan] = winners) -> None:
                found = plans.find()
                winners.append(plans.publish(_plan(3, windows=3, previous=found.plan), over=found))

            interrupted: Any = _Interrupted(keyspace.topology, at, publish)
            with contextlib.suppress(ConflictError):
                first = PlanStore(Keyspace(interrupted, "suite"))
                winners.append(first.publish(_plan(2, windows=2, previous=old.plan), over=old))
            published = plans.required()
            assert published.epoch in [winner.epoch for winner in winners]
            _assert_whole(keyspace, published)
            if winners[0].plan.version == 2:
                return
            assert [winner.plan.version for winner in winners] == [3]
        pytest.fail("a publication has fewer steps")


def _assert_whole(keyspace: Keyspace, published: PublishedPlan) -> None:
    """Assert that a publication is complete and has the marks of all its generations, and that streams take events."""
    plans = PlanStore(keyspace)
    assert plans.required().epoch == published.epoch
    for tiles in published.plan.tiles:
        assert fence_marks.lost(keyspace, tiles) is None
        with TileStore(keyspace, plans).writer(tiles.view) as writer:
            assert writer.fences() == [{}] * published.plan.buckets


def _write(rows: RowStore, users: Sequence[int]) -> None:
    ids = np.array(users, np.int64)
    times = np.full(len(ids), _NOW_US)
    ages = {"age": Values(ids.astype(np.int32), np.zeros(len(ids), bool))}
    with rows.writer("profile") as writer:
        assert writer.write(RowBatch({"user_id": ids}, times, times, ages)).written == len(ids)


def _read(keyspace: Keyspace, users: Sequence[int]) -> list[int | None]:
    """The ages of users, as a client reads them."""
    observers = Observers(())
    pool = keyspace.topology.pool(observers, None)
    steps = Conversation(
        "suite", Offered(), observers, is_on_one_node=keyspace.topology.is_one_node
    ).get_online_features("s", {"user_id": list(users)}, ReadOptions(_NOW_US))
    try:
        step = next(steps)
        while True:
            assert isinstance(step, list), "no other request reads the plan"
            pool.exchange(step, keyspace.topology.limit())
            step = next(steps)
    except StopIteration as finished:
        ages: list[int | None] = finished.value.to_dict()["age"]
        return ages
    finally:
        pool.close()
