"""Delta Lake tables as sources."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field as Attribute

from feature_store.definitions.batch_source import BatchSource
from feature_store.definitions.field import Field
from feature_store.definitions.source import FilePath


class DeltaSource(BatchSource):
    """A Delta Lake table in a folder. It needs the extra `delta`, and no Java.

    A job reads one version of the table from begin to end, whatever is committed meanwhile.

    Args:
        path: the folder of the table, absolute, or relative to the folder of feature_store.yaml; or its URL, such as
            `s3://lake/orders`, whose credentials are in the environment.
        event_timestamp, created_timestamp, field_mapping, schema: as for BatchSource.
        version: the version of the table to read. None: the newest version when a job starts.

    Raises:
        DefinitionError: an argument is empty or of a wrong type, or two columns are mapped to the same name.

    Example:
        >>> from feature_store import DeltaSource
        >>> DeltaSource("lake/orders", event_timestamp="at", version=12).name
        'lake/orders version 12'
    """

    kind: ClassVar[str] = "delta"
    reader: ClassVar[str] = "feature_store.arrow.sources.lake.delta:DeltaRows"

    path: FilePath
    version: int | None = Attribute(default=None, ge=0)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        event_timestamp: str,
        created_timestamp: str | None = None,
        field_mapping: Mapping[str, str] | None = None,
        schema: Sequence[Field] = (),
        version: int | None = None,
    ) -> None:
        super().__init__(
            path=path,
            version=version,
            event_timestamp=event_timestamp,
            created_timestamp=created_timestamp,
            field_mapping=field_mapping,
            schema=schema,
        )

    @property
    def name(self) -> str:
        """The path, with the version if one is given."""
        return self.path if self.version is None else f"{self.path} version {self.version}"
