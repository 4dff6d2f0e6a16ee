"""The Spark session, its errors, and the progress of its jobs. All calls of Spark go through this module."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from feature_store._extras import requires_extra
from feature_store.engines.report import Report
from feature_store.engines.spark.task_errors import ErrorCarrier, Task, raised_by_a_task
from feature_store.errors import EngineError


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide pyspark's warning about pandas 3, since this engine does not use pandas."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        yield


with requires_extra("spark", "engine spark"), _quiet():
    import pyspark
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import DataFrame, SparkSession

VERSION: str = pyspark.__version__
# Defaults of a session that this engine starts. Settings override them; spark-submit replaces them.
_DEFAULTS = {"spark.app.name": "feature-store", "spark.ui.showConsoleProgress": "false", "spark.log.level": "ERROR"}
# Settings of this engine's queries only. Other sessions of the same Spark keep their own.
_OWN = {
    "spark.sql.execution.arrow.maxBytesPerBatch": str(64 << 20),  # thousands of packed rows are too many for one batch
}
POLL_SECONDS = 0.2
_PYTHON = "PYSPARK_PYTHON"


class Session:
    """A new session in the running Spark, or in a Spark that is started at first use.

    Args:
        settings: settings of Spark, by name. A Spark that is already running ignores them.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = {name: _text(value) for name, value in settings.items()}
        self._session: SparkSession | None = None
        self._started = False

    @property
    def spark(self) -> SparkSession:
        """The session, started at first use.

        Raises:
            EngineError: the session cannot be started.
        """
        if self._session is None:
            with spark_errors():
                running = SparkSession.getActiveSession()
                self._started = running is None
                self._session = (running or self._start()).newSession()
                for name, value in _OWN.items():
                    self._session.conf.set(name, value)
        return self._session

    @property
    def parallelism(self) -> int:
        """The number of tasks that Spark runs at once."""
        with spark_errors():
            return self.spark.sparkContext.defaultParallelism

    def tasks(self, count: int, task: Task, schema: str) -> DataFrame:
        """Run a task `count` times, each with its number in the column `id`."""
        with spark_errors():
            return self.then(self.spark.range(0, count, 1, count), task, schema)

    def then(self, frame: DataFrame, task: Task, schema: str) -> DataFrame:
        """Run a task on each partition of a frame."""
        with spark_errors(), _quiet():
            return frame.mapInArrow(ErrorCarrier(task).run, schema)

    def exchanged(self, frame: DataFrame, parts: int, *, by_tag: bool = False) -> DataFrame:
        """Packed batches (see `packed`), each in the partition of its part. `by_tag` sorts each partition by tag."""
        with spark_errors():
            found = frame.repartitionById(parts, "part")
            return found.sortWithinPartitions("tag") if by_tag else found

    def collect(self, frame: DataFrame) -> list[Any]:
        """All rows of a frame, on the driver. Meant for frames of few rows."""
        with spark_errors():
            return frame.collect()

    @contextlib.contextmanager
    def watched(self, tasks: int, rows: int, report: Report) -> Iterator[Callable[[int], None]]:
        """Report the progress of the Spark job in the block, from the tasks that are done.

        Args:
            tasks: the number of tasks of the job's first stage.
            rows: about how many rows they read together.
            report: gets the progress.

        Yields:
            A function to call with the true number of rows at the end.
        """
        reported = 0

        def tell(now: int) -> None:
            nonlocal reported
            if now > reported:
                report.advanced(now - reported)
                reported = now

        def watch() -> None:
            while not done.wait(POLL_SECONDS):
                with contextlib.suppress(Py4JError):
                    tell(_tasks_done(self.spark.sparkContext, group) * rows // tasks)

        done = threading.Event()
        with self._group() as group:
            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            try:
                yield tell
            finally:
                done.set()
                watcher.join()

    @contextlib.contextmanager
    def _group(self) -> Iterator[str]:
        """The name of a job group for the jobs that this thread starts in the block."""
        context = self.spark.sparkContext
        name, group = "spark.jobGroup.id", f"feature-store-{secrets.token_hex(8)}"
        with spark_errors():
            before = context.getLocalProperty(name)
            context.setLocalProperty(name, group)
        try:
            yield group
        finally:
            with spark_errors():
                context.setLocalProperty(name, before)  # type: ignore[arg-type]  # None: it was not set

    def close(self) -> None:
        """Stop Spark if this object started it."""
        if self._started and self._session is not None:
            self._session.stop()
        self._session, self._started = None, False

    def _start(self) -> SparkSession:
        builder = SparkSession.builder
        submitted = {} if "SPARK_ENV_LOADED" in os.environ else _DEFAULTS
        for name, value in (submitted | self._settings).items():
            builder = builder.config(name, value)
        with _quiet(), _python(self._settings):
            return builder.getOrCreate()


@contextlib.contextmanager
def kept_interrupts() -> Iterator[None]:
    """Restore the Ctrl-C handler after the block.

    pyspark replaces the handler when a session starts, and its own handler cancels all jobs. Callers that stop
    gracefully on Ctrl-C start the session in this block.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def spark_errors() -> Iterator[None]:
    """Map Spark's errors to EngineError. If a task raised an error of this library, raise that error instead."""
    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise raised_by_a_task(str(error)) or EngineError(
            "Spark", expected="the job to succeed", got=_reason(str(error)), hint=_hint(str(error))
        ) from error


def _reason(text: str) -> str:
    """The line that names the error: the last error line of a Python traceback, else the first line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
    return (raised or lines or ["no reason"])[-1 if raised else 0]


def _hint(text: str) -> str:
    if "No module named" in text:
        return "executors need this library and its extra `spark`: see docs/spark.md"
    return ""


def _tasks_done(context: Any, group: str) -> int:
    """The number of completed tasks in the first stage of a job group."""
    tracker = context.statusTracker()
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
    stages = [stage for job in jobs if job is not None for stage in job.stageIds]
    info = tracker.getStageInfo(min(stages)) if stages else None
    return 0 if info is None else int(info.numCompletedTasks)


@contextlib.contextmanager
def _python(settings: Mapping[str, str]) -> Iterator[None]:
    """Make local tasks use this interpreter, unless another is configured. pyspark's default is `python3`."""
    chosen = settings.get("spark.pyspark.python") or os.environ.get(_PYTHON)
    before = os.environ.get(_PYTHON)
    is_local = settings.get("spark.master", "local").startswith("local")
    if chosen or is_local:
        os.environ[_PYTHON] = chosen or sys.executable
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_PYTHON, None)
        else:
            os.environ[_PYTHON] = before


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
