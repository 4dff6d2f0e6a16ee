"""All commands under one name."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from feature_store.cli import (
    browse,
    data,
    doctor,
    monitoring,
    project,
    prune,
    registry,
    schema,
    server,
    streaming,
    training,
    ui,
)

app = typer.Typer(
    help="Online feature store: definitions → Redis → model server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (project, data, streaming, training):
    for command in module.COMMANDS:
        app.command()(command)
app.command(name="list")(registry.list_definitions)
for command in (*registry.COMMANDS, *browse.COMMANDS, *monitoring.COMMANDS):
    app.command()(command)
app.command()(doctor.doctor)
app.command()(ui.ui)
app.add_typer(prune.app, name="prune")
app.add_typer(schema.app, name="schema")
app.add_typer(server.app, name="server")


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"feature-store {version('feature-store')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Online feature store: definitions → Redis → model server."""
