"""Apache Iceberg tables as sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field as Attribute

from feature_store.definitions.batch_source import BatchSource
from feature_store.definitions.field import Field


class IcebergSource(BatchSource):
    """An Apache Iceberg table of a catalog. It needs the extra `iceberg`, and no Java.

    A job reads one snapshot of the table from begin to end, whatever is committed meanwhile. The properties of the
    catalog, such as its URI and credentials, come from the configuration of pyiceberg: `.pyiceberg.yaml`, or variables
    such as `PYICEBERG_CATALOG__LAKE__URI`. They are not stored in the registry.

    Args:
        table: the catalog, the namespace and the table: `lake.sales.orders`.
        event_timestamp, created_timestamp, field_mapping, schema: as for BatchSource.
        snapshot_id: the snapshot of the table to read. None: the newest snapshot when a job starts.

    Raises:
        DefinitionError: an argument is empty or of a wrong type, or two columns are mapped to the same name.

    Example:
        >>> from feature_store import IcebergSource
        >>> IcebergSource("lake.sales.orders", event_timestamp="at").name
        'lake.sales.orders'
    """

    kind: ClassVar[str] = "iceberg"
    reader: ClassVar[str] = "feature_store.arrow.sources.lake.iceberg:IcebergRows"

    table: str = Attribute(pattern=r"^[^.]+(\.[^.]+){2,}$")
    snapshot_id: int | None = Attribute(default=None, ge=0)

    def __init__(
        self,
        table: str,
        *,
        event_timestamp: str,
        created_timestamp: str | None = None,
        field_mapping: Mapping[str, str] | None = None,
        schema: Sequence[Field] = (),
        snapshot_id: int | None = None,
    ) -> None:
        super().__init__(
            table=table,
            snapshot_id=snapshot_id,
            event_timestamp=event_timestamp,
            created_timestamp=created_timestamp,
            field_mapping=field_mapping,
            schema=schema,
        )

    @property
    def name(self) -> str:
        """The table, with the snapshot if one is given."""
        return self.table if self.snapshot_id is None else f"{self.table} snapshot {self.snapshot_id}"
