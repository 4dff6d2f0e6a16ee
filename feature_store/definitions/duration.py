"""Durations as people write and read them."""

from __future__ import annotations

from datetime import timedelta


def shown_duration(duration: timedelta) -> str:
    """A duration in the largest unit that it is whole in: `7d`, `36h`, `90s`, `1.5s`."""
    seconds = duration / timedelta(seconds=1)
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:g}s"


def shown_age(seconds: float) -> str:
    """An age in its two largest units, to the second: `3d 4h`, `5m 10s`, `0s`."""
    parts, left = [], int(seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        if left >= length:
            parts.append(f"{left // length}{unit}")
            left %= length
    return " ".join(parts[:2]) or "0s"
