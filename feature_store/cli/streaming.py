"""Commands on streams: stream, backfill."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from feature_store.cli.options import AsJson, Repo, read_time
from feature_store.cli.output import console, print_json, table
from feature_store.cli.progress import ProgressReport
from feature_store.cli.tables import MISSING
from feature_store.project.store import FeatureStore
from feature_store.streaming.status import StreamStatus

if TYPE_CHECKING:
    from feature_store.streaming.backfill import Filled

_PARTITIONS_SHOWN = 16
_REFRESHES_PER_SECOND = 4
# Seconds that rates are averaged over: short enough to follow changes, long enough not to flicker.
_RATE_S = 3.0
# Seconds between lines when stderr is not a terminal.
_LINE_S = 10.0


def stream(
    repo: Repo = Path(),
    view: Annotated[
        list[str] | None, typer.Option(help="A stream view. Repeatable. Default: all stream views.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="The engine: local (processes on this machine) or spark (Structured Streaming).")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of worker processes. Default: 1. Not for Spark.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve Prometheus metrics on this port; 0: any free port.")
    ] = None,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="Exit when all events that Kafka holds now are merged.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Merge Kafka events into the windows of stream views, each event once, until stopped (Ctrl-C, SIGTERM).

    A run that was killed continues from the offsets that the online store holds.
    """
    with FeatureStore(repo) as store, stop_signals() as stopped, StreamProgress(console(stderr=True)) as progress:
        status = store.stream(
            view,
            engine=engine,
            workers=workers,
            until_caught_up=until_caught_up,
            metrics_port=metrics_port,
            report=progress.update,
            stopped=stopped,
        )
    if as_json:
        print_json(status.to_document())
    else:
        console().print(_summary(status))


def backfill(
    view: Annotated[str, typer.Argument(help="The stream view.")],
    until: Annotated[
        datetime | None,
        typer.Option(
            parser=read_time,
            metavar="TIME",
            help="The history is complete up to this time; later events come from Kafka. "
            "Omit it if the source has no history.",
        ),
    ] = None,
    repo: Repo = Path(),
    allow_gap: Annotated[
        bool, typer.Option("--allow-gap", help="Continue if Kafka may have deleted messages after that time.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fill a stream view from its source's history, catch up with Kafka, and serve the result.

    The view is served unchanged meanwhile. The command also repairs a view whose fences Redis has lost. A run that was
    killed continues when the command is run again with the same time.
    """
    with FeatureStore(repo) as store, ProgressReport(console(stderr=True)) as report:
        filled = store.backfill(view, until, allow_gap=allow_gap, report=report)
    if as_json:
        print_json(filled.to_document())
    else:
        _show_filled(filled)


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether Ctrl-C or SIGTERM has arrived. A second signal ends the process as usual."""
    received: list[int] = []
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StreamProgress:
    """The status of workers: a table that is redrawn on a terminal, a line every 10 s elsewhere."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._live = Live(console=out, refresh_per_second=_REFRESHES_PER_SECOND, transient=True)
        # The time of each status, and the events merged by view.
        self._seen: deque[tuple[float, dict[str, int]]] = deque()
        self._said_at = time.monotonic()

    def update(self, status: StreamStatus) -> None:
        """Show a status."""
        now = time.monotonic()
        self._seen.append((now, {name: counts.merged for name, counts in status.views.items()}))
        while now - self._seen[0][0] > _RATE_S and len(self._seen) > 2:
            self._seen.popleft()
        if self._out.is_terminal:
            self._live.update(self._shown(status))
        elif now - self._said_at > _LINE_S:
            self._said_at = now
            self._out.print(self._line(status), markup=False)

    def __enter__(self) -> StreamProgress:
        if self._out.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._out.is_terminal:
            self._live.stop()

    def _shown(self, status: StreamStatus) -> RenderableType:
        parts: list[RenderableType] = [_partitions(status), self._views(status), Text(_faults(status), style="dim")]
        if status.trouble:
            parts.append(Text(f"waiting: {status.trouble}", style="yellow"))
        parts += _stopped(status)
        return Group(*parts)

    def _views(self, status: StreamStatus) -> RenderableType:
        columns = dict.fromkeys(("events", "events/s", "freshness", "late", "no key"), "right")
        rows = [
            [name, f"{c.merged:,}", f"{self._rate(name):,.0f}", _age(c.newest_us), f"{c.late:,}", f"{c.null_keys:,}"]
            for name, c in sorted(status.views.items())
        ]
        return table("", {"view": "left"} | columns, rows)

    def _line(self, status: StreamStatus) -> str:
        rate = sum(self._rate(name) for name in status.views)
        about = f"{status.merged:,} events, {rate:,.0f}/s, lag {status.lag:,}, dead letters {status.dead:,}"
        return f"{about}; waiting: {status.trouble}" if status.trouble else about

    def _rate(self, view: str) -> float:
        (first, before), (last, now) = self._seen[0], self._seen[-1]
        return (now.get(view, 0) - before.get(view, 0)) / (last - first) if last > first else 0.0


def _partitions(status: StreamStatus) -> RenderableType:
    columns = {"topic": "left"} | dict.fromkeys(("partition", "offset", "lag"), "right")
    listed = sorted(status.positions.items())
    rows: list[list[Any]] = [
        [topic, number, f"{max(at, 0):,}", MISSING if end is None else f"{max(0, end - max(at, 0)):,}"]
        for (topic, number), (at, end) in listed[:_PARTITIONS_SHOWN]
    ]
    if len(listed) > _PARTITIONS_SHOWN:
        rows.append([f"… {len(listed) - _PARTITIONS_SHOWN} more", "", "", f"{status.lag:,}"])
    return table("", columns, rows)


def _summary(status: StreamStatus) -> RenderableType:
    columns = dict.fromkeys(("events", "late", "no key"), "right")
    rows = [[name, f"{c.merged:,}", f"{c.late:,}", f"{c.null_keys:,}"] for name, c in sorted(status.views.items())]
    lines = [
        f"{topic}: {c.messages:,} messages read, {c.malformed:,} malformed, {c.future:,} in the future, {c.lost:,} lost"
        for topic, c in sorted(status.topics.items())
    ]
    lines.append(_faults(status))
    dimmed = [Text(line, style="dim") for line in lines]
    return Group(table("", {"view": "left"} | columns, rows), *dimmed, *_stopped(status))


def _stopped(status: StreamStatus) -> list[Text]:
    lines = [f"{name} is not streamed: {why}" for name, why in sorted(status.stopped.items())]
    if status.evicted:
        lines.append(f"Redis evicted {status.evicted:,} keys for lack of memory: values are missing")
    return [Text(line, style="red") for line in lines]


def _faults(status: StreamStatus) -> str:
    return f"dead letters {status.dead:,}, refused by fences {status.refused:,}, workers restarted {status.restarts:,}"


def _age(newest_us: int) -> str:
    if not newest_us:
        return MISSING
    seconds = max(0.0, time.time() - newest_us / 1e6)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


def _show_filled(filled: Filled) -> None:
    out = console()
    out.print(
        f"{filled.view}: generation {filled.generation} is served, filled from {filled.history_rows:,} rows of history "
        f"and {filled.stream_events:,} events from Kafka in {filled.seconds:.1f} s.",
        markup=False,
        soft_wrap=True,
    )
    if filled.quarantined:
        line = f"quarantined {filled.quarantined:,} rows that do not fit, with the reasons: {filled.quarantine_file}"
        out.print(f"[yellow]{escape(line)}[/]", soft_wrap=True)


# By name: the section of `feature-store --help`, the function or typer.Typer, and a summary of at most 78 characters.
COMMANDS = {
    "stream": ("Fill", "stream", "Merge Kafka events into the windows of stream views."),
    "backfill": ("Fill", "backfill", "Fill a stream view from its history, then catch up with Kafka."),
}
