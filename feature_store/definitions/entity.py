"""Entities: the things that features describe."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from feature_store.definitions.definition import Definition, Name
from feature_store.definitions.dtypes import DType, Int64
from feature_store.errors import DefinitionError


class Entity(Definition):
    """A thing that features describe, such as a user, and the column that identifies it.

    A view of several entities has a composite key: one value of each entity's join key.

    Args:
        name: the entity's name.
        join_key: the column that identifies it; by default the entity's name.
        dtype: the type of the column: Int64, Int32 or String.
        description, owner, tags: for the people who browse the registry.

    Raises:
        DefinitionError: a name or type is not allowed.

    Example:
        >>> from feature_store import Entity, Int64
        >>> user = Entity("user", join_key="user_id", dtype=Int64)
        >>> user.join_key
        'user_id'
    """

    join_key: Name
    dtype: DType

    def __init__(self, name: str, *, join_key: str | None = None, dtype: DType = Int64, **about: Any) -> None:
        super().__init__(name=name, join_key=name if join_key is None else join_key, dtype=dtype, **about)

    @model_validator(mode="after")
    def _key_type_is_allowed(self) -> Entity:
        if self.dtype.element is not None or self.dtype.scalar.key_code is None:
            raise DefinitionError("dtype", expected="Int64, Int32 or String", got=str(self.dtype))
        return self
