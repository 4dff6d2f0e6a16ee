"""Commands that search applied definitions and follow their dependencies: search, lineage, consumers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.tree import Tree

from feature_store.cli.options import AsJson, Repo
from feature_store.cli.output import console, print_json, table
from feature_store.cli.text import visible
from feature_store.project.store import FeatureStore
from feature_store.registry.catalog import KINDS, consumers as consumers_of
from feature_store.registry.lineage import Lineage, Node, lineage_of
from feature_store.registry.search import SearchIndex


def search(
    query: Annotated[str, typer.Argument(help="A name or words. Misspellings are tolerated.")],
    kind: Annotated[list[str] | None, typer.Option(help=f"Only {', '.join(KINDS)}. Repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of results.")] = 20,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Search definitions, sources and features by name, description, tag, owner or column."""
    with FeatureStore(repo) as store:
        found = SearchIndex(store.applied()).search(query, limit=limit, kinds=kind)
    if as_json:
        print_json([asdict(one) for one in found])
    elif not found:
        console().print("Nothing found.")
    else:
        columns = {"kind": "left", "name": "left", "score": "right", "matched": "left", "description": "left"}
        rows = [
            [KINDS[one.kind], one.name, f"{one.score:.2f}", ", ".join(one.matched), one.description] for one in found
        ]
        console().print(table("", columns, rows))


def lineage(
    name: Annotated[str, typer.Argument(help="A source, view, view:feature, service or model.")],
    up: Annotated[bool, typer.Option("--up", help="Show only what it is made from.")] = False,
    down: Annotated[bool, typer.Option("--down", help="Show only what is made from it.")] = False,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Show what a definition is made from, up to the sources, and what is made from it, down to the models."""
    with FeatureStore(repo) as store:
        whole = lineage_of(store.applied(), store.models())
    node, both = whole.find(name), up == down
    part = whole.around(name, up=up or both, down=down or both)
    if as_json:
        print_json(
            {
                "node": node._asdict(),
                "nodes": [one._asdict() for one in part.nodes],
                "edges": [[source._asdict(), target._asdict()] for source, target in part.edges],
            }
        )
        return
    if up or both:
        console().print(_tree(f"{_label(node)} comes from", node, lambda one: whole.parents(one, of=node)))
    if down or both:
        console().print(_tree(f"from {_label(node)} come", node, lambda one: whole.children(one, of=node)))


def consumers(
    feature: Annotated[str, typer.Argument(metavar="VIEW:FEATURE", help="The feature.")],
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Show which services and models read a feature, and under which names."""
    with FeatureStore(repo) as store:
        definitions = store.applied()
        whole = lineage_of(definitions, store.models())
    found = consumers_of(definitions, feature)
    documents = [one | {"models": _models(whole, one["service"])} for one in found]
    if as_json:
        print_json(documents)
    elif not documents:
        console().print("No service reads it.")
    else:
        columns = dict.fromkeys(documents[0], "left")
        rows = [
            [", ".join(value) or None if isinstance(value, list) else value for value in one.values()]
            for one in documents
        ]
        console().print(table("", columns, rows))


def _models(whole: Lineage, service: str | None) -> list[str]:
    return [node.name for node in whole.children(whole.find(service)) if node.kind == "models"] if service else []


def _tree(title: str, node: Node, following: Callable[[Node], list[Node]]) -> Tree:
    root = Tree(title)
    shown = {node}

    def grow(branch: Tree, of: Node) -> bool:
        for one in following(of):
            # A node that several paths reach is expanded once.
            again = one in shown and following(one)
            shown.add(one)
            leaf = branch.add(f"{_label(one)}{' [dim]…[/]' if again else ''}")
            if not again:
                grow(leaf, one)
        return bool(branch.children)

    if not grow(root, node):
        root.add("[dim]nothing[/]")
    return root


def _label(node: Node) -> str:
    kind = KINDS.get(node.kind, "model")
    return f"[dim]{kind}[/] {escape(visible(node.name))}"


# By name: the section of `feature-store --help`, the function or typer.Typer, and a summary of at most 78 characters.
COMMANDS = {
    "search": ("Browse", "search", "Search definitions, sources and features."),
    "lineage": ("Browse", "lineage", "Show what a definition is made from, and what is made from it."),
    "consumers": ("Browse", "consumers", "Show which services and models read a feature."),
}
