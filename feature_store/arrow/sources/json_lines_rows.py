"""The rows of files of JSON lines: the implementation of JsonLinesSource."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from feature_store.arrow.json_lines import JsonLinesFormat
from feature_store.arrow.sources.files import JSON_LINES, has_files, source_files
from feature_store.arrow.sources.streamed_files import StreamedFiles
from feature_store.definitions.json_lines_source import JsonLinesSource
from feature_store.definitions.json_members import UNIT_US


class JsonLinesRows(StreamedFiles):
    """The rows of files of JSON lines, as columns of encoded text; see OfflineSource."""

    @classmethod
    def open(cls, source: JsonLinesSource, folder: Path) -> Self:
        """See OfflineSource."""
        in_data = {name: column for column, name in source.field_mapping.items()}
        declared = [source.event_timestamp, source.created_timestamp, *(field.name for field in source.fields)]
        names = tuple(in_data.get(name, name) for name in declared if name is not None)
        files = source_files(source.path, folder, JSON_LINES)
        return cls(f"source {source.path}", files, JsonLinesFormat(UNIT_US[source.timestamp_unit], names))

    @classmethod
    def exists(cls, source: JsonLinesSource, folder: Path) -> bool:
        """See OfflineSource."""
        return has_files(source.path, folder, JSON_LINES)
