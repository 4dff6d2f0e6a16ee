"""The numpy arrays that pass between modules, as types."""

from __future__ import annotations

from typing import Any

import numpy as np

# The values of a column, one per row: (n,), or (n, length) of fixed-size arrays.
Column = np.ndarray[Any, Any]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
