"""Reads CSV files as columns of text, in batches.

A file has a header, and is quoted as RFC 4180 says: a value in double quotes may hold delimiters, line ends and doubled
quotes. A file whose name ends in `.gz` or `.zst` is decompressed. An empty value is null; a quoted empty value is an
empty text. Empty lines are passed over. A row with more or fewer values than the header, and a quoted value without an
end, raise an error that names the line.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv

from feature_store.arrow.compressed import lines_of, opened
from feature_store.arrow.encoded import CSV, encoded_batch
from feature_store.errors import DataError

_HEADER_BYTES = 1 << 20
# Bytes that Arrow parses at once. A row that is longer cannot be parsed.
_BLOCK_BYTES = 8 << 20
_TOO_LONG = "straddling object"


class CsvFormat(NamedTuple):
    """How the values of a CSV file are separated.

    Attributes:
        delimiter: the character between two values.
    """

    delimiter: str = ","

    def names(self, where: str, path: str) -> list[str]:
        """The names of the columns of a file.

        Raises:
            DataError: the file has no header.
            pa.ArrowException, UnicodeDecodeError, OSError: the header cannot be read.
        """
        name = Path(path).name
        with opened(path) as stream:
            begin = stream.read(_HEADER_BYTES)
        header = begin[: _end_of_line(begin)]
        if not header.strip():
            raise DataError(where, problem=f"{name} is empty: it has no header with the names of its columns")
        lines = pa.BufferReader(header + b"\n")
        names: list[str] = pyarrow.csv.open_csv(lines, parse_options=self._parsing()).schema.names
        return names

    def batches(self, where: str, path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of the rows of a file, as encoded text. A column that the file does not have is null.

        Args:
            where: names the file in errors.
            path: the file.
            columns: names of columns, each once.

        Raises:
            DataError: a row has more or fewer values than the header, or is longer than 8 MB, or a quoted value has no
                end.
            pa.ArrowException, OSError: the file cannot be read.
        """
        columns = columns or self.names(where, path)[:1]  # without names, Arrow reads all columns
        converting = pyarrow.csv.ConvertOptions(
            check_utf8=False,  # a value that is not UTF-8 is a bad row, not a bad file
            column_types=dict.fromkeys(columns, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            include_columns=list(columns),
            include_missing_columns=True,
        )
        with opened(path) as stream:
            try:
                reading = pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES)
                for batch in pyarrow.csv.open_csv(stream, reading, self._parsing(), converting):
                    yield encoded_batch(batch, CSV)
            except pa.ArrowInvalid as error:
                raise self._error(where, path, error) from error
        if _quotes_of(path) % 2:
            self._refuse_open_quote(where, path)

    def schema(self, where: str, path: str) -> pa.Schema:
        """The columns of a file.

        Raises:
            DataError: the header has a name twice; and errors of `names`.
        """
        names = self.names(where, path)
        repeated = [column for column, count in Counter(names).items() if count > 1]
        if repeated:
            problem = f"the header of {Path(path).name} has the column {repeated[0]!r} twice"
            raise DataError(where, problem=problem)
        return pa.schema([pa.field(name, CSV) for name in names])

    def rows(self, path: str) -> int:
        """At least the number of rows of a file.

        Raises:
            OSError: the file cannot be read.
        """
        return lines_of(path)

    def _parsing(self) -> Any:
        return pyarrow.csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True)

    def _error(self, where: str, path: str, error: Exception) -> Exception:
        name = Path(path).name
        if _TOO_LONG in str(error):
            problem = f"a row of {name} is longer than {_BLOCK_BYTES >> 20} MB"
            return DataError(where, problem=problem, hint="look for a quoted value that does not end")
        wanted = None
        with contextlib.suppress(csv.Error):
            for line, values in self._lines(path):
                wanted = len(values) if wanted is None else wanted
                if len(values) not in (0, wanted):
                    problem = f"{name}, line {line}: the header has {wanted} columns, and this row {len(values)} values"
                    hint = f"quote values that contain {self.delimiter!r}, quotes or line ends"
                    return DataError(where, problem=problem, hint=hint)
        return error

    def _refuse_open_quote(self, where: str, path: str) -> None:
        last = 0
        try:
            for line, _ in self._lines(path, strict=True):
                last = line
        except csv.Error as error:
            problem = f"{Path(path).name}, in the row after line {last}: a quoted value does not end ({error})"
            hint = "a value in quotes ends with a quote before the delimiter; a quote inside of it is doubled"
            raise DataError(where, problem=problem, hint=hint) from error

    def _lines(self, path: str, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
        """The number of the last line of each row, from 1, and its values. This is slow, and for errors."""
        with opened(path) as stream, io.TextIOWrapper(stream, "utf-8-sig", "replace", newline="") as text:
            rows = csv.reader(text, delimiter=self.delimiter, strict=strict)
            for values in rows:
                yield rows.line_num, values


def _quotes_of(path: str) -> int:
    """The number of quotes of a file. It is even, if each quoted value ends."""
    # Not counted while Arrow reads: its threads would still call Python when the process ends.
    count = 0
    with opened(path) as stream:
        while block := stream.read(_BLOCK_BYTES):
            count += block.count(b'"')
    return count


def _end_of_line(begin: bytes) -> int:
    """The end of the first line that is not empty. A line end within quotes belongs to a value."""
    first = len(begin) - len(begin.lstrip(b"\r\n"))
    is_quoted = False
    for found in re.finditer(rb'["\r\n]', begin[first:]):
        if found[0] == b'"':
            is_quoted = not is_quoted
        elif not is_quoted:
            return first + found.start()
    return len(begin)
