"""Commands on a project as a whole: init, plan, apply, teardown."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from feature_store.cli.options import AsJson, Repo, Yes
from feature_store.cli.output import confirm, console, print_json
from feature_store.cli.text import visible
from feature_store.errors import ConfigError, RefusedError, extra
from feature_store.numerals import counted
from feature_store.store import FeatureStore

if TYPE_CHECKING:
    from rich.console import Console

    from feature_store.registry.diff import Change, ChangePlan

_TEMPLATES = ("feature_store.yaml", "features.py")
_COLOURS = {"create": "green", "update": "yellow", "delete": "red"}
_EFFECTS = {"safe": "dim", "rewrites": "yellow", "refused": "bold red"}
_SIGNS = {"create": "+", "update": "~", "delete": "-"}


def init(
    folder: Annotated[Path, typer.Argument(help="Where; made if need be.")] = Path(),
    project: Annotated[str, typer.Option(help="The project's name; the folder's unless given.")] = "",
) -> None:
    """Make a project: feature_store.yaml, definitions, and a little data to try them on."""
    name = project or re.sub(r"\W", "_", folder.resolve().name)
    taken = [path for path in (*(folder / name for name in _TEMPLATES), folder / "data") if path.exists()]
    if taken:
        raise ConfigError(str(taken[0]), expected="no such file yet", got="one", hint="choose an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    for template in _TEMPLATES:
        text = files("feature_store.cli").joinpath("templates", template).read_text()
        (folder / template).write_text(text.replace("PROJECT", name))
    with extra("local", "init"):
        from feature_store.cli.sample import write_sample
    write_sample(folder / "data")
    where = "" if folder == Path() else f"cd {folder} && "
    console().print(
        f"Made project {name}. Next:\n"
        f"  {where}feature-store apply\n"
        "  feature-store materialize\n"
        "  feature-store get ranking user_id=1 product_id=1,2,3 basket_price=40",
        markup=False,
    )


def plan(repo: Repo = Path(), as_json: AsJson = False) -> None:
    """Show what apply would change, and whether it is safe. Exit code 1 when a change is refused."""
    with FeatureStore(repo) as store:
        changes = store.plan()
    if as_json:
        print_json(changes.to_document())
    else:
        show_changes(changes)
    if changes.refused:
        raise RefusedError(
            f"plan of {store.project}", got=f"{len(changes.refused)} refused", hint=changes.refused[0].reason
        )


def apply(
    repo: Repo = Path(),
    author: Annotated[str, typer.Option(help="Who applies; you unless given.", show_default=False)] = "",
    as_json: AsJson = False,
) -> None:
    """Make the folder's definitions a new version of the registry, and serve it."""
    with FeatureStore(repo) as store:
        applied = store.apply(author=author or None)
        where = store.online.shown_url
    version = applied.version
    if as_json:
        document = {"version": version.version, "author": version.author, "applied_at": version.applied_at.isoformat()}
        print_json(document | applied.changes.to_document())
        return
    show_changes(applied.changes)
    console().print(f"Serving version {version.version} of {escape(store.project)} from {escape(where)}.")


def teardown(repo: Repo = Path(), yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete this project's online data, registry entries and job files, and nobody else's."""
    with FeatureStore(repo) as store:
        confirm(f"Delete all that {store.online.shown_url} and the registry hold of {store.project}?", yes=yes)
        deleted = store.teardown()
    if as_json:
        print_json({"project": store.project, "deleted_keys": deleted})
    else:
        console().print(f"Deleted {counted(deleted, 'key')} of {escape(store.project)}, and its registry.")


def show_changes(changes: ChangePlan) -> None:
    """The plan for people, in colours."""
    out = console()
    if changes.is_empty:
        out.print(str(changes), markup=False)
        return
    for change in changes.changes:
        show_change(out, change)
    out.print()
    out.print(changes.summary(), markup=False)


def show_change(out: Console, change: Change) -> None:
    """One change of one definition, and each attribute that differs."""
    colour = _COLOURS[change.action]
    out.print(
        f"[{colour}]{_SIGNS[change.action]} {change.action} {change.kind} {escape(change.name)}[/]  "
        f"[{_EFFECTS[change.effect]}]({change.effect}: {escape(change.reason)})[/]"
    )
    for detail in change.details:
        out.print(f"    ~ {visible(str(detail))}", markup=False)


COMMANDS = (init, plan, apply, teardown)
