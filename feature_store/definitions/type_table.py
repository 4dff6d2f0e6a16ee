"""Tables of behaviour by scalar type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from feature_store.definitions.dtypes import DType

T = TypeVar("T")


class TypeTable(Generic[T]):
    """A behaviour for each scalar type.

    A package that treats types differently keeps the difference in one module-level table, instead of comparing names
    of types. `tests/definitions/test_type_tables.py` finds all tables, and names each type that a table lacks.

    Args:
        behaviours: by the kind of scalar type: `Int64`, `String`, ….
    """

    def __init__(self, behaviours: Mapping[str, T]) -> None:
        self._behaviours = dict(behaviours)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that have a behaviour."""
        return frozenset(self._behaviours)

    def __getitem__(self, dtype: DType) -> T:
        """The behaviour of a type; of an array, that of its elements."""
        return self._behaviours[dtype.scalar.kind]
