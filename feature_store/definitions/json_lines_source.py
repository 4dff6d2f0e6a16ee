"""JsonLinesSource: files with one JSON object on each line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field as Attribute

from feature_store.definitions.field import Field
from feature_store.definitions.source import FileSource


class JsonLinesSource(FileSource):
    """Files of JSON lines: a file, a folder of `.jsonl` and `.ndjson` files, also with `.gz` or `.zst`, or a glob.

    Each line is one JSON object. Its members are read by the rules for events of a KafkaSource, so that an event gives
    the same row from either. A missing member is null. A line that is not an object goes to quarantine.

    Args:
        path: absolute, or relative to the folder of feature_store.yaml; or a URL, such as
            `s3://bucket/orders/*.parquet`, whose credentials are in the environment.
        event_timestamp, created_timestamp, field_mapping, schema: as for BatchSource. Members that are not in the first
            4 MB of some file must be in `schema`.
        timestamp_unit: the unit of numeric times, counted from 1970.

    Raises:
        DefinitionError: an argument is empty or of a wrong type, or two columns are mapped to the same name.

    Example:
        >>> from feature_store import JsonLinesSource
        >>> JsonLinesSource("clicks/*.jsonl", event_timestamp="at", timestamp_unit="s").timestamp_unit
        's'
    """

    kind: ClassVar[str] = "json_lines"
    reader: ClassVar[str] = "feature_store.arrow.sources.json_lines_rows:JsonLinesRows"

    timestamp_unit: Literal["s", "ms", "us"] = Attribute(default="ms")

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        event_timestamp: str,
        created_timestamp: str | None = None,
        field_mapping: Mapping[str, str] | None = None,
        schema: Sequence[Field] = (),
        timestamp_unit: str = "ms",
    ) -> None:
        super().__init__(
            path,
            event_timestamp=event_timestamp,
            created_timestamp=created_timestamp,
            field_mapping=field_mapping,
            schema=schema,
            timestamp_unit=timestamp_unit,
        )
