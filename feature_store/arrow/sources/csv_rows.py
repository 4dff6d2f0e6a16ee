"""The rows of CSV files: the implementation of CsvSource."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from feature_store.arrow.csv_files import CsvFormat
from feature_store.arrow.sources.files import CSV, has_files, source_files
from feature_store.arrow.sources.streamed_files import StreamedFiles
from feature_store.definitions.csv_source import CsvSource


class CsvRows(StreamedFiles):
    """The rows of CSV files, as columns of encoded text; see OfflineSource."""

    @classmethod
    def open(cls, source: CsvSource, folder: Path) -> Self:
        """See OfflineSource."""
        return cls(f"source {source.path}", source_files(source.path, folder, CSV), CsvFormat(source.delimiter))

    @classmethod
    def exists(cls, source: CsvSource, folder: Path) -> bool:
        """See OfflineSource."""
        return has_files(source.path, folder, CSV)
