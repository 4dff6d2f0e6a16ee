"""The command size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from feature_store._formatting import shown_bytes
from feature_store.cli.options import AsJson, Repo, read_counts
from feature_store.cli.output import console, print_json, table
from feature_store.project.size import ASSUMED_BYTES, GroupSize, ProjectSize
from feature_store.project.store import FeatureStore

_GROUPS = {"group": "left", "kind": "left"} | dict.fromkeys(
    ("entities", "bytes per entity", "all entities", "while switching", "stored entities", "stored"), "right"
)
_VIEWS = {"view": "left", "group": "left", "bytes per entity": "right"}
_COUNTS = "ENTITY=COUNT[,…]"


def size(
    entities: Annotated[
        str | None,
        typer.Option(
            metavar=_COUNTS,
            help="Number of entities: user=1000000,user+product=5000000. Default: the stored ones.",
        ),
    ] = None,
    key_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="ENTITY=BYTES[,…]", help=f"Mean length of an entity's String key. Default: {ASSUMED_BYTES} bytes."
        ),
    ] = None,
    variable_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="VIEW=BYTES[,…]",
            help="Mean bytes of a row's String, Bytes and ragged Array values. "
            f"Default: {ASSUMED_BYTES} bytes for each such field.",
        ),
    ] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Compute the memory that the definitions need in Redis, before anything is stored, and show what is stored now.

    Replicas need the same memory again. While a new generation is filled beside the served one, a group needs its
    memory twice. The stored bytes are measured on a sample of keys (MEMORY USAGE).
    """
    with FeatureStore(repo) as store:
        found = store.monitoring.size(
            _counts("--entities", entities, "ENTITY=COUNT, such as user=1000000"),
            key_bytes=_counts("--key-bytes", key_bytes, "ENTITY=BYTES, such as user=12"),
            variable_bytes=_counts("--variable-bytes", variable_bytes, "VIEW=BYTES, such as user_stats=300"),
        )
    if as_json:
        print_json(_document(found))
    else:
        _show(found)


def _counts(option: str, text: str | None, form: str) -> dict[str, int]:
    return {} if text is None else read_counts(option, text, form)


def _document(found: ProjectSize) -> dict[str, object]:
    return {
        "server": found.server,
        "groups": [
            {
                "name": group.name,
                "kind": group.kind,
                "views": {view.view: view.bytes_per_entity for view in group.views},
                "entities": group.entities,
                "key_bytes": group.key_bytes,
                "bytes_per_entity": group.bytes_per_entity,
                "bytes": group.bytes,
                "switching_bytes": group.switching_bytes,
                "stored_entities": group.stored_entities,
                "stored_bytes": group.stored_bytes,
            }
            for group in found.groups
        ],
        "bytes": found.bytes,
        "switching_bytes": found.switching_bytes,
        "stored_bytes": found.stored_bytes,
    }


def _show(found: ProjectSize) -> None:
    out = console()
    out.print(table(f"memory in {found.server}", _GROUPS, [_cells(group) for group in found.groups]))
    views = [(view.view, group.name, f"{view.bytes_per_entity:,}") for group in found.groups for view in group.views]
    out.print(table("of which each view", _VIEWS, views))
    if found.bytes is not None:
        total = (
            f"all groups: {shown_bytes(found.bytes)}; while all of them switch: {shown_bytes(found.switching_bytes)}"
        )
        out.print(total, soft_wrap=True)
    missing = [group.name for group in found.groups if group.entities is None]
    if missing:
        out.print(f"--entities gives no number for {', '.join(missing)}, and none are stored.", soft_wrap=True)


def _cells(group: GroupSize) -> tuple[str | None, ...]:
    def shown(count: int | None) -> str | None:
        return None if count is None else f"{count:,}"

    sizes = [None if size is None else shown_bytes(size) for size in (group.bytes, group.switching_bytes)]
    stored = None if group.stored_bytes is None else shown_bytes(group.stored_bytes)
    counts = shown(group.entities), f"{group.bytes_per_entity:,}"
    return (group.name, group.kind, *counts, *sizes, shown(group.stored_entities), stored)


# By name: the section of `feature-store --help`, the function or typer.Typer, and a summary of at most 78 characters.
COMMANDS = {
    "size": ("Watch", "size", "Compute the memory that definitions need in Redis, and show what is stored."),
}
