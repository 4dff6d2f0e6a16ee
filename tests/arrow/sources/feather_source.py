"""A kind of source as another package would add it: its definition."""

from __future__ import annotations

from typing import ClassVar

from feature_store.definitions.batch_source import BatchSource


class FeatherSource(BatchSource):
    """A folder of Arrow IPC files.

    Args:
        folder: relative to the folder of feature_store.yaml, or absolute.
        event_timestamp, created_timestamp, schema: as for BatchSource.
    """

    kind: ClassVar[str] = "feather"
    reader: ClassVar[str] = "tests.arrow.sources.feather_rows:FeatherRows"

    folder: str

    @property
    def name(self) -> str:
        """The folder."""
        return self.folder
