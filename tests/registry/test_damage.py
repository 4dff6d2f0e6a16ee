"""A registry's database with any values: methods give values or errors of this library, and read nothing too long."""

from __future__ import annotations

import copy
import json
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from feature_store.definitions import (
    Aggregation,
    DefinitionSet,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Int64,
    KafkaSource,
    OnDemandFeatureView,
    ParquetSource,
    StreamFeatureView,
)
from feature_store.errors import FeatureStoreError, RegistryError
from feature_store.registry.runs import Lease
from feature_store.registry.soundness import MOST_BYTES
from feature_store.registry.store import Registry, Version

HOUR = timedelta(hours=1)
user = Entity("user", join_key="user_id")
profile = FeatureView(
    "profile", entities=[user], ttl=HOUR, source=ParquetSource("p.parquet", event_timestamp="ts"),
    schema=[Field("age", Float32)],
)  # fmt: skip
clicks = StreamFeatureView(
    "clicks",
    entities=[user],
    source=KafkaSource("c", topic="c", event_timestamp="ts", schema=[Field("user_id", Int64), Field("n", Int64)]),
    aggregations=[Aggregation("n", "count", windows=[HOUR])],
)


def doubled(inputs):
    return {"twice": inputs["age"] * 2}


twice = OnDemandFeatureView("twice", sources=[profile[["age"]]], schema=[Field("twice", Float32)], function=doubled)
SET = DefinitionSet([profile, clicks, twice, FeatureService("s", features=[profile, clicks, twice])])
DOCUMENT = json.loads(json.dumps(SET.to_document()))
DEEP = "[" * 100_000 + "]" * 100_000
COLUMNS = [
    ("fs_versions", "version"), ("fs_versions", "author"), ("fs_versions", "applied_at"), ("fs_versions", "digest"),
    ("fs_versions", "definitions"), ("fs_registry", "id"), ("fs_rollouts", "version"), ("fs_rollouts", "state"),
    ("fs_rollouts", "reason"), ("fs_intervals", "view"), ("fs_intervals", "start_us"), ("fs_intervals", "end_us"),
    ("fs_pruning", "service"), ("fs_pruning", "made_at"), ("fs_pruning", "document"), ("fs_reports", "service"),
    ("fs_reports", "author"), ("fs_reports", "made_at"), ("fs_reports", "document"), ("fs_runs", "view"),
    ("fs_runs", "due_us"), ("fs_runs", "state"), ("fs_runs", "started_us"), ("fs_runs", "ended_us"),
    ("fs_runs", "problem"), ("fs_runs", "holder"), ("fs_runs", "lease_us"),
]  # fmt: skip
# Values that SQLite keeps in a column of any type.
values = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.sampled_from(["", "{}", "[]", "null", '"x"', "{", DEEP, '{"entities": 1}', 2**62, -(2**62), b"\xff\xfe", "x" * 70_000]),
)  # fmt: skip


class Damaged:
    """A registry with a row in every table, restored before each damage."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "registry.db"
        self.registry = Registry(f"sqlite:///{self.file}", "shop")
        self.registry.commit(SET, base=None, author="ada")
        self.registry.id()
        self.registry.note_materialized("profile", 0, 10)
        self.registry.keep_prune_record("plan", "s", "p", b"{}", "ada")
        self.registry.keep_report("skew", "s", {"differing": 0}, "ada")
        self.registry.runs.begin(Lease("profile", "ada", 20), 5, 10)
        self._kept = sqlite3.connect(":memory:")
        with sqlite3.connect(self.file) as opened:
            opened.backup(self._kept)

    def put(self, table: str, column: str, value: Any) -> None:
        opened = sqlite3.connect(self.file)
        self._kept.backup(opened)
        with opened:
            opened.execute(f"UPDATE {table} SET {column} = ?", (value,))
        opened.close()

    def steps(self) -> list[Callable[[], Any]]:
        registry = self.registry
        return [
            registry.id, registry.head, registry.latest, registry.history, registry.rollouts,
            lambda: registry.version(1), lambda: registry.version_at(datetime.now(UTC)),
            lambda: [one.served_definitions() for one in registry.history()],
            lambda: registry.materialized("profile"), lambda: registry.materialized_had_it_stayed("profile"),
            lambda: registry.prune_records("plan"), lambda: registry.reports("skew"),
            registry.runs.of_views, lambda: registry.runs.end(Lease("profile", "ada", 20), 15),
            lambda: registry.note_materialized("profile", 5, 20),
            lambda: registry.commit(DefinitionSet([profile]), base=1, author="bob"),
        ]  # fmt: skip


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Damaged]:
    made = Damaged(tmp_path_factory.mktemp("damaged"))
    yield made
    made.registry.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(COLUMNS), values)
def test_any_value_in_any_column_is_read_or_a_registry_error(
    damaged: Damaged, place: tuple[str, str], value: Any
) -> None:
    try:
        damaged.put(*place, value)
    except sqlite3.IntegrityError:  # SQLite takes NaN as NULL
        return
    for step in damaged.steps():
        try:
            step()
        except FeatureStoreError as error:
            assert len(str(error)) < 2_000


@pytest.mark.parametrize("value", [DEEP, "{", "[]", "null", b"\xff", 5])
@pytest.mark.parametrize(("table", "step"), [("fs_versions.definitions", 2), ("fs_reports.document", 11)])
def test_a_document_that_is_no_json_object_is_a_registry_error(
    damaged: Damaged, table: str, step: int, value: Any
) -> None:
    damaged.put(*table.split("."), value)
    with pytest.raises(RegistryError):
        damaged.steps()[step]()


def test_a_document_that_is_too_long_stays_in_the_database(damaged: Damaged) -> None:
    damaged.put("fs_versions", "definitions", " " * (MOST_BYTES + 1))
    tracemalloc.start()
    try:
        with pytest.raises(RegistryError, match="a text of at most"):
            damaged.registry.latest()
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES // 8
    finally:
        tracemalloc.stop()


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from places(value, (*path, key))


HOSTILE: list[Any] = [
    None, True, -1, 2**70, 10**400, 0.5, 1e308, "", "../../etc/passwd", "a b", "\x1b[31m", "x" * 100_000, [], {}, [None], {"name": "x"},
    "Array(Int64, 99999999999)", [["user", "Int64"]] * 70, [[[[[[[[]]]]]]]],
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(places(DOCUMENT))), st.sampled_from(["put", "drop", "rename"]), st.sampled_from(HOSTILE))
def test_any_definitions_are_read_or_refused(path: tuple[Any, ...], how: str, value: Any) -> None:
    document = copy.deepcopy(DOCUMENT)
    node = document
    for step in path[:-1]:
        node = node[step]
    if how == "put":
        node[path[-1]] = value
    elif how == "drop":
        del node[path[-1]]
    elif isinstance(node, dict):
        node["a b\n"] = node.pop(path[-1])
    version = Version(1, "ada", datetime.now(UTC), "d", document)
    try:
        version.served_definitions()
    except RegistryError as error:
        assert len(str(error)) < 2_000
