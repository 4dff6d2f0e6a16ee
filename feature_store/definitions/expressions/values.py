"""The values of a batch of rows, and the rows for which an expression has no value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

_SHOWN = 60


class Values(NamedTuple):
    """A column of n rows.

    Attributes:
        values: (n,) in the stored form of its type; any value where the row is null.
        nulls: (n,) bool.
    """

    values: Array
    nulls: Mask

    def at(self, places: Array) -> Values:
        """The rows at some places."""
        return Values(self.values[places], self.nulls[places])


class Result(NamedTuple):
    """What an operation makes of n rows whose arguments are not null.

    Attributes:
        values: (n,) values.
        nulls: (n,) bool, the rows without a value. None: all have one.
        failed: (n,) bool, the rows for which the operation fails. None: it fails for none.
    """

    values: Array
    nulls: Mask | None = None
    failed: Mask | None = None


class Rows:
    """The rows that a program runs on: a whole batch, or some rows of it.

    Args:
        columns: the columns of the batch.
        count: the number of rows.
        places: (count,) the places of the rows in the batch. None: all rows.
        reasons: by place in the batch, why the expression fails for the row.
    """

    def __init__(
        self, columns: Mapping[str, Values], count: int, places: Array | None, reasons: dict[int, str]
    ) -> None:
        self._columns, self.count, self._places, self._reasons = columns, count, places, reasons

    def column(self, name: str) -> Values:
        """A column of these rows."""
        values = self._columns[name]
        return values if self._places is None else values.at(self._places)

    def chosen(self, chosen: Mask) -> Rows:
        """Some of these rows: (count,) bool."""
        if chosen.all():
            return self
        places = np.flatnonzero(chosen)
        return Rows(self._columns, len(places), places if self._places is None else self._places[places], self._reasons)

    def fail(self, failed: Mask, reason: Callable[[int], str]) -> None:
        """Note why rows fail: (count,) bool. The first reason of a row is kept."""
        for row in np.flatnonzero(failed).tolist():
            place = row if self._places is None else int(self._places[row])
            if place not in self._reasons:
                self._reasons[place] = reason(row)


def spread(chosen: Mask, values: Values, into: Values) -> None:
    """Put the values of some rows, (count,) bool, where the rows are."""
    into.values[chosen], into.nulls[chosen] = values


def shown(value: Any) -> str:
    """A value in a reason."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
