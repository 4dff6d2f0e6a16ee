from __future__ import annotations

import re

from hypothesis import given, strategies as st

from feature_store.ui.graph import HEIGHT, WIDTH, draw

graphs = st.dictionaries(st.integers(0, 30), st.integers(0, 4), max_size=25).flatmap(
    lambda layers: st.tuples(
        st.just(layers),
        st.lists(st.tuples(st.sampled_from(sorted(layers)), st.sampled_from(sorted(layers))), max_size=60)
        if layers
        else st.just([]),
    )
)


@given(graphs)
def test_nodes_keep_their_layer_and_do_not_touch(graph: tuple[dict[int, int], list[tuple[int, int]]]) -> None:
    layers, pairs = graph
    edges = [(a, b) for a, b in dict.fromkeys(pairs) if layers[a] < layers[b]]
    drawing = draw(layers, [*edges, (98, 99)])
    places = {one.node: (one.x, one.y) for one in drawing.nodes}
    assert places.keys() == layers.keys()
    columns = {layer: x for x, layer in drawing.columns}
    for node, (x, y) in places.items():
        assert x == columns[layers[node]]
        assert 0 <= x <= drawing.width - WIDTH
        assert 0 <= y <= drawing.height - HEIGHT
    for a, (ax, ay) in places.items():
        for b, (bx, by) in places.items():
            assert a == b or ax != bx or abs(ay - by) > HEIGHT
    assert len(drawing.curves) == len(edges)
    for curve, (a, b) in zip(drawing.curves, edges, strict=True):
        start_x, start_y, *_, end_x, end_y = map(int, re.findall(r"-?\d+", curve))
        assert (start_x, start_y) == (places[a][0] + WIDTH, places[a][1] + HEIGHT // 2)
        assert (end_x, end_y) == (places[b][0], places[b][1] + HEIGHT // 2)


def test_neighbours_are_put_side_by_side() -> None:
    layers = {f"{side}{i}": side == "b" for side in "ab" for i in range(20)}
    crossed = draw({name: int(layer) for name, layer in layers.items()}, [(f"a{i}", f"b{19 - i}") for i in range(20)])
    places = {one.node: one.y for one in crossed.nodes}
    assert all(places[f"a{i}"] == places[f"b{19 - i}"] for i in range(20))
