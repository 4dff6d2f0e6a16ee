"""Commands on a project as a whole: init, plan, apply, rollback, teardown."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from feature_store._formatting import counted
from feature_store.cli.options import AsJson, Repo, Yes
from feature_store.cli.output import confirm, console, print_json
from feature_store.cli.running import FINDING
from feature_store.cli.text import visible
from feature_store.errors import ConfigError, RefusedError, extra
from feature_store.project.store import FeatureStore

if TYPE_CHECKING:
    from rich.console import Console

    from feature_store.project.applying import Applied
    from feature_store.registry.diff import Change, ChangePlan

_TEMPLATES = ("feature_store.yaml", "features.py")
_COLOURS = {"create": "green", "update": "yellow", "delete": "red"}
_EFFECTS = {"safe": "dim", "rewrites": "yellow", "destructive": "red", "refused": "bold red"}
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


Offline = Annotated[bool, typer.Option("--offline", help="Do not read the schemas of sources, nor compile SQL.")]
Author = Annotated[str, typer.Option(help="Who applies; you unless given.", show_default=False)]


def plan(
    repo: Repo = Path(),
    offline: Offline = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit code 3 when apply would change anything.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what apply would change, and whether it is safe. Exit code 1 when a change is refused."""
    with FeatureStore(repo) as store:
        changes = store.plan(check_sources=not offline)
    if as_json:
        print_json(changes.to_document())
    else:
        show_changes(changes)
    if changes.refused:
        first = changes.refused[0]
        raise RefusedError(
            f"plan of {store.project}",
            problem=f"{counted(len(changes.refused), 'change')} refused; {first.kind} {first.name}: {first.reason}",
            hint=first.hint or "correct the definitions, and plan again",
        )
    if exit_code and not changes.is_empty:
        raise typer.Exit(FINDING)


def apply(
    repo: Repo = Path(),
    author: Author = "",
    offline: Offline = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Make the folder's definitions a new version of the registry, and serve it. Asks before what is destructive."""
    with FeatureStore(repo) as store:
        changes = store.plan(check_sources=not offline)
        _confirm(changes, yes=yes)
        applied = store.apply(author=author or None, allow_destructive=True, check_sources=not offline)
        _show_applied(store, applied, as_json=as_json)


def rollback(
    version: Annotated[int, typer.Argument(help="The number of an earlier version; see `list versions`.")],
    repo: Repo = Path(),
    author: Author = "",
    offline: Offline = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Make an earlier version's definitions a new version, and serve it. The folder's files stay as they are."""
    with FeatureStore(repo) as store:
        changes = store.plan_rollback(version, check_sources=not offline)
        _confirm(changes, yes=yes)
        how = {"author": author or None, "allow_destructive": True, "check_sources": not offline}
        _show_applied(store, store.rollback(version, **how), as_json=as_json)  # type: ignore[arg-type]


def _confirm(changes: ChangePlan, *, yes: bool) -> None:
    """Ask before destructive changes, showing them; what is refused is told by whoever carries the changes out."""
    if changes.refused or not changes.destructive or yes:
        return
    for change in changes.destructive:
        show_change(console(stderr=True), change)
    confirm(f"Carry out {counted(len(changes.destructive), 'destructive change')}?", yes=yes)


def _show_applied(store: FeatureStore, applied: Applied, *, as_json: bool) -> None:
    version = applied.version
    if as_json:
        document = {"version": version.version, "author": version.author, "applied_at": version.applied_at.isoformat()}
        print_json(document | applied.changes.to_document())
        return
    show_changes(applied.changes)
    where = escape(store.online.shown_url)
    console().print(f"Serving version {version.version} of {escape(store.project)} from {where}.")


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
        out.print(visible(str(changes)), markup=False)
        return
    for change in changes.changes:
        show_change(out, change)
    out.print()
    for remark in changes.remarks():
        out.print(visible(remark), markup=False)
    if changes.changes:
        out.print(changes.summary(), markup=False)


def show_change(out: Console, change: Change) -> None:
    """One change of one definition, and each attribute that differs."""
    colour = _COLOURS[change.action]
    out.print(
        f"[{colour}]{_SIGNS[change.action]} {change.action} {change.kind} {escape(change.name)}[/]  "
        f"[{_EFFECTS[change.effect]}]({change.effect}: {escape(change.reason)})[/]"
    )
    for detail in change.details:
        out.print(f"    {detail.sign} {visible(str(detail))}", markup=False)
    if change.hint:
        out.print(f"    {visible(change.hint)}", markup=False)


COMMANDS = (init, plan, apply, rollback, teardown)
