"""SqlSource: the rows of a database."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field as Attribute

from feature_store.definitions.batch_source import BatchSource
from feature_store.definitions.field import Field
from feature_store.errors import DefinitionError

# The name of a connection is a part of the name of an environment variable.
_CONNECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_QUERY = re.compile(r"(?is)(\s|\(|--[^\n]*\n|/\*.*?\*/)*(select|with|values)\b.*\S.*")
_SHOWN = 60  # characters of a query in names and errors
_HASH_DIGITS = 8


class SqlSource(BatchSource):
    """The rows of a database: a table, or the result of a query.

    Rows are read as streams of Arrow batches by ADBC, the standard of Arrow for databases. PostgreSQL, DuckDB and
    SQLite are tested. The window of a job is a condition of the query that the database runs.

    Args:
        table_or_query: the name of a table, `orders` or `schema.orders`, spelled as the database stores it; or a query
            that begins with SELECT, WITH or VALUES.
        connection: the name of a connection, never its URL. The URL is in `connections` of feature_store.yaml, or in
            the environment variable `FEATURE_STORE_CONNECTION_<NAME>`.
        event_timestamp, created_timestamp, field_mapping, schema: as for BatchSource.

    Raises:
        DefinitionError: an argument is empty or of a wrong type, the connection is not a name, or two columns are
            mapped to the same name.

    Example:
        >>> from feature_store import SqlSource
        >>> SqlSource("shop.orders", connection="warehouse", event_timestamp="at", created_timestamp="recorded_at").name
        'warehouse: shop.orders'
    """

    kind: ClassVar[str] = "sql"
    reader: ClassVar[str] = "feature_store.arrow.sources.sql.rows:SqlRows"

    table_or_query: str = Attribute(min_length=1, pattern=r"\S")
    connection: str

    def __init__(
        self,
        table_or_query: str,
        *,
        connection: str,
        event_timestamp: str,
        created_timestamp: str | None = None,
        field_mapping: Mapping[str, str] | None = None,
        schema: Sequence[Field] = (),
    ) -> None:
        _check_connection(connection)
        super().__init__(
            table_or_query=table_or_query,
            connection=connection,
            event_timestamp=event_timestamp,
            created_timestamp=created_timestamp,
            field_mapping=field_mapping,
            schema=schema,
        )

    @property
    def is_query(self) -> bool:
        """Whether the rows are the result of a query, not a table."""
        return _QUERY.fullmatch(self.table_or_query) is not None

    @property
    def name(self) -> str:
        """The connection and the table, or the connection and the begin of the query with a hash of the query."""
        text = " ".join(self.table_or_query.split())
        if not self.is_query or (len(text) <= _SHOWN and text == self.table_or_query):
            return f"{self.connection}: {self.table_or_query}"
        digest = hashlib.sha256(self.table_or_query.encode()).hexdigest()[:_HASH_DIGITS]
        return f"{self.connection}: {text[:_SHOWN]}… ({digest})"


def _check_connection(connection: Any) -> None:
    """Raise a DefinitionError if a connection is not a name. The error does not show it: it may be a URL."""
    if isinstance(connection, str) and _CONNECTION.fullmatch(connection):
        return
    raise DefinitionError(
        "SqlSource.connection",
        expected="the name of a connection: at most 64 letters, digits and underscores",
        got="another text" if isinstance(connection, str) else type(connection).__name__,
        hint='put the URL into feature_store.yaml, connections: {warehouse: "${WAREHOUSE_URL}"}, and pass "warehouse"',
    )
