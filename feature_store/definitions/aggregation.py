"""Aggregations: a function of a column of events, over sliding windows or over all events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from pydantic import (
    Field as Attribute,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from feature_store.definitions.definition import Model, Name
from feature_store.definitions.dtypes import MICROSECOND, DType
from feature_store.definitions.expression import expression
from feature_store.errors import DefinitionError, did_you_mean
from feature_store.functions import LIFETIME_US, CellFunction, Function, all_functions, function_named
from feature_store.functions._parameters import UnfitOptionError, checked

# Without a hop, a window slides by a 48th of its length: an hour by 75 seconds, a day by half an hour.
HOPS_PER_WINDOW = 48
SECOND_US = 1_000_000
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_MOST_HOPS = 1_000
# The window "lifetime": all events of an entity. Documents and names of features hold the text.
LIFETIME = timedelta(microseconds=LIFETIME_US)
_LIFETIME_TEXT: Literal["lifetime"] = "lifetime"


class Aggregation(Model):
    """One function of a column's values, over one or more sliding windows.

    A window of length W at time t holds the events with `floor(t - W, hop) <= event time <= t`. The window `"lifetime"`
    holds all events until t. It needs one tile for each entity, and no event is too late for it.

    Args:
        column: a column of the source's schema. Null and NaN are no values: no function counts them.
        function: the name of a function: count, sum, mean, min, max, stddev, first, last, last_n, distinct, quantile, …
            docs/aggregations.md lists all of them with their parameters.
        windows: the lengths of the windows: whole seconds, at most 1,000 hops each; `"lifetime"` for all events. A
            decayed function takes none.
        name: the start of the features' names, instead of `{column}_{function}`.
        filter: which events count, such as `action == 'click'`.
        hop: the step in which the windows slide; a 48th of each unless given. Windows that share a hop share state.
        n: how many values, of functions that list several: last_n, top_k.
        parameters: the other parameters of the function, such as `q=0.99` of quantile.

    Raises:
        DefinitionError: an argument is not allowed; the error names it and says why.

    Example:
        >>> from datetime import timedelta
        >>> from feature_store import Aggregation
        >>> hours = [timedelta(hours=1), timedelta(hours=24)]
        >>> Aggregation("price", "mean", windows=hours, filter="action == 'buy'").function
        'mean'
    """

    column: Name
    function: str
    windows: tuple[timedelta, ...] = Attribute(min_length=1)
    name: Name | None = None
    filter: str | None = None
    hop: timedelta | None = None
    n: int | None = None
    parameters: dict[str, Any] = Attribute(default_factory=dict)

    def __init__(
        self,
        column: str,
        function: str,
        *,
        windows: Sequence[timedelta | Literal["lifetime"]] | None = None,
        name: str | None = None,
        filter: str | None = None,
        hop: timedelta | None = None,
        n: int | None = None,
        **parameters: Any,
    ) -> None:
        if windows is None and isinstance(function, str) and isinstance(function_named(function), CellFunction):
            windows = [_LIFETIME_TEXT]
        super().__init__(
            column=column,
            function=function,
            **({} if windows is None else {"windows": windows}),
            name=name,
            filter=filter,
            hop=hop,
            n=n,
            parameters=parameters,
        )

    @field_validator("windows", "hop", mode="before")
    @classmethod
    def _microseconds_as_stored(cls, value: Any) -> Any:
        """Read the microseconds of a document. Users pass timedeltas."""
        if isinstance(value, (list, tuple)):
            return tuple(map(_from_document, value))
        return _from_document(value)

    @field_serializer("windows", "hop")
    def _as_microseconds(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return [_LIFETIME_TEXT if item == LIFETIME else item // MICROSECOND for item in value]
        return None if value is None else value // MICROSECOND

    @model_serializer(mode="wrap")
    def _parameters_beside_the_others(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write parameters beside the other arguments, as users do."""
        document: dict[str, Any] = write(self)
        parameters: dict[str, Any] = document.pop("parameters")
        return document | parameters

    @field_validator("function")
    @classmethod
    def _function_is_known(cls, name: str) -> str:
        if function_named(name) is None:
            known = list(all_functions())
            expected = f"one of {', '.join(map(repr, known))}"
            raise DefinitionError("function", expected=expected, got=repr(name), hint=did_you_mean(name, known))
        return name

    @model_validator(mode="after")
    def _parts_fit(self) -> Aggregation:
        if self.hop is not None and self.computes.is_cell:
            raise DefinitionError("hop", problem=f"windows of {self.function} have no hops")
        for i, window in enumerate(self.windows):
            self._check_window(f"windows[{i}]", window)
        if len(set(self.windows)) < len(self.windows):
            raise DefinitionError("windows", problem="a window occurs twice")
        self._check_parameters()
        if self.filter is not None:
            expression(self.filter)
        return self

    def _check_parameters(self) -> None:
        given = self.parameters | ({"n": self.n} if self.n is not None else {})
        try:
            options = checked(self.computes.parameters, given)
        except UnfitOptionError as error:
            taken = ", ".join(self.computes.parameters) or "none"
            hint = f"parameters of {self.function}: {taken}; see docs/aggregations.md"
            if error.expected:
                about = {"expected": error.expected, "got": repr(error.value)}
            else:
                about = {"problem": "there is no such argument"}
            raise DefinitionError(error.name, **about, hint=hint) from None
        # The document holds canonical values, and no defaults, so that a new default changes no stored definition.
        for name in self.parameters:
            self.parameters[name] = options[name]

    def _check_window(self, where: str, window: timedelta) -> None:
        hop = self.hop_us(window)
        window_us = window // MICROSECOND
        if window == LIFETIME:
            return
        if isinstance(self.computes, CellFunction) and not self.computes.takes_windows:
            raise DefinitionError(where, problem=f"{self.function} takes no windows", hint="leave out the windows")
        if window_us < SECOND_US or window_us % SECOND_US:
            hint = "write windows as timedelta(hours=1), from datetime, or as 'lifetime'"
            raise DefinitionError(where, expected="whole seconds, at least one", got=str(window), hint=hint)
        if self.computes.is_cell:
            return
        if hop < SECOND_US and self.hop is None:
            hint = "state a hop of at least one second"
            raise DefinitionError(where, expected="48 hops of at least one second", got=str(window), hint=hint)
        if hop < SECOND_US or hop % SECOND_US:
            raise DefinitionError("hop", expected="whole seconds, at least one", got=str(self.hop))
        if window_us % hop or window_us // hop > _MOST_HOPS:
            got = f"{window} in hops of {hop // SECOND_US} s"
            raise DefinitionError(where, expected=f"a whole number of hops, at most {_MOST_HOPS}", got=got)

    def hop_us(self, window: timedelta) -> int:
        """The step in which a window slides, in microseconds; LIFETIME_US for a window that does not slide."""
        if window == LIFETIME or self.computes.is_cell:
            return LIFETIME_US
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
        begin = self.name or f"{self.column}_{self.computes.label(self.options)}"
        return f"{begin}{self.computes.suffix(shown_window(window), self.options)}"

    @property
    def computes(self) -> Function:
        """The function."""
        function = function_named(self.function)
        assert function is not None
        return function

    @property
    def options(self) -> Mapping[str, Any]:
        """The function's parameters, with defaults, as JSON values."""
        return checked(self.computes.parameters, self.parameters | ({"n": self.n} if self.n is not None else {}))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the function reads, without the filter's."""
        return self.computes.columns_read(self.column, self.options)

    def dtype(self, column: DType) -> DType:
        """The type of the features, for a column of the given type."""
        return DType.parse(self.computes.dtype(str(column), self.options))

    @property
    def default(self) -> Any:
        """The feature of an entity without events, as JSON: 0 for a count, null for a mean."""
        return self.computes.empty(self.options)


def _from_document(value: Any) -> Any:
    if value == _LIFETIME_TEXT:
        return LIFETIME
    if type(value) is not int:
        return value
    try:
        return value * MICROSECOND
    except OverflowError:
        raise ValueError("expected a timedelta") from None


def shown_window(window: timedelta) -> str:
    """A window as names show it: `90s`, `1h`, `7d`, in the largest unit that divides it; `lifetime`."""
    if window == LIFETIME:
        return _LIFETIME_TEXT
    seconds = window // timedelta(seconds=1)
    unit, size = next((unit, size) for unit, size in _UNITS.items() if seconds % size == 0)
    return f"{seconds // size}{unit}"
