"""What `get` prints of a response: JSON for programs, a table for people."""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from feature_store.cli.output import cell, console
from feature_store.cli.tables import FittingTable
from feature_store.definitions.scalars import json_form
from feature_store.online.response import OnlineResponse
from feature_store.online.status import Status

_GAP = 3  # characters between the columns of a table


def response_document(response: OnlineResponse) -> dict[str, Any]:
    """The response as JSON types. Floats that are not finite, decimals and bytes are text."""
    features = {name: [_json_value(value) for value in values] for name, values in response.to_dict().items()}
    return {
        "plan_version": response.plan_version,
        "features": features,
        "status": {name: [status.name for status in statuses] for name, statuses in response.status.items()},
        "event_timestamps": {name: list(times) for name, times in response.event_timestamps.items()},
    }


def _json_value(value: Any) -> Any:
    """A value as a JSON type. NaN and infinities are text, since JSON has none."""
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    if isinstance(value, (bytes, Decimal)):
        return json_form(value)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def show_response(rows: dict[str, Any], response: OnlineResponse) -> None:
    """Print entities as rows, or as columns if the features do not fit across the terminal."""
    count, features, statuses = len(response), response.to_dict(), response.status
    keys = {name: value if isinstance(value, list) else [value] * count for name, value in rows.items()}
    cells = {name: [cell(value) for value in values] for name, values in keys.items()}
    for name, values in features.items():
        pairs = zip(values, statuses[name], strict=True)
        cells[name] = [_with_status(value, status) for value, status in pairs]
    out = console()
    across = FittingTable(dict.fromkeys(cells, "right"), zip(*cells.values(), strict=True))
    if across.fits(out):
        out.print(across)
    else:
        _show_down(out, cells, len(keys))
    out.print(f"[dim]plan version {response.plan_version}[/]")


def _show_down(out: Console, cells: dict[str, list[str]], keys: int) -> None:
    names = [escape(name) for name in cells]
    for entities in _blocks(list(zip(*cells.values(), strict=True)), out.width - max(map(len, cells)) - _GAP):
        columns = {"": "left"} | {str(i): "right" for i in range(len(entities))}
        down = Table(box=box.SIMPLE, pad_edge=False, show_header=False)
        for name, justify in columns.items():
            down.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for line, row in enumerate(zip(names, *entities, strict=True), 1):
            down.add_row(*row, end_section=line == keys)
        out.print(down)


def _blocks(entities: list[tuple[str, ...]], width: int) -> Iterator[list[tuple[str, ...]]]:
    """Groups of entities that fit side by side, a column each. A group has at least one entity."""
    block: list[tuple[str, ...]] = []
    left = width
    for entity in entities:
        needed = max(Text.from_markup(each).cell_len for each in entity) + _GAP
        if block and needed > left:
            yield block
            block, left = [], width
        block.append(entity)
        left -= needed
    yield block


def _with_status(value: Any, status: Status) -> str:
    return cell(value) if status == Status.PRESENT else f"{cell(value)} [dim]{status.name}[/]"
