"""A case of the aggregation function suite: a function with parameters, its events and its oracle."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
from hypothesis import strategies as st

from feature_store.aggregates.states import state_for
from feature_store.aggregates.windows import parts_of
from feature_store.definitions import Aggregation
from feature_store.definitions.aggregation import LIFETIME
from feature_store.definitions.dtypes import MICROSECOND, DType
from feature_store.functions import CellFunction, State, Values, function_named, values_of
from feature_store.online.codec import object_column

SECOND_US = 1_000_000
BASE_US = 1_600_000_000 * SECOND_US
WINDOWS = (timedelta(minutes=1), timedelta(hours=1), LIFETIME)
ENTITIES = 2

Row = tuple[Any, ...]
# An event of the suite: entity, second, delay in seconds, values.
Given = tuple[int, int, int, Row]


@dataclass(frozen=True)
class FunctionCase:
    """A function with parameters, over one type of column.

    Attributes:
        function: the name of the function.
        dtype: the type of the aggregated column, which is named `x`.
        values: a hypothesis strategy for values of the column. None is null.
        oracle: computes the feature of a window in the obvious way. It gets the rows of the window in order of time;
            ties are in order of the bytes of `x`. A row is the value of `x`, never null or NaN, then the values of
            `others`. It returns None if the feature is null.
        options: the function's parameters.
        others: further columns, by name: the type, and a strategy for values.
        is_timed: whether the oracle gets (time, row) pairs and, as a second argument, the end of the window; times in
            microseconds since 1970.
        rel, abs: the relative and absolute tolerance between a feature and the oracle's.
    """

    function: str
    dtype: DType
    values: st.SearchStrategy[Any]
    oracle: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    others: dict[str, tuple[DType, st.SearchStrategy[Any]]] = field(default_factory=dict)
    is_timed: bool = False
    rel: float = 1e-9
    abs: float = 1e-6

    def __str__(self) -> str:
        return "-".join([self.function, str(self.dtype), *(f"{name}={value}" for name, value in self.options.items())])

    @property
    def columns(self) -> dict[str, DType]:
        """The types of all columns."""
        return {"x": self.dtype} | {name: dtype for name, (dtype, _) in self.others.items()}

    @property
    def aggregation(self) -> Aggregation:
        """The function over windows of a minute, an hour and a lifetime; without windows if it takes none."""
        computes = function_named(self.function)
        takes_windows = not isinstance(computes, CellFunction) or computes.takes_windows
        return Aggregation("x", self.function, windows=WINDOWS if takes_windows else None, **self.options)

    @property
    def states(self) -> list[State]:
        """The states that the function is computed from."""
        return [state_for(part) for part in parts_of(self.aggregation, self.dtype)]

    def rows(self) -> st.SearchStrategy[Row]:
        """A strategy for rows: the values of an event's columns."""
        return st.tuples(self.values, *(values for _, values in self.others.values()))

    def events(self, delay: st.SearchStrategy[int]) -> st.SearchStrategy[list[Given]]:
        """A strategy for events of few entities, in any order."""
        second = st.integers(0, 2 * 3600)
        return st.lists(st.tuples(st.integers(0, ENTITIES - 1), second, delay, self.rows()), max_size=40)

    def arrays(self, rows: list[Row]) -> dict[str, Values]:
        """Rows as columns of values and nulls."""
        return {name: _array(dtype, [row[i] for row in rows]) for i, (name, dtype) in enumerate(self.columns.items())}

    def expected(self, events: list[Given], entity: int, window: timedelta, now_us: int) -> Any:
        """The oracle's feature of an entity and window at a time, microseconds since 1970."""
        hop_us = self.aggregation.hop_us(window)
        start_us = now_us - window // MICROSECOND
        if not self.aggregation.computes.is_cell:
            start_us = start_us // hop_us * hop_us
        held = [
            (BASE_US + second * SECOND_US, row)
            for owner, second, delay, row in events
            if owner == entity
            and start_us <= BASE_US + second * SECOND_US
            and BASE_US + (second + delay) * SECOND_US <= now_us
            and row[0] is not None
            and not (isinstance(row[0], float) and math.isnan(row[0]))
        ]
        held.sort(key=lambda item: (item[0], self._bits(item[1])))
        timed = [(at, (_plain(row[0]), *row[1:])) for at, row in held]
        return self.oracle(timed, now_us) if self.is_timed else self.oracle([row for _, row in timed])

    def _bits(self, row: Row) -> int:
        """The bytes of all values as an unsigned number, the first value last."""
        pairs = zip(self.columns.values(), row, strict=True)
        return int.from_bytes(b"".join(_bytes(dtype, value) for dtype, value in pairs), "little")


def _array(dtype: DType, values: list[Any]) -> Values:
    nulls = np.array([value is None for value in values], bool)
    if dtype.width is None:
        return object_column(values), nulls
    return np.array([dtype.numpy.type(0) if value is None else value for value in values], dtype.numpy), nulls


def _bytes(dtype: DType, value: Any) -> bytes:
    """The bytes of a value; none for nulls and texts, since no function depends on their order."""
    if dtype.width is None or value is None:
        return b""
    values, _ = values_of(np.array([value], dtype.numpy), np.zeros(1, bool))
    return values.tobytes()


def _plain(value: Any) -> Any:
    return value + 0.0 if isinstance(value, float) else value
