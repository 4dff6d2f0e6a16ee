"""A folder with a source, and jobs on it, for the tests of jobs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from feature_store.definitions import FeatureView
from feature_store.engines.local.engine import LocalEngine
from feature_store.materialize import job as jobs
from feature_store.materialize.job import Target
from feature_store.materialize.span import Span
from feature_store.materialize.summary import Summary
from feature_store.project.context import ProjectFolders
from tests.engines.offline_worlds import (
    NOW_US,
    SECOND_US,
    MemoryProgress,
    MemorySink,
    Row,
    table_of,
    user,
    view_of,
)

VIEW = view_of(user)
SECONDS = st.integers(0, 12)
MANY = 40_000  # of about 17,000 users: at least 5 chunks of 2,048 to 4,096 rows


class World:
    """A folder with a source, and jobs on it."""

    def __init__(self, folder: Path, view: FeatureView = VIEW) -> None:
        self.folder, self.view = folder, view
        self.sink, self.progress = MemorySink(view), MemoryProgress()
        self.folders = ProjectFolders(folder, folder)
        self.rows: list[Row] = []

    def write(self, rows: list[Row], name: str = "rows") -> None:
        self.rows = [*self.rows, *rows]
        folder = self.folder / "rows"
        folder.mkdir(exist_ok=True)
        pq.write_table(table_of(self.view, rows, pa.timestamp("us")), folder / f"{name}.parquet")

    def run(self, end: int | None, start: int | None = None, *, lookback: int = 0, **other: Any) -> Summary:
        """Run a job. Times are seconds after now."""
        times = (None if time is None else at(time) for time in (start, end))
        span = Span(*times, lookback * SECOND_US)
        target = Target(other.pop("destination", self.sink), other.pop("progress", self.progress))
        how: dict[str, Any] = {"folders": self.folders, "engine": LocalEngine(), "digest": "d"}
        return jobs.materialize(self.view, span, target, **(how | other))

    def finished(self) -> list[tuple[int, int]]:
        return self.progress.finished_intervals()

    def left(self) -> set[str]:
        """The paths of all files and folders in the working folder."""
        return {
            str(path.relative_to(self.folders.work("materialize") / self.view.name)) for path in self._work().rglob("*")
        }

    def _work(self) -> Path:
        return self.folders.work("materialize") / self.view.name


def at(seconds: int) -> int:
    return NOW_US + seconds * SECOND_US


def row(key: int, seconds: int, value: float = 0.5) -> Row:
    return Row((key,), at(seconds), None, (value, f"t{value}"))


def many(seconds: int = 0, seed: int = 1) -> list[Row]:
    chance = random.Random(seed)
    return [row(chance.randrange(MANY // 2), seconds + chance.randrange(10), chance.random()) for _ in range(MANY)]


def push(world: World, table: Any) -> Summary:
    return jobs.push(world.view, table, engine=LocalEngine(), destination=world.sink, folders=world.folders)


def bad_table() -> pa.Table:
    times = pa.array([at(0), at(1), at(2), None], pa.timestamp("us"))
    return pa.table({"slot_id": [1, 2**31, None, 4], "at": times, "made": times, "score": [0.5, 1.5, 2.5, 3.5]})
