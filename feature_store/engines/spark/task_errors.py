"""Carries errors of this library from a task to the driver, since Spark passes on only an exception's text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pyarrow as pa

from feature_store.engines.error_text import error_of, error_text
from feature_store.errors import FeatureStoreError

Task = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]

_MARK = "feature-store error: "


class ErrorCarrier:
    """Wraps a task, and raises errors of this library in a form that `raised_by_a_task` can read."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Run the task.

        Raises:
            RuntimeError: the task raised an error of this library. The text contains the error.
        """
        try:
            yield from self._task(batches)
        except FeatureStoreError as error:
            raise RuntimeError(_MARK + error_text(error)) from error


def raised_by_a_task(text: str) -> FeatureStoreError | None:
    """The library's error in the text of a Spark exception, or None if no task raised one."""
    found = re.search(re.escape(_MARK) + r"(\{.*\})", text)
    return None if found is None else error_of(found[1])
