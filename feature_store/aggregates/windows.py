"""The tiles and windows of a view, compiled from its aggregations.

    event time  ────────┬────────┬────────┬────────┬──── ▶
    tiles           t-3      t-2      t-1       t          tile number: event time // hop
                        └── a window's tiles at now ──┘    from (now - window) // hop to now // hop

A *part* is a state that can be merged (a count, a sum, …). A function computes its value from one or two parts. A
*tile* holds the parts of one hop's events. A *ring* holds the newest tiles of one hop size: the head, which is the
newest tile, and the `slots` before it. Windows with the same hop share a ring. Functions that need the same part share
the part.

A window `lifetime` is a window of LIFETIME_US in hops of LIFETIME_US. So tile 0 has all events, and its ring is a head
without slots: one *cell*. No event is too late for a cell, and a merge never replaces it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feature_store.aggregates.states import state_for
from feature_store.definitions.dtypes import MICROSECOND, DType
from feature_store.functions import (
    LIFETIME_US,
    CellFunction,
    Column,
    Part,
    StateArrays,
    TimeSpan,
    Values,
    function_named,
)
from feature_store.functions._parameters import options_text, read_options

if TYPE_CHECKING:
    from feature_store.definitions.aggregation import Aggregation

# How far an event's time may be ahead of the clock: clocks differ by some seconds. A ring has tiles for this time
# beyond its windows, so that an event from a fast clock displaces no tile of a window. Later events are refused.
CLOCK_SKEW_US = 10_000_000
# Hops are at least a second, so tile numbers fit in 32 bits, with 0 for no tile, and times in the 53 bits of a double.
LAST_TILE = 2**32 - 2
EARLIEST_EVENT_US = 86_400_000_000
LATEST_EVENT_US = LAST_TILE * 1_000_000


@dataclass(frozen=True, slots=True)
class Ring:
    """Tiles of one hop size.

    Attributes:
        hop_us: the time that a tile spans, microseconds.
        slots: the number of tiles beside the head; 0 for a cell.
        parts: the parts of each tile.
    """

    hop_us: int
    slots: int
    parts: tuple[Part, ...]

    @property
    def reach_us(self) -> int:
        """How far an event's tile can lie before the head's and still be kept, microseconds."""
        return self.hop_us * self.slots if self.slots else LIFETIME_US


@dataclass(frozen=True, slots=True)
class Window:
    """A feature: a function over a sliding window.

    Attributes:
        name: the feature's name.
        function: the function's name.
        window_us: the length of the window, microseconds.
        ring: the index of its ring.
        parts: the indexes, in the ring, of the parts that the function needs.
        dtype: the feature's type, as `str(DType)`.
        default: the value served for a missing value, as `DType.to_json` writes it; None when there is no default.
        options: the parameters that the function needs at a read, as `options_text` writes them.
    """

    name: str
    function: str
    window_us: int
    ring: int
    parts: tuple[int, ...]
    dtype: str
    default: Any = None
    options: str = ""

    def value_of(self, states: Sequence[StateArrays], end_us: Column | int) -> Values:
        """The feature of n entities, from the states of its parts; see `Function.finalize`.

        Args:
            states: the states of the window's parts.
            end_us: the time that the window ends at, microseconds since 1970: of all entities, or (n,) int64.
        """
        return finalizer(self)(states, end_us)


@dataclass(frozen=True, slots=True)
class Windows:
    """The rings and features of a view."""

    rings: tuple[Ring, ...]
    features: tuple[Window, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the states read, each once."""
        parts = [part for ring in self.rings for part in ring.parts]
        return tuple(dict.fromkeys(name for part in parts for name in state_for(part).columns))

    @property
    def filters(self) -> tuple[str, ...]:
        """The filters, each once."""
        return tuple(dict.fromkeys(part.filter for ring in self.rings for part in ring.parts if part.filter))

    @property
    def longest_us(self) -> int:
        """The longest time that an event counts, in microseconds: the longest window and its hop.

        LIFETIME_US if events count for ever.
        """
        return max(self._counts_us(window) for window in self.features)

    def _counts_us(self, window: Window) -> int:
        ring = self.rings[window.ring]
        return window.window_us + ring.hop_us if ring.slots else window.window_us

    @property
    def longest_ring(self) -> int:
        """The index of the ring with the longest reach: an event too late for it is too late for all."""
        return max(range(len(self.rings)), key=lambda i: self.rings[i].reach_us)


def slots_of(window_us: int, hop_us: int) -> int:
    """The number of tiles beside the head that a window needs."""
    if hop_us == LIFETIME_US:
        return 0
    return window_us // hop_us + -(-CLOCK_SKEW_US // hop_us)


def compile_windows(aggregations: Iterable[Aggregation], columns: Mapping[str, DType]) -> Windows:
    """The rings and windows of a view; `columns` are the types of its source's columns."""
    wanted = [(aggregation, window) for aggregation in aggregations for window in aggregation.windows]
    hops = sorted({aggregation.hop_us(window) for aggregation, window in wanted})
    parts: list[dict[Part, int]] = [{} for _ in hops]
    slots = [0] * len(hops)
    features = []
    for aggregation, window in wanted:
        hop_us, window_us = aggregation.hop_us(window), window // MICROSECOND
        ring = hops.index(hop_us)
        column = columns[aggregation.column]
        places = tuple(parts[ring].setdefault(part, len(parts[ring])) for part in parts_of(aggregation, column))
        slots[ring] = max(slots[ring], slots_of(window_us, hop_us))
        dtype = aggregation.dtype(column)
        features.append(
            Window(
                aggregation.feature_name(window),
                aggregation.function,
                window_us,
                ring,
                places,
                str(dtype),
                dtype.to_json(aggregation.default),
                options_text(aggregation.computes.at_read(aggregation.options)),
            )
        )
    rings = tuple(Ring(hop, count, tuple(of_ring)) for hop, count, of_ring in zip(hops, slots, parts, strict=True))
    return Windows(rings, tuple(features))


def parts_of(aggregation: Aggregation, column: DType) -> list[Part]:
    """The parts that an aggregation of a column of this type needs."""
    return [
        Part(spec.kind, aggregation.column, str(column), aggregation.filter or "", spec.n, options_text(spec.options))
        for spec in aggregation.computes.states(aggregation.options)
    ]


def finalizer(window: Window) -> Callable[[Sequence[StateArrays], Column | int], Values]:
    """The `Function.finalize` of a window's function, as `Window.value_of` calls it."""
    computes, options, window_us = function_named(window.function), read_options(window.options), window.window_us
    assert computes is not None, window.function
    if isinstance(computes, CellFunction):
        return lambda states, end_us: computes.finalize(states, options, TimeSpan(end_us - window_us, end_us))
    return lambda states, end_us: computes.finalize(states, options)
