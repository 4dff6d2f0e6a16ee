"""Fields: the columns of views and requests."""

from __future__ import annotations

from typing import Any

from pydantic import field_serializer, model_validator

from feature_store.definitions.definition import Definition
from feature_store.definitions.dtypes import DType
from feature_store.errors import DefinitionError


class Field(Definition):
    """One feature of a view, or one field of a request.

    Args:
        name: the column's name.
        dtype: its type.
        default: what is served where there is no value (null, missing, expired); it must be of the type.
            Without a default, such a value is None in a dict and NaN in a matrix.
        description, owner, tags: for the people who browse the registry.

    Raises:
        DefinitionError: a name, type or default is not allowed.
    """

    dtype: DType
    default: Any = None

    def __init__(self, name: str, dtype: DType, *, default: Any = None, **about: Any) -> None:
        super().__init__(name=name, dtype=dtype, default=default, **about)

    @model_validator(mode="before")
    @classmethod
    def _default_is_canonical(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            raise ValueError("expected a Field")
        dtype = values.get("dtype")
        if isinstance(dtype, str):  # a document: see `to_document`
            dtype = DType.parse(dtype)
            return values | {"dtype": dtype, "default": dtype.from_json(values.get("default"))}
        if isinstance(dtype, DType) and values.get("default") is not None:
            try:
                return values | {"default": dtype.fit(values["default"], "default")}
            except ValueError as error:
                raise DefinitionError("default", expected=f"a value of {dtype}", got=repr(values["default"])) from error
        return values

    @field_serializer("default")
    def _default_as_json(self, default: Any) -> Any:
        return self.dtype.to_json(default)
