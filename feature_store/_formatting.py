"""Counts, sizes, times and durations as people read them, for errors, the command line and the UI alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_LONG_UNITS = (("days", 86_400), ("h", 3_600), ("min", 60))
_LONGEST_QUOTED = 80


def counted(count: int, noun: str) -> str:
    """A count with its noun: `1 row`, `1,682 rows`, `3 entities`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("ty") else f"{count:,} {noun}s"


def shown_number(value: float | None) -> str:
    """A number with at most six significant digits: `1,682`, `0.4213`, `12,345.6`. None is a dash."""
    if value is None:
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.1f}"


def shown_bytes(count: int | None) -> str:
    """A size: `82 B`, `1.4 MiB`. None is a dash."""
    if count is None:
        return "–"
    for size, unit in _SIZES:
        if abs(count) >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:,} B"


def shown_share(share: float | None) -> str:
    """A share in per cent: `12.3%`. A share that is almost none or almost all is `<0.1 %` or `>99.9 %`, never rounded
    to 0 or 100; None is a dash."""
    if share is None:
        return "–"
    if share in (0, 1) or 0.001 <= share <= 0.999:
        return f"{share:.1%}"
    return "<0.1 %" if share < 0.5 else ">99.9 %"


def shown_time(time: datetime) -> str:
    """A time in UTC, to the second: `2026-03-01 12:30:00`."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def shown_duration(duration: timedelta) -> str:
    """A duration in the largest unit that divides it: `7d`, `36h`, `90s`, `1.5s`."""
    seconds = duration / timedelta(seconds=1)
    for unit, length in _UNITS[:-1]:
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:g}s"


def shown_age(seconds: float) -> str:
    """An age in its two largest units, to the second: `3d 4h`, `5m 10s`, `0s`."""
    parts, left = [], int(seconds)
    for unit, length in _UNITS:
        if left >= length:
            parts.append(f"{left // length}{unit}")
            left %= length
    return " ".join(parts[:2]) or "0s"


def shown_ago(seconds: float) -> str:
    """How long ago, in the largest unit that counts at least two: `2 h ago`, `just now`; of negative seconds, how long
    ahead."""
    side = "ago" if seconds > 0 else "ahead"
    for unit, length in _LONG_UNITS:
        if abs(seconds) >= 2 * length:
            return f"{abs(seconds) / length:,.0f} {unit} {side}"
    return "just now" if abs(seconds) < 2 else f"{abs(seconds):.0f} s {side}"


def quoted(value: Any, most: int = _LONGEST_QUOTED) -> str:
    """The `repr` of a value, cut to so many characters."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
