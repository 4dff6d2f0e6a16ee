"""The users of docs/security.md, on a real server: each can do all the work of its role, and nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from feature_store import FeatureStore
from feature_store.errors import OnlineStoreError
from tests.online.clients import CLIENTS
from tests.servers import RedisServer, redis_server
from tests.streaming.streaming_worlds import DEFINITIONS, has_read, make_topic, send, some_clicks, value_of, work

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
USERS = {name: text.split() for name, text in re.findall(r"```acl (\w+)\n(.*?)```", PAGE.read_text(), re.S)}
NOW = datetime.now(UTC)
BATCH = """
profile = FeatureView("profile", entities=[user], source=ParquetSource("profile.parquet", event_timestamp="at"),
    ttl=timedelta(days=9), schema=[Field("age", Int32), Field("name", String)])
@on_demand_feature_view(sources=[profile[["age"]]], schema=[Field("months", Float32)])
def months(inputs):
    return {"months": inputs["age"] * 12.0}
ranking = FeatureService("ranking", features=[profile, months, by_user])
"""


@pytest.fixture(scope="module", params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    binary = "" if request.param == "valkey" else "/usr/bin/redis-server"
    with redis_server(binary=binary) as server, redis.Redis.from_url(server.url) as admin:
        for line in USERS.values():
            admin.execute_command(*_with_selectors(line))
        yield server


def _with_selectors(words: list[str]) -> list[str]:
    """The words of a command line. Text in brackets is one word."""
    return [word.strip() for word in re.findall(r"\([^)]*\)|\S+", " ".join(words))]


def url_of(server: RedisServer, role: str) -> str:
    return f"unix://{role}:{role}-password@{server.socket}"


def project(folder: Path, url: str, bootstrap: str, definitions: str = DEFINITIONS + BATCH) -> FeatureStore:
    (folder / "feature_store.yaml").write_text(
        f"project: shop\nonline_store: {{url: '{url}'}}\nkafka: {{bootstrap.servers: '{bootstrap}'}}\n"
    )
    (folder / "features.py").write_text(definitions.replace("HISTORY", "None"))
    return FeatureStore(folder)


def refused(server: RedisServer, role: str, denied: list[str]) -> Iterator[str]:
    """The commands among `denied` that a user can run nevertheless."""
    with redis.Redis.from_url(url_of(server, role)) as client:
        for command in denied:
            try:
                client.execute_command(*command.split())
            except redis.exceptions.NoPermissionError:
                continue
            except redis.ResponseError as error:  # the error of a command inside a script
                if "permission" in str(error) or "can't run" in str(error):
                    continue
            yield command


NOBODY = ["FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG SET maxmemory 1", "ACL LIST", "MONITOR", "SET other 1", "GET other", "MGET {xshop:0}plan", "DEL {xshop:0}plan", "SHUTDOWN NOSAVE"]  # fmt: skip
SCRIPTED = "EVAL return(redis.call('SET',KEYS[1],'x')) 1 "
DENIED = {
    "serving": ["SET {shop:0}plan x", "SET {shop:0}r:user:1:1 x", "DEL {shop:0}plan", "SCAN 0", "EVAL return(1) 0", "INFO"],
    "materialize": ["SET {shop:0}plan x", "SET {shop:0}epoch x", f"{SCRIPTED}{{shop:0}}plan", "SET {shop:0}t:by_user:1:1 x", f"{SCRIPTED}{{shop:0}}f:by_user:1"],
    "stream": ["SET {shop:0}plan x", "SET {shop:0}epoch x", f"{SCRIPTED}{{shop:0}}plan", "SET {shop:0}r:user:1:1 x", f"{SCRIPTED}{{shop:0}}r:user:1:1"],
    "apply": [],
    "doctor": ["SET {shop:0}plan x", "DEL {shop:0}plan", "UNLINK {shop:0}plan", f"{SCRIPTED}{{shop:0}}plan", "HSET {shop:0}f:by_user:1 a b"],
}  # fmt: skip


def test_each_role_does_its_work_and_no_other(server: RedisServer, kafka: str, tmp_path: Path) -> None:
    make_topic(kafka, "clicks", 2)
    clicks = some_clicks(200, users=20, seed=1, start_us=time.time_ns() // 1000 - 3_600_000_000)
    send(kafka, "clicks", [value_of(click) for click in clicks], 2)
    table = pa.table({"user_id": [1, 2], "at": [NOW] * 2, "age": pa.array([30, None], pa.int32()), "name": ["a", "b"]})
    pq.write_table(table, tmp_path / "profile.parquet")

    with project(tmp_path, url_of(server, "apply"), kafka) as store:
        store.apply()
    with project(tmp_path, url_of(server, "materialize"), kafka) as store:
        store.materialize()
        store.push("profile", table)
    with project(tmp_path, url_of(server, "stream"), kafka) as store:
        work(store, has_read(200), timeout_s=30)
    for kind in CLIENTS.values():
        client = kind(url_of(server, "serving"), "shop", definitions=tmp_path / "features.py")
        for options in ({}, {"deadline_ms": 10_000}):
            found = client.get_online_features("ranking", {"user_id": [1, 2]}, **options).to_dict()
            assert found["months"] == [360.0, None] and found["name"] == ["a", "b"]
            assert max(found["price_count_7d"]) > 0
        client.close()
    with project(tmp_path, url_of(server, "doctor"), kafka) as store:
        failed = [finding for finding in store.monitoring.diagnose() if finding.state == "failed"]
        assert not [one for one in failed if "permission" in str(one).lower() or "NOPERM" in str(one)], failed
        store.monitoring.freshness()
    # Another layout: apply copies and fills rows of a new generation, and deletes the old ones.
    more = (DEFINITIONS + BATCH).replace('Field("age", Int32)', 'Field("age", Int32), Field("size", Float32)')
    pq.write_table(table.append_column("size", pa.array([1.0, 2.0], pa.float32())), tmp_path / "profile.parquet")
    with project(tmp_path, url_of(server, "apply"), kafka, more) as store:
        store.apply()
        assert store.get_online_features("ranking", {"user_id": 1}).to_dict()["size"] == [1.0]
        store.delete("user", {"user_id": 1})
        store.teardown()
    with redis.Redis.from_url(server.url) as admin:
        assert not list(admin.scan_iter("{shop:*"))


@pytest.mark.parametrize("role", sorted(DENIED))
def test_what_a_role_must_not_do_is_refused(server: RedisServer, role: str) -> None:
    assert list(refused(server, role, [*NOBODY, *DENIED[role]])) == []


def test_a_client_without_permission_says_so(server: RedisServer) -> None:
    from feature_store.online import OnlineClient

    with OnlineClient(url_of(server, "serving"), "another") as client, pytest.raises(OnlineStoreError) as raised:
        client.plan()
    assert "ACL" in str(raised.value)
    assert "serving-password" not in str(raised.value)


def test_roles_of_one_page(server: RedisServer) -> None:
    assert USERS.keys() == DENIED.keys() == {"serving", "materialize", "stream", "apply", "doctor"}
