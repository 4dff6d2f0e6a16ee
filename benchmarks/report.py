"""Results, what they should reach, and the table of a terminal; `page.py` writes docs/benchmarks.md."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.measure import Samples

SIDES = ("ours", "python floor", "c floor", "feast")


@dataclass(frozen=True)
class Reach:
    """What a figure should reach: `measured` of a result, and the limit in words."""

    about: str
    measured: Callable[[Result], float | None]
    is_met: Callable[[float], bool]
    shown: str = "{:.2f} ×"

    @classmethod
    def at_most(cls, side: str, times: float) -> Reach:
        """Ours is at most so many times another side's."""
        return cls(f"≤ {times:g} × {side}", lambda result: result.ratio("ours", side), lambda ratio: ratio <= times)

    @classmethod
    def beyond(cls, side: str, most_ms: float) -> Reach:
        """Ours takes at most so many milliseconds more than another side."""
        return cls(
            f"≤ {most_ms:g} ms beyond {side}",
            lambda result: 1e3 * (result.figures["ours"] - result.figures[side]),
            lambda more_ms: more_ms <= most_ms,
            "{:.2f} ms",
        )

    @classmethod
    def at_least(cls, side: str, times: float) -> Reach:
        """The other side takes at least so many times as long."""
        return cls(
            f"≥ {times:g} × faster than {side}",
            lambda r: r.ratio(side, "ours"),
            lambda ratio: ratio >= times,
            "{:.0f} ×",
        )

    @classmethod
    def tail(cls, side: str, times: float) -> Reach:
        """Our p99 ÷ p50 is at most so many times another side's."""
        return cls(
            f"p99 ÷ p50 ≤ {times:g} × that of {side}", lambda r: r.tail_ratio(side), lambda ratio: ratio <= times
        )

    @classmethod
    def rate(cls, rows: int, least: float) -> Reach:
        """Rows per second."""
        return cls(
            f"≥ {least:,.0f} rows/s", lambda r: rows / r.figures["ours"], lambda rate: rate >= least, "{:,.0f}/s"
        )

    @classmethod
    def figure(cls, most: float) -> Reach:
        """Ours alone."""
        return cls(
            f"≤ {most / 1e6:,.0f} MB",
            lambda r: r.figures["ours"] / 1e6,
            lambda found: found <= most / 1e6,
            "{:,.0f} MB",
        )


@dataclass(frozen=True)
class Result:
    """What one work took each side: the median, and the 99th percentile where there are many samples."""

    work: str
    unit: str
    figures: Mapping[str, float]
    p99s: Mapping[str, float]
    reaches: list[Reach] = field(default_factory=list)
    rows: int = 0

    @classmethod
    def of_samples(cls, work: str, samples: Mapping[str, Samples], reaches: list[Reach], rows: int = 0) -> Result:
        """Of timed calls."""
        figures = {name: found.p50 for name, found in samples.items()}
        p99s = {name: found.p99 for name, found in samples.items() if len(found.seconds) >= 50}
        return cls(work, "seconds", figures, p99s, reaches, rows)

    def ratio(self, side: str, other: str) -> float | None:
        """A side's figure over another's."""
        if side not in self.figures or other not in self.figures:
            return None
        return self.figures[side] / self.figures[other]

    def tail_ratio(self, side: str) -> float | None:
        """Our p99 ÷ p50 over another side's."""
        if side not in self.p99s:
            return None
        return (self.p99s["ours"] / self.figures["ours"]) / (self.p99s[side] / self.figures[side])

    def shown(self, side: str) -> str:
        """A side's figure with its unit; with the p99 after the median."""
        if side not in self.figures:
            return "–"
        if self.unit == "bytes":
            value = self.figures[side]
            return f"{value:,.0f} B" if value < 1e5 else f"{value / 1e6:,.0f} MB"
        text = duration(self.figures[side])
        if self.rows:
            text = f"{self.rows / self.figures[side]:,.0f} rows/s"
        return f"{text} ({duration(self.p99s[side])})" if side in self.p99s else text

    def verdicts(self) -> list[str]:
        """One line per reach: what was to be reached, what was, and whether that is enough."""
        lines = []
        for reach in self.reaches:
            measured = reach.measured(self)
            if measured is not None:
                sign = "✓" if reach.is_met(measured) else "✗"
                lines.append(f"{sign} {reach.about}: {reach.shown.format(measured)}")
        return lines


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} µs"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def table(title: str, results: list[Result]) -> Table:
    """For the terminal."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_lines=False)
    for name in ("work", *SIDES, "reach"):
        made.add_column(name, overflow="fold", justify="left" if name in ("work", "reach") else "right")
    for result in results:
        made.add_row(result.work, *(result.shown(side) for side in SIDES), "\n".join(notes(result)))
    return made


def machine(server: str) -> list[str]:
    """What it ran on."""
    versions = [
        f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "hiredis", "redis", "duckdb", "pyarrow")
    ]
    return [
        f"{os.cpu_count()} cores, {_processor()}, {platform.platform(terse=True)}",
        f"{server}, Python {platform.python_version()}, {', '.join(versions)}",
    ]


def notes(result: Result) -> list[str]:
    """The reaches of a result, and the sides that have no column."""
    others = [f"{side}: {result.shown(side)}" for side in result.figures if side not in SIDES]
    return [*result.verdicts(), *others]


def _processor() -> str:
    with open("/proc/cpuinfo") as file:  # noqa: PTH123
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()
