"""The contract of an aggregation function and of the state that tiles keep for it.

A state is a dict of arrays that share their first axis. `update` makes states of events, `merge` merges two, `fold`
merges the tiles of a window, and the state's `lua` does the same merge in Redis. All functions follow these rules:

- Null and NaN are no values, and no function counts them. -0.0 counts as 0.0. Infinite values count.
- Of two values with equal times, the later is the value whose bytes are the greater unsigned little-endian number. So
  the order of arrival never matters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from feature_store.functions._arrays import Column, StateArrays, Values, WindowMask, values_of
from feature_store.functions._parameters import Options, Parameter, options_text, read_options
from feature_store.functions._sorted_values import SortedValues

# `any` column, `numbers`, values of a `fixed width`, or `categories`: texts, integers and booleans.
Takes = Literal["any", "numbers", "fixed width", "categories"]

MOST_COUNTED = 2**32 - 1
# The length and the hop of a window without a beginning, microseconds: longer than the time of any event since 1970, so
# that one tile holds all events of an entity.
LIFETIME_US = 2**32 * 1_000_000


class ColumnType(Protocol):
    """The attributes of a column's type that functions use. `definitions.dtypes.DType` has them."""

    @property
    def width(self) -> int | None:
        """Bytes of a value; None when values have no fixed width."""

    @property
    def numpy(self) -> np.dtype[Any]:
        """The type of an array of values."""

    @property
    def element(self) -> Any:
        """The type of an array's elements; None for a scalar type."""

    def parse(self, text: str) -> ColumnType:
        """The type of a text such as `Int64`, for states of several columns; ValueError if there is none."""


@dataclass(frozen=True, slots=True, repr=False)
class Part:
    """A state in the tiles of a ring, as the serving plan names it.

    Attributes:
        kind: the kind of state.
        column: the column whose values it holds.
        dtype: the column's type, as `str(DType)`.
        filter: the filter of events; empty when all events count.
        n: the number of values that a state with several values holds; else 1.
        options: other parameters of the state, as `options_text` writes them.
    """

    kind: str
    column: str
    dtype: str
    filter: str = ""
    n: int = 1
    options: str = ""

    def __repr__(self) -> str:
        # The text without options is part of the fingerprint of stored tiles: it must not change.
        options = f", options={self.options!r}" if self.options else ""
        return (
            f"Part(kind={self.kind!r}, column={self.column!r}, dtype={self.dtype!r}, filter={self.filter!r}, "
            f"n={self.n!r}{options})"
        )


class TimeSpan(NamedTuple):
    """The times of windows, for `CellFunction.finalize`.

    Attributes:
        start_us, end_us: the first and the last time that a window holds, microseconds since 1970: int for all windows,
            or (n,) int64.
    """

    start_us: Any
    end_us: Any


@dataclass(frozen=True)
class StateSpec:
    """A state that a function needs: its kind and parameters."""

    kind: str
    n: int = 1
    options: Options = field(default_factory=dict)


class State(ABC):
    """A kind of mergeable state, bound to a part.

    Class attributes:
        kind: its name in serving plans. The bytes of a kind never change: a new layout needs a new kind.
        lua: the body of `function(a, i, b, size, argument)`, which merges the state that begins at `b[i]` into the one
            at `a[i]`. `size` is the number of Lua values of a state, and `argument` is its `lua_argument`.
        lua_helpers: Lua that defines local functions for `lua`. If several kinds have the same text, it is sent once.
        is_exact: whether merges in any order and grouping give the same bytes. If not, results differ by rounding.

    Args:
        part: the part of a ring.
        column: the type of the part's column.
    """

    kind: ClassVar[str]
    lua: ClassVar[str]
    lua_helpers: ClassVar[str] = ""
    is_exact: ClassVar[bool] = True

    def __init__(self, part: Part, column: ColumnType) -> None:
        self.part, self.column, self.options = part, column, read_options(part.options)

    # -- bytes ----------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def fields(self) -> dict[str, Any]:
        """The arrays of a state in the order of their bytes: `{name: numpy format, or (format, shape)}`."""

    @property
    def lua_argument(self) -> str:
        """The text that the merge in Redis gets as `argument`: parameters, without blanks, `:`, `;` and `|`."""
        return ""

    @property
    @abstractmethod
    def struct(self) -> str:
        """The format of the same bytes in Redis's struct library: `I4dd`."""

    def zero(self, count: int) -> StateArrays:
        """`count` states without events."""
        return {name: np.zeros(count, form) for name, form in self.fields.items()}

    # -- events ---------------------------------------------------------------------------------------------------

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that `take` reads."""
        return (self.part.column,)

    @property
    def reads(self) -> Hashable:
        """A key that is equal for states with the same result of `take`, which then runs once."""
        return self.part.column

    def take(self, columns: Mapping[str, Values]) -> Values:
        """The values of n events as `update` takes them, and (n,) bool, True for an event that has a value."""
        return values_of(*columns[self.part.column])

    @abstractmethod
    def update(self, values: Column, at: Column, starts: Column) -> StateArrays:
        """States of groups of values.

        Args:
            values: (n,) of the events that have a value, sorted by group and time.
            at: (n,) int64, the events' times, microseconds since 1970.
            starts: the index where each group begins. No group is empty.
        """

    # -- algebra --------------------------------------------------------------------------------------------------

    @abstractmethod
    def merge(self, a: StateArrays, b: StateArrays) -> StateArrays:
        """The states of `a` merged with those of `b`, element by element."""

    @abstractmethod
    def fold(self, states: StateArrays, window: WindowMask) -> StateArrays:
        """(n, k) states of tiles, merged along k where the tile lies in the window.

        No two tiles have a time in common. Tiles outside the window may hold any bytes, also NaN.
        """

    def of_ranges(self, events: SortedValues, starts: Column, ends: Column) -> StateArrays | None:
        """States of ranges of sorted values; None when a tree of merged states is the fastest way.

        Args:
            events: the values, sorted by entity and time.
            starts, ends: (m,) bounds of ranges. Ranges may overlap and may be empty.
        """
        return None

    def of_short_ranges(self, events: SortedValues, starts: Column, ends: Column) -> StateArrays | None:
        """As `of_ranges`, for ranges of up to about 100 values, which can be computed value by value."""
        return None

    # Values in a leaf of a tree of merged states: more for wide states, so that trees stay small.
    leaf: ClassVar[int] = 1


class Function(ABC):
    """An aggregation function.

    Class attributes:
        name: its name in an `Aggregation`.
        summary: a description of the feature in one line, for docs/aggregations.md.
        notes: exact semantics: error bounds, ties, the value for an entity without events.
        takes: the columns that it takes.
        kinds: the states that it is computed from, if they have no parameters.
        result: the feature's type, as `str(DType)`; `column` stands for the column's type.
        default: the feature of an entity without events, as JSON.
        parameters: the parameters by name.
        is_cell: whether one state of an entity serves windows of any length: see CellFunction.
    """

    is_cell: ClassVar[bool] = False
    name: ClassVar[str]
    summary: ClassVar[str]
    notes: ClassVar[str] = ""
    takes: ClassVar[Takes] = "any"
    kinds: ClassVar[tuple[str, ...]] = ()
    result: ClassVar[str] = "Float64"
    default: ClassVar[Any] = None
    parameters: ClassVar[Mapping[str, Parameter]] = {}

    def states(self, options: Options) -> tuple[StateSpec, ...]:
        """The states that a feature is computed from."""
        return tuple(StateSpec(kind) for kind in self.kinds)

    def at_read(self, options: Options) -> Options:
        """The parameters that `finalize` and `dtype` need at a read. The serving plan holds them."""
        return options

    def fits(self, parts: Sequence[Part], options: Options) -> bool:
        """Whether the parts of a serving plan are the function's states. `options` are those of `at_read`."""
        wanted = [(spec.kind, spec.n, options_text(spec.options)) for spec in self.states(options)]
        return [(part.kind, part.n, part.options) for part in parts] == wanted

    def dtype(self, column: str, options: Options) -> str:
        """The feature's type, for a column of the given type; both as `str(DType)`."""
        return column if self.result == "column" else self.result

    def empty(self, options: Options) -> Any:
        """The feature of an entity without events, as JSON."""
        return self.default

    def label(self, options: Options) -> str:
        """The function's part of a feature's name: `p99`."""
        return self.name

    def columns_read(self, column: str, options: Options) -> tuple[str, ...]:
        """The columns that it reads, for an aggregation of the given column."""
        named = [options[name] for name, parameter in self.parameters.items() if parameter.is_column]
        return (column, *(name for name in named if name is not None and name != column))

    def suffix(self, window: str, options: Options) -> str:
        """The end of a feature's name, for a window such as `1h`."""
        return f"_{window}"

    def values_kept(self, options: Options) -> int:
        """The number of values that each tile lists for the function. A view's sum is bounded."""
        return 0

    @abstractmethod
    def finalize(self, states: Sequence[StateArrays], options: Options) -> Values:
        """The feature of n entities.

        Args:
            states: the states named by `self.states`, each for n windows.
            options: the parameters that `at_read` returns.

        Returns:
            (n,) values of the feature's numpy type; for an array (n, length), or (n,) objects (1-d arrays) if its
            length varies. Then (n,) bool, True where the feature is null.
        """


class CellFunction(Function):
    """A function with one state of an entity, a *cell*, from which it computes a feature at any time.

    Its windows need no ring of tiles: `finalize` leaves out what the window does not hold. The state holds events until
    the end of the window, and may hold older ones.

    Class attributes:
        takes_windows: whether an `Aggregation` may have windows. If not, all events count.
    """

    is_cell = True
    takes_windows: ClassVar[bool] = True

    @abstractmethod
    def finalize(self, states: Sequence[StateArrays], options: Options, span: TimeSpan | None = None) -> Values:
        """As `Function.finalize`.

        Args:
            states: the states named by `self.states`, each for n windows.
            options: the parameters that `at_read` returns.
            span: the times of the windows. None: no time passes and nothing is left out; tests compare states so.
        """
