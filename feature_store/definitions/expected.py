"""Values against what their field expects of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from feature_store.definitions.field import Field

Array = np.ndarray[Any, Any]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def unexpected(values: Array, nulls: Mask | None, declared: Field) -> Mask:
    """Which values are outside the range of a field, or are none of those that it allows: (n,) bool. Null is no value.

    Args:
        values: (n,) of the field's numpy dtype, objects for strings; where `nulls` is True it does not matter what.
        nulls: (n,) bool; None: there is a value everywhere.
        declared: the field.
    """
    found: Mask = np.zeros(len(values), bool)
    if declared.min is not None:
        found |= ~(values >= declared.dtype.to_stored(declared.min))  # NaN is in no range
    if declared.max is not None:
        found |= ~(values <= declared.dtype.to_stored(declared.max))
    if declared.allowed is not None:
        allowed = {declared.dtype.to_stored(value) for value in declared.allowed}
        found |= ~np.array([value in allowed for value in values.tolist()], bool)
    if nulls is not None:
        found &= ~nulls
    return found
