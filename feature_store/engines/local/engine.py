"""The local engine: pyarrow reads rows, DuckDB finds the latest ones, spilling to disk if they do not fit in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store._private_files import private_file, private_folder
from feature_store.arrow.inspection import Inspection, inspect
from feature_store.arrow.reading import reading
from feature_store.arrow.rows import (
    CREATED_TS,
    EVENT_TS,
    to_row_batch,
)
from feature_store.arrow.sources.source import OfflineSource
from feature_store.definitions.dtypes import MIN_TIMESTAMP_US
from feature_store.definitions.feature_view import FeatureView
from feature_store.engines.engine import RowDestination, StageRequest, Written
from feature_store.engines.join import Joined, JoinRequest, LabelQuery, Labels
from feature_store.engines.local.join import join, read_labels
from feature_store.engines.local.latest import stage_latest
from feature_store.engines.local.windows import stage_windows
from feature_store.engines.sql.run import selected
from feature_store.online.batch import RowBatch

# A job also holds a few batches beside DuckDB's memory. Together they stay under 1 GB.
MEMORY_LIMIT = "512MB"


class LocalEngine:
    """See Engine and JoinEngine.

    Args:
        memory_limit: DuckDB's memory limit while it sorts, such as "512MB". DuckDB spills further rows to disk.
    """

    name = "local"

    def __init__(self, memory_limit: str = MEMORY_LIMIT) -> None:
        self._memory_limit = memory_limit

    def stage(self, request: StageRequest) -> int:
        """See Engine."""
        private_folder(request.target.parent)
        unfinished = private_file(request.target.with_suffix(".unfinished"))
        with tempfile.TemporaryDirectory(dir=request.target.parent, prefix="spill-") as spill:
            if request.view.sql is not None and isinstance(request.rows, OfflineSource):
                # Windows contain events from before the interval, both those at its end and those stored at its start.
                start_us = request.start_us if not request.view.aggregations else MIN_TIMESTAMP_US
                rows = selected(request.view, request.rows, Path(spill), start_us, request.end_us, self._memory_limit)
                request = request._replace(rows=rows)
            if request.view.aggregations:
                in_interval = stage_windows(request, unfinished, Path(spill), self._memory_limit)
            else:
                in_interval = stage_latest(request, unfinished, Path(spill), self._memory_limit)
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())
        unfinished.rename(request.target)
        return in_interval

    def chunk_count(self, target: Path) -> int:
        """See Engine."""
        with reading(f"staged rows {target}"):
            count: int = pq.read_metadata(target).num_row_groups
        return count

    def inspect(self, target: Path, view: FeatureView) -> Inspection:
        """See Engine."""
        found = Inspection()
        for batch in staged_batches(target, view, 0):
            found = found.plus(inspect(batch, view))
        return found

    def write(self, target: Path, view: FeatureView, first: int, destination: RowDestination) -> Iterator[Written]:
        """See Engine."""
        with destination.open() as sink:
            for batch in staged_batches(target, view, first):
                yield Written(len(batch), sink.write(batch))

    def labels(self, given: pa.Table | Path | LabelQuery) -> Labels:
        """See JoinEngine."""
        return read_labels(given)

    def join(self, request: JoinRequest) -> Joined:
        """See JoinEngine."""
        return join(request, self._memory_limit)


def staged_batches(target: Path, view: FeatureView, first: int) -> Iterator[RowBatch]:
    """The chunks of a staged file, beginning with chunk number `first`."""
    with reading(f"staged rows {target}"), pq.ParquetFile(target) as file:
        for chunk in range(first, file.num_row_groups):
            rows = file.read_row_group(chunk)
            yield to_row_batch(rows.rename_columns([*_columns(view), EVENT_TS, CREATED_TS]), view)


def _columns(view: FeatureView) -> list[str]:
    return [*view.join_keys, *(field.name for field in view.fields)]
