"""The command ui: pages that show the project, served to a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from feature_store.cli.options import Repo
from feature_store.errors import ConfigError, extra
from feature_store.store import FeatureStore


def ui(
    repo: Repo = Path(),
    host: Annotated[
        str, typer.Option(help="Where to listen; who listens beyond this machine needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8420,
    token: Annotated[
        str, typer.Option(envvar="FEATURE_STORE_UI_TOKEN", help="What a visitor must show.", show_default=False)
    ] = "",
) -> None:
    """Serve pages that show the project: catalogue, lineage, freshness, pruning, values. They change nothing."""
    with extra("ui", "ui"):
        from feature_store.ui.security import is_loopback
        from feature_store.ui.server import serve
    if not token and not is_loopback(host):
        hint = "set FEATURE_STORE_UI_TOKEN, or listen on 127.0.0.1"
        raise ConfigError("--token", expected="a token, since others reach this address", got="none", hint=hint)
    with FeatureStore(repo) as store:
        serve(store, host=host, port=port, token=token or None, told=lambda line: typer.echo(line, err=True))
