"""The command line: all commands under one name.

A command is a function in a module of this package, and a line in the module's `COMMANDS`. The module is imported when
the command is called, so that `--help` and TAB stay quick.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from feature_store.cli.interrupts import interruptible


class LazyCommand(NamedTuple):
    """A command whose module is imported when it is called.

    Attributes:
        section: the section of `--help`.
        home: `module:attribute` in `feature_store.cli`: a function, or the typer.Typer of a group of commands.
        summary: its line in `--help`.
    """

    section: str
    home: str
    summary: str


_SECTIONS = ("Define", "Fill", "Read", "Browse", "Watch", "Prune", "Server")
_TABLE = re.compile(r"^COMMANDS = (\{.*?^\})", re.MULTILINE | re.DOTALL)


def _commands() -> dict[str, LazyCommand]:
    """All commands, by section: what the modules of this package declare in a literal `COMMANDS`.

    The tables are parsed as text: importing the modules would cost `--help` and TAB a second.
    """
    found: dict[str, LazyCommand] = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        declared = _TABLE.search(file.read_text("utf-8"))
        for name, (section, attribute, summary) in ast.literal_eval(declared[1]).items() if declared else ():
            found[name] = LazyCommand(section, f"{file.stem}:{attribute}", summary)
    return dict(sorted(found.items(), key=lambda item: _SECTIONS.index(item[1].section)))


COMMANDS = _commands()
_EXIT_CODES = (
    "Exit codes: 0 success, 1 failure, 2 wrong usage, 3 the command found a problem, 130 interrupted (Ctrl-C)."
)


class LazyCommands(TyperGroup):
    """A group that knows names and summaries. It imports a command's module when the command is called."""

    def list_commands(self, _ctx: Any) -> list[str]:
        """See Group. Commands are ordered by section."""
        return list(COMMANDS)

    def get_command(self, _ctx: Any, cmd_name: str) -> Any:
        """See Group. The command has no parameters: neither help nor name completion needs them."""
        about = COMMANDS.get(cmd_name)
        return None if about is None else TyperCommand(cmd_name, help=about.summary, short_help=about.summary)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See Group. Imports the command's module."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, _loaded(name) if name in COMMANDS else command, rest

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        """See Group. Commands are ordered by section."""
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
    """Handle Ctrl-C while a command runs, and send what definitions and models print to stderr."""
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
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    _debug: Annotated[
        bool, typer.Option("--debug", help="Print tracebacks of errors. The same as FEATURE_STORE_DEBUG=1.")
    ] = False,
) -> None:
    """See app."""


command = typer.main.get_command(app)
