"""Half-open intervals of time, `[start, end)`, in microseconds since 1970."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Interval = tuple[int, int]
# Before every time that a datetime can hold; `-BEGINNING` is after every one.
BEGINNING = -(1 << 62)


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The same times as sorted intervals, of which none touches another."""
    result: list[Interval] = []
    for start, end in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if result and start <= result[-1][1]:
            result[-1] = result[-1][0], max(end, result[-1][1])
        else:
            result.append((start, end))
    return result


def missing(wanted: Interval, finished: Sequence[Interval]) -> list[Interval]:
    """The parts of `wanted` that no interval of `finished` (sorted, none touching another) holds."""
    gaps = []
    start, end = wanted
    for done_start, done_end in finished:
        if done_start > start and start < end:
            gaps.append((start, min(done_start, end)))
        start = max(start, done_end)
    if start < end:
        gaps.append((start, end))
    return gaps


def common(one: Sequence[Interval], other: Sequence[Interval]) -> list[Interval]:
    """The times that both hold; both are sorted and none of their intervals touches another."""
    parts = ((max(a, c), min(b, d)) for a, b in one for c, d in other)
    return merged(parts)


def until(intervals: Iterable[Interval], end_us: int) -> list[Interval]:
    """The times before an end."""
    return merged((start, min(end, end_us)) for start, end in intervals)
