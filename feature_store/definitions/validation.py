"""Errors of wrong arguments: pydantic's errors are mapped to DefinitionErrors here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence, Set as AbstractSet
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from feature_store._formatting import quoted
from feature_store.errors import DefinitionError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_LONGEST_NAME = 40
# Names of arguments in other feature stores, and their names here.
_ELSEWHERE = {
    "batch_source": "source",
    "created_timestamp_column": "created_timestamp",
    "event_timestamp_column": "event_timestamp",
    "feature_views": "features",
    "features": "schema",
    "join_keys": "join_key",
    "message_format": "format",
    "timestamp_field": "event_timestamp",
    "value_type": "dtype",
}
# Classes of definitions, as errors name them.
_KINDS = {
    "Aggregation": "an Aggregation",
    "Entity": "an Entity",
    "Field": "a Field",
    "KafkaSource": "a KafkaSource",
    "Projection": 'a view, or some features of one: view[["a", "b"]]',
    "RequestSource": "a RequestSource",
}
# Python types that users write in place of a field's type.
_TYPES = {bool: "Bool", int: "Int64", float: "Float64", str: "String"}
# By pydantic's type of error. `{…}` is filled in from the error's context.
_EXPECTATIONS = {
    "missing": "a value",
    "extra_forbidden": "no such argument",
    "string_pattern_mismatch": "a name of letters, digits and underscores that does not start with a digit",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "string_too_long": "at most {max_length} characters",
    "bool_type": "True or False",
    "bool_parsing": "True or False",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "literal_error": "{expected}",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_attributes_type": "a definition",
    "time_delta_type": "a timedelta",
    "time_delta_parsing": "a timedelta",
}


def as_list(where: str, argument: str, value: Any) -> Any:
    """The value of an argument that takes a list. An iterator is read.

    Raises:
        DefinitionError: the value is a single item or has no order.
    """
    if isinstance(value, (list, tuple)):
        return value
    if value is None:
        raise DefinitionError(where, expected="a list", got="None")
    is_one = isinstance(value, (str, bytes, Mapping)) or _is_model(value) or not isinstance(value, Iterable)
    if is_one or isinstance(value, AbstractSet):
        hint = f"put it in brackets: {argument}=[{_name_of(value)}]" if is_one else "a set has no order"
        raise DefinitionError(where, expected="a list", got=shown(value), hint=hint)
    return list(value)


def as_definition_error(where: str, arguments: Sequence[str], error: ValidationError) -> DefinitionError:
    """The first of pydantic's errors as a DefinitionError.

    Args:
        where: the definition.
        arguments: the names of its arguments.
        error: pydantic's error.
    """
    detail = error.errors(include_url=False)[0]
    nested = detail.get("ctx", {}).get("error")
    location = list(detail["loc"])
    if isinstance(nested, DefinitionError):
        # The error of a nested definition begins with its own name, which may already be the end of the path.
        within = nested.where if not location or nested.where != location[-1] else ""
        path = _path(location) + (f".{within}" if within else "")
        return nested.as_kind(DefinitionError, where=f"{where}{path}")
    value = detail["input"]
    if detail["type"] == "extra_forbidden":
        hint = _argument_hint(str(location[-1]), arguments)
        return DefinitionError(where + _path(location), problem="there is no such argument", hint=hint)
    expected = _expectation(detail)
    got = "none" if detail["type"] in ("missing", "too_short") and not value else shown(value)
    return DefinitionError(where + _path(location), expected=expected, got=got, hint=_hint(expected, value))


def shown(value: Any) -> str:
    """A value as an error shows it."""
    if _is_model(value):
        name = getattr(value, "name", None)
        return f"{type(value).__name__}({repr(name) if isinstance(name, str) else '…'})"
    return quoted(value)


def _is_model(value: Any) -> bool:
    """Whether a value is a pydantic model, without importing pydantic: a model server may not have loaded it."""
    return hasattr(type(value), "model_fields")


def _expectation(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if detail["type"] in ("too_short", "too_long"):
        least = "at least" if detail["type"] == "too_short" else "at most"
        return f"{least} {context.get('min_length', context.get('max_length'))}"
    if detail["type"] == "model_type":
        return _KINDS.get(str(context.get("class_name")), "{class_name}").format_map(context)
    if detail["type"] in _EXPECTATIONS:
        return _EXPECTATIONS[detail["type"]].format_map(context)
    return detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("expected ")


def _hint(expected: str, value: Any) -> str:
    if expected.startswith("a timedelta"):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return f"write timedelta(seconds={value:g})"
        return "write timedelta(hours=1), from datetime"
    if isinstance(value, type) and value in _TYPES:
        return f"write {_TYPES[value]}, from feature_store"
    return ""


def _argument_hint(name: str, arguments: Sequence[str]) -> str:
    if _ELSEWHERE.get(name) in arguments:
        return f"it is called {_ELSEWHERE[name]!r} here"
    close = difflib.get_close_matches(name, arguments, n=1)
    return f"did you mean {close[0]!r}?" if close else f"arguments are {', '.join(arguments)}"


def _path(location: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _name_of(value: Any) -> str:
    if isinstance(value, timedelta):
        return f"timedelta(seconds={value.total_seconds():g})"
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else shown(value) if len(repr(value)) < _LONGEST_NAME else "…"
