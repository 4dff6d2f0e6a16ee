"""Commands on the embedded server: status, start, stop."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from feature_store.cli.options import AsJson, Repo
from feature_store.cli.output import console, print_json
from feature_store.errors import ConfigError
from feature_store.online.redis.embedded import EmbeddedServer, ServerStatus
from feature_store.project.config import load_config

app = typer.Typer(
    help="Show, start and stop the project's embedded Redis server.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def status(repo: Repo = Path(), as_json: AsJson = False) -> None:
    """Show whether the server runs, and what it holds."""
    _show(_server(repo).status(), as_json=as_json)


@app.command()
def start(repo: Repo = Path(), as_json: AsJson = False) -> None:
    """Start the server, and keep it running until `stop`."""
    server = _server(repo)
    server.start(persistent=True)
    _show(server.status(), as_json=as_json)


@app.command()
def stop(repo: Repo = Path(), as_json: AsJson = False) -> None:
    """Stop the server. Its data stay on disk."""
    server = _server(repo)
    server.stop()
    _show(server.status(), as_json=as_json)


def _server(repo: Path) -> EmbeddedServer:
    config = load_config(repo)
    if config.online_store.url is not None:
        shown = config.shown()["online_store"]["url"]
        raise ConfigError(
            "online_store.url",
            problem=f"the project uses {shown}, not an embedded server",
            hint="start and stop that server where it runs",
        )
    return EmbeddedServer(config.folder)


def _show(server: ServerStatus, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(server))
        return
    out = console()
    if not server.running:
        out.print(f"stopped; data in {server.data_dir}", markup=False, soft_wrap=True)
        return
    stays = "until stopped" if server.persistent else "while a process uses it"
    out.print(f"running {stays}: {server.version}, process {server.pid}", markup=False)
    out.print(f"url:     {server.url}\ndata:    {server.data_dir}", markup=False, soft_wrap=True)
    out.print(f"holds:   {server.keys:,} keys, {server.memory_bytes / 1e6:.1f} MB", markup=False)


# By name: the section of `feature-store --help`, the function or typer.Typer, and a summary of at most 78 characters.
COMMANDS = {
    "server": ("Server", "app", "Show, start and stop the project's embedded Redis server."),
}
