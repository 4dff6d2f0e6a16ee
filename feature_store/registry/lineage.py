"""Lineage: what comes from what, from sources to models.

    sources → views → on-demand views → services → models

and the same of single features, `view:feature`, in the place of views. Nodes are of the kinds of the catalog, or
`models`. A view's lineage goes from view to view, a feature's from feature to feature.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.graph import graph_of
from feature_store.registry.catalog import kind_of, unknown

MODELS, FEATURES = "models", "features"
# A service's tag that says which models it is for, separated by commas.
MODEL_TAG = "model"
# Of two things of one name, which one is meant.
_PRECEDENCE = ("views", "streams", "on-demand", "services", FEATURES, "sources", MODELS)


class Node(NamedTuple):
    """A thing: its kind (of the catalog's KINDS, or `models`) and its name."""

    kind: str
    name: str


class _Neighbours(Protocol):
    def __call__(self, node: Node, *, of: Node | None = None) -> list[Node]: ...


@dataclass(frozen=True)
class Lineage:
    """A graph of what comes from what.

    Attributes:
        nodes: sources first.
        edges: `(from, to)`.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[Node, Node], ...]

    def upstream(self, node: Node) -> list[Node]:
        """All that a node comes from, the nearest first."""
        return _reached(node, self.parents)

    def downstream(self, node: Node) -> list[Node]:
        """All that comes from a node, the nearest first."""
        return _reached(node, self.children)

    def parents(self, node: Node, *, of: Node | None = None) -> list[Node]:
        """What a node directly comes from, as part of the lineage of another (itself unless given)."""
        return [found for found in self._into.get(node, ()) if _belongs(found, of or node)]

    def children(self, node: Node, *, of: Node | None = None) -> list[Node]:
        """What directly comes from a node, as part of the lineage of another (itself unless given)."""
        return [found for found in self._out_of.get(node, ()) if _belongs(found, of or node)]

    def around(self, name: str, up: bool = True, down: bool = True) -> Lineage:
        """The part that a thing comes from, and that comes from it.

        Raises:
            NotFoundError: there is nothing of that name; it says what is near.
        """
        node = self.find(name)
        kept = {node, *(self.upstream(node) if up else ()), *(self.downstream(node) if down else ())}
        return Lineage(
            tuple(one for one in self.nodes if one in kept),
            tuple(edge for edge in self.edges if edge[0] in kept and edge[1] in kept),
        )

    def find(self, name: str) -> Node:
        """The node of a name; where there are several, the one of a definition.

        Raises:
            NotFoundError: there is none; it says what is near.
        """
        found = [node for node in self.nodes if node.name == name]
        if not found:
            what = "a source, a view, a feature as view:feature, a service or a model"
            raise unknown(name, what, [node.name for node in self.nodes])
        return min(found, key=lambda node: _PRECEDENCE.index(node.kind))

    @cached_property
    def _out_of(self) -> dict[Node, list[Node]]:
        return _grouped(self.edges)

    @cached_property
    def _into(self) -> dict[Node, list[Node]]:
        return _grouped((target, source) for source, target in self.edges)


def lineage_of(definitions: DefinitionSet, models: Mapping[str, Sequence[str]] | None = None) -> Lineage:
    """The lineage of all definitions.

    Args:
        definitions: applied, or not yet.
        models: `{service: models}` that are known to be served by it, beside those that its tag `model` names.
    """
    edges = list(dict.fromkeys(_edges(definitions, models or {})))
    nodes = dict.fromkeys(_all_nodes(definitions)) | dict.fromkeys(node for edge in edges for node in edge)
    order = ("sources", "views", "streams", "on-demand", FEATURES, "services", MODELS)
    return Lineage(tuple(sorted(nodes, key=lambda node: (order.index(node.kind), node.name))), tuple(edges))


def _all_nodes(definitions: DefinitionSet) -> Iterator[Node]:
    for item in definitions:
        if kind_of(item) != "entities":
            yield Node(kind_of(item), item.name)
    yield from (Node(FEATURES, reference) for reference in graph_of(definitions).features)


def _edges(definitions: DefinitionSet, models: Mapping[str, Sequence[str]]) -> Iterator[tuple[Node, Node]]:
    graph = graph_of(definitions)
    for view in definitions.stored_views:
        if view.source is None:
            continue
        source = Node("sources", view.source.name)
        yield source, Node(kind_of(view), view.name)
        yield from ((source, Node(FEATURES, f"{view.name}:{field.name}")) for field in view.fields)
    for stream in definitions.stream_feature_views.values():
        if stream.source.history is not None:
            yield Node("sources", stream.source.history.name), Node("sources", stream.source.name)
    yield from _edges_of_on_demand_views(definitions)
    for service in definitions.feature_services.values():
        node = Node("services", service.name)
        columns = graph.columns(service.name)
        for view_name in dict.fromkeys(column.view for column in columns):
            yield Node(kind_of(graph.views[view_name]), view_name), node
        yield from ((Node(FEATURES, column.reference), node) for column in columns)
        tagged = [name.strip() for name in service.tags.get(MODEL_TAG, "").split(",")]
        for model in (*tagged, *models.get(service.name, ())):
            if model:
                yield node, Node(MODELS, model)


def _edges_of_on_demand_views(definitions: DefinitionSet) -> Iterator[tuple[Node, Node]]:
    graph = graph_of(definitions)
    for view in definitions.on_demand_feature_views.values():
        node = Node("on-demand", view.name)
        outputs = [Node(FEATURES, f"{view.name}:{field.name}") for field in view.fields]
        for name in dict.fromkeys(projection.view for projection in view.projections):
            yield Node(kind_of(graph.views[name]), name), node
        # What a function does with its inputs is not known: each output may come from each of them.
        for taken in graph.inputs(view.name):
            yield from ((Node(FEATURES, taken.reference), output) for output in outputs)
        for request in view.requests:
            source = Node("sources", request.name)
            yield source, node
            yield from ((source, output) for output in outputs)


def _belongs(found: Node, start: Node) -> bool:
    """Whether a neighbour is on the level of what one started from: features are, when that is a feature."""
    if found.kind in ("views", "streams", "on-demand"):
        return start.kind != FEATURES
    return found.kind != FEATURES or start.kind == FEATURES


def _reached(start: Node, neighbours: _Neighbours) -> list[Node]:
    found: dict[Node, None] = {}
    waiting = deque([start])
    while waiting:
        for node in neighbours(waiting.popleft(), of=start):
            if node not in found and node != start:
                found[node] = None
                waiting.append(node)
    return list(found)


def _grouped(edges: Iterable[tuple[Node, Node]]) -> dict[Node, list[Node]]:
    grouped: dict[Node, list[Node]] = {}
    for source, target in edges:
        grouped.setdefault(source, []).append(target)
    return grouped
