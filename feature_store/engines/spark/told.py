"""This library's errors, from a task to the driver: Spark carries text, so they travel as text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pyarrow as pa

from feature_store import errors
from feature_store.errors import FeatureStoreError

Task = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]

_MARK = "feature-store error: "


class Told:
    """A task whose errors the driver can read."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The task."""
        try:
            yield from self._task(batches)
        except FeatureStoreError as error:
            told = [type(error).__name__, error.where, error.expected, error.got, error.hint]
            raise RuntimeError(_MARK + json.dumps(told)) from error


def raised_by_a_task(text: str) -> FeatureStoreError | None:
    """The error that a task told of, if the text that Spark gives has one."""
    found = re.search(re.escape(_MARK) + r"(\[.*\])", text)
    if found is None:
        return None
    name, where, expected, got, hint = json.loads(found[1])
    error: FeatureStoreError = getattr(errors, name)(where, expected=expected, got=got, hint=hint)
    return error
