"""The commands that browse the registry, on the project of `init` and its later versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Texts that a person may write into a description or on a command line.
HOSTILE = "[bold red]\x1b[31m[/nothing]\u202e\x00 " + "é🎬" * 20


def _json(answer: tuple[int, str, str]) -> Any:
    code, out, error = answer
    assert code == 0, error
    return json.loads(out)


@pytest.fixture
def changed(run: Any, project: Path) -> Any:
    """Three versions of the project. The second has one more field. The third has a view's owner, and not the field."""
    features = project / "features.py"
    run("apply", "--author", "ada")
    first = features.read_text()
    more = first.replace('Field("price", Float32),', 'Field("price", Float32), Field("weight", Float32),')
    features.write_text(more)
    run("apply", "--offline", "--author", "bob")
    features.write_text(first.replace('description="What a user has bought."', 'owner="shop", tags={"model": "m"}'))
    run("apply", "--yes", "--author", "eve")
    return run


def test_every_kind_is_listed(run: Any) -> None:
    run("apply")
    listed = _json(run("list", "--json"))
    assert list(listed) == ["entities", "sources", "views", "streams", "on-demand", "services"]
    assert [row["name"] for row in _json(run("list", "sources", "--json"))["sources"]] == [
        "data/products.parquet",
        "data/users.parquet",
        "request",
    ]
    assert "product_stats:price" in [row["name"] for row in _json(run("list", "features", "--json"))["features"]]
    assert _json(run("list", "prune-plans", "--json")) == {"prune-plans": []}
    assert "product_stats:price" in run("list", "features")[1]


def test_a_feature_a_source_and_a_version_are_described(run: Any) -> None:
    run("apply")
    assert _json(run("describe", "product_stats:price", "--json"))["source"] == "data/products.parquet"
    assert _json(run("describe", "request", "--json"))["kind"] == "RequestSource"
    version = _json(run("describe", "1", "--json"))
    assert (version["kind"], version["changes"][0]["action"]) == ("Version", "create")
    _, out, _ = run("describe", "product_stats:price")
    assert "consumers" in out
    assert "share_of_basket" in out


def test_search_forgives(run: Any) -> None:
    run("apply")
    assert _json(run("search", "clicks7d", "--json"))[0]["name"] == "product_stats:clicks_7d"
    assert _json(run("search", "bouht", "--json"))[0]["name"] == "user_stats"
    assert "product_stats:price" in run("search", "pric", "--kind", "features")[1]
    assert "Nothing found." in run("search", "qqqqqqq")[1]
    assert _json(run("search", "qqqqqqq", "--json")) == []


def test_lineage_is_a_tree(run: Any) -> None:
    run("apply")
    _, out, _ = run("lineage", "basket")
    assert [line.strip("│├└─ ") for line in out.splitlines()] == [
        "on-demand view basket comes from",
        "view product_stats",
        "source data/products.parquet",
        "source request",
        "from on-demand view basket come",
        "service ranking",
    ]
    up = _json(run("lineage", "basket", "--up", "--json"))
    assert {"kind": "services", "name": "ranking"} not in up["nodes"]
    assert up["node"] == {"kind": "on-demand", "name": "basket"}
    _, out, _ = run("lineage", "ranking", "--down")
    assert "nothing" in out


def test_consumers_say_under_which_name_and_through_what(run: Any) -> None:
    run("apply")
    found = _json(run("consumers", "product_stats:price", "--json"))
    assert [(one["service"], one["name"], one["through"]) for one in found] == [
        ("ranking", "price", None),
        ("ranking", "share_of_basket", "basket"),
    ]


def test_history_says_which_version_changed_what(changed: Any) -> None:
    assert [
        (one["version"], one["author"], one["action"]) for one in _json(changed("history", "user_stats", "--json"))
    ] == [
        (3, "eve", "update"),
        (1, "ada", "create"),
    ]
    weight = _json(changed("history", "product_stats:weight", "--json"))
    assert [(one["version"], one["action"]) for one in weight] == [(3, "delete"), (2, "create")]
    _, out, _ = changed("history", "user_stats")
    assert "owner:  -> shop" in out


def test_versions_differ(changed: Any) -> None:
    first = _json(changed("diff", "1", "2", "--json"))
    assert [change["name"] for change in first["changes"]] == ["product_stats", "ranking"]
    assert _json(changed("diff", "1", "--json"))["after"] == 3
    assert "same definitions" in changed("diff", "2", "2")[1]
    assert "shop" in changed("diff", "1", "3")[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["describe", "product_stat"], "did you mean product_stats"),
        (["describe", "product_stats:prise"], "did you mean product_stats:price?"),
        (["describe", "99"], "a version's number"),
        (["lineage", "rankin"], "did you mean ranking?"),
        (["consumers", "product_stats"], "view:feature"),
        (["history", "user_stat"], "did you mean user_stats"),
        (["diff", "1", "9"], "an applied version"),
        (["search", "price", "--kind", "tables"], "entities, sources"),
        (["search", "q" * 10_000], "256 characters"),
        (["describe", "q" * 10_000], "there is no such name"),
        (["describe", HOSTILE], "there is no such name"),
        (["lineage", HOSTILE], "there is no such name"),
        (["consumers", HOSTILE], "there is no such name"),
        (["history", HOSTILE], "there is no such name"),
    ],
)
def test_mistakes_are_answered_with_what_is_near(run: Any, arguments: list[str], says: str) -> None:
    run("apply")
    code, out, error = run(*arguments)
    assert (code, out) == (1, "")
    assert says in error
    assert "\x1b" not in error
    assert len(error) < 1000


def test_what_was_written_into_a_definition_steers_no_terminal(run: Any, project: Path) -> None:
    features = project / "features.py"
    hostile = f"description={HOSTILE!r}, owner={HOSTILE!r}, tags={{{HOSTILE!r}: 'x'}}"
    features.write_text(features.read_text().replace('description="What a user has bought."', hostile))
    run("apply", "--author", HOSTILE.replace("\x00", ""))
    for arguments in (
        ["list"],
        ["list", "versions"],
        ["list", "features"],
        ["describe", "user_stats"],
        ["describe", "1"],
        ["search", "user_stats"],
        ["lineage", "user_stats"],
        ["history", "user_stats"],
        ["diff", "1"],
    ):
        code, out, error = run(*arguments)
        assert code == 0, error
        assert "\x1b" not in out
        assert "\u202e" not in out
    assert "[bold red]" in run("describe", "user_stats")[1].replace("\n", "")
    assert _json(run("describe", "user_stats", "--json"))["description"] == HOSTILE
