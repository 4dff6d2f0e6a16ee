"""Checks of a serving plan that was read: a plan that no definitions can have made is refused.

Anyone who can write to Redis can write a plan. The parser checks the types of its parts. This module checks their
values: names (which become Redis keys, columns and file names), references between parts, and sizes, so that a plan
    cannot make
a client allocate or compute without bound. The bounds are far beyond any useful plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

from feature_store.aggregates.states import state_for
from feature_store.aggregates.tiles import state_bytes
from feature_store.aggregates.windows import Ring, Window, Windows
from feature_store.definitions.dtypes import DType
from feature_store.definitions.names import is_name
from feature_store.errors import DataError, DefinitionError
from feature_store.functions import LIFETIME_US, Part, all_functions, function_named
from feature_store.functions._parameters import read_options
from feature_store.registry.serving_plan import (
    ColumnPlan,
    FieldPlan,
    InputPlan,
    PrunedColumnPlan,
    PruningPlan,
    RowGroupPlan,
    SegmentPlan,
    ServicePlan,
    ServingPlan,
    TilesPlan,
    TransformPlan,
)

T = TypeVar("T")
# Size of a document: a plan of 5,000 features takes half a megabyte.
MOST_BYTES = 32 << 20
# Size of one entity's row or tiles. Redis takes 512 MiB, but 200 rows of 1 MiB are already too much for a request.
MOST_VALUE_BYTES = 64 << 20
_MOST_TEXT = 1_000
_MOST_BUCKETS = 16_384
_MOST_TILES = 100_000
_MOST_LISTED = 1_000
_MOST_NUMBER = 2**53
# The longest window or hop: a century. That of a lifetime is longer.
_LONGEST_US = 100 * 366 * 86_400 * 1_000_000
_TIME_UNITS = {"s", "ms", "us"}
_MOST_OPTIONS = 20_000  # characters


class UnsoundError(ValueError):
    """A plan that no definitions can have made. The text names the part and the reason."""


def refuse_unsound(plan: ServingPlan) -> None:
    """Raise an UnsoundError if no definitions can have made the plan."""
    _name("project", plan.project)
    _text("epoch", plan.epoch)
    _whole("version", plan.version, 0, _MOST_NUMBER)
    _whole("buckets", plan.buckets, 1, _MOST_BUCKETS)
    for number in (*(group.buckets for group in plan.groups), *(tiles.buckets for tiles in plan.tiles)):
        _whole("buckets of a served generation", number, plan.buckets, plan.buckets)
    for kind in ("groups", "filling", "retired"):
        _each(kind, getattr(plan, kind), _group)
    for kind in ("tiles", "filling_tiles", "retired_tiles"):
        _each(kind, getattr(plan, kind), _tiles)
    _each("transforms", plan.transforms, _transform)
    _each("services", plan.services, _service)
    _names("unstored", plan.unstored)
    _once("groups", [group.name for group in plan.groups])
    stored = [segment.view for group in plan.groups for segment in group.segments]
    views = [*stored, *(tiles.view for tiles in plan.tiles), *(transform.name for transform in plan.transforms)]
    _once("views", views)
    _once("services", [service.name for service in plan.services])


def _each(where: str, items: Sequence[T], check: Callable[[T], int]) -> int:
    """Check items. Returns the sum of their bytes. The path of an item is built only for an error."""
    size = 0
    for i, item in enumerate(items):
        try:
            size += check(item)
        except UnsoundError as error:
            raise UnsoundError(f"{where}[{i}].{error}") from None
    return size


def _group(group: RowGroupPlan) -> int:
    _keys(group.entities, group.join_keys)
    if group.name != "+".join(group.entities):
        _refuse("name", "the names of its entities", group.name)
    _whole("generation", group.generation, 0, _MOST_NUMBER)
    _whole("buckets", group.buckets, 1, _MOST_BUCKETS)
    _once("segments", [segment.view for segment in group.segments])
    size = _each("segments", group.segments, _segment)
    _whole("bytes of a row", size, 0, MOST_VALUE_BYTES)
    return size


def _segment(segment: SegmentPlan) -> int:
    _name("view", segment.view)
    if segment.ttl_us is not None:
        _whole("ttl_us", segment.ttl_us, 1, _LONGEST_US * 10)
    _once("fields", [field.name for field in segment.fields])
    return _each("fields", segment.fields, _field)


def _field(field: FieldPlan | InputPlan | PrunedColumnPlan) -> int:
    _name("name", field.name)
    dtype = _dtype(field.dtype)
    _default(dtype, field.default)
    return dtype.width or 1


def _tiles(tiles: TilesPlan) -> int:
    _name("view", tiles.view)
    _keys(tiles.entities, tiles.join_keys)
    _whole("generation", tiles.generation, 0, _MOST_NUMBER)
    _whole("buckets", tiles.buckets, 1, _MOST_BUCKETS)
    _text("topic", tiles.topic)
    if tiles.start_us is not None:
        _whole("start_us", tiles.start_us, -(2**63), 2**63 - 1)
    if tiles.event_time is not None:
        member, unit = tiles.event_time
        _text("event_time", member)
        if unit not in _TIME_UNITS:
            _refuse("event_time", "s, ms or us", unit)
    for column, text in tiles.derived:
        _name("derived", column)
        _long_text("derived", text)
    return _windows(tiles.windows)


def _windows(windows: Windows) -> int:
    if not windows.features:
        _refuse("windows", "at least one window", "none")
    _once("windows.features", [window.name for window in windows.features])
    size = _each("windows.rings", windows.rings, _ring)
    _whole("bytes of its tiles", size, 1, MOST_VALUE_BYTES)
    _each("windows.features", windows.features, lambda window: _window(window, windows.rings))
    return size


def _ring(ring: Ring) -> int:
    if ring.hop_us == LIFETIME_US:
        _whole("slots", ring.slots, 0, 0)
    else:
        _whole("hop_us", ring.hop_us, 1_000_000, _LONGEST_US)
        _whole("slots", ring.slots, 1, _MOST_TILES)
    return (ring.slots + 1) * (4 + _each("parts", ring.parts, _part))


def _part(part: Part) -> int:
    _text("column", part.column)
    _text("filter", part.filter)
    _whole("n", part.n, 1, _MOST_LISTED)
    _long_text("options", part.options)
    _dtype(part.dtype)
    try:
        return state_bytes(state_for(part))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UnsoundError(f"kind: expected a state of {part.dtype}, got {part.kind!r:.100} ({error!s:.100})") from None


def _window(window: Window, rings: Sequence[Ring]) -> int:
    _name("name", window.name)
    function = function_named(window.function)
    if function is None:
        _refuse("function", f"one of {', '.join(all_functions())}", window.function)
    _whole("ring", window.ring, 0, len(rings) - 1)
    ring = rings[window.ring]
    _whole("window_us", window.window_us, 1, ring.reach_us)
    for place in window.parts:
        _whole("parts", place, 0, len(ring.parts) - 1)
    parts = [ring.parts[place] for place in window.parts]
    _long_text("options", window.options)
    try:
        options = read_options(window.options)
        is_made_of, wanted = function.fits(parts, options), function.dtype(parts[0].dtype, options)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        _refuse("options", f"the parameters of {window.function}", window.options[:100])
    if not is_made_of:
        _refuse("parts", f"the parts of {window.function}", ", ".join(part.kind for part in parts))
    dtype = _dtype(window.dtype)
    if str(dtype) != wanted:
        _refuse("dtype", wanted, window.dtype)
    _default(dtype, window.default)
    return 0


def _transform(transform: TransformPlan) -> int:
    _name("name", transform.name)
    for text in (transform.function, transform.digest, *transform.earlier):
        _text("digest", text)
    _once("inputs", [item.name for item in transform.inputs])
    _once("outputs", [item.name for item in transform.outputs])
    _each("inputs", transform.inputs, _input)
    return _each("outputs", transform.outputs, _output)


def _input(item: InputPlan) -> int:
    _name("feature", item.feature)
    if item.view:
        _name("view", item.view)
    return _field(item)


def _output(output: FieldPlan) -> int:
    size = _field(output)
    if _dtype(output.dtype).element is not None:
        _refuse("dtype", "a scalar type", output.dtype)
    return size


def _service(service: ServicePlan) -> int:
    _name("name", service.name)
    _once("columns", [column.name for column in service.columns])
    _each("columns", service.columns, _column)
    if service.pruning is not None:
        _pruning(service.pruning, {column.name for column in service.columns})
    return 0


def _column(column: ColumnPlan) -> int:
    _names("name", (column.name, column.view, column.feature))
    return 0


def _pruning(pruning: PruningPlan, served: set[str]) -> None:
    _text("pruning.plan", pruning.plan)
    if pruning.stage not in ("shadow", "mask", "drop") or pruning.answer not in ("error", "default"):
        _refuse("pruning", "a stage and an answer of a prune plan", f"{pruning.stage}, {pruning.answer}")
    _names("pruning.read_order", pruning.read_order)
    _names("pruning.columns", pruning.columns)
    _once("pruning.columns", pruning.columns)
    _each("pruning.dropped", pruning.dropped, _dropped)
    known = served | {column.name for column in pruning.dropped}
    for name in pruning.columns:
        if name not in known:
            _refuse("pruning.columns", "columns that are served or dropped", name)


def _dropped(column: PrunedColumnPlan) -> int:
    _names("view", (column.view, column.feature))
    return _field(column)


# -- values ----------------------------------------------------------------------------------------------------------


def _refuse(where: str, expected: str, got: object) -> NoReturn:
    raise UnsoundError(f"{where}: expected {expected}, got {repr(got)[:80]}")


def _name(where: str, text: str) -> None:
    if not is_name(text):
        _refuse(where, "a name of at most 64 letters, digits and underscores", text)


def _names(where: str, texts: Iterable[str]) -> None:
    for text in texts:
        _name(where, text)


def _once(where: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        _refuse(where, "names that differ", Counter(names).most_common(1)[0][0])


def _text(where: str, text: str) -> None:
    if len(text) > _MOST_TEXT or not text.isprintable():
        _refuse(where, f"at most {_MOST_TEXT:,} printable characters", text)


def _long_text(where: str, text: str) -> None:
    if len(text) > _MOST_OPTIONS:
        _refuse(where, f"at most {_MOST_OPTIONS:,} characters", text[:100])


def _whole(where: str, number: int, least: int, most: int) -> None:
    if not least <= number <= most:
        _refuse(where, f"a number from {least} to {most}", number)


def _keys(entities: Sequence[str], join_keys: Sequence[tuple[str, str]]) -> None:
    _names("entities", entities)
    _names("join_keys", [name for name, _ in join_keys])
    _once("join_keys", [name for name, _ in join_keys])
    if not entities or len(entities) != len(join_keys):
        _refuse("join_keys", "a join key of each entity", len(join_keys))
    for _, dtype in join_keys:
        if _dtype(dtype).element is not None or _dtype(dtype).scalar.key_code is None:
            _refuse("join_keys", "Int32, Int64 or String", dtype)


@lru_cache(maxsize=1_000)
def _dtype(text: str) -> DType:
    if len(text) > _MOST_TEXT:
        _refuse("dtype", "a type", text)
    try:
        dtype = DType.parse(text)
    except (DefinitionError, ValueError):  # ValueError: a length of thousands of digits
        _refuse("dtype", "a type", text)
    if (dtype.length or 0) > MOST_VALUE_BYTES:
        _refuse("dtype", "a length that memory can hold", text)
    return dtype


def _default(dtype: DType, default: Any) -> None:
    if default is None:
        return
    try:
        dtype.fit(dtype.from_json(default), "default")
    except (DataError, ValueError, TypeError, OverflowError):
        _refuse("default", f"a value of {dtype}", default)
