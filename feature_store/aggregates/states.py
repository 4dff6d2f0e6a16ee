"""The states of parts: a kind of state, bound to the part's column and parameters."""

from __future__ import annotations

from functools import lru_cache

from feature_store.definitions.dtypes import DType
from feature_store.functions import Part, State, state_type


@lru_cache(maxsize=4096)
def state_for(part: Part) -> State:
    """The state of a part. It is made once.

    Raises:
        ValueError: no function has a state of this kind, or the kind does not take the column, n or options.
    """
    kind = state_type(part.kind)
    if kind is None:
        raise ValueError(f"no function has a state {part.kind!r}")
    return kind(part, DType.parse(part.dtype))
