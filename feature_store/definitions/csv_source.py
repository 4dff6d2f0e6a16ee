"""CsvSource: CSV files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field as Attribute, field_validator

from feature_store.definitions.field import Field
from feature_store.definitions.source import FileSource


class CsvSource(FileSource):
    """CSV files: a file, a folder of `.csv`, `.csv.gz` and `.csv.zst` files, or a glob.

    Each file has a header. No types are inferred: each value is text that is parsed as the declared type of its column,
    and a row with a value that is not of that type goes to quarantine. An empty value is null, and a quoted empty value
    is an empty text. A column that only some of the files have is null in the others.

    Args:
        path: absolute, or relative to the folder of feature_store.yaml; or a URL, such as
            `s3://bucket/orders/*.parquet`, whose credentials are in the environment.
        event_timestamp, created_timestamp, field_mapping, schema: as for BatchSource.
        delimiter: the character between two values. Values that contain it are in double quotes.

    Raises:
        DefinitionError: an argument is empty or of a wrong type, two columns are mapped to the same name, or the
            delimiter is not one ASCII character.

    Example:
        >>> from feature_store import CsvSource
        >>> CsvSource("orders/*.csv", event_timestamp="at", delimiter=";").delimiter
        ';'
    """

    kind: ClassVar[str] = "csv"
    reader: ClassVar[str] = "feature_store.arrow.sources.csv_rows:CsvRows"

    delimiter: str = Attribute(default=",", min_length=1, max_length=1)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        event_timestamp: str,
        created_timestamp: str | None = None,
        field_mapping: Mapping[str, str] | None = None,
        schema: Sequence[Field] = (),
        delimiter: str = ",",
    ) -> None:
        super().__init__(
            path,
            event_timestamp=event_timestamp,
            created_timestamp=created_timestamp,
            field_mapping=field_mapping,
            schema=schema,
            delimiter=delimiter,
        )

    @field_validator("delimiter")
    @classmethod
    def _delimiter_separates(cls, delimiter: str) -> str:
        if not delimiter.isascii() or delimiter in '"\r\n\0':
            raise ValueError("expected an ASCII character that is no quote and no line end")
        return delimiter
