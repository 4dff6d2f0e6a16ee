"""Commands on data: materialize, push, get, delete."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from feature_store._formatting import counted, shown_time
from feature_store.cli.options import AsJson, End, Lookback, Now, Repo, Start, Yes, read_entity_rows
from feature_store.cli.output import confirm, console, print_json, table
from feature_store.cli.progress import ProgressReport
from feature_store.cli.response import response_document, show_response
from feature_store.cli.text import visible
from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.dtypes import MIN_TIMESTAMP_US, from_microseconds
from feature_store.errors import RequestError
from feature_store.materialize.summary import Summary
from feature_store.project.store import FeatureStore

_COUNTS = ("source rows", "entities", "written", "older", "quarantined")


def materialize(
    repo: Repo = Path(),
    start: Start = None,
    end: End = None,
    view: Annotated[list[str] | None, typer.Option(help="A view. Repeatable. Default: all views.")] = None,
    lookback: Lookback = None,
    engine: Annotated[str | None, typer.Option(help="The engine: local or spark. Default: the configured one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the latest row of every entity with an event time in [start, end) to the online store.

    A run that was killed continues when the command is run again.
    """
    with FeatureStore(repo) as store, ProgressReport(console(stderr=True)) as report:
        summaries = store.materialize(start, end, view, engine, lookback=lookback or timedelta(0), report=report)
    show_summaries(summaries, as_json=as_json)


def push(
    view: Annotated[str, typer.Argument(help="The feature view to write.")],
    file: Annotated[Path, typer.Argument(help="A .csv or .parquet file with the columns of the view.")],
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Write the rows of a file to the online store. A row that is older than the stored one is ignored."""
    with FeatureStore(repo) as store, ProgressReport(console(stderr=True)) as report:
        summary = store.push(view, file, report=report)
    show_summaries([summary], as_json=as_json)


def get(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="SERVICE|VIEW:FEATURE… KEY=VALUE[,VALUE…]…",
            help="Features, then the entities to read: `ranking user_id=42 movie_id=1,2,3`.",
        ),
    ],
    repo: Repo = Path(),
    now: Now = None,
    as_json: AsJson = False,
) -> None:
    """Read features as a model server does.

    In JSON, integers beyond 2**53 are exact. Floats that are not finite are "nan", "inf" and "-inf", decimals are text,
    and bytes are base64.
    """
    names = [argument for argument in arguments if "=" not in argument]
    if not names:
        raise RequestError("get", expected="a service or features, then entity keys", got=" ".join(arguments))
    with FeatureStore(repo) as store:
        applied = store.applied()
        rows = read_entity_rows([argument for argument in arguments if "=" in argument], applied)
        service = names[0] if len(names) == 1 and ":" not in names[0] else names
        _refuse_a_view(names[0], applied)
        response = store.get_online_features(service, rows, now=now)
    if as_json:
        print_json(response_document(response))
    else:
        show_response(rows, response)


def delete(
    entity: Annotated[str, typer.Argument(help="The entity's name.")],
    key: Annotated[str, typer.Argument(metavar="KEY=VALUE", help="The entity's key: `user_id=42`.")],
    repo: Repo = Path(),
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete everything that the online store holds of one entity, including rows with composite keys.

    Sources stay unchanged. Rows that are materialized from them again come back.
    """
    with FeatureStore(repo) as store:
        join_keys = read_entity_rows([key], store.applied())
        confirm(f"Delete everything stored of {entity} {key} from {store.online.shown_url}?", yes=yes)
        deleted = store.delete(entity, join_keys)
    if as_json:
        print_json({"entity": entity, "join_keys": join_keys, "deleted_keys": deleted})
    else:
        console().print(f"Deleted {counted(deleted, 'key')} of {escape(entity)} {escape(key)}.")


def show_summaries(summaries: list[Summary], *, as_json: bool = False) -> None:
    """Print the results of jobs."""
    if as_json:
        print_json([summary.to_document() for summary in summaries])
        return
    out = console()
    times = ("from", "to") if any(summary.intervals for summary in summaries) else ()
    columns = dict.fromkeys(("view", *times), "left") | dict.fromkeys((*_COUNTS, "seconds"), "right")
    rows = [[summary.view, *(_interval(summary) if times else ()), *_counts(summary)] for summary in summaries]
    out.print(table("", columns, rows))
    for summary in summaries:
        if summary.resumed_chunks:
            chunks = counted(summary.resumed_chunks, "chunk")
            out.print(f"{summary.view}: continued after {chunks} of an earlier run.", markup=False)
        if summary.late_rows:
            late = counted(summary.late_rows, "row")
            line = f"{summary.view}: also read {late} that arrived late, in intervals that were done before."
            out.print(line, markup=False)
        if summary.quarantined:
            line = f"{summary.view}: quarantined {counted(summary.quarantined, 'row')}, with the reasons"
            out.print(f"[yellow]{escape(line)}: {escape(str(summary.quarantine_file))}[/]", soft_wrap=True)
        for breach in summary.breaches:
            line = visible(f"{summary.view}.{breach}; the rows are written")
            out.print(f"[yellow]{escape(line)}[/]", soft_wrap=True)


def _interval(summary: Summary) -> tuple[str | None, str | None]:
    """Start and end of the interval that was read. A None start is the beginning of time; two None: nothing to read."""
    if not summary.intervals:
        return None, None
    start, end = min(summary.intervals)[0], max(summary.intervals)[1]
    begin = None if start < MIN_TIMESTAMP_US else shown_time(from_microseconds(start))
    return begin, shown_time(from_microseconds(end))


def _counts(summary: Summary) -> list[str]:
    counts = (summary.source_rows, summary.latest_rows, summary.written, summary.older, summary.quarantined)
    return [*(f"{count:,}" for count in counts), f"{summary.seconds:.2f}"]


def _refuse_a_view(name: str, definitions: DefinitionSet) -> None:
    views = {view.name: view for view in (*definitions.stored_views, *definitions.on_demand_feature_views.values())}
    if name in views and name not in definitions.feature_services:
        hint = f"name its features: {name}:{views[name].fields[0].name}"
        raise RequestError("get", expected="a service, or VIEW:FEATURE", got=f"the view {name!r}", hint=hint)


# By name: the section of `feature-store --help`, the function or typer.Typer, and a summary of at most 78 characters.
COMMANDS = {
    "materialize": ("Fill", "materialize", "Write the latest row of every entity to the online store."),
    "push": ("Fill", "push", "Write the rows of a file to the online store."),
    "delete": ("Fill", "delete", "Delete everything that the online store holds of one entity."),
    "get": ("Read", "get", "Read features as a model server does."),
}
