"""Reads importances from a CSV, Parquet or JSON file."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from feature_store._extras import requires_extra
from feature_store.errors import DataError
from feature_store.pruning.importance import FeatureImportance, Importances

Row = Mapping[str, Any]

_NEEDED, _OPTIONAL = ("feature", "importance"), ("std", "method", "model", "time")


def read_importances(path: str | Path) -> Importances:
    """Read a file with the columns feature and importance, and optionally std, method, model and time.

    JSON is a list of such rows, or a document of `Importances.to_json`.

    Raises:
        DataError: the file cannot be read, a column is missing, a cell is not a number, time or text as needed, or the
            rows have several methods or models. The error names all these rows; row 1 follows the header.

    Example:
        >>> from pathlib import Path
        >>> from feature_store.pruning import read_importances
        >>> _ = Path("gain.csv").write_text("feature,importance\\nprice,0.7\\norders_30d,0.3\\n")
        >>> [one.feature for one in read_importances("gain.csv").features]
        ['price', 'orders_30d']
    """
    path = Path(path)
    readers = {".csv": _csv_rows, ".parquet": _parquet_rows, ".json": _json_rows}
    if path.suffix not in readers:
        raise DataError(
            f"importances {path}", expected="a .csv, .parquet or .json file", got=path.suffix or "no suffix"
        )
    try:
        found = readers[path.suffix](path)
        modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"importances {path}", expected="readable rows", got=str(error)) from error
    return found if isinstance(found, Importances) else _importances(f"importances {path}", found, modified)


def _csv_rows(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _parquet_rows(path: Path) -> list[Row]:
    with requires_extra("prune", "read_importances"):
        from feature_store.arrow.parquet import read_parquet
    rows: list[Row] = read_parquet(path, f"importances {path}").to_pylist()
    return rows


def _json_rows(path: Path) -> list[Row] | Importances:
    document = path.read_bytes()
    found = orjson.loads(document)
    if isinstance(found, dict):
        return Importances.from_json(document)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise DataError(f"importances {path}", expected="a list of rows", got=type(found).__name__)
    return found


def _importances(where: str, rows: Sequence[Row], modified: datetime) -> Importances:
    if not rows:
        raise DataError(where, expected="rows", got="none")
    columns = {name for row in rows for name in row if name is not None}
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        expected = f"columns {', '.join(_NEEDED)} (and {', '.join(_OPTIONAL)})"
        raise DataError(where, expected=expected, got=f"no {', '.join(missing)}")
    cells = _Cells(where, rows)
    features, values = cells.column("feature", _text), cells.column("importance", _number)
    stds, times = cells.column("std", _number_or_none), cells.column("time", _time_or_none)
    method, model = cells.single("method", "imported"), cells.single("model", "")
    cells.refuse()
    items = zip(features, values, stds, range(1, len(rows) + 1), strict=True)
    known = [time for time in times if time is not None]
    return Importances(method, model, max(known, default=modified), tuple(FeatureImportance(*item) for item in items))


class _Cells:
    """The cells of rows, read column by column. `refuse` raises one error for all wrong cells."""

    def __init__(self, where: str, rows: Sequence[Row]) -> None:
        self._where, self._rows = where, rows
        self._problems: list[str] = []

    def column(self, name: str, read: Callable[[Any], Any]) -> list[Any]:
        """The values of a column; None for cells that cannot be read."""
        out: list[Any] = []
        for number, row in enumerate(self._rows, 1):
            try:
                out.append(read(row.get(name)))
            except (TypeError, ValueError):
                out.append(None)
                self._problems.append(f"row {number} {name} {row.get(name)!r}")
        return out

    def single(self, name: str, default: str) -> str:
        """The only value of a column. Several values are a problem for `refuse`."""
        rows_of: dict[str, list[int]] = {}
        for number, row in enumerate(self._rows, 1):
            rows_of.setdefault(str(row.get(name) or default), []).append(number)
        if len(rows_of) > 1:
            values = (f"{value or 'none'!r} in rows {', '.join(map(str, at))}" for value, at in rows_of.items())
            self._problems.append(f"more than one {name}: {', '.join(values)}")
        return next(iter(rows_of))

    def refuse(self) -> None:
        """Raise a DataError if a cell is wrong."""
        if self._problems:
            expected = "names, numbers and ISO 8601 times, of one method and one model"
            raise DataError(self._where, expected=expected, got="; ".join(self._problems))


def _text(cell: Any) -> str:
    if not isinstance(cell, str) or not cell:
        raise TypeError
    return cell


def _number(cell: Any) -> float:
    if isinstance(cell, bool):
        raise TypeError
    return float(cell)


def _number_or_none(cell: Any) -> float | None:
    value = None if cell in (None, "") else _number(cell)
    return None if value is None or math.isnan(value) else value


def _time_or_none(cell: Any) -> datetime | None:
    if cell in (None, ""):
        return None
    time = cell if isinstance(cell, datetime) else datetime.fromisoformat(cell)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
