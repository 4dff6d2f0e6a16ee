"""Commands on schemas: infer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_store._extras import requires_extra
from feature_store.cli.options import AsJson, Repo
from feature_store.cli.output import print_json, stdout
from feature_store.cli.text import visible
from feature_store.definitions.field import EXPECTATIONS
from feature_store.errors import RequestError
from feature_store.project.store import FeatureStore

if TYPE_CHECKING:
    from feature_store.arrow.schema_proposal import Proposal

app = typer.Typer(help="Propose schemas of views from data.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def schema() -> None:
    """Propose schemas of views from data."""


@app.command()
def infer(
    of: Annotated[str, typer.Argument(metavar="VIEW|PATH", help="A view of the project, or a Parquet file or folder.")],
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Propose fields from data, as Python to paste and correct: types, ranges, allowed strings, shares of nulls."""
    with requires_extra("local", "schema infer"):
        proposals = _of_path(Path(of)) if Path(of).exists() else _of_view(of, repo)
    if as_json:
        print_json([_document(one) for one in proposals])
    else:
        for one in proposals:
            typer.echo(visible(one.to_code()), file=stdout())


def _of_path(path: Path) -> list[Proposal]:
    from feature_store.arrow.schema_proposal import propose
    from feature_store.arrow.sources.parquet.rows import path_rows

    rows = path_rows(f"data {path}", path)
    return propose(rows, rows.schema.names, {})


def _of_view(name: str, repo: Path) -> list[Proposal]:
    from feature_store.arrow.schema_proposal import propose
    from feature_store.arrow.sources.opening import open_view

    with FeatureStore(repo) as store:
        view, folder = store.definitions.view(name), store.config.folder
    if view.source is None or view.sql is not None or view.aggregations:
        hint = "infer from a file of such rows"
        got = "no source" if view.source is None else "SQL or aggregations"
        raise RequestError(f"schema of {name}", expected="a view whose source holds its features", got=got, hint=hint)
    dtypes = {field.name: field.dtype for field in view.fields}
    return propose(open_view(view.source, view, folder), dtypes, dtypes)


def _document(one: Proposal) -> dict[str, object]:
    field = None if one.field is None else one.field.model_dump(mode="json", include={"dtype", *EXPECTATIONS})
    return {"column": one.column, "field": field, "why": one.why or None}


# By name: the section of `feature-store --help`, the function or typer.Typer, and a summary of at most 78 characters.
COMMANDS = {
    "schema": ("Define", "app", "Propose schemas of views from data."),
}
