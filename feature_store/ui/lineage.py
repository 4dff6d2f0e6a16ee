"""The data of the lineage page: the graph of all definitions, or around one; around a view, with its features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from feature_store.registry.catalog import KINDS, kind_of, unknown
from feature_store.registry.lineage import FEATURES, MODELS, Node
from feature_store.ui.graph import Drawing, draw
from feature_store.ui.snapshot import Snapshot

# Left to right. The history of a topic is left of the topic; features are right of their view.
_LAYERS = {"sources": 1, "views": 2, "streams": 2, FEATURES: 3, "on-demand": 4, "services": 5, MODELS: 6}
_TITLES = {"streams": "views", "on-demand": "on-demand views"}


@dataclass(frozen=True)
class LineagePage:
    """The page of a lineage graph.

    Attributes:
        drawing: the drawn graph.
        titles: `(x, title)` of its columns.
        focus: the node that it is around; None: the whole graph.
        upstream, downstream: the nodes upstream and downstream of the focus, the nearest first.
    """

    drawing: Drawing[Node]
    titles: tuple[tuple[int, str], ...]
    focus: Node | None
    upstream: tuple[Node, ...] = ()
    downstream: tuple[Node, ...] = ()


def whole_lineage(snapshot: Snapshot) -> LineagePage:
    """The graph of all sources, views, services and models."""
    lineage = snapshot.lineage
    return _page(lineage.edges, [node for node in lineage.nodes if node.kind != FEATURES], None)


def lineage_nodes(snapshot: Snapshot) -> frozenset[Node]:
    """The nodes of the lineage."""
    return frozenset(snapshot.lineage.nodes)


def lineage_around(snapshot: Snapshot, kind: str, name: str, direction: str = "") -> LineagePage:
    """The graph around a definition. Around a view, it shows the view's features, too.

    Args:
        snapshot: the applied definitions.
        kind, name: those of the definition; a kind of the catalog, or `models`.
        direction: `up`: only upstream; `down`: only downstream; empty: both.

    Raises:
        NotFoundError: there is no such definition.
    """
    lineage, focus = snapshot.lineage, Node(kind, name)
    if kind not in {*KINDS, MODELS} or focus not in snapshot.derived(lineage_nodes):
        raise unknown(f"{kind} {name}", "a definition or a model", (f"{one.kind} {one.name}" for one in lineage.nodes))
    up, down = tuple(lineage.upstream(focus)), tuple(lineage.downstream(focus))
    kept = {focus, *(up if direction != "down" else ()), *(down if direction != "up" else ())}
    edges = [(a, b) for a, b in lineage.edges if a in kept and b in kept]
    if name in snapshot.views and kind != FEATURES and direction != "up":
        edges, opened = _opened(snapshot, focus, edges)
        kept |= opened
    elif kind == FEATURES:
        edges = _by_way_of_views(snapshot, edges)
        kept |= {node for edge in edges for node in edge}
    nodes = [focus, *(node for node in lineage.nodes if node in kept and node != focus)]
    return _page(edges, nodes, focus, up, down)


def _opened(
    snapshot: Snapshot, view: Node, edges: Iterable[tuple[Node, Node]]
) -> tuple[list[tuple[Node, Node]], set[Node]]:
    """The edges, with those out of a view led through its features; and these features."""
    opened: set[Node] = set()
    through: list[tuple[Node, Node]] = []
    for field in snapshot.views[view.name].fields:
        feature = snapshot.features[f"{view.name}:{field.name}"]
        node = Node(FEATURES, feature.reference)
        opened.add(node)
        through.append((view, node))
        readers = [Node("services", service) for service, _ in feature.consumers]
        readers += [Node("on-demand", computed) for computed in feature.inputs_of]
        through += [(node, reader) for reader in dict.fromkeys(readers)]
    return [*(edge for edge in edges if edge[0] != view), *through], opened


def _by_way_of_views(snapshot: Snapshot, edges: Iterable[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
    """The edges, with those from sources to features led through the features' views."""
    through: list[tuple[Node, Node]] = []
    for source, target in edges:
        view = snapshot.features[target.name].view if target.kind == FEATURES else None
        if source.kind == "sources" and view is not None and kind_of(view) != "on-demand":
            node = Node(kind_of(view), view.name)
            through += [(source, node), (node, target)]
        else:
            through.append((source, target))
    return through


def _page(
    edges: Iterable[tuple[Node, Node]],
    nodes: Iterable[Node],
    focus: Node | None,
    upstream: tuple[Node, ...] = (),
    downstream: tuple[Node, ...] = (),
) -> LineagePage:
    layers = {node: _LAYERS[node.kind] for node in nodes}
    kept = [(a, b) for a, b in dict.fromkeys(edges) if a in layers and b in layers]
    for source, target in kept:
        if source.kind == target.kind == "sources":  # the history of a topic
            layers[source] = _LAYERS["sources"] - 1
        elif source.kind == target.kind == FEATURES:  # an on-demand feature, beside the on-demand views
            layers[target] = _LAYERS["on-demand"]
    drawing = draw(layers, [edge for edge in kept if layers[edge[0]] < layers[edge[1]]])
    kinds = {layers[one.node]: one.node.kind for one in reversed(drawing.nodes)}
    titles = tuple((x, _TITLES.get(kinds[layer], kinds[layer])) for x, layer in drawing.columns)
    return LineagePage(drawing, titles, focus, upstream, downstream)
