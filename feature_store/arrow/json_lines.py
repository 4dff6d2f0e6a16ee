"""Reads files of JSON lines as columns of text, in batches. Each line is one JSON object.

A file whose name ends in `.gz` or `.zst` is decompressed. Empty lines are passed over. A line that is not one object
becomes a row whose values fit no type: each says the line's number and the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from feature_store.arrow.compressed import lines_of, opened
from feature_store.arrow.encoded import JsonText, encoded_batch
from feature_store.arrow.json_text import encoded_values
from feature_store.errors import DataError

_BLOCK_BYTES = 4 << 20
_MOST_LINE_BYTES = 16 << 20
_SHOWN = 100  # characters of a line that is not an object
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class JsonLinesFormat(NamedTuple):
    """How the values of JSON lines are read.

    Attributes:
        unit_us: the unit of numeric times, in microseconds.
        declared: names of members that need not be in the first lines of a file.
    """

    unit_us: int
    declared: tuple[str, ...]

    def schema(self, where: str, path: str) -> pa.Schema:
        """The declared members, and those of the lines in the first 4 MB of a file.

        Raises:
            DataError: a line is too long.
            pa.ArrowException, OSError: the file cannot be read.
        """
        names = dict.fromkeys(self.declared)
        for _, lines in _blocks(where, path):
            for line in lines:
                names |= dict.fromkeys(_object(line) or ())
            break
        return pa.schema([pa.field(name, self._encoding) for name in names])

    def batches(self, where: str, path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Members of the objects of a file, as encoded text. A missing member is null.

        Args:
            where: names the file in errors.
            path: the file.
            columns: names of members, each once.

        Raises:
            DataError: a line is too long.
            pa.ArrowException, OSError: the file cannot be read.
        """
        names = columns or ("",)  # a batch without columns would have no rows
        for first, lines in _blocks(where, path):
            objects, malformed = _objects(lines, first, Path(path).name)
            texts = [encoded_values([one.get(name) for one in objects]) for name in names]
            if malformed:
                texts = [_with(text, malformed) for text in texts]
            rows = pa.RecordBatch.from_arrays(texts, names=list(names))
            kept = [place for place, line in enumerate(lines) if line.strip()]
            yield encoded_batch(
                rows if len(kept) == len(lines) else rows.take(pa.array(kept, pa.int64())), self._encoding
            )

    def rows(self, path: str) -> int:
        """At least the number of rows of a file.

        Raises:
            OSError: the file cannot be read.
        """
        return lines_of(path)

    @property
    def _encoding(self) -> JsonText:
        return JsonText(self.unit_us)


def _blocks(where: str, path: str) -> Iterator[tuple[int, list[bytes]]]:
    """The number of the first line, from 1, and the lines, of blocks of about 4 MB."""
    first, rest = 1, b""
    with opened(path) as stream:
        while block := stream.read(_BLOCK_BYTES):
            if first == 1 and not rest:
                block = block.removeprefix(_BYTE_ORDER_MARK)
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            if len(rest) > _MOST_LINE_BYTES:
                problem = f"{Path(path).name}, line {first + len(lines)}: the line is longer than 16 MB"
                raise DataError(where, problem=problem, hint="write one JSON object on each line")
            if lines:
                yield first, lines
            first += len(lines)
    if rest:
        yield first, [rest]


def _objects(lines: list[bytes], first: int, name: str) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """The objects of lines, empty for lines that are none; and the reasons for lines that are neither, by place."""
    try:
        objects = [orjson.loads(line) for line in lines]
        if set(map(type, objects)) <= {dict}:
            return objects, {}
    except orjson.JSONDecodeError:
        pass
    objects, malformed = [], {}
    for place, line in enumerate(lines):
        found = _object(line)
        objects.append(found or {})
        if found is None and line.strip():
            shown = line[:_SHOWN].decode(errors="backslashreplace")
            malformed[place] = f"line {first + place} of {name} is not one JSON object: {shown}"
    return objects, malformed


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _with(texts: pa.StringArray, others: dict[int, str]) -> pa.StringArray:
    values = texts.to_pylist()
    for place, text in others.items():
        values[place] = text
    return pa.array(values, pa.string())
