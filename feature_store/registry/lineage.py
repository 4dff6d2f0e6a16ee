"""Lineage: how data flows from sources to models.

    sources → views → on-demand views → services → models

Features, `view:feature`, have edges of their own in place of their views. The kinds of nodes are those of the catalog,
and `models`. A view's lineage goes from view to view, a feature's from feature to feature.
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
# The tag of a service that names its models, separated by commas.
MODEL_TAG = "model"
# Which node `find` returns when several have the name.
_PRECEDENCE = ("views", "streams", "on-demand", "services", FEATURES, "sources", MODELS)


class Node(NamedTuple):
    """A node of the graph: its kind (one of the catalog's KINDS, or `models`) and its name."""

    kind: str
    name: str


class _Neighbours(Protocol):
    def __call__(self, node: Node, *, of: Node | None = None) -> list[Node]: ...


@dataclass(frozen=True)
class Lineage:
    """The graph of a project's data flow.

    Attributes:
        nodes: sources first.
        edges: `(from, to)`, in the direction of the data.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[Node, Node], ...]

    def upstream(self, node: Node) -> list[Node]:
        """All nodes that a node depends on, the nearest first."""
        return _reached(node, self.parents)

    def downstream(self, node: Node) -> list[Node]:
        """All nodes that depend on a node, the nearest first."""
        return _reached(node, self.children)

    def parents(self, node: Node, *, of: Node | None = None) -> list[Node]:
        """The nodes that a node directly depends on, within the lineage of `of` (by default the node itself)."""
        return [one for one in self._into.get(node, ()) if _belongs(one, of or node)]

    def children(self, node: Node, *, of: Node | None = None) -> list[Node]:
        """The nodes that directly depend on a node, within the lineage of `of` (by default the node itself)."""
        return [one for one in self._out_of.get(node, ()) if _belongs(one, of or node)]

    def around(self, name: str, up: bool = True, down: bool = True) -> Lineage:
        """The part of the graph upstream and downstream of a node.

        Raises:
            NotFoundError: no node has the name; the error suggests similar names.
        """
        node = self.find(name)
        kept = {node, *(self.upstream(node) if up else ()), *(self.downstream(node) if down else ())}
        return Lineage(
            tuple(one for one in self.nodes if one in kept),
            tuple(edge for edge in self.edges if edge[0] in kept and edge[1] in kept),
        )

    def find(self, name: str) -> Node:
        """The node of a name. If several have it, a definition comes before a source or model.

        Raises:
            NotFoundError: no node has the name; the error suggests similar names.
        """
        named = [node for node in self.nodes if node.name == name]
        if not named:
            what = "a source, a view, a feature as view:feature, a service or a model"
            raise unknown(name, what, [node.name for node in self.nodes])
        return min(named, key=lambda node: _PRECEDENCE.index(node.kind))

    @cached_property
    def _out_of(self) -> dict[Node, list[Node]]:
        return _grouped(self.edges)

    @cached_property
    def _into(self) -> dict[Node, list[Node]]:
        return _grouped((target, source) for source, target in self.edges)


def lineage_of(definitions: DefinitionSet, models: Mapping[str, Sequence[str]] | None = None) -> Lineage:
    """The lineage of all definitions.

    Args:
        definitions: applied or not.
        models: `{service: models}`, beside the models that the service's tag `model` names.
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
        # A function's use of its inputs is unknown: each output may depend on each input.
        for taken in graph.inputs(view.name):
            yield from ((Node(FEATURES, taken.reference), output) for output in outputs)
        for request in view.requests:
            source = Node("sources", request.name)
            yield source, node
            yield from ((source, output) for output in outputs)


def _belongs(neighbour: Node, start: Node) -> bool:
    """Whether a neighbour belongs to the lineage of a start: features only if the start is a feature, views only if
    not."""
    if neighbour.kind in ("views", "streams", "on-demand"):
        return start.kind != FEATURES
    return neighbour.kind != FEATURES or start.kind == FEATURES


def _reached(start: Node, neighbours: _Neighbours) -> list[Node]:
    reached: dict[Node, None] = {}
    waiting = deque([start])
    while waiting:
        for node in neighbours(waiting.popleft(), of=start):
            if node not in reached and node != start:
                reached[node] = None
                waiting.append(node)
    return list(reached)


def _grouped(edges: Iterable[tuple[Node, Node]]) -> dict[Node, list[Node]]:
    grouped: dict[Node, list[Node]] = {}
    for source, target in edges:
        grouped.setdefault(source, []).append(target)
    return grouped
