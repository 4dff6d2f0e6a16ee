"""The command training-set."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from feature_store.cli.options import AsJson, Repo, read_time
from feature_store.cli.output import console, print_json, table
from feature_store.cli.progress import ProgressReport
from feature_store.project.store import FeatureStore

if TYPE_CHECKING:
    from feature_store.training.manifest import Manifest, SourceSnapshot

_SOURCES = {"view": "left", "files": "right", "source rows": "right", "quarantined": "right"}
_FEATURES = {"feature": "left", "missing": "right", "rate": "right"}


def training_set(
    service: Annotated[str, typer.Option(help="The service whose features are joined.")],
    out: Annotated[
        Path, typer.Option(help="The Parquet file to write (on Spark a folder). Its manifest is written beside it.")
    ],
    entities: Annotated[
        str | None,
        typer.Option(
            "--entities",
            "--labels",
            metavar="FILE|QUERY",
            help="Label rows: a Parquet file, or SQL (`SELECT …`, `WITH …`) that the engine runs.",
        ),
    ] = None,
    timestamp_column: Annotated[str, typer.Option(help="The column with the times of labels.")] = "event_timestamp",
    prune_as_of: Annotated[
        str | None,
        typer.Option(
            metavar="TIME|never",
            help="Features as pruned at this time; never: all features. Default: the features that are served now.",
        ),
    ] = None,
    as_recorded: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST", help="Read the versions of the sources that the manifest of an earlier set records."
        ),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="The engine: local or spark. Default: the configured one.")] = None,
    from_served_log: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Take served vectors from this log instead. Labels need request_id, and request_row or the join keys.",
        ),
    ] = None,
    version: Annotated[
        int | None, typer.Option(help="With a served log: only records of this version, with its features.")
    ] = None,
    take: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="With a served log: a column to keep. Repeatable.")
    ] = None,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Join label rows with the features that serving would have given at each label's time, or gave (served log)."""
    if entities is None:
        raise typer.BadParameter("required: the label rows, a Parquet file or a query", param_hint="--entities")
    if from_served_log is None and (version is not None or take):
        raise typer.BadParameter("needs --from-served-log", param_hint="--version, --take")
    if from_served_log is not None and as_recorded is not None:
        raise typer.BadParameter("a served log has no sources", param_hint="--as-recorded")
    with FeatureStore(repo) as store, ProgressReport(console(stderr=True)) as report:
        if from_served_log is not None:
            made = store.training.from_log(from_served_log, entities, service, version=version, take=take or ())
        else:
            made = store.get_historical_features(
                entities,
                service,
                engine,
                timestamp_column=timestamp_column,
                prune_as_of=_read_prune_time(prune_as_of),
                as_recorded=as_recorded,
                report=report,
            )
        made.write_parquet(out)
    if as_json:
        print_json(made.manifest.to_document() | {"out": str(out)})
    else:
        _show(made.manifest, out)


def _read_prune_time(text: str | None) -> datetime | Literal["never"] | None:
    return read_time(text) if text not in (None, "never") else "never" if text else None


def _show(manifest: Manifest, out: Path) -> None:
    shown = console()
    shown.print(table("", _SOURCES, [_source(source) for source in manifest.sources]))
    rates = manifest.missing_rates
    features = [[name, f"{manifest.missing[name]:,}", f"{rates[name]:.1%}"] for name in manifest.features]
    shown.print(table("", _FEATURES, features))
    if manifest.engine == "served log":
        shown.print(manifest.labels, markup=False, soft_wrap=True)
    made = f"{manifest.rows:,} rows × {len(manifest.features)} features in {manifest.seconds:.2f} s"
    shown.print(f"{made}, definitions version {manifest.definitions_version}: {out}", markup=False, soft_wrap=True)
    for source in manifest.sources:
        if source.quarantined:
            shown.print(
                f"[yellow]{escape(source.view)}: {source.quarantined:,} rows do not fit and are not joined; "
                f"reasons: {escape(str(source.quarantine_file))}[/]",
                soft_wrap=True,
            )


def _source(source: SourceSnapshot) -> list[str]:
    rows = "–" if source.rows is None else f"{source.rows:,}"
    return [source.view, f"{len(source.files):,}", rows, f"{source.quarantined:,}"]


# By name: the section of `feature-store --help`, the function or typer.Typer, and a summary of at most 78 characters.
COMMANDS = {
    "training-set": ("Read", "training_set", "Join label rows with features at each label's time."),
}
