"""sequence: several columns of the n latest events of an entity, aligned, from one cell.

    cell      n records, newest first; unused records are 0
    record    at f8           the event's time, microseconds since 1970; 0: no event
              its columns     as in a row, in the order of `columns`

A record is newer than another if its time is greater, or at equal times if the bytes of its columns are the greater
unsigned little-endian number. The n latest records of two groups are among the n latest of each, so cells merge in any
order. The same holds for the newest records of different values of `distinct`. A window begins at a time, so it holds
the first records of the cell: no ring is needed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from feature_store.functions._arrays import Column, Mask, StateArrays, Values, WindowMask, sizes_of, values_of
from feature_store.functions._contract import CellFunction, ColumnType, Part, State, StateSpec, TimeSpan
from feature_store.functions._order import starts_of, with_ties, words_of
from feature_store.functions._parameters import Options, Parameter, checked, options_text, read_options, whole
from feature_store.functions._sorted_values import SortedValues
from feature_store.functions.count_per_category import CATEGORIES, places_of

# The name by which a sequence serves the times of its events.
EVENT_TIMESTAMP = "event_timestamp"
MOST_EVENTS, MOST_COLUMNS = 500, 32
_TIME_BYTES = 8


def _columns(value: Any) -> list[list[str]]:
    """Pairs of a column's name and type."""
    pairs = [[name, dtype] for name, dtype in (value.items() if isinstance(value, Mapping) else value)]
    names = [name for name, _ in pairs]
    if not 1 <= len(pairs) <= MOST_COLUMNS or len(set(names)) < len(names) or EVENT_TIMESTAMP in names:
        raise ValueError
    if not all(isinstance(text, str) and text for pair in pairs for text in pair):
        raise ValueError
    return pairs


def _categories(value: Any) -> dict[str, list[Any]]:
    """The categories of columns, which are stored as places in their lists."""
    if not isinstance(value, Mapping):
        raise ValueError
    return {_name(name): CATEGORIES.read(listed) for name, listed in sorted(value.items())}


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.isidentifier():
        raise ValueError
    return value


_STORED = {
    "columns": Parameter(f"1 to {MOST_COLUMNS} columns of the events with their types", _columns),
    "categories_of": Parameter("the categories of columns of texts, by column", _categories, None),
    "distinct": Parameter("one of the columns", _name, None),
}
_N = whole(1, MOST_EVENTS)


class SequenceCell(State):
    """The n latest events: n times 8 bytes and their columns."""

    kind = "sequence"
    lua_helpers = """
local function is_greater_record(x, y) -- the later time, else the greater bytes of columns
  local at, other = unpack_bytes('<d', x), unpack_bytes('<d', y)
  if at ~= other then
    return at > other
  end
  for i = #x, 9, -1 do
    local p, q = string.byte(x, i), string.byte(y, i)
    if p ~= q then
      return p > q
    end
  end
  return false
end

local sequence_shapes = {}

local function shape_of_sequence(argument)
  local shape = sequence_shapes[argument]
  if not shape then
    local width, first, last = string.match(argument, '(%d+),(%d+),(%d+)')
    shape = { tonumber(width), tonumber(first), tonumber(last) }
    sequence_shapes[argument] = shape
  end
  return shape[1], shape[2], shape[3]
end

-- The first record of `list` from byte `at` that is an event and, with `first` > 0, whose bytes `first` to `last` were
-- not seen; nil after the last. Then the byte where it begins.
local function next_record(list, at, width, first, last, seen)
  while at < #list do
    local record = sub(list, at, at + width - 1)
    if sub(record, 1, 8) == '\\0\\0\\0\\0\\0\\0\\0\\0' then
      return nil, #list
    end
    if first == 0 or not seen[sub(record, first, last)] then
      return record, at
    end
    at = at + width
  end
  return nil, at
end
"""
    lua = """
  local width, first, last = shape_of_sequence(argument)
  local x, y, bytes = a[i], b[i], #a[i]
  local seen, merged, length = {}, {}, 0
  local p, at_x = next_record(x, 1, width, first, last, seen)
  local q, at_y = next_record(y, 1, width, first, last, seen)
  while length < bytes and (p or q) do
    if not q and first == 0 then -- the rest of x is in order
      merged[#merged + 1] = sub(x, at_x, at_x + bytes - length - 1)
      length = length + #merged[#merged]
      break
    end
    local is_y = q and (not p or is_greater_record(q, p))
    local record = is_y and q or p
    merged[#merged + 1] = record
    length = length + width
    if is_y then
      at_y = at_y + width
    else
      at_x = at_x + width
    end
    if first > 0 then
      seen[sub(record, first, last)] = true
      p, at_x = next_record(x, at_x, width, first, last, seen)
      q, at_y = next_record(y, at_y, width, first, last, seen)
    elseif is_y then
      q, at_y = next_record(y, at_y, width, 0, 0, seen)
    else
      p, at_x = next_record(x, at_x, width, 0, 0, seen)
    end
  end
  a[i] = table.concat(merged) .. string.rep('\\0', bytes - length)
"""

    def __init__(self, part: Part, column: ColumnType) -> None:
        super().__init__(part, column)
        options = checked(_STORED, self.options)
        types = {name: column.parse(text) for name, text in options["columns"]}
        for name, dtype in types.items():
            if dtype.width is None or dtype.element is not None:
                raise ValueError(f"{self.kind} takes scalar values of fixed width, and {name} is {dtype}")
        if next(iter(types)) != part.column or options["distinct"] not in (None, *types):
            raise ValueError(f"{self.kind} begins with the column of its part, and is distinct by one of its columns")
        self._distinct: str | None = options["distinct"]
        self._categories: dict[str, list[Any]] = options["categories_of"] or {}
        self._values = np.dtype([(name, dtype.numpy) for name, dtype in types.items()])
        self._record = np.dtype([("at", "<f8"), ("values", self._values)])

    # -- bytes ----------------------------------------------------------------------------------------------------

    @property
    def fields(self) -> dict[str, Any]:
        """The records."""
        return {"": (self._record, (self.part.n,))}

    @property
    def struct(self) -> str:
        """The bytes of the records."""
        return f"c{self.part.n * self._record.itemsize}"

    @property
    def lua_argument(self) -> str:
        """The width of a record, and the first and last byte of the column `distinct`, from 1; 0 without one."""
        first, last = 0, 0
        if self._distinct is not None:
            assert self._values.fields is not None
            dtype, offset, *_ = self._values.fields[self._distinct]
            first = _TIME_BYTES + offset + 1
            last = first + dtype.itemsize - 1
        return f"{self._record.itemsize},{first},{last}"

    # -- events ---------------------------------------------------------------------------------------------------

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a record."""
        return self._values.names or ()

    @property
    def reads(self) -> Hashable:
        """The columns, their types and categories."""
        return options_text({"columns": self.options["columns"], "categories_of": self._categories})

    def take(self, columns: Mapping[str, Values]) -> Values:
        """The columns as one array. An event has a value if all of its columns have."""
        taken: Column | None = None
        held: Mask | None = None
        for name in self.columns:
            values, are_values = self._values_of(name, *columns[name])
            if taken is None or held is None:
                taken, held = np.zeros(len(values), self._values), are_values
            else:
                held = held & are_values
            taken[name] = np.where(are_values, values, np.zeros(1, values.dtype))
        assert taken is not None and held is not None
        return taken, held

    def _values_of(self, name: str, values: Column, nulls: Mask) -> Values:
        if name not in self._categories:
            return values_of(values, nulls)
        places, have_places = places_of(tuple(self._categories[name]), values, nulls)
        return np.where(have_places, places + 1, 0).astype(self._values[name]), ~nulls

    def update(self, values: Column, at: Column, starts: Column) -> StateArrays:
        """The latest events of groups."""
        order = with_ties(values, at, starts)[::-1]  # groups from the last to the first, each from its newest event
        group = np.repeat(np.arange(len(starts)), sizes_of(starts, len(values)))[::-1]
        return self._listed(len(starts), group, at[order].astype(np.float64), values[order])

    # -- algebra --------------------------------------------------------------------------------------------------

    def merge(self, a: StateArrays, b: StateArrays) -> StateArrays:
        """The latest events of two cells."""
        return self._merged(np.concatenate([a[""], b[""]], axis=1))

    def fold(self, states: StateArrays, window: WindowMask) -> StateArrays:
        """The latest events of tiles."""
        records = states[""]
        if records.shape[1] == 1 and window.mask.all():  # as at a read, where a copy is all that is needed
            return {"": records[:, 0]}
        records = np.where(window.mask[:, :, None], records, np.zeros(1, self._record))
        return self._merged(records.reshape(len(records), -1))

    def of_ranges(self, events: SortedValues, starts: Column, ends: Column) -> StateArrays:
        """The latest events of ranges, from the newest on."""
        values, at = events.in_order
        found = self.zero(len(starts))
        again = self._places_of_the_next(values)
        count, place = np.zeros(len(starts), np.intp), ends - 1
        going_on = np.flatnonzero(place >= starts)
        while len(going_on):
            here = place[going_on]
            taken, chosen = going_on, here
            if again is not None:  # only the newest event of a value
                is_newest = again[here] >= ends[going_on]
                taken, chosen = going_on[is_newest], here[is_newest]
            found[""]["at"][taken, count[taken]] = at[chosen]
            found[""]["values"][taken, count[taken]] = values[chosen]
            count[taken] += 1
            place[going_on] -= 1
            going_on = going_on[(place[going_on] >= starts[going_on]) & (count[going_on] < self.part.n)]
        return found

    def _places_of_the_next(self, values: Column) -> Column | None:
        """For each of n sorted events the index of the next event with the same value of `distinct`, else n."""
        if self._distinct is None:
            return None
        keys = np.ascontiguousarray(values[self._distinct])
        order = np.argsort(keys, kind="stable")
        again = np.full(len(keys), len(keys))
        same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
        again[order[same]] = order[same + 1]
        return again

    def _merged(self, records: Column) -> StateArrays:
        """The latest of (n, k) records in any order: (n, self.part.n)."""
        group, place = np.nonzero(records["at"])
        held = records[group, place]
        values = np.ascontiguousarray(held["values"])
        order = np.lexsort((*words_of(values), held["at"], group))[::-1]
        return self._listed(len(records), group[order], held["at"][order], values[order])

    def _listed(self, count: int, group: Column, at: Column, values: Column) -> StateArrays:
        """The first events of each group, of events whose groups are adjacent and sorted from the newest event on."""
        if self._distinct is not None and len(group):
            keys = np.ascontiguousarray(values[self._distinct])
            order = np.lexsort((np.arange(len(group)), *words_of(keys), group))
            is_newest = np.zeros(len(group), bool)
            is_newest[order[starts_of(group[order], keys[order])]] = True
            group, at, values = group[is_newest], at[is_newest], values[is_newest]
        starts = starts_of(group)
        rank = np.arange(len(group)) - np.repeat(starts, sizes_of(starts, len(group)))
        kept = rank < self.part.n
        listed = self.zero(count)
        listed[""]["at"][group[kept], rank[kept]] = at[kept]
        listed[""]["values"][group[kept], rank[kept]] = values[kept]
        return listed


class SequenceFunction(CellFunction):
    """See `summary`."""

    name = "sequence"
    summary = "a column of the n latest events, newest first, aligned with other columns of the same events"
    notes = (
        "Write it as [`Sequence`](guides/sequences.md), which makes an aggregation of each column. An event counts if "
        "all columns have a value. With `distinct`, only the newest event of each value of this column counts. All "
        "columns are in one cell of an entity, and windows begin exactly at `t - W`."
    )
    takes = "any"
    default: ClassVar[Any] = []
    parameters: ClassVar[Mapping[str, Parameter]] = {
        **_STORED,
        "n": _N,
        "serves": Parameter(f"one of the columns, or `{EVENT_TIMESTAMP}`", _name),
    }

    def states(self, options: Options) -> tuple[StateSpec, ...]:
        """A cell of all columns."""
        stored = {name: options[name] for name in _STORED if options[name] is not None}
        return (StateSpec("sequence", n=options["n"], options=stored),)

    def at_read(self, options: Options) -> Options:
        """The column that is served and its type: the state has the rest."""
        return {"serves": options["serves"], "dtype": self._served(options)}

    def fits(self, parts: Sequence[Part], options: Options) -> bool:
        """Whether the part is a cell with the column."""
        if [part.kind for part in parts] != ["sequence"]:
            return False
        known = dict(checked(_STORED, read_options(parts[0].options))["columns"]) | {EVENT_TIMESTAMP: "Timestamp"}
        return bool(known.get(options["serves"]) == options["dtype"])

    def dtype(self, column: str, options: Options) -> str:
        """A list of the served column's values."""
        return f"Array({options['dtype'] if 'dtype' in options else self._served(options)})"

    def _served(self, options: Options) -> str:
        types: dict[str, str] = dict(options["columns"]) | {EVENT_TIMESTAMP: "Timestamp"}
        return types[options["serves"]]

    def label(self, options: Options) -> str:
        """`sequence_price`."""
        return f"sequence_{options['serves']}"

    def suffix(self, window: str, options: Options) -> str:
        """The window, unless it is a lifetime."""
        return "" if window == "lifetime" else f"_{window}"

    def columns_read(self, column: str, options: Options) -> tuple[str, ...]:
        """All columns of the cell."""
        return tuple(name for name, _ in options["columns"])

    def finalize(self, states: Sequence[StateArrays], options: Options, span: TimeSpan | None = None) -> Values:
        """Lists; none is null."""
        records = states[0][""]
        at, serves = records["at"], options["serves"]
        held = at != 0
        if span is not None:
            held &= at >= np.reshape(span.start_us, (-1, 1))
        served = at.astype(np.int64) if serves == EVENT_TIMESTAMP else np.ascontiguousarray(records["values"][serves])
        listed = np.empty(len(records), object)
        for i, count in enumerate(held.sum(axis=1).tolist()):
            listed[i] = served[i, :count]  # the first records, since they are sorted
        return listed, np.zeros(len(listed), bool)
