"""AvroSource: Avro object container files."""

from __future__ import annotations

from typing import ClassVar

from feature_store.definitions.source import FileSource


class AvroSource(FileSource):
    """Avro object container files: a file, a folder of `.avro` files, or a glob.

    Each file holds records in a schema of its own. Fields of files are matched by name, and a column that only some of
    the files have is null in the others. It needs the extra `avro`.

    Args:
        path: absolute, or relative to the folder of feature_store.yaml; or a URL, such as
            `s3://bucket/orders/*.parquet`, whose credentials are in the environment.
        event_timestamp, created_timestamp, field_mapping, schema: as for BatchSource.

    Raises:
        DefinitionError: an argument is empty or of a wrong type, or two columns are mapped to the same name.

    Example:
        >>> from feature_store import AvroSource
        >>> AvroSource("orders/*.avro", event_timestamp="at").path
        'orders/*.avro'
    """

    kind: ClassVar[str] = "avro"
    reader: ClassVar[str] = "feature_store.arrow.sources.avro_rows:AvroRows"
