"""The SQL of views: one SELECT from the table `source`, in DuckDB's words, checked; translated for other engines."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from feature_store.errors import DataError, extra

if TYPE_CHECKING:
    from feature_store.definitions.feature_view import FeatureView

SOURCE = "source"


def sql_of(view: FeatureView, dialect: Literal["duckdb", "spark"]) -> str:
    """A view's SQL, for an engine that has its source as the table `source`.

    Raises:
        DataError: it is not one SELECT, or reads another table than `source`.
        MissingDependencyError: sqlglot is not installed (`feature-store[sql]`).
    """
    assert view.sql is not None
    query = _checked(f"{view.name}.sql", view.sql)
    # What users wrote runs as they wrote it.
    return view.sql.strip().rstrip(";") if dialect == "duckdb" else query.sql(dialect=dialect)


@lru_cache(maxsize=256)
def _checked(where: str, text: str) -> Any:
    with extra("sql", where):
        import sqlglot
        from sqlglot import expressions
    try:
        statements = sqlglot.parse(text, read="duckdb")
    except sqlglot.errors.SqlglotError as error:
        raise DataError(where, expected="SQL", got=str(error).partition("\n")[0]) from None
    if len(statements) != 1 or not isinstance(statements[0], expressions.Query):
        raise DataError(where, expected="one SELECT", got=f"{text[:80]!r}")
    query = statements[0]
    named = {SOURCE, *(part.alias for part in query.find_all(expressions.CTE))}
    for table in query.find_all(expressions.Table):
        if not isinstance(table.this, expressions.Identifier) or table.db or table.name not in named:
            hint = "the rows of the view's source are the table `source`"
            raise DataError(where, expected="no other table than `source`", got=table.sql(dialect="duckdb"), hint=hint)
    return query
