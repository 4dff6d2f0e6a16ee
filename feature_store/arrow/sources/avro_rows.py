"""The rows of Avro object container files: the implementation of AvroSource."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from feature_store.arrow.avro_files import AvroFormat
from feature_store.arrow.sources.files import AVRO, has_files, source_files
from feature_store.arrow.sources.streamed_files import StreamedFiles
from feature_store.definitions.avro_source import AvroSource


class AvroRows(StreamedFiles):
    """The rows of Avro files; see OfflineSource."""

    @classmethod
    def open(cls, source: AvroSource, folder: Path) -> Self:
        """See OfflineSource."""
        return cls(f"source {source.path}", source_files(source.path, folder, AVRO), AvroFormat())

    @classmethod
    def exists(cls, source: AvroSource, folder: Path) -> bool:
        """See OfflineSource."""
        return has_files(source.path, folder, AVRO)
