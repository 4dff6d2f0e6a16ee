"""The functions that an Aggregation can name, one file each, and the contract that they keep.

A file of this folder without a leading underscore holds aggregation functions and the states from which they are
computed. Nothing else in the library names a function: definitions, tiles, point-in-time joins, the Lua script of Redis
and `docs/aggregations.md` read this folder. CONTRIBUTING.md says how to add a file;
`feature_store.testing.functions` checks it.

    Function    the function that a user names: its parameters, the columns it takes, the feature's type and value
    State       the state that a tile stores: fields, update from events, merge (in numpy and in Lua), fold over tiles

Another package adds functions with an entry point of the group `feature_store.functions`. It names a module with such
classes.
"""

from feature_store._lazy import lazy_names
from feature_store.functions._arrays import (
    Column as Column,
    Mask as Mask,
    StateArrays as StateArrays,
    Values as Values,
    WindowMask as WindowMask,
    sizes_of as sizes_of,
    values_of as values_of,
)
from feature_store.functions._contract import (
    LIFETIME_US as LIFETIME_US,
    CellFunction as CellFunction,
    Function as Function,
    Part as Part,
    State as State,
    StateSpec as StateSpec,
    TimeSpan as TimeSpan,
)
from feature_store.functions._parameters import (
    Parameter as Parameter,
)
from feature_store.functions._registry import (
    all_functions as all_functions,
    function_named as function_named,
    state_type as state_type,
)

__getattr__, __dir__ = lazy_names(__name__)
