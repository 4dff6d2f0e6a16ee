"""Whatever Redis loses between two steps, apply and materialize leave the same bytes as an uninterrupted run."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from hypothesis import HealthCheck, example, given, settings, strategies as st

from feature_store import FeatureStore
from feature_store._intervals import Interval
from feature_store.engines.local import latest as local_latest
from feature_store.errors import FeatureStoreError
from feature_store.online import OnlineStore
from feature_store.online.layout import FINGERPRINT_BYTES
from feature_store.online.progress import StoredProgress
from feature_store.project import load_config
from feature_store.project.context import Project
from tests.servers import RedisServer, redis_server

USERS = 9000  # about four chunks
BEGUN = datetime.now(UTC) - timedelta(days=100)
DEFINITIONS = """
from feature_store import *
user = Entity("user", join_key="user_id")
stats = FeatureView("stats", entities=[user], schema=[Field("visits", Int64){more}],
    source=ParquetSource("rows", event_timestamp="at"))
titles = FeatureView("titles", entities=[user], schema=[Field("title", String)],
    source=ParquetSource("rows", event_timestamp="at", created_timestamp="made"))
"""
LAYOUTS = ("", ', Field("height", Float32)', ', Field("height", Float32), Field("weight", Float64)')


class Killed(BaseException):
    pass


class Watched:
    """Progress that calls `step` right before and right after each record."""

    def __init__(self, progress: StoredProgress, step: Callable[[], None]) -> None:
        self._progress, self._step = progress, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._progress, name)

    def record_chunk(self, job: str, done: int) -> None:
        self._step()
        self._progress.record_chunk(job, done)
        self._step()

    def record_interval(self, job: str, chunks: int, interval: Interval, files_read: bytes = b"") -> None:
        self._step()
        self._progress.record_interval(job, chunks, interval, files_read)
        self._step()


class Store(OnlineStore):
    """An online store that calls `then` at its `at`-th step."""

    at, then = -1, staticmethod(lambda: None)

    def step(self) -> None:
        self.at -= 1
        if self.at == 0:
            self.then()

    def progress(self, *args: Any) -> Any:
        return Watched(super().progress(*args), self.step)

    def publish(self, *args: Any, **options: Any) -> Any:
        self.step()
        published = super().publish(*args, **options)
        self.step()
        return published

    def copy_rows(self, *args: Any) -> Any:
        copied = super().copy_rows(*args)
        self.step()
        return copied


class World:
    """A project, and a Redis that keeps an append-only file."""

    def __init__(self, folder: Path, server: RedisServer) -> None:
        self.folder, self.server, self.files = folder, server, 0
        (folder / "rows").mkdir()
        config = f"project: shop\nonline_store: {{url: '{server.url}', buckets: 2}}\n"
        (folder / "feature_store.yaml").write_text(config)
        self.define(0)

    def define(self, layout: int) -> None:
        (self.folder / "features.py").write_text(DEFINITIONS.format(more=LAYOUTS[layout]))

    def add(self, day: int, first: int) -> None:
        """Add a file of rows of a day, for a third of the users. Of several files of a day, the last counts."""
        users = range(first, USERS, 3)
        self.files += 1
        at = [BEGUN + timedelta(days=day)] * len(users)
        columns = {
            "user_id": list(users),
            "at": pa.array(at, pa.timestamp("us", "UTC")),
            "made": pa.array([BEGUN + timedelta(days=day, seconds=self.files)] * len(users), pa.timestamp("us", "UTC")),
            "visits": [self.files * 10_000 + i for i in users],
            "height": pa.array([float(self.files)] * len(users), pa.float32()),
            "weight": [self.files / 7] * len(users),
            "title": [f"{self.files} of {i}" for i in users],
        }
        pq.write_table(pa.table(columns), self.folder / "rows" / f"{self.files:04}.parquet")

    def log(self) -> Path:
        (path,) = (self.server.folder / "appendonlydir").glob("*.incr.aof")
        return path

    def lose(self, share: float) -> None:
        """Restart Redis without a share of its last writes, as after a crash or from an older snapshot."""
        self.server.stop()
        os.truncate(self.log(), int(self.log().stat().st_size * (1 - share)))
        self.server.start()

    def run(self, step: str, at: int = -1, then: Callable[[], None] = lambda: None) -> None:
        def opened(url: str, project: str) -> Store:
            online = Store(url, project)
            online.at, online.then = at, then  # type: ignore[method-assign]
            return online

        with FeatureStore(Project(load_config(self.folder), open_online=opened)) as store:
            getattr(store, step)()

    def rows(self) -> dict[bytes, bytes]:
        """The stored rows by bucket, kind, group and entity. Generations, which differ from run to run, are left out."""
        found = {}
        with redis.Redis.from_url(self.server.url) as client:
            for key in client.scan_iter(b"*", count=5000):
                tag, _, rest = key.partition(b"}")
                kind, _, name = rest.partition(b":")
                if kind in (b"r", b"v"):
                    group, _, entity = name.split(b":", 2)
                    value = client.get(key)
                    # A row begins with the fingerprint of its layout, which depends on the generation.
                    found[b":".join([tag, kind, group, entity])] = value[FINGERPRINT_BYTES:] if kind == b"r" else value
        return found


@contextlib.contextmanager
def world() -> Iterator[World]:
    options = ("--appendonly", "yes", "--auto-aof-rewrite-percentage", "0")
    with redis_server(*options) as server, tempfile.TemporaryDirectory() as folder:
        yield World(Path(folder), server)


def uninterrupted(one: World) -> dict[bytes, bytes]:
    """The rows after a run on an empty Redis with the same definitions and source."""
    with world() as other:
        for name in ("features.py", "rows"):
            target = other.folder / name
            if target.is_dir():
                target.rmdir()
            else:
                target.unlink()
            target.symlink_to(one.folder / name)
        other.run("apply")
        other.run("materialize")
        return other.rows()


adds = st.tuples(st.just("add"), st.integers(0, 5), st.integers(0, 2))
defines = st.tuples(st.just("define"), st.integers(0, 2))
loses = st.tuples(st.just("lose"), st.sampled_from([0.001, 0.05, 0.3, 0.7, 1.0]))
runs = st.tuples(
    st.sampled_from(["apply", "materialize", "materialize"]),
    st.none() | st.integers(1, 14),
    st.none() | st.sampled_from([0.0, 0.001, 0.02, 0.2, 1.0]),
)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_latest, "CHUNK_ROWS", 2048)


@pytest.mark.usefixtures("small_chunks")
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@example(story=[("add", 0, 2), ("lose", 0.05), ("define", 2), ("add", 1, 1)])
@given(story=st.lists(adds | defines | loses | runs | runs, min_size=4, max_size=9))
def test_whatever_redis_loses_the_next_apply_and_materialize_leave_the_same_bytes(story: list[tuple[Any, ...]]) -> None:
    with world() as one:
        one.add(0, 0)
        one.run("apply")
        for step, *about in story:
            if step in ("add", "define", "lose"):
                getattr(one, step)(*about)
            else:
                interrupted(one, step, *about)
        one.run("apply")
        one.run("materialize")
        assert one.rows() == uninterrupted(one)


def interrupted(one: World, step: str, at: int | None, share: float | None) -> None:
    """Run a command. At its `at`-th step the process is killed or, with a `share`, Redis loses writes."""

    def happen() -> None:
        if share is None:
            raise Killed
        one.lose(share)

    # A command whose Redis went away raises an error of this library. It is run again later.
    with contextlib.suppress(Killed, FeatureStoreError):
        one.run(step, -1 if at is None else at, happen)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("step", [1, 2, 9, 10])
def test_a_loss_at_a_step_of_a_job_is_repaired_by_the_next(step: int, share: float) -> None:
    with world() as one:
        one.add(0, 0)
        one.add(1, 1)
        one.run("apply")
        interrupted(one, "materialize", step, share)
        one.run("apply")
        one.run("materialize")
        assert one.rows() == uninterrupted(one)
