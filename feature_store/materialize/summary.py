"""The counts of a job's result."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from feature_store._intervals import BEGINNING, Interval
from feature_store.definitions.dtypes import from_microseconds

if TYPE_CHECKING:
    from feature_store.arrow.inspection import Breach


@dataclass(frozen=True)
class Summary:
    """The result of a job.

    Attributes:
        view: the view's name.
        intervals: the event times that were read, `[start, end)` in microseconds since 1970.
        source_rows: source rows in the intervals.
        latest_rows: the latest row of each entity among them.
        written: latest rows that the online store accepted.
        older: latest rows that the online store refused because it had newer rows.
        quarantined: rows that do not fit the view.
        quarantine_file: the file with these rows and the reasons. None: there are none.
        breaches: expectations that the written rows break. Empty for a view with `on_breach="block"`.
        resumed_chunks: chunks that an earlier, killed run had written.
        late_rows: source rows of finished intervals that were read again because some of the rows arrived late.
        seconds: the duration of the job.
    """

    view: str
    intervals: tuple[Interval, ...] = ()
    source_rows: int = 0
    latest_rows: int = 0
    written: int = 0
    older: int = 0
    quarantined: int = 0
    quarantine_file: str | None = None
    breaches: tuple[Breach, ...] = ()
    resumed_chunks: int = 0
    late_rows: int = 0
    seconds: float = 0.0

    def __repr__(self) -> str:
        """The counts other than 0, and the intervals as times."""
        counts = {name: value for name, value in vars(self).items() if value and name not in ("view", "intervals")}
        counts["seconds"] = round(self.seconds, 3)
        times = [f"{iso_time(start) or 'the beginning'} to {iso_time(end)}" for start, end in self.intervals]
        shown = ({"intervals": times} if times else {}) | counts
        return f"Summary({', '.join([self.view, *(f'{name}={value!r}' for name, value in shown.items())])})"

    def to_document(self) -> dict[str, Any]:
        """The summary as JSON types. Times are ISO 8601 texts; an unbounded start is None."""
        intervals = [[iso_time(start), iso_time(end)] for start, end in self.intervals]
        return asdict(self) | {"intervals": intervals}

    def plus(self, other: Summary) -> Summary:
        """The sum of this summary and that of another job on the same view."""
        return replace(
            self,
            source_rows=self.source_rows + other.source_rows,
            latest_rows=self.latest_rows + other.latest_rows,
            written=self.written + other.written,
            older=self.older + other.older,
            quarantined=self.quarantined + other.quarantined,
            quarantine_file=other.quarantine_file or self.quarantine_file,
            breaches=(*self.breaches, *other.breaches),
            late_rows=self.late_rows + other.late_rows,
            resumed_chunks=self.resumed_chunks + other.resumed_chunks,
        )


def iso_time(time_us: int | None) -> str | None:
    """A time in microseconds since 1970 as ISO 8601 text. None: it is None, or before all times."""
    return None if time_us is None or time_us == BEGINNING else from_microseconds(time_us).isoformat()
