"""All commands under one name. A command's module loads when it is called, so that `--help` and TAB are quick."""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from feature_store.cli.running import interruptible

if TYPE_CHECKING:
    from collections.abc import Callable


class Lazy(NamedTuple):
    """A command that is loaded when it is called.

    Attributes:
        section: of the list of commands.
        home: `module:function`, or `module:app` of a group of commands, in `feature_store.cli`.
        summary: the first line of its help.
    """

    section: str
    home: str
    summary: str


COMMANDS = {
    "init": Lazy("Define", "project:init", "Make a project: feature_store.yaml, definitions, and a little data."),
    "plan": Lazy("Define", "project:plan", "Show what apply would change, and whether it is safe."),
    "apply": Lazy("Define", "project:apply", "Make the folder's definitions a new version, and serve it."),
    "rollback": Lazy("Define", "project:rollback", "Make an earlier version the newest one, and serve it."),
    "schema": Lazy("Define", "schema:app", "Schemas of views."),
    "teardown": Lazy("Define", "project:teardown", "Delete this project's online data and registry entries."),
    "materialize": Lazy("Fill", "data:materialize", "Write the latest row of every entity to the online store."),
    "push": Lazy("Fill", "data:push", "Write a file's rows to the online store; newest wins."),
    "stream": Lazy("Fill", "streaming:stream", "Merge Kafka's events into the windows of stream views."),
    "backfill": Lazy("Fill", "streaming:backfill", "Fill a stream view anew from its history and from Kafka."),
    "delete": Lazy("Fill", "data:delete", "Delete everything that the online store holds of one entity."),
    "get": Lazy("Read", "data:get", "Read features as a model server does."),
    "training-set": Lazy("Read", "training:training_set", "Join label rows with features at each label's time."),
    "list": Lazy("Browse", "registry:list_definitions", "List what is applied."),
    "describe": Lazy("Browse", "registry:describe", "Show one thing: what it is, and who reads it."),
    "search": Lazy("Browse", "browse:search", "Find definitions, sources and features."),
    "lineage": Lazy("Browse", "browse:lineage", "Show what something comes from, and what comes from it."),
    "consumers": Lazy("Browse", "browse:consumers", "Show which services and models get a feature."),
    "history": Lazy("Browse", "registry:history", "Show which versions changed a definition or a feature."),
    "diff": Lazy("Browse", "registry:diff", "Show what changed between two versions."),
    "ui": Lazy("Browse", "ui:ui", "Serve pages that show the project."),
    "doctor": Lazy("Watch", "doctor:doctor", "Check definitions, registry, sources, Kafka, Redis and their content."),
    "freshness": Lazy("Watch", "monitoring:freshness", "Show how old the newest stored event time of each view is."),
    "skew": Lazy("Watch", "monitoring:skew", "Compare what is served with what the offline data say."),
    "score": Lazy("Watch", "monitoring:score", "Score the project by the ML Test Score."),
    "prune": Lazy("Prune", "prune:app", "Drop what a model does not need, prove it, serve by it, undo it."),
    "server": Lazy("Server", "server:app", "The embedded server: a Redis-protocol server of the project's own."),
}
_EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 something was found, 130 interrupted (Ctrl-C)."


class LazyCommands(TyperGroup):
    """A group whose commands are known by name and summary until one is called."""

    def list_commands(self, _ctx: Any) -> list[str]:
        """See Group: in the order of the table."""
        return list(COMMANDS)

    def get_command(self, _ctx: Any, cmd_name: str) -> Any:
        """See Group. Without its parameters, which help and completion of names do not need."""
        about = COMMANDS.get(cmd_name)
        return None if about is None else TyperCommand(cmd_name, help=about.summary, short_help=about.summary)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See Group. The command whole."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, _loaded(name) if name in COMMANDS else command, rest

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        """See Group: by section."""
        for section in dict.fromkeys(about.section for about in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [(name, about.summary) for name, about in COMMANDS.items() if about.section == section]
                )


def _loaded(name: str) -> Any:
    module, _, attribute = COMMANDS[name].home.partition(":")
    found = getattr(importlib.import_module(f"feature_store.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        group = typer.main.get_group(found)
        group.name = name
        return _guarded(group)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=_SETTINGS)
    alone.command(name=name)(found)
    return _guarded(typer.main.get_command(alone))


def _guarded(command: Any) -> Any:
    """Let Ctrl-C be heard while a command runs, and what the code that it loads prints go to stderr."""
    for each in getattr(command, "commands", {}).values():
        _guarded(each)
    if not hasattr(command, "commands"):
        command.invoke = partial(_invoked, command.invoke)
    return command


def _invoked(invoke: Callable[[Any], Any], ctx: Any) -> Any:
    from feature_store.cli.output import stdout_for_output_alone

    with interruptible(), stdout_for_output_alone():
        return invoke(ctx)


_SETTINGS = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    cls=LazyCommands,
    help=f"Online feature store: definitions → Redis → model server.\n\n{_EXIT_CODES}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=_SETTINGS,
)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"feature-store {version('feature-store')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
    _debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error came from. FEATURE_STORE_DEBUG=1 does so, too.")
    ] = False,
) -> None:
    """See app."""


command = typer.main.get_command(app)
