"""Parameters of aggregation functions: the arguments of `Aggregation(...)`, and their form in a serving plan."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Options = Mapping[str, Any]
REQUIRED: Any = object()


@dataclass(frozen=True)
class Parameter:
    """An argument of `Aggregation(...)` that a function takes.

    Attributes:
        expected: the values that it takes, for errors and documentation: `a number between 0 and 1`.
        read: returns the canonical JSON value of an argument, or raises ValueError or TypeError.
        default: the value when the argument is left out; REQUIRED when the argument must be given.
        is_column: whether the argument names a column of the events, of the types of `categories`.
    """

    expected: str
    read: Callable[[Any], Any]
    default: Any = REQUIRED
    is_column: bool = False


class UnfitOptionError(ValueError):
    """An argument that its parameter does not take.

    Attributes:
        name: the name of the argument.
        expected: the values that the parameter takes; empty when there is no such parameter.
        value: the argument.
    """

    def __init__(self, name: str, expected: str, value: Any) -> None:
        super().__init__(f"{name}: expected {expected}, got {value!r}" if expected else f"{name}: no such argument")
        self.name, self.expected, self.value = name, expected, value


def whole(low: int, high: int, default: Any = REQUIRED) -> Parameter:
    """A parameter that is an integer in `[low, high]`."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
            raise ValueError
        return int(value)

    return Parameter(f"an integer from {low} to {high}", read, default)


def checked(parameters: Mapping[str, Parameter], options: Options) -> dict[str, Any]:
    """Arguments as canonical JSON values, and defaults for those that are left out.

    Raises:
        UnfitOptionError: an argument is missing, unknown, or has a value that its parameter does not take.
    """
    for name in options:
        if name not in parameters:
            raise UnfitOptionError(name, "", options[name])
    values = {}
    for name, parameter in parameters.items():
        value = options.get(name)
        if value is None and parameter.default is REQUIRED:
            raise UnfitOptionError(name, parameter.expected, None)
        try:
            values[name] = parameter.default if value is None else parameter.read(value)
        except (TypeError, ValueError):
            raise UnfitOptionError(name, parameter.expected, value) from None
    return values


def options_text(options: Options) -> str:
    """Parameters as the serving plan holds them: JSON with sorted keys, or an empty text if there are none."""
    return json.dumps(dict(options), sort_keys=True, separators=(",", ":"), ensure_ascii=False) if options else ""


def read_options(text: str) -> dict[str, Any]:
    """The parameters that `options_text` wrote.

    Raises:
        ValueError: the text is not a JSON object.
    """
    if not text:
        return {}
    options = json.loads(text)
    if not isinstance(options, dict):
        raise ValueError("expected a JSON object")
    return options
