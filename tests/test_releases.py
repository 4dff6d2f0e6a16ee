"""Releases: what `plan` finds before anything is committed, what a failed apply leaves, and the way back."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.definitions.on_demand import legacy_digest
from feature_store.engines.local.engine import LocalEngine
from feature_store.errors import DataError, NotFoundError, RefusedError
from feature_store.online import OnlineStore

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.now(UTC) - timedelta(hours=1)
HEAD = """from feature_store import *
product, user = Entity("product", dtype=Int64), Entity("user", dtype=Int64)
"""
STATS = """
stats = FeatureView("stats", entities=[product], source=ParquetSource("stats.parquet", event_timestamp="at"),
    schema=[Field("price", Float32)])
"""
USERS = """
users = FeatureView("users", entities=[user], source=ParquetSource("users.parquet", event_timestamp="at"),
    schema=[Field("age", Int32)])
"""
MORE = """
more = FeatureView("more", entities=[product], source=ParquetSource("stats.parquet", event_timestamp="at"),
    schema=[Field("clicks", Int64)])
clicked = FeatureService("clicked", features=[more])
"""
RANKING = 'ranking = FeatureService("ranking", features=[stats, users])\n'
FIRST = HEAD + STATS + USERS + RANKING
WIDER = FIRST.replace('Field("price", Float32)', 'Field("price", Float32), Field("clicks", Int64)')


@pytest.fixture
def folder(tmp_path: Path, redis_url: str) -> Path:
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {redis_url}\n")
    times = pa.array([NOW] * 2, pa.timestamp("us", "UTC"))
    pq.write_table(
        pa.table({"product": [1, 2], "at": times, "price": [1.5, 2.5], "clicks": [10, 20]}), tmp_path / "stats.parquet"
    )
    pq.write_table(pa.table({"user": [1, 2], "at": times, "age": [30, 40]}), tmp_path / "users.parquet")
    return define(tmp_path, FIRST)


def define(folder: Path, text: str) -> Path:
    (folder / "features.py").write_text(text)
    return folder


def served(store: FeatureStore, service: str = "ranking") -> dict[str, list[Any]]:
    return store.get_online_features(service, {"product": 1, "user": 1}).to_dict()


def touch(folder: Path, user: int, age: int) -> None:
    """Write one row of users, newer than the rows before."""
    at = pa.array([datetime.now(UTC)], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"user": [user], "at": at, "age": [age]}), folder / "users.parquet")


# -- before anything is committed ----------------------------------------------------------------------------------


def test_a_plan_makes_no_registry(folder: Path) -> None:
    with FeatureStore(folder) as store:
        assert len(store.plan().changes) == 5
    assert not (folder / ".feature_store").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (FIRST.replace('"price"', '"weight"'), "column weight"),
        (FIRST.replace('"price", Float32', '"price", Timestamp'), "column price"),
        (FIRST.replace('stats.parquet", event_timestamp="at"', 'stats.parquet", event_timestamp="when"'), "column when"),
        (FIRST.replace("stats.parquet", "http://127.0.0.1:9/stats.parquet"), "the store cannot be read"),
        (FIRST.replace("stats.parquet", "delta"), "Delta Lake"),
        (FIRST.replace("stats.parquet", "delta/**/*.parquet"), "Delta Lake"),
        (FIRST.replace("stats.parquet", "iceberg"), "Iceberg"),
        (FIRST.replace("[product], source", """[product], sql='SELECT product, "at", prize AS price FROM source', source"""), "prize"),
        (FIRST.replace("[product], source", """[product], sql='SELECT product, "at" FROM source', source"""), "column price"),
        (FIRST.replace("[product], source", '[product], sql="SELEC", source'), "stats.sql"),
    ],
)  # fmt: skip
def test_what_a_source_does_not_hold_is_refused_by_plan_and_apply(folder: Path, text: str, says: str) -> None:
    for table, log in (("delta", "_delta_log/0.json"), ("iceberg", "metadata/v1.metadata.json")):
        (folder / table / log).parent.mkdir(parents=True)
        (folder / table / log).touch()
        (folder / table / "part.parquet").write_bytes((folder / "stats.parquet").read_bytes())
    with FeatureStore(define(folder, text)) as store:
        (refused,) = store.plan().refused
        assert refused.name == "stats"
        assert says in refused.reason
        with pytest.raises(RefusedError, match="FeatureView stats"):
            store.apply()
        assert store.registry.history(withdrawn=True) == []
        assert store.online.published() is None
        assert not store.plan(check_sources=False).refused


def test_a_table_of_another_format_is_refused_by_materialize_too(folder: Path) -> None:
    (folder / "delta" / "_delta_log").mkdir(parents=True)
    (folder / "delta" / "part.parquet").write_bytes((folder / "stats.parquet").read_bytes())
    with FeatureStore(define(folder, FIRST.replace("stats.parquet", "delta"))) as store:
        store.apply(check_sources=False)
        with pytest.raises(DataError, match="Delta Lake"):
            store.materialize(views=["stats"])
        assert store.materialize(views=["users"])[0].written == 2


def test_definitions_may_be_applied_before_there_are_data(folder: Path) -> None:
    (folder / "stats.parquet").unlink()
    with FeatureStore(folder) as store:
        plan = store.plan()
        assert not plan.refused
        assert "stats has no files yet" in str(plan)
        store.apply()


def test_a_change_that_does_not_touch_the_source_is_not_refused_for_it(folder: Path) -> None:
    with FeatureStore(folder) as store:
        store.apply()
        (folder / "stats.parquet").write_bytes((folder / "users.parquet").read_bytes())
        define(folder, FIRST.replace("[product], source", '[product], owner="me", source'))
        assert "does not fit it" in str(store.plan())
        store.apply()


# -- an apply that fails or is killed --------------------------------------------------------------------------------


def fail_at(monkeypatch: pytest.MonkeyPatch, home: type, name: str, error: BaseException) -> None:
    def fail(*_args: Any, **_about: Any) -> None:
        raise error

    monkeypatch.setattr(home, name, fail)


@pytest.mark.parametrize(("home", "step"), [(LocalEngine, "stage"), (LocalEngine, "write"), (OnlineStore, "copy_rows")])
def test_an_apply_that_fails_leaves_what_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, home: type, step: str
) -> None:
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize()
        stored = store.online.statistics()
        define(folder, WIDER)
        with monkeypatch.context() as patched:
            fail_at(patched, home, step, DataError("the source", problem="breaks"))
            with pytest.raises(DataError, match="breaks"):
                store.apply()
        assert store.online.require_published().plan.version == 1
        assert not store.online.require_published().plan.filling
        assert store.online.statistics() == stored
        newest = store.registry.latest()
        assert newest is not None
        assert newest.version == 1
        assert {number: one.state for number, one in store.registry.rollouts().items()} == {2: "withdrawn"}
        assert [change.effect for change in store.plan().changes] == ["rewrites", "safe"]
        touch(folder, 1, 31)
        assert store.materialize(views=["users"])[0].written == 1
        assert served(store) == {"price": [1.5], "age": [31]}
        assert store.apply().version.version == 3, "the number of a version that was withdrawn is not used again"
        assert store.get_online_features(["stats:clicks"], {"product": [1, 2]}).to_dict() == {"clicks": [10, 20]}
        assert store.registry.rollouts().keys() == {2}


class Killed(BaseException):
    pass


def test_a_killed_apply_is_told_of_and_finished_and_stops_no_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize()
        define(folder, WIDER)
        with monkeypatch.context() as patched:
            fail_at(patched, LocalEngine, "write", Killed())
            with pytest.raises(Killed):
                store.apply()
        plan = store.plan()
        assert (plan.changes, plan.unfinished, plan.is_empty) == ((), 2, False)
        assert "version 2 was stopped" in str(plan)
        touch(folder, 1, 32)
        assert store.materialize(views=["users"])[0].written == 1
        assert store.materialize(views=["stats"])[0].view == "stats"
        assert served(store)["age"] == [32]
        assert store.apply().version.version == 2
        assert store.plan().is_empty
        assert store.get_online_features(["stats:clicks"], {"product": [1, 2]}).to_dict() == {"clicks": [10, 20]}


def test_another_apply_takes_the_place_of_a_killed_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize()
        stored = store.online.statistics()
        define(folder, WIDER)
        with monkeypatch.context() as patched:
            fail_at(patched, LocalEngine, "write", Killed())
            with pytest.raises(Killed):
                store.apply()
        define(folder, FIRST)
        assert "this apply replaces it" in str(store.plan())
        store.apply(allow_destructive=True)
        assert store.online.statistics() == stored
        assert store.plan().is_empty
        assert served(store) == {"price": [1.5], "age": [30]}


def test_a_registry_of_before_rollouts_were_noted_is_read(folder: Path) -> None:
    with FeatureStore(folder) as store:
        store.apply()
    with sqlite3.connect(folder / ".feature_store" / "registry.db") as connection:
        for table in ("fs_rollouts", "fs_runs"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("DROP TABLE fs_schema")
    connection.close()
    with FeatureStore(folder) as store:
        assert store.plan().is_empty
        define(folder, WIDER)
        assert store.apply().version.version == 2


# -- what is destructive, and what is said ---------------------------------------------------------------------------


def test_a_view_added_to_rows_is_filled_before_it_is_served(folder: Path) -> None:
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize()
        define(folder, FIRST + MORE)
        (added,) = (change for change in store.plan().changes if change.name == "more")
        assert "filled for the intervals of its other views" in added.reason
        store.apply()
        assert served(store, "clicked") == {"clicks": [10]}
        assert store.materialize(views=["more"])[0].written == 0, "what was filled is not read again"


def test_what_is_destructive_is_done_only_when_allowed(folder: Path) -> None:
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize()
        define(folder, HEAD + STATS + 'ranking = FeatureService("ranking", features=[stats])\n')
        assert [(change.kind, change.name) for change in store.plan().destructive] == [
            ("FeatureView", "users"),
            ("FeatureService", "ranking"),
        ]
        with pytest.raises(RefusedError, match=r"2 destructive.*allow_destructive=True.*--yes"):
            store.apply()
        assert served(store) == {"price": [1.5], "age": [30]}
        store.apply(allow_destructive=True)
        assert served(store) == {"price": [1.5]}


def test_a_plan_that_deletes_names_the_files_that_were_not_read(folder: Path) -> None:
    (folder / "factory.py").write_text("from features import *\nmade = print\n")
    with FeatureStore(folder) as store:
        assert not store.plan().notes
        store.apply()
        define(folder, HEAD + STATS)
        assert "factory.py" in str(store.plan())


# -- the way back ----------------------------------------------------------------------------------------------------


def test_a_rollback_is_a_new_version_with_the_old_definitions(folder: Path) -> None:
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize()
        define(folder, HEAD + STATS + 'ranking = FeatureService("ranking", features=[stats])\n')
        store.apply(allow_destructive=True)
        assert [change.name for change in store.plan_rollback(1).changes] == ["users", "ranking"]
        applied = store.rollback(1)
        assert applied.version.version == 3
        assert applied.version.document == store.registry.version(1).document
        store.materialize()
        assert served(store) == {"price": [1.5], "age": [30]}
        with pytest.raises(NotFoundError):
            store.rollback(9)


FUNCTION = """
@on_demand_feature_view(sources=[stats[["price"]]], schema=[Field("double", Float32)])
def doubled(inputs):
    return {"double": inputs["price"] * 2}
"""


def test_a_rollback_knows_the_code_by_the_digest_of_an_earlier_release(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FeatureStore(define(folder, FIRST + FUNCTION)) as store:
        with monkeypatch.context() as before:
            before.setattr(
                "feature_store.definitions.on_demand.code_digest", lambda function, _: legacy_digest(function)
            )
            store.apply()
        assert store.registry.version(1).definitions().on_demand_feature_views["doubled"].digest.startswith("source:")
        define(folder, WIDER + FUNCTION)
        store.apply()
        assert store.rollback(1, allow_destructive=True).version.version == 3


def test_a_rollback_needs_the_code_and_the_data_of_that_version(folder: Path) -> None:
    with FeatureStore(define(folder, FIRST + FUNCTION)) as store:
        store.apply()
        define(folder, FIRST + FUNCTION.replace("* 2", "* 3"))
        store.apply()
        with pytest.raises(RefusedError, match=r"other code for on-demand view doubled.*definition files of version 1"):
            store.rollback(1)
        define(folder, WIDER)
        store.apply(allow_destructive=True)
        with pytest.raises(RefusedError, match="no code for on-demand view doubled"):
            store.rollback(2)
        define(folder, FIRST)
        store.apply(allow_destructive=True)
        (folder / "stats.parquet").write_bytes((folder / "users.parquet").read_bytes())
        with pytest.raises(RefusedError, match="column"):
            store.rollback(3)
