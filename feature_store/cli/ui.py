"""The command ui: pages that show the project, served to a browser."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from feature_store.cli.options import Repo
from feature_store.errors import ConfigError, extra
from feature_store.project.store import FeatureStore


def ui(
    repo: Repo = Path(),
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8420,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the token that a visitor must show.", show_default=False)
    ] = None,
    token: Annotated[
        str,
        typer.Option(
            envvar="FEATURE_STORE_UI_TOKEN",
            help="The token; better in the environment or a file, as other users of the machine see arguments. "
            "A random one unless given.",
            show_default=False,
        ),
    ] = "",
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Ask for no token: every user of this machine may look.")
    ] = False,
    open_pages: Annotated[bool, typer.Option("--open", help="Open the pages in a browser.")] = False,
) -> None:
    """Serve pages that show the project: catalogue, lineage, freshness, pruning, values. They change nothing."""
    with extra("ui", "ui"):
        from feature_store.ui.security import is_loopback, new_token
        from feature_store.ui.server import serve
    if no_token and not is_loopback(host):
        hint = "leave --no-token out, or listen on 127.0.0.1"
        raise ConfigError("--no-token", expected="a token, since others reach this address", got="none", hint=hint)
    given = _read(token_file) if token_file is not None else token
    shown = None if no_token else given or new_token()

    def told(line: str) -> None:
        typer.echo(line, err=True)
        if open_pages:
            webbrowser.open(line.partition(" ")[0])

    with FeatureStore(repo) as store:
        serve(store, host=host, port=port, token=shown, shows_token=not given, told=told)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {path}", expected="a file with a token", got=str(error)) from None
