"""Checks of values against the expectations of their field."""

from __future__ import annotations

from typing import Any

import numpy as np

from feature_store.definitions.field import Field

Array = np.ndarray[Any, Any]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def unexpected(values: Array, nulls: Mask | None, declared: Field) -> Mask:
    """The values outside of a field's range or allowed values, as (n,) bool. Nulls are expected.

    Args:
        values: (n,) of the field's numpy dtype, objects for strings. Any value may stand where `nulls` is True.
        nulls: (n,) bool; None: there are no nulls.
        declared: the field.
    """
    outside: Mask = np.zeros(len(values), bool)
    if declared.min is not None:
        outside |= ~(values >= declared.dtype.to_stored(declared.min))  # NaN is in no range
    if declared.max is not None:
        outside |= ~(values <= declared.dtype.to_stored(declared.max))
    if declared.allowed is not None:
        allowed = {declared.dtype.to_stored(value) for value in declared.allowed}
        outside |= ~np.array([value in allowed for value in values.tolist()], bool)
    if nulls is not None:
        outside &= ~nulls
    return outside
