from __future__ import annotations

import pytest

from feature_store.definitions import DefinitionSet
from feature_store.errors import NotFoundError
from feature_store.registry.lineage import Node, lineage_of
from tests.registry.browsed import shop


def _names(nodes: list[Node]) -> set[str]:
    return {node.name for node in nodes}


def test_from_sources_to_models() -> None:
    lineage = lineage_of(shop(), {"ranking": ["ranker"], "listing": ["lister"]})
    table = Node("sources", "data/movies.parquet")
    assert _names(lineage.downstream(table)) == {
        "profile", "stars", "age", "ranking", "listing", "ranker", "lister", "second",
    }  # fmt: skip
    assert lineage.upstream(table) == []
    assert _names(lineage.upstream(Node("models", "ranker"))) == {
        "ranking", "profile", "age", "activity", "context", "ratings", "data/movies.parquet", "data/ratings.parquet",
    }  # fmt: skip
    assert lineage.children(Node("services", "listing")) == [Node("models", "lister"), Node("models", "second")]


def test_a_feature_has_a_lineage_of_its_own() -> None:
    lineage = lineage_of(shop())
    year, budget = Node("features", "profile:year"), Node("features", "profile:budget")
    assert _names(lineage.downstream(year)) == {"age:years", "ranking", "listing", "lister", "second"}
    assert _names(lineage.downstream(budget)) == {"ranking"}
    assert _names(lineage.upstream(Node("features", "age:years"))) == {
        "profile:year",
        "data/movies.parquet",
        "context",
    }


def test_the_lineage_around_a_node() -> None:
    lineage = lineage_of(shop())
    assert _names(list(lineage.around("activity").nodes)) == {"data/ratings.parquet", "ratings", "activity", "ranking"}
    assert _names(list(lineage.around("activity", up=False).nodes)) == {"activity", "ranking"}
    only_up = lineage.around("ranking", down=False)
    assert all(target.kind != "models" for _, target in only_up.edges)
    assert _names(list(lineage.around("pushed").nodes)) == {"pushed"}


def test_every_edge_leads_downstream_and_is_reached_both_ways() -> None:
    lineage = lineage_of(shop())
    for source, target in lineage.edges:
        level = target if target.kind == "features" else source
        assert source in lineage.parents(target, of=level)
        assert target in lineage.children(source, of=level)
    for node in lineage.nodes:
        for other in lineage.downstream(node):
            if "features" in (node.kind, other.kind) and node.kind != other.kind:
                continue  # the lineage of sources and services consists of views
            assert node in lineage.upstream(other)


def test_no_definitions_no_lineage() -> None:
    assert lineage_of(DefinitionSet([])).nodes == ()


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(NotFoundError, match="did you mean activity"):
        lineage_of(shop()).around("activty")
