"""Cuts the groups of a file, such as row groups, into pieces for parallel readers."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple


class Cut(NamedTuple):
    """Some groups of a file that follow each other.

    Attributes:
        numbers: the numbers of the groups.
        rows: the number of their rows.
        first: the place of their first row in the source.
    """

    numbers: tuple[int, ...]
    rows: int
    first: int


def cut(counts: Sequence[int], most_rows: int, first: int, wanted: Container[int] | None = None) -> Iterator[Cut]:
    """The groups of a file in cuts of at most some rows, and of at least one group.

    Args:
        counts: the number of rows of each group.
        most_rows: the number of rows that a cut should have at most.
        first: the place of the first row of the file in the source.
        wanted: the numbers of the groups to read; None: all.
    """
    taken: list[int] = []
    rows, place = 0, first
    for number, count in enumerate(counts):
        is_wanted = wanted is None or number in wanted
        if taken and (not is_wanted or rows + count > most_rows):
            yield Cut(tuple(taken), rows, place - rows)
            taken, rows = [], 0
        if is_wanted:
            taken.append(number)
            rows += count
        place += count
    if taken:
        yield Cut(tuple(taken), rows, place - rows)
