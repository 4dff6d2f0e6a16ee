"""The script that merges deltas in Redis: lua/merge.lua with the merge functions of the states that a view keeps."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from feature_store.functions import State

_TEMPLATE = files("feature_store.online").joinpath("lua/merge.lua").read_text()
_PLACE = "-- {merges}\n"


def merge_script(states: Iterable[State]) -> bytes:
    """The script for tiles of these states. Views with the same kinds of states share one script."""
    kinds = {state.kind: type(state) for state in states}
    return _script(tuple(kinds[name] for name in sorted(kinds)))


@cache
def _script(kinds: tuple[type[State], ...]) -> bytes:
    helpers = dict.fromkeys(kind.lua_helpers for kind in kinds if kind.lua_helpers)
    merges = [f"function merge_of.{kind.kind}(a, i, b, size, argument){kind.lua}end\n" for kind in kinds]
    before, after = _TEMPLATE.split(_PLACE)
    return (before + "\n".join([*helpers, *merges]) + after).encode()
