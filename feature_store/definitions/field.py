"""Fields: the columns of views and requests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import (
    Field as Attribute,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_serializer,
    model_validator,
)

from feature_store.definitions.definition import Definition, Model, OnChange
from feature_store.definitions.dtypes import DType
from feature_store.definitions.validation import shown
from feature_store.errors import DataError, DefinitionError

EXPECTATIONS = ("min", "max", "allowed", "max_null_rate")
_EXPECTED = OnChange("expected of rows that are written from the next materialize on", keeps_meaning=True)


class Field(Definition):
    """One feature of a view, or one field of a request.

    `materialize` and `push` check the expectations (`min`, `max`, `allowed`, `max_null_rate`) of rows before they write
    them: see FeatureView. An event with an unexpected value is never merged: from a topic it becomes a dead letter,
    from files it goes to quarantine. Expectations ignore null; NaN is in no range.

    Args:
        name: the column's name.
        dtype: its type.
        default: the value that is served in place of a null, missing or expired one; it must be of the type.
            Without a default, a dict has None and a matrix NaN.
        min, max: the least and the greatest expected number.
        allowed: the expected numbers, booleans or strings.
        max_null_rate: the greatest expected share of nulls, from 0 to 1.
        description, owner, tags: for the people who browse the registry.

    Raises:
        DefinitionError: a name, type, default or expectation is not allowed.

    Example:
        >>> from feature_store import Field, Int32
        >>> Field("age", Int32, default=0, min=0, max=120).default
        0
    """

    dtype: DType
    default: Annotated[Any, OnChange("served where there is no value")] = None
    min: Annotated[Any, _EXPECTED] = None
    max: Annotated[Any, _EXPECTED] = None
    allowed: Annotated[Any, _EXPECTED] = None
    max_null_rate: Annotated[float | None, _EXPECTED] = None

    def __init__(
        self,
        name: str,
        dtype: DType,
        *,
        default: Any = None,
        min: float | None = None,
        max: float | None = None,
        allowed: Sequence[Any] | None = None,
        max_null_rate: float | None = None,
        **about: Any,
    ) -> None:
        expected = {"min": min, "max": max, "allowed": allowed, "max_null_rate": max_null_rate}
        super().__init__(name=name, dtype=dtype, default=default, **expected, **about)

    @model_validator(mode="before")
    @classmethod
    def _values_are_canonical(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            raise ValueError("expected a Field")
        dtype = values.get("dtype")
        if isinstance(dtype, str):  # a document: see `to_document`
            dtype = DType.parse(dtype)
            values = values | {"dtype": dtype, **_from_document(dtype, values)}
        if not isinstance(dtype, DType):
            return values
        fitted = {"default": _fitted("default", values.get("default"), dtype)}
        fitted |= {name: _fitted_limit(name, values.get(name), dtype) for name in ("min", "max")}
        return values | fitted | {"allowed": _fitted_list(values.get("allowed"), dtype)}

    @model_validator(mode="after")
    def _expectations_fit(self) -> Field:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise DefinitionError("min", expected=f"at most max, {self.max}", got=str(self.min))
        if self.max_null_rate is not None and not 0 <= self.max_null_rate <= 1:
            raise DefinitionError("max_null_rate", expected="a share from 0 to 1", got=str(self.max_null_rate))
        return self

    @field_serializer("default", "min", "max")
    def _value_as_json(self, value: Any) -> Any:
        return self.dtype.to_json(value)

    @field_serializer("allowed")
    def _values_as_json(self, values: Any) -> Any:
        return None if values is None else [self.dtype.to_json(value) for value in values]

    @model_serializer(mode="wrap")
    def _without_missing_expectations(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Without expectations, the document and its digest are those of releases that had no expectations.
        document: dict[str, Any] = serialize(self)
        for name in EXPECTATIONS:
            if document[name] is None:
                del document[name]
        return document

    @property
    def expectation(self) -> str:
        """All expectations, in words; empty: there are none."""
        nulls = [] if self.max_null_rate is None else [f"null in at most {self.max_null_rate:g} of rows"]
        return "; ".join([*filter(None, [self.of_values]), *nulls])

    @property
    def of_values(self) -> str:
        """The expectations of each value, in words; empty: there are none."""
        said = {
            "at least {}": self.min,
            "at most {}": self.max,
            "one of {}": None if self.allowed is None else ", ".join(map(_shown, self.allowed)),
        }
        return "; ".join(words.format(_shown(value)) for words, value in said.items() if value is not None)


class HasSchema(Model):
    """A model whose argument `schema` is its attribute `fields`: pydantic has a method named `schema`."""

    fields: tuple[Field, ...] = Attribute(default=(), alias="schema")

    @property
    def schema(self) -> tuple[Field, ...]:  # type: ignore[override]  # of pydantic's deprecated class method
        """The fields, as `fields`."""
        return self.fields


def refuse_expectations(fields: Iterable[Field], where: str) -> None:
    """Raise a DefinitionError if fields have expectations that nothing would check."""
    for i, field in enumerate(fields):
        if field.expectation:
            hint = "declare it in the schema of a FeatureView, whose values are checked before they are written"
            raise DefinitionError(f"{where}[{i}]", problem=f"nothing checks {field.expectation!r} here", hint=hint)


def _from_document(dtype: DType, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a field in their canonical form, from `to_document`."""
    allowed = values.get("allowed")
    listed = allowed if not isinstance(allowed, list) else [dtype.from_json(value) for value in allowed]
    return {name: dtype.from_json(values.get(name)) for name in ("default", "min", "max")} | {"allowed": listed}


def _fitted(where: str, value: Any, dtype: DType) -> Any:
    try:
        return None if value is None else dtype.fit(value, where)
    except DataError as error:
        raise DefinitionError(where, expected=f"a value of {dtype}", got=shown(value)) from error


def _fitted_limit(where: str, value: Any, dtype: DType) -> Any:
    if value is not None and (not dtype.is_number or not _is_finite(value)):
        raise DefinitionError(where, expected="a finite number, for a numeric type", got=f"{shown(value)} for {dtype}")
    return _fitted(where, value, dtype)


def _fitted_list(values: Any, dtype: DType) -> Any:
    if values is None:
        return None
    if dtype.element is not None or not dtype.scalar.is_listed or not isinstance(values, (list, tuple)) or not values:
        expected = "a list of values, for numbers, booleans or strings"
        raise DefinitionError("allowed", expected=expected, got=f"{shown(values)} for {dtype}")
    for i, value in enumerate(values):
        if value is None or not _is_finite(value):
            raise DefinitionError(f"allowed[{i}]", expected="a value", got=shown(value))
    return tuple(_fitted(f"allowed[{i}]", value, dtype) for i, value in enumerate(values))


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
