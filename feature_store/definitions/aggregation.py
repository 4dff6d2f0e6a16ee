"""Aggregations: what a stream view computes of its events, over which sliding windows."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field as Attribute, field_serializer, field_validator, model_validator

from feature_store.definitions.definition import Model, Name
from feature_store.definitions.dtypes import MICROSECOND, Array, DType, Float64, Int64
from feature_store.definitions.expression import expression
from feature_store.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Sequence

Function = Literal["count", "sum", "mean", "min", "max", "stddev", "first", "last", "last_n", "distinct"]
# A window slides by a 48th of itself unless it says how: an hour by 75 seconds, a day by half an hour.
HOPS_PER_WINDOW = 48
SECOND_US = 1_000_000
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_MOST_HOPS = 1_000
_MOST_LISTED = 100  # of each hop's newest; they are stored in every tile
_ZERO_WHEN_EMPTY = ("count", "sum", "distinct")


class Aggregation(Model):
    """One function of a column's values, over one or more sliding windows.

    A window of length W at time t holds the events with `floor(t - W, hop) <= event time <= t`.

    Args:
        column: of the source's schema. Null and NaN are no values: they are not counted.
        function: count, sum, mean, min, max, stddev (of the population), first, last, last_n (the newest n, newest
            first), distinct (approximately how many: a HyperLogLog sketch, standard error 9 %).
        windows: how long; whole seconds, at most 1,000 hops each.
        name: what the features' names start with, instead of `{column}_{function}`.
        filter: which events count, such as `action == 'click'`.
        hop: by how much the windows slide; a 48th of each unless given. Windows that share a hop share state.
        n: of last_n.

    Raises:
        DefinitionError: an argument is not allowed; it says which and why.
    """

    column: Name
    function: Function
    windows: tuple[timedelta, ...] = Attribute(min_length=1)
    name: Name | None = None
    filter: str | None = None
    hop: timedelta | None = None
    n: int | None = Attribute(default=None, ge=1, le=_MOST_LISTED)

    def __init__(
        self,
        column: str,
        function: str,
        *,
        windows: Sequence[timedelta],
        name: str | None = None,
        filter: str | None = None,
        hop: timedelta | None = None,
        n: int | None = None,
    ) -> None:
        super().__init__(column=column, function=function, windows=windows, name=name, filter=filter, hop=hop, n=n)

    @field_validator("windows", "hop", mode="before")
    @classmethod
    def _microseconds_as_stored(cls, value: Any) -> Any:
        """A document holds microseconds; users write timedeltas."""
        if isinstance(value, (list, tuple)):
            return tuple(map(_from_document, value))
        return _from_document(value)

    @field_serializer("windows", "hop")
    def _as_microseconds(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return [item // MICROSECOND for item in value]
        return None if value is None else value // MICROSECOND

    @model_validator(mode="after")
    def _parts_fit(self) -> Aggregation:
        for i, window in enumerate(self.windows):
            self._check_window(f"windows[{i}]", window)
        if len(set(self.windows)) < len(self.windows):
            raise DefinitionError("windows", expected="windows that differ", got="one twice")
        if (self.function == "last_n") != (self.n is not None):
            raise DefinitionError("n", expected="a number with last_n, and with nothing else", got=str(self.n))
        if self.filter is not None:
            expression(self.filter)
        return self

    def _check_window(self, where: str, window: timedelta) -> None:
        hop = self.hop_us(window)
        window_us = window // MICROSECOND
        if window_us < SECOND_US or window_us % SECOND_US:
            hint = "write windows as timedelta(hours=1), from datetime"
            raise DefinitionError(where, expected="whole seconds, at least one", got=str(window), hint=hint)
        if hop < SECOND_US and self.hop is None:
            hint = "state a hop of at least one second"
            raise DefinitionError(where, expected="48 hops of at least one second", got=str(window), hint=hint)
        if hop < SECOND_US or hop % SECOND_US:
            raise DefinitionError("hop", expected="whole seconds, at least one", got=str(self.hop))
        if window_us % hop or window_us // hop > _MOST_HOPS:
            got = f"{window} in hops of {hop // SECOND_US} s"
            raise DefinitionError(where, expected=f"a whole number of hops, at most {_MOST_HOPS}", got=got)

    def hop_us(self, window: timedelta) -> int:
        """By how much a window slides, in microseconds."""
        if self.hop is not None:
            return self.hop // MICROSECOND
        # Whole seconds, so that a tile's number fits in 32 bits; the largest divisor that leaves at least 48 hops.
        seconds = window // timedelta(seconds=1)
        wanted = max(seconds // HOPS_PER_WINDOW, 0)
        while wanted > 1 and seconds % wanted:
            wanted -= 1
        return wanted * SECOND_US

    def feature_name(self, window: timedelta) -> str:
        """The name of a window's feature: `rating_mean_1h`."""
        function = f"last{self.n}" if self.function == "last_n" else self.function
        return f"{self.name or f'{self.column}_{function}'}_{shown_window(window)}"

    def dtype(self, column: DType) -> DType:
        """The type of the features, for a column of the given type."""
        match self.function:
            case "count" | "distinct":
                return Int64
            case "first" | "last":
                return column
            case "last_n":
                return Array(column)
            case _:
                return Float64

    @property
    def default(self) -> Any:
        """What is served of an entity without events: nothing was counted, so 0, or no values; a mean of nothing is
        null."""
        if self.function == "last_n":
            return []
        return 0 if self.function in _ZERO_WHEN_EMPTY else None


def _from_document(value: Any) -> Any:
    if type(value) is not int:
        return value
    try:
        return value * MICROSECOND
    except OverflowError:
        raise ValueError("expected a timedelta") from None


def shown_window(window: timedelta) -> str:
    """A window as names show it: `90s`, `1h`, `7d`; in the largest unit that divides it."""
    seconds = window // timedelta(seconds=1)
    unit, size = next((unit, size) for unit, size in _UNITS.items() if seconds % size == 0)
    return f"{seconds // size}{unit}"
