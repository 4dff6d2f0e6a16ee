from __future__ import annotations

import getpass
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_store.definitions import DefinitionSet, Entity, FeatureView, Field, Int32, Int64
from feature_store.errors import ConflictError, FeatureStoreError, MissingDependencyError, NotFoundError, RegistryError
from feature_store.registry.store import Registry, current_author

user = Entity("user", join_key="user_id")


def definitions(field: str = "age") -> DefinitionSet:
    return DefinitionSet([FeatureView("profile", entities=[user], schema=[Field(field, Int32)])])


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/deep/er/registry.db"


@pytest.fixture
def sqlite_registry(sqlite_url: str) -> Iterator[Registry]:
    opened = Registry(sqlite_url, "shop")
    yield opened
    opened.close()


@pytest.fixture
def url(database_url: str) -> str:
    return database_url


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    opened = Registry(url, "shop")
    yield opened
    opened.close()


def test_an_empty_registry_has_no_version(registry: Registry) -> None:
    assert registry.latest() is None
    assert registry.history() == []
    assert registry.head() is None
    with pytest.raises(NotFoundError):
        registry.version(1)


def test_versions_are_numbered_and_kept(registry: Registry) -> None:
    first = registry.commit(definitions("age"), base=None, author="ada")
    second = registry.commit(definitions("height"), base=1, author="bob")
    assert registry.head() == (2, second.digest)
    assert (first.version, second.version) == (1, 2)
    assert [(version.version, version.author) for version in registry.history()] == [(2, "bob"), (1, "ada")]
    assert registry.latest() == second
    assert registry.version(1) == first
    assert first.applied_at.utcoffset() is not None
    assert first.digest != second.digest


def test_the_definitions_come_back_as_they_were_committed(registry: Registry) -> None:
    committed = registry.commit(definitions(), base=None, author="ada")
    assert committed.definitions().to_document() == definitions().to_document()


def test_the_same_definitions_make_no_new_version(registry: Registry) -> None:
    first = registry.commit(definitions(), base=None, author="ada")
    assert registry.commit(definitions(), base=1, author="bob") == first


@pytest.mark.parametrize("base", [None, 2])
def test_a_commit_on_another_base_is_a_conflict_that_says_whose_version_came_first(
    registry: Registry, base: int | None
) -> None:
    registry.commit(definitions(), base=None, author="ada")
    with pytest.raises(ConflictError, match=r"version is 1, by ada at 20\d\d-"):
        registry.commit(definitions("height"), base=base, author="bob")


def test_projects_in_one_database_do_not_see_each_other(registry: Registry, url: str) -> None:
    registry.commit(definitions(), base=None, author="ada")
    other = Registry(url, "xshop")
    other.commit(definitions("height"), base=None, author="bob")
    for one in (registry, other):
        one.note_materialized("profile", 0, 10)
    registry.teardown()
    assert (registry.latest(), registry.materialized_had_it_stayed("profile")) == (None, [])
    assert [version.author for version in other.history()] == ["bob"]
    assert other.materialized_had_it_stayed("profile") == [(0, 10)]
    other.close()


def test_materialized_intervals_are_a_sorted_union(registry: Registry) -> None:
    for start, end in [(50, 60), (0, 10), (10, 20), (15, 17), (58, 70), (30, 31)]:
        registry.note_materialized("profile", start, end)
    assert registry.materialized_had_it_stayed("profile") == [(0, 20), (30, 31), (50, 70)]


def test_a_restored_view_lacks_the_intervals_that_others_were_materialized_for(registry: Registry) -> None:
    for view, start, end in [("a", 0, 5), ("a", 0, 10), ("b", 0, 10), ("b", 8, 20), ("c", 30, 40)]:
        registry.note_materialized(view, start, end)
    assert registry.materialized_had_it_stayed("a") == [(0, 20), (30, 40)]
    assert registry.materialized_had_it_stayed("c") == [(30, 40)]
    assert registry.materialized_had_it_stayed("d") == [], "it was never materialized"


def test_intervals_that_earlier_releases_recorded_are_history(sqlite_registry: Registry, sqlite_url: str) -> None:
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        rows = [("shop", "profile", 1, 0, 10), ("shop", "profile", 4, 10, 30)]
        connection.executemany("INSERT INTO fs_intervals VALUES (?, ?, ?, ?, ?)", rows)
    connection.close()
    sqlite_registry.note_materialized("profile", 30, 40)
    assert sqlite_registry.materialized_had_it_stayed("profile") == [(0, 40)]


def test_threads_lose_no_progress(registry: Registry) -> None:
    failures: list[BaseException] = []

    def record(first: int) -> None:
        try:
            for i in range(first, 40, 4):
                registry.note_materialized("profile", i * 10, i * 10 + 10)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=record, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert registry.materialized_had_it_stayed("profile") == [(0, 400)]


COMMIT = """
import sys
from feature_store.definitions import DefinitionSet, Entity, FeatureView, Field, Int32
from feature_store.errors import ConflictError
from feature_store.registry.store import Registry
url, author, base = sys.argv[1], sys.argv[2], int(sys.argv[3]) or None
made = DefinitionSet([FeatureView("profile", entities=[Entity("user")], schema=[Field(author, Int32)])])
print("ready", flush=True)
sys.stdin.readline()
registry = Registry(url, "shop")
try:
    registry.commit(made, base=base, author=author)
    print("won")
except ConflictError as error:
    print("lost:", error)
registry.close()
"""


@pytest.mark.parametrize("base", [0, 1])
def test_of_processes_that_commit_at_once_exactly_one_wins(url: str, base: int) -> None:
    if base:
        registry = Registry(url, "shop")
        registry.commit(definitions(), base=None, author="first")
        registry.close()
    authors = [f"author_{i}" for i in range(4)]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", COMMIT, url, author, str(base)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for author in authors
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    results = [racer.communicate(timeout=60)[0].strip() for racer in racers]
    winner = [author for author, result in zip(authors, results, strict=True) if result == "won"]
    assert len(winner) == 1
    assert all(result == "won" or f"by {winner[0]}" in result for result in results)
    registry = Registry(url, "shop")
    assert registry.version(base + 1).author == winner[0]
    assert len(registry.history()) == (2 if base else 1)
    registry.close()


def test_threads_that_commit_at_once_agree_on_one_winner(registry: Registry) -> None:
    barrier, outcomes = threading.Barrier(4), []

    def commit(i: int) -> None:
        barrier.wait()
        try:
            outcomes.append(registry.commit(definitions(f"field_{i}"), base=None, author=f"author_{i}"))
        except ConflictError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=commit, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(not isinstance(outcome, ConflictError) for outcome in outcomes) == 1
    assert len(outcomes) == 4


def test_sqlite_can_be_read_during_a_write(sqlite_registry: Registry, sqlite_url: str) -> None:
    sqlite_registry.commit(definitions(), base=None, author="ada")
    writer = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    try:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE fs_versions SET author = 'eve'")
        assert [version.author for version in sqlite_registry.history()] == ["ada"]
        writer.execute("ROLLBACK")
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        writer.close()


def test_a_file_that_is_no_database_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_text("this is not a database" * 100)
    with pytest.raises(RegistryError, match=r"registry\.db"):
        Registry(f"sqlite:///{tmp_path}/registry.db", "shop").latest()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError):
        Registry(f"sqlite:///{tmp_path}/file/registry.db", "shop").latest()


@pytest.mark.parametrize("url", ["not a url with :s3cret@", "nosuch://user:s3cret@host/db"])
def test_a_wrong_url_is_an_error_that_hides_the_password(url: str) -> None:
    with pytest.raises(RegistryError) as caught:
        Registry(url, "shop")
    assert "s3cret" not in str(caught.value)


def test_a_missing_driver_is_an_error_that_says_what_to_install() -> None:
    with pytest.raises(MissingDependencyError, match="pip"):
        Registry("postgresql+pg8000://user:s3cret@localhost/db", "shop")


def test_a_document_of_another_release_is_an_error(sqlite_registry: Registry, sqlite_url: str) -> None:
    sqlite_registry.commit(definitions(), base=None, author="ada")
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE fs_versions SET definitions = ?", [json.dumps({"entities": {}})])
    connection.close()
    newest = sqlite_registry.latest()
    assert newest is not None
    with pytest.raises(FeatureStoreError, match="version 1"):
        newest.definitions()


def test_the_environment_can_name_the_author(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURE_STORE_AUTHOR", "ada")
    assert current_author() == "ada"
    monkeypatch.delenv("FEATURE_STORE_AUTHOR")
    assert "@" in current_author()


def test_a_user_without_a_name_is_an_author(monkeypatch: pytest.MonkeyPatch) -> None:
    def getuser() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.delenv("FEATURE_STORE_AUTHOR", raising=False)
    monkeypatch.setattr(getpass, "getuser", getuser)
    assert current_author().startswith("uid-")


def test_large_numbers_of_microseconds_survive(registry: Registry) -> None:
    end = 253_402_300_799_999_999  # the last microsecond of year 9999
    registry.note_materialized("profile", -62_135_596_800_000_000, end)
    assert registry.materialized_had_it_stayed("profile") == [(-62_135_596_800_000_000, end)]


def test_dtypes_survive(registry: Registry) -> None:
    made = DefinitionSet([Entity("user", join_key="user_id", dtype=Int64)])
    assert registry.commit(made, base=None, author="ada").definitions().entities == made.entities


def test_the_last_report_of_a_service_is_kept(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'r.db'}", "p")
    registry.keep_report("skew", "a", {"differing": 1}, "ada")
    registry.keep_report("skew", "a", {"differing": 2}, "bob")
    registry.keep_report("skew", "b", {"differing": 0}, "ada")
    registry.keep_report("other", "a", {}, "ada")
    found = registry.reports("skew")
    assert {name: (one.author, one.document) for name, one in found.items()} == {
        "a": ("bob", {"differing": 2}),
        "b": ("ada", {"differing": 0}),
    }
    assert Registry(f"sqlite:///{tmp_path / 'r.db'}", "q").reports("skew") == {}
    registry.teardown()
    assert registry.reports("skew") == {}
