"""Where jobs write the rows of a view, in this process or another."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from feature_store.errors import StaleWriteError
from feature_store.online.keyspace import Keyspace
from feature_store.online.publication import PlanStore
from feature_store.online.redis.topology import connect
from feature_store.online.row_store import RowStore
from feature_store.online.writer import layout_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from feature_store.online.batch import RowBatch
    from feature_store.online.writer import ViewWriter, WriteCounts
    from feature_store.registry.serving_plan import RowGroupPlan, SegmentPlan


@dataclass(frozen=True)
class Destination:
    """Where a job writes its rows: plain data that can be sent to other processes. Each opens a writer of its own.

    Attributes:
        url: the URL or connection pool of Redis; never shown, since it may hold a password.
        project: the project's name.
        segment: the layout of the view's rows when the job began.
        group: the row group that is being filled; None for all row groups of the published plan that hold the view.
        epoch: the epoch of the plan under which `group` is filled.
        timeout_s: seconds to wait to connect, and for each answer.
    """

    url: str | redis.ConnectionPool = field(repr=False)
    project: str
    segment: SegmentPlan
    group: RowGroupPlan | None = None
    epoch: bytes = b""
    timeout_s: float = 5.0

    @contextlib.contextmanager
    def open(self) -> Iterator[ViewWriter | FollowingWriter]:
        """A writer, on a connection of its own.

        Raises:
            StaleWriteError: another layout of the view was published; while a row group is filled, any other plan.
            StoreConnectionError, StoreTimeoutError: Redis cannot be reached, or does not answer in time.
        """
        keyspace = Keyspace(connect(self.url, self.timeout_s), self.project)
        with contextlib.closing(keyspace.topology), contextlib.closing(self._writer(keyspace)) as writer:
            yield writer

    def _writer(self, keyspace: Keyspace) -> ViewWriter | FollowingWriter:
        plans = PlanStore(keyspace)
        rows = RowStore(keyspace, plans)
        if self.group is None:
            return FollowingWriter(rows, self.segment)
        if plans.required().epoch != self.epoch:
            raise _stale(self.segment)
        return rows.filler(self.segment.view, self.group)


class FollowingWriter:
    """Writes rows of a view under the published plan, and under later plans that keep the view's layout.

    Args:
        rows: the project's rows.
        segment: the layout of the view's rows.

    Raises:
        StaleWriteError: another layout is published.
    """

    def __init__(self, rows: RowStore, segment: SegmentPlan) -> None:
        self._rows, self._segment = rows, segment
        self._writer = self._opened()

    def write(self, batch: RowBatch) -> WriteCounts:
        """As ViewWriter.write.

        Raises:
            StaleWriteError: another layout of the view was published; the batch has the earlier layout.
        """
        while True:
            try:
                return self._writer.write(batch)
            except StaleWriteError:
                self._writer.close()
                self._writer = self._opened()

    def close(self) -> None:
        """Close the connections."""
        self._writer.close()

    def _opened(self) -> ViewWriter:
        writer = self._rows.writer(self._segment.view)
        if writer.layout != layout_of(self._segment):
            writer.close()
            raise _stale(self._segment)
        return writer


def _stale(segment: SegmentPlan) -> StaleWriteError:
    return StaleWriteError(
        f"write {segment.view}",
        expected="the layout that the job began with",
        got="another, published meanwhile",
        hint="run the job again",
    )
