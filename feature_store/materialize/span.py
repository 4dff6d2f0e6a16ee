"""The event times that a job reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from feature_store._intervals import BEGINNING, Interval, missing
from feature_store.definitions.dtypes import MIN_TIMESTAMP_US, from_microseconds
from feature_store.errors import DataError


class Span(NamedTuple):
    """The event times `[start_us, end_us)` that a job reads, microseconds since 1970.

    Attributes:
        start_us: the first time. None: the job reads all times that are not recorded as materialized, the times of late
            rows, and again the last `lookback_us` of the recorded times.
        end_us: the end, exclusive. None or a time in the future stands for now, by Redis's clock.
        lookback_us: see `start_us`.
    """

    start_us: int | None = None
    end_us: int | None = None
    lookback_us: int = 0

    def end_at(self, now_us: int, where: str) -> int:
        """The end, at most now, so that no time in the future is recorded as materialized.

        Args:
            now_us: now, microseconds since 1970.
            where: names the job in an error.

        Raises:
            DataError: the start is not before the end.
        """
        end = now_us if self.end_us is None else min(self.end_us, now_us)
        if self.start_us is not None and self.start_us >= end:
            got = f"{from_microseconds(self.start_us)} and {from_microseconds(end)}"
            hint = "an end in the future counts as now, by Redis's clock" if end == now_us else ""
            raise DataError(where, expected="a start before the end", got=got, hint=hint)
        return end

    def intervals(self, finished: Sequence[Interval], end_us: int) -> list[Interval]:
        """The intervals to read.

        Args:
            finished: the materialized intervals, sorted, with gaps between them.
            end_us: the end; see `end_at`.
        """
        if self.start_us is not None:
            return [(self.start_us, end_us)]
        last = finished[-1][1] if finished else BEGINNING
        start = min(last, end_us) - self.lookback_us
        again = (start if start >= MIN_TIMESTAMP_US else BEGINNING, end_us)
        if not finished or self.lookback_us <= 0:
            return missing((BEGINNING, end_us), finished)
        return [*missing((BEGINNING, again[0]), finished), again]
