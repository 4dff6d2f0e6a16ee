"""Commands on a project as a whole: init, plan, apply, rollback, teardown."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from feature_store._extras import requires_extra
from feature_store._formatting import counted
from feature_store.cli.exit_codes import FINDING
from feature_store.cli.options import AsJson, Repo, Yes
from feature_store.cli.output import confirm, console, print_json
from feature_store.cli.text import visible
from feature_store.errors import ConfigError, RefusedError
from feature_store.project.applying import Applied
from feature_store.project.store import FeatureStore
from feature_store.registry.changes import ChangePlan, DefinitionChange

_TEMPLATES = ("feature_store.yaml", "features.py")
_COLOURS = {"create": "green", "update": "yellow", "delete": "red"}
_EFFECTS = {"safe": "dim", "rewrites": "yellow", "destructive": "red", "refused": "bold red"}
_SIGNS = {"create": "+", "update": "~", "delete": "-"}


def init(
    folder: Annotated[Path, typer.Argument(help="The folder of the project. Created if missing.")] = Path(),
    project: Annotated[str, typer.Option(help="The project's name. Default: the folder's name.")] = "",
) -> None:
    """Make a project: feature_store.yaml, definitions, and sample data to try them on."""
    name = project or re.sub(r"\W", "_", folder.resolve().name)
    taken = [path for path in (*(folder / name for name in _TEMPLATES), folder / "data") if path.exists()]
    if taken:
        raise ConfigError(str(taken[0]), problem="the file already exists", hint="choose an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    for template in _TEMPLATES:
        text = files("feature_store.cli").joinpath("templates", template).read_text()
        (folder / template).write_text(text.replace("PROJECT", name))
    with requires_extra("local", "init"):
        from feature_store.arrow.sample import write_sample
    write_sample(folder / "data")
    where = "" if folder == Path() else f"cd {folder} && "
    console().print(
        f"Made project {name}. Next:\n"
        f"  {where}feature-store apply\n"
        "  feature-store materialize\n"
        "  feature-store get ranking user_id=1 product_id=1,2,3 basket_price=40",
        markup=False,
    )


Offline = Annotated[bool, typer.Option("--offline", help="Do not read the schemas of sources or compile SQL.")]
Author = Annotated[str, typer.Option(help="The author of the version. Default: your user name.", show_default=False)]


def plan(
    repo: Repo = Path(),
    offline: Offline = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 3 if apply would change anything.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what apply would change, and whether the changes are safe. Exits with 1 if a change is refused."""
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
            hint=first.hint or "correct the definitions and plan again",
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
    """Apply the folder's definitions as a new version, and serve it. Asks before destructive changes."""
    with FeatureStore(repo) as store:
        changes = store.plan(check_sources=not offline)
        _confirm(changes, yes=yes)
        applied = store.apply(author=author or None, allow_destructive=True, check_sources=not offline)
        _show_applied(store, applied, as_json=as_json)


def rollback(
    version: Annotated[int, typer.Argument(help="The number of the earlier version; see `list versions`.")],
    repo: Repo = Path(),
    author: Author = "",
    offline: Offline = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Apply an earlier version's definitions as a new version, and serve it. The folder's files stay unchanged."""
    with FeatureStore(repo) as store:
        changes = store.plan_rollback(version, check_sources=not offline)
        _confirm(changes, yes=yes)
        how = {"author": author or None, "allow_destructive": True, "check_sources": not offline}
        _show_applied(store, store.rollback(version, **how), as_json=as_json)  # type: ignore[arg-type]


def _confirm(changes: ChangePlan, *, yes: bool) -> None:
    """Show destructive changes and ask for confirmation. If a change is refused, the apply itself raises the error."""
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
    """Delete this project's online data, registry entries and job files. Other projects keep theirs."""
    with FeatureStore(repo) as store:
        confirm(f"Delete everything that {store.online.shown_url} and the registry hold of {store.project}?", yes=yes)
        deleted = store.teardown()
    if as_json:
        print_json({"project": store.project, "deleted_keys": deleted})
    else:
        console().print(f"Deleted {counted(deleted, 'key')} of {escape(store.project)}, and its registry entries.")


def show_changes(changes: ChangePlan) -> None:
    """Print changes in colour."""
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


def show_change(out: Console, change: DefinitionChange) -> None:
    """Print a change of one definition, and the attributes that differ."""
    colour = _COLOURS[change.action]
    out.print(
        f"[{colour}]{_SIGNS[change.action]} {change.action} {change.kind} {escape(change.name)}[/]  "
        f"[{_EFFECTS[change.effect]}]({change.effect}: {escape(change.reason)})[/]"
    )
    for detail in change.details:
        out.print(f"    {detail.sign} {visible(str(detail))}", markup=False)
    if change.hint:
        out.print(f"    {visible(change.hint)}", markup=False)


# By name: the section of `feature-store --help`, the function or typer.Typer, and a summary of at most 78 characters.
COMMANDS = {
    "init": ("Define", "init", "Make a project: feature_store.yaml, definitions and sample data."),
    "plan": ("Define", "plan", "Show what apply would change, and whether the changes are safe."),
    "apply": ("Define", "apply", "Apply the folder's definitions as a new version, and serve it."),
    "rollback": ("Define", "rollback", "Apply an earlier version again, and serve it."),
    "teardown": ("Define", "teardown", "Delete this project's online data and registry entries."),
}
