"""Commands on what is served against what was meant: skew."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_store.cli.options import AsJson, Repo, read_entity_rows, read_time
from feature_store.cli.output import console, print_json, table
from feature_store.store import FeatureStore

if TYPE_CHECKING:
    from feature_store.monitoring.skew import FeatureSkew, SkewReport

_COLUMNS = {"feature": "left"} | dict.fromkeys(("equal", "differing", "worst"), "right") | {"example": "left"}


def skew(
    service: Annotated[str, typer.Option(help="Whose features.")],
    at: Annotated[
        datetime | None, typer.Option(parser=read_time, metavar="TIME", help="When; now unless given.")
    ] = None,
    entity_rows: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE[,VALUE…]]…", help="Of whom; a sample of what is stored unless given."),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="How many entity rows to sample.")] = 1000,
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Compare what is served with what the offline data say, at one time. Exit code 1 when a value differs."""
    with FeatureStore(repo) as store:
        rows = read_entity_rows(entity_rows or [], store.applied())
        report = store.skew(service, at or datetime.now(UTC), rows, sample=sample)
    if as_json:
        print_json(report.to_document())
    else:
        _show(report)
    if report.differing:
        raise typer.Exit(1)


def _show(report: SkewReport) -> None:
    out = console()
    out.print(table("", _COLUMNS, [_row(feature) for feature in report.features]))
    total = report.rows * len(report.features)
    out.print(f"{total - report.differing:,} of {total:,} values of {report.rows:,} entity rows are equal.")


def _row(feature: FeatureSkew) -> list[str | None]:
    example = None
    if feature.example is not None:
        named = ", ".join(f"{key}={value}" for key, value in feature.example.items())
        example = f"{named}: online {feature.online}, offline {feature.offline}"
    worst = None if feature.worst is None else f"{feature.worst:.6g}"
    return [feature.feature, f"{feature.equal:,}", f"{feature.differing:,}", worst, example]


COMMANDS = (skew,)
