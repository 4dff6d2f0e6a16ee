"""Draws a graph in layers: the positions of its nodes and edges, in pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

N = TypeVar("N")
WIDTH, HEIGHT = 168, 28  # of a node
_GAP_X, _GAP_Y, _MARGIN = 42, 10, 16
# Number of times that each layer is sorted by the positions of its neighbours. More changes little.
_SWEEPS = 4


@dataclass(frozen=True)
class Placed(Generic[N]):
    """A node and the position of its upper left corner."""

    node: N
    x: int
    y: int


@dataclass(frozen=True)
class Drawing(Generic[N]):
    """A drawn graph.

    Attributes:
        nodes: the nodes, layer by layer, from top to bottom.
        curves: the edges, as SVG path data.
        columns: `(x, layer)` of the layers with nodes.
        width, height: the size of the drawing.
    """

    nodes: tuple[Placed[N], ...]
    curves: tuple[str, ...]
    columns: tuple[tuple[int, int], ...]
    width: int
    height: int


def draw(layers: Mapping[N, int], edges: Iterable[tuple[N, N]]) -> Drawing[N]:
    """Draw nodes in layers from left to right, with few crossings of edges.

    Args:
        layers: the layer of each node.
        edges: edges from a layer to a later one.
    """
    known = [(source, target) for source, target in edges if source in layers and target in layers]
    columns: dict[int, list[N]] = defaultdict(list)
    for node, layer in layers.items():
        columns[layer].append(node)
    ordered = _with_few_crossings([columns[layer] for layer in sorted(columns)], known)
    tallest = max((len(column) for column in ordered), default=0)
    step = HEIGHT + _GAP_Y
    placed: dict[N, tuple[int, int]] = {}
    for i, column in enumerate(ordered):
        top = _MARGIN + 16 + (tallest - len(column)) * step // 2 if tallest <= 40 else _MARGIN + 16
        for j, node in enumerate(column):
            placed[node] = _MARGIN + i * (WIDTH + _GAP_X), top + j * step
    return Drawing(
        tuple(Placed(node, x, y) for node, (x, y) in placed.items()),
        tuple(_curve(*placed[source], *placed[target]) for source, target in known),
        tuple((_MARGIN + i * (WIDTH + _GAP_X), layer) for i, layer in enumerate(sorted(columns))),
        2 * _MARGIN + len(ordered) * (WIDTH + _GAP_X) - _GAP_X if ordered else 2 * _MARGIN,
        2 * _MARGIN + 16 + tallest * step - _GAP_Y,
    )


def _with_few_crossings(columns: list[list[N]], edges: Sequence[tuple[N, N]]) -> list[list[N]]:
    """The columns, with each node near the mean position of its neighbours (Sugiyama, Tagawa and Toda 1981)."""
    neighbours: dict[N, list[N]] = defaultdict(list)
    for source, target in edges:
        neighbours[source].append(target)
        neighbours[target].append(source)
    # Columns differ in length, so positions are shares of the length.
    places = {node: (i + 0.5) / len(column) for column in columns for i, node in enumerate(column)}
    for sweep in range(_SWEEPS):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            middle = {node: _mean([places[one] for one in neighbours[node]], places[node]) for node in column}
            column.sort(key=middle.__getitem__)
            places |= {node: (i + 0.5) / len(column) for i, node in enumerate(column)}
    return columns


def _mean(values: list[float], without: float) -> float:
    return sum(values) / len(values) if values else without


def _curve(x: int, y: int, to_x: int, to_y: int) -> str:
    start, middle = x + WIDTH, (x + WIDTH + to_x) // 2
    at, to = y + HEIGHT // 2, to_y + HEIGHT // 2
    return f"M{start} {at}C{middle} {at} {middle} {to} {to_x} {to}"
