"""The algebra of intervals, against sets of small numbers."""

from __future__ import annotations

from hypothesis import given, strategies as st

from feature_store._intervals import missing

NUMBERS = st.integers(-8, 8)


def _spans(numbers: set[int]) -> list[tuple[int, int]]:
    """The maximal half-open intervals of a set of numbers."""
    starts = sorted(number for number in numbers if number - 1 not in numbers)
    ends = sorted(number + 1 for number in numbers if number + 1 not in numbers)
    return list(zip(starts, ends, strict=True))


@given(NUMBERS, NUMBERS, st.sets(NUMBERS))
def test_what_is_missing_is_what_is_wanted_less_what_is_finished(start: int, end: int, finished: set[int]) -> None:
    assert missing((start, end), _spans(finished)) == _spans(set(range(start, end)) - finished)
