"""The command ui."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from feature_store._extras import requires_extra
from feature_store.cli.options import Repo
from feature_store.errors import ConfigError
from feature_store.project.store import FeatureStore


def ui(
    repo: Repo = Path(),
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port. 0: any free port.")] = 8420,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the token that browsers must present.", show_default=False)
    ] = None,
    token: Annotated[
        str,
        typer.Option(
            envvar="FEATURE_STORE_UI_TOKEN",
            help="The token. Prefer the environment or a file: other users of the machine can see arguments. "
            "Default: a random token.",
            show_default=False,
        ),
    ] = "",
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Require no token: every user of this machine can read the pages.")
    ] = False,
    open_pages: Annotated[bool, typer.Option("--open", help="Open the pages in a browser.")] = False,
) -> None:
    """Serve read-only web pages of the project: catalogue, lineage, freshness, pruning, values."""
    with requires_extra("ui", "ui"):
        from feature_store.ui.security import is_loopback, new_token
        from feature_store.ui.server import serve
    if no_token and not is_loopback(host):
        hint = "omit --no-token, or listen on 127.0.0.1"
        raise ConfigError("--no-token", problem=f"other machines reach {host}, so a token is required", hint=hint)
    given = _read(token_file) if token_file is not None else token
    shown = None if no_token else given or new_token()

    def show(line: str) -> None:
        typer.echo(line, err=True)
        if open_pages:
            webbrowser.open(line.partition(" ")[0])

    with FeatureStore(repo) as store:
        serve(store, host=host, port=port, token=shown, shows_token=not given, say=show)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {path}", expected="a file with a token", got=str(error)) from None


# By name: the section of `feature-store --help`, the function or typer.Typer, and a summary of at most 78 characters.
COMMANDS = {
    "ui": ("Browse", "ui", "Serve web pages that show the project."),
}
