"""Commands on data: materialize, push, get, delete."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from feature_store.cli.options import AsJson, End, Lookback, Now, Repo, Start, Yes, read_entity_rows
from feature_store.cli.output import cell, confirm, console, print_json, table
from feature_store.cli.progress import ProgressReport
from feature_store.errors import RequestError
from feature_store.online.response import Status
from feature_store.store import FeatureStore

if TYPE_CHECKING:
    from typing import Any

    from feature_store.materialize.job import Summary
    from feature_store.online.response import OnlineResponse

_COUNTS = ("source rows", "entities", "written", "older", "quarantined")


def materialize(
    repo: Repo = Path(),
    start: Start = None,
    end: End = None,
    view: Annotated[list[str] | None, typer.Option(help="A view; repeat it for more. All unless given.")] = None,
    lookback: Lookback = None,
    engine: Annotated[str | None, typer.Option(help="What computes; the configured one unless given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the latest row of every entity with an event time in [start, end) to the online store.

    Killed anywhere, it goes on when it is run again.
    """
    with FeatureStore(repo) as store, ProgressReport(console(stderr=True)) as report:
        summaries = store.materialize(start, end, view, engine, lookback=lookback or timedelta(0), report=report)
    show_summaries(summaries, as_json=as_json)


def push(
    view: Annotated[str, typer.Argument(help="Whose rows.")],
    file: Annotated[Path, typer.Argument(help="A .csv or .parquet file with the columns of the view.")],
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Write a file's rows to the online store; newest wins."""
    with FeatureStore(repo) as store, ProgressReport(console(stderr=True)) as report:
        summary = store.push(view, file, report=report)
    show_summaries([summary], as_json=as_json)


def get(
    asked: Annotated[
        list[str],
        typer.Argument(
            metavar="SERVICE|VIEW:FEATURE… KEY=VALUE[,VALUE…]…",
            help="What to read, and of whom: `ranking user_id=42 movie_id=1,2,3`.",
        ),
    ],
    repo: Repo = Path(),
    now: Now = None,
    as_json: AsJson = False,
) -> None:
    """Read features as a model server does."""
    names = [argument for argument in asked if "=" not in argument]
    if not names:
        raise RequestError("get", expected="a service or features, then entity keys", got=" ".join(asked))
    with FeatureStore(repo) as store:
        rows = read_entity_rows([argument for argument in asked if "=" in argument], store.applied())
        service = names[0] if len(names) == 1 and ":" not in names[0] else names
        response = store.get_online_features(service, rows, now=now)
    if as_json:
        print_json(_response_document(response))
    else:
        _show_response(rows, response)


def delete(
    entity: Annotated[str, typer.Argument(help="The entity's name.")],
    key: Annotated[str, typer.Argument(metavar="KEY=VALUE", help="Which one: `user_id=42`.")],
    repo: Repo = Path(),
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete everything that the online store holds of one entity, in composite keys too."""
    with FeatureStore(repo) as store:
        join_keys = read_entity_rows([key], store.applied())
        confirm(f"Delete all of {entity} {key} from {store.online.shown_url}?", yes=yes)
        deleted = store.delete(entity, join_keys)
    if as_json:
        print_json({"entity": entity, "join_keys": join_keys, "deleted_keys": deleted})
    else:
        console().print(f"Deleted {deleted:,} keys of {escape(entity)} {escape(key)}.")


def show_summaries(summaries: list[Summary], *, as_json: bool = False) -> None:
    """What jobs did."""
    if as_json:
        print_json([summary.to_document() for summary in summaries])
        return
    out = console()
    columns = {"view": "left"} | dict.fromkeys((*_COUNTS, "seconds"), "right")
    out.print(table("", columns, [_counts(summary) for summary in summaries]))
    for summary in summaries:
        if summary.resumed_chunks:
            out.print(f"{summary.view}: went on after {summary.resumed_chunks} chunks of an earlier run.", markup=False)
        if summary.quarantined:
            out.print(
                f"[yellow]{summary.quarantined:,} rows of {escape(summary.view)} do not fit; "
                f"they are, with the reasons, in {escape(str(summary.quarantine_file))}[/]",
                soft_wrap=True,
            )


def _counts(summary: Summary) -> list[str]:
    counts = (summary.source_rows, summary.latest_rows, summary.written, summary.older, summary.quarantined)
    return [summary.view, *(f"{count:,}" for count in counts), f"{summary.seconds:.2f}"]


def _response_document(response: OnlineResponse) -> dict[str, Any]:
    return {
        "plan_version": response.plan_version,
        "features": response.to_dict(),
        "status": {name: [status.name for status in found] for name, found in response.status.items()},
        "event_timestamps": {name: list(times) for name, times in response.event_timestamps.items()},
    }


def _show_response(rows: dict[str, Any], response: OnlineResponse) -> None:
    features, statuses, count = response.to_dict(), response.status, len(response)
    found = {name: statuses[name] for name in response.names}
    keys = {name: value if isinstance(value, list) else [value] * count for name, value in rows.items()}
    out = console()
    columns = dict.fromkeys([*keys, *features], "right")
    shown = table("", columns, [])
    for i in range(count):
        cells = [cell(values[i]) for values in keys.values()]
        for name, values in features.items():
            status = found[name][i]
            cells.append(cell(values[i]) if status == Status.PRESENT else f"{cell(values[i])} [dim]{status.name}[/]")
        shown.add_row(*cells)
    out.print(shown)
    out.print(f"[dim]plan version {response.plan_version}[/]")


COMMANDS = (materialize, push, get, delete)
