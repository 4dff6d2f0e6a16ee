"""This library's errors from a task to the driver. Spark hands on the text of an exception and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pyarrow as pa

from feature_store.engines.error_text import error_of, error_text
from feature_store.errors import FeatureStoreError

Task = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]

_MARK = "feature-store error: "


class ErrorCarrier:
    """A task that raises this library's errors in a form that `raised_by_a_task` reads."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Run the task."""
        try:
            yield from self._task(batches)
        except FeatureStoreError as error:
            raise RuntimeError(_MARK + error_text(error)) from error


def raised_by_a_task(text: str) -> FeatureStoreError | None:
    """The error in the text of a Spark exception; None: no task raised an error of this library."""
    found = re.search(re.escape(_MARK) + r"(\{.*\})", text)
    return None if found is None else error_of(found[1])
