"""Databases of earlier releases are migrated when they are opened, and those of later ones are refused.

`earlier/*.sql` are dumps of SQLite files that the earlier code itself wrote.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from feature_store.definitions import DefinitionSet, Entity
from feature_store.errors import RegistryError, SchemaVersionError
from feature_store.registry import migrations
from feature_store.registry.store import Registry
from feature_store.registry.tables import METADATA

EARLIER = sorted((Path(__file__).parent / "earlier").glob("*.sql"))
SINCE = sorted({table.info["since"] for table in METADATA.sorted_tables})


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine(database_url)
    yield made
    made.dispose()


def fill(engine: sa.Engine, dump: Path) -> None:
    """Run the statements of a dump, which both kinds of database understand."""
    statements = [text for text in dump.read_text().split(";\n") if text.strip() not in ("", "COMMIT")]
    with engine.begin() as connection:
        for text in statements:
            if not text.endswith("BEGIN TRANSACTION"):
                connection.exec_driver_sql(text.replace("%", "%%"))


def recorded_version(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        return str(connection.exec_driver_sql("SELECT version_num FROM fs_schema").scalar_one())


def rows(engine: sa.Engine) -> dict[str, int]:
    with engine.connect() as connection:
        names = sa.inspect(connection).get_table_names()
        return {
            name: connection.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar_one()
            for name in names
        }


def test_a_new_database_has_the_newest_version(database_url: str, engine: sa.Engine) -> None:
    registry = Registry(database_url, "shop")
    assert registry.schema == recorded_version(engine) == migrations.HEAD
    registry.close()


def test_migrations_make_the_tables_that_the_code_declares(database_url: str, engine: sa.Engine) -> None:
    Registry(database_url, "shop").close()
    options = {"version_table": migrations.VERSION_TABLE, "compare_type": True}
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=options), METADATA) == []


def test_the_versions_in_file_names_are_those_that_alembic_finds() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    script = ScriptDirectory.from_config(config)
    assert [one.revision for one in script.walk_revisions()][::-1] == list(migrations.REVISIONS)
    assert set(SINCE) <= set(migrations.REVISIONS)


@pytest.mark.parametrize("dump", EARLIER, ids=[path.stem for path in EARLIER])
def test_an_earlier_database_is_migrated_and_read(database_url: str, engine: sa.Engine, dump: Path) -> None:
    fill(engine, dump)
    before = rows(engine)
    registry = Registry(database_url, "shop")
    assert recorded_version(engine) == migrations.HEAD
    after = rows(engine)
    assert {name: after[name] for name in before} == before, "no row is lost"
    assert [(one.version, one.author) for one in registry.history()] == [(2, "bob"), (1, "ada")]
    assert set(registry.version(2).definitions().feature_views) == {"user_stats"}
    assert registry.materialized("user_stats") == [(0, 1_700_000_000_000_000)]
    assert registry.reports("skew")["ranking"].document == {"differing": 1}
    assert [one.id for one in registry.prune_records("plan")] == ["p1"]
    assert registry.id()
    third = registry.commit(DefinitionSet([Entity("user")]), base=2, author="eve")
    assert (third.version, registry.rollouts()[3].state) == (3, "unfinished")
    registry.close()
    again = Registry(database_url, "shop")
    assert again.head() == (3, third.digest)
    again.close()


def test_a_newer_database_is_refused_with_what_to_do(database_url: str, engine: sa.Engine) -> None:
    Registry(database_url, "shop").close()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE fs_schema SET version_num = '9000'")
    before = rows(engine)
    with pytest.raises(SchemaVersionError, match=r"schema version 9000.*newer than \d{4}.*upgrade feature-store"):
        Registry(database_url, "shop")
    assert rows(engine) == before
    assert recorded_version(engine) == "9000"


OPEN = """
import sys
from feature_store.definitions import DefinitionSet, Entity
from feature_store.registry.store import Registry
print("ready", flush=True)
sys.stdin.readline()
registry = Registry(sys.argv[1], "shop")
print(registry.schema, len(registry.history()), registry.id())
registry.close()
"""


@pytest.mark.parametrize("dump", [None, *EARLIER], ids=["empty", *(path.stem for path in EARLIER)])
def test_processes_that_open_it_at_once_migrate_it_once(
    database_url: str, engine: sa.Engine, dump: Path | None
) -> None:
    if dump:
        fill(engine, dump)
    command = [sys.executable, "-c", OPEN, database_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    opening = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]
    for process in opening:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in opening:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120) for process in opening]
    assert [error for _, error in answers] == ["", "", "", ""]
    assert len({out for out, _ in answers}) == 1, "all read the same registry, with the same id"
    assert answers[0][0].split()[:2] == [migrations.HEAD, "2" if dump else "0"]
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM fs_schema").scalar_one() == 1


def test_threads_that_open_it_at_once_migrate_it_once(database_url: str, engine: sa.Engine) -> None:
    fill(engine, EARLIER[0])
    barrier, outcomes = threading.Barrier(4), []

    def open_it() -> None:
        barrier.wait()
        try:
            registry = Registry(database_url, "shop")
            outcomes.append(registry.schema)
            registry.close()
        except BaseException as error:
            outcomes.append(repr(error))

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [migrations.HEAD] * 4


@pytest.mark.parametrize("dump", EARLIER, ids=[path.stem for path in EARLIER])
def test_an_earlier_database_that_may_only_be_read_is_read_and_not_written(
    postgres_url: str, dump: Path, request: pytest.FixtureRequest
) -> None:
    from tests.postgres_server import new_database

    with new_database(postgres_url, f"readonly_{dump.stem}") as url:
        owner = sa.create_engine(url, poolclass=sa.NullPool)
        fill(owner, dump)
        with owner.begin() as connection:
            connection.exec_driver_sql("CREATE ROLE reader LOGIN")
            connection.exec_driver_sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        try:
            registry = Registry(str(sa.make_url(url).set(username="reader")), "shop")
            version = "0002" if dump.stem == "schema_0002" else "0001"
            assert registry.schema == version
            assert registry.latest() == registry.version(2)
            assert registry.rollouts() == {}
            with pytest.raises(
                RegistryError, match=rf"schema version {version}, this release writes .* who may create tables"
            ):
                registry.commit(DefinitionSet([Entity("user")]), base=2, author="eve")
            registry.close()
        finally:
            with owner.begin() as connection:
                connection.exec_driver_sql("DROP OWNED BY reader")
                connection.exec_driver_sql("DROP ROLE reader")


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    database_url: str, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The next migration adds a table and then fails: neither its table nor its version stays."""
    Registry(database_url, "shop").close()
    folder = tmp_path / "migrations"
    shutil.copytree(Path(migrations.__file__).parent, folder)
    (folder / "versions/v9000_fails.py").write_text(
        f"import sqlalchemy as sa\nfrom alembic import op\nrevision, down_revision = '9000', '{migrations.HEAD}'\n"
        "def upgrade():\n    op.create_table('fs_new', sa.Column('a', sa.Integer))\n"
        "    op.execute('INSERT INTO fs_new SELECT nothing FROM nowhere')\n"
    )
    head = migrations.HEAD
    monkeypatch.setattr(migrations, "FOLDER", folder)
    monkeypatch.setattr(migrations, "REVISIONS", (*migrations.REVISIONS, "9000"))
    monkeypatch.setattr(migrations, "HEAD", "9000")
    registry = Registry(database_url, "shop")
    assert registry.schema == head
    registry.close()
    assert recorded_version(engine) == head
    assert "fs_new" not in rows(engine)


def test_an_interrupted_migration_changes_nothing_and_runs_again(tmp_path: Path) -> None:
    """The interrupt comes after the last statement and before the commit."""
    path = tmp_path / "registry.db"
    connection = sqlite3.connect(path)
    connection.executescript(EARLIER[0].read_text())
    connection.close()
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with pytest.raises(KeyboardInterrupt), migrations._exclusive(engine) as open_connection:
        migrations._upgrade(open_connection)
        raise KeyboardInterrupt
    assert "fs_schema" not in rows(engine)
    registry = Registry(f"sqlite:///{path}", "shop")
    assert registry.schema == migrations.HEAD
    registry.close()
