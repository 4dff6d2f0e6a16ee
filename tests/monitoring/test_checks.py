from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from feature_store.definitions import (
    Aggregation,
    DefinitionSet,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Int32,
    Int64,
    KafkaSource,
    StreamFeatureView,
    on_demand_feature_view,
)
from feature_store.monitoring import checks
from feature_store.monitoring.freshness import freshness_report
from feature_store.online.newest import Newest
from feature_store.registry.compile import compile_plan

HOUR = timedelta(hours=1)
INFO = {
    "redis_version": "7.2.4",
    "role": "master",
    "used_memory": 10_000_000,
    "maxmemory": 100_000_000,
    "maxmemory_policy": "noeviction",
    "total_system_memory": 1_000_000_000,
    "connected_clients": 5,
    "maxclients": 100,
}


def states(findings: Any) -> list[str]:
    return [finding.state for finding in findings]


@pytest.mark.parametrize(
    ("told", "ping_us", "found", "says"),
    [
        ({}, 100, ["ok"], "redis 7.2.4 at redis://here, round trip 100 µs"),
        ({"server_name": "valkey", "valkey_version": "9.1.2"}, 100, ["ok"], "valkey 9.1.2"),
        ({"redis_version": "6.2.14"}, 100, ["failed"], "Redis 7.0 or later"),
        ({"role": "slave"}, 100, ["failed"], "needs the primary|writes need the primary"),
        ({}, 9000, ["warning"], "closer"),
        ({"rejected_connections": 3}, 100, ["ok", "warning"], "3 connections were refused"),
        ({"connected_clients": 95}, 100, ["ok", "warning"], "95 of at most 100"),
    ],
)
def test_the_server(told: dict[str, Any], ping_us: float, found: list[str], says: str) -> None:
    findings = list(checks.of_server(INFO | told, "redis://here", ping_us))
    assert states(findings) == found
    assert any(part in finding.about + finding.hint for finding in findings for part in says.split("|"))


@pytest.mark.parametrize(
    ("told", "expire_keys", "found", "says"),
    [
        ({}, False, ["ok"], "10.0 MB used of 100 MB, noeviction"),
        ({"maxmemory": 0}, False, ["ok"], "the machine's 1,000 MB"),
        ({"maxmemory_policy": "allkeys-lru"}, False, ["failed"], "noeviction"),
        ({"maxmemory_policy": "volatile-lru"}, False, ["ok"], "volatile"),
        ({"maxmemory_policy": "volatile-lru"}, True, ["failed"], "evict any row"),
        ({"used_memory": 95_000_000}, False, ["warning"], "raise maxmemory"),
        ({"used_memory": 800_000_000, "maxmemory": 0}, False, ["warning"], "set maxmemory"),
        ({"evicted_keys": 7}, False, ["ok", "failed"], "7 keys were evicted"),
    ],
)
def test_memory(told: dict[str, Any], expire_keys: bool, found: list[str], says: str) -> None:
    findings = list(checks.of_memory(INFO | told, expire_keys=expire_keys))
    assert states(findings) == found
    assert any(says in finding.about + finding.hint for finding in findings)


@pytest.mark.parametrize(
    ("told", "append_only", "save", "found"),
    [
        ({}, "yes", "", ["ok"]),
        ({}, "no", "3600 1", ["ok"]),
        ({}, None, None, ["ok"]),
        ({}, "no", "", ["warning"]),
        ({"rdb_last_bgsave_status": "err"}, "no", "3600 1", ["failed", "ok"]),
        ({"aof_last_write_status": "err"}, "yes", "", ["failed", "ok"]),
    ],
)
def test_persistence(told: dict[str, Any], append_only: str | None, save: str | None, found: list[str]) -> None:
    assert states(checks.of_persistence(INFO | told, append_only, save)) == found


user = Entity("user", join_key="user_id")
events = KafkaSource("e", topic="events", event_timestamp="ts", schema=[Field("user_id", Int64), Field("n", Int64)])
profile = FeatureView("profile", entities=[user], ttl=HOUR, freshness=HOUR, schema=[Field("a", Int32)])
counts = StreamFeatureView(
    "counts", entities=[user], source=events, aggregations=[Aggregation("n", "count", windows=[HOUR])]
)


@on_demand_feature_view(sources=[profile], schema=[Field("b", Float32)])
def double(inputs):
    return {"b": inputs["a"] * 2}


PLAN = compile_plan(
    DefinitionSet([profile, counts, double, FeatureService("s", features=[profile, double])]), project="p", version=3
)


def test_a_plan_as_the_registry_has_it() -> None:
    assert states(checks.of_plan(PLAN, PLAN)) == ["ok"]


@pytest.mark.parametrize(
    ("published", "state", "says"),
    [
        (replace(PLAN, version=2), "failed", "the registry's newest is 3"),
        (replace(PLAN, groups=()), "failed", "row layouts"),
        (replace(PLAN, tiles=()), "failed", "windows"),
        (replace(PLAN, transforms=(replace(PLAN.transforms[0], digest="x"),)), "failed", "code of double"),
        (replace(PLAN, services=()), "failed", "services"),
        (replace(PLAN, buckets=4), "failed", "buckets (4, configured 1)"),
        (replace(PLAN, expire_keys=True), "failed", "ttls or settings"),
        (replace(PLAN, filling=PLAN.groups), "warning", "being filled"),
        (replace(PLAN, filling_tiles=PLAN.tiles), "ok", "as in the registry"),
        (replace(PLAN, retired=PLAN.groups), "ok", "as in the registry"),
    ],
)
def test_a_plan_that_is_not_settled_or_differs(published: Any, state: str, says: str) -> None:
    first, *others = checks.of_plan(published, PLAN)
    assert first.state == state
    assert says in first.about
    assert first.hint or state == "ok"
    assert all(other.state == "warning" and other.hint for other in others)
    assert len(others) == bool(published.filling_tiles or published.retired)


def test_no_version() -> None:
    (found,) = checks.of_plan(PLAN, None)
    assert (found.state, found.about) == ("failed", "version 3 is served, the registry's newest is none")


def test_freshness() -> None:
    now = 1_700_000_000_000_000
    old = freshness_report([profile, counts], {"profile": Newest(now - 7_300_000_000, 1, True)}, {}, at_us=now)
    (found,) = checks.of_freshness(old)
    assert (found.state, found.about) == ("failed", "profile: 2h 1m old, declared 1h, ttl 1h")
    new = freshness_report([profile, counts], {"profile": Newest(now, 1, True)}, {}, at_us=now)
    assert [found.about for found in checks.of_freshness(new)] == [
        "1 of 2 views declare a freshness, and all are fresh"
    ]
    assert states(checks.of_freshness(freshness_report([counts], {}, {}, at_us=now))) == ["ok"]


def test_topics_and_lag() -> None:
    findings = list(checks.of_topics({"a": ["x", "y"], "b": ["z"]}, {"a": [0, 1]}))
    assert states(findings) == ["ok", "failed"]
    assert findings[0].about == "topic a: 2 partitions, read by x, y"
    assert [checks.of_lag("v", *lag).state for lag in ((0, 0), (10_000, 0), (10_001, 0), (0, 1))] == [
        "ok",
        "ok",
        "warning",
        "failed",
    ]


def test_rows() -> None:
    about = {"rows": 0, "row_bytes": 10, "bytes": 0}
    found = list(checks.of_rows({"user": about, "counts": about, "shop": about | {"rows": 1}}, ["counts"]))
    assert states(found) == ["warning", "warning", "ok"]
    assert ["materialize" in one.hint for one in found] == [True, False, False]


@pytest.mark.parametrize(
    ("ahead_s", "about"),
    [(0.2, None), (-4, None), (3 * 86400, "3d ahead of"), (-3600, "1h behind")],
)
def test_clocks_that_are_apart_are_told(ahead_s: float, about: str | None) -> None:
    found = list(checks.of_clock(int(ahead_s * 1e6)))
    if about is None:
        assert found == []
    else:
        assert found[0].state == "warning"
        assert about in found[0].about
