"""Checks the SQL of views: one SELECT from the table `source`, in DuckDB's dialect.

DuckDB runs the SQL on both engines; on Spark it runs in the executors (`spark/sql.py`). Each construct therefore has
one meaning, and no translation can change a value. The check refuses SQL whose result is not a function of the rows:

- tables other than `source`, and files;
- functions that return a different value on each call (`random`, `now`): those that DuckDB's catalog marks as VOLATILE
  or CONSISTENT_WITHIN_QUERY;
- constructs that depend on the order of rows, since a table has no order: `first` without ORDER BY, LIMIT without
  ORDER BY, samples.

DuckDB's parser reads the SQL here as well, so the check sees exactly the query that runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from feature_store._extras import requires_extra
from feature_store.definitions.feature_view import FeatureView
from feature_store.errors import DataError, EngineError

SOURCE = "source"
# Aggregates whose result depends on the order of rows unless they have ORDER BY.
ORDERED_AGGREGATES = frozenset(
    {"any_value", "arbitrary", "array_agg", "first", "group_concat", "last", "list", "listagg", "mode", "string_agg"}
)
# Aggregates whose result depends on the order of rows even with ORDER BY.
APPROXIMATE_AGGREGATES = frozenset({"approx_quantile", "approx_top_k", "reservoir_quantile"})
# Window functions whose result is arbitrary without ORDER BY.
ORDERED_WINDOWS = frozenset(
    {"cume_dist", "dense_rank", "fill", "first", "first_value", "lag", "last", "last_value", "lead", "nth_value"}
    | {"ntile", "percent_rank", "rank", "rank_dense", "row_number"}
)
# Words that look like columns but are functions of the current time or of the session.
SESSION_WORDS = frozenset(
    {"current_catalog", "current_database", "current_date", "current_role", "current_schema", "current_time"}
    | {"current_timestamp", "current_user", "localtime", "localtimestamp", "rowid", "session_user", "user"}
)
# Functions of the current time that DuckDB's catalog does not mark. `age` with one argument is a further one.
TIME_FUNCTIONS = frozenset({"current_localtime", "current_localtimestamp"})
# Table functions that are allowed: they turn values into rows and read nothing.
TABLE_FUNCTIONS = frozenset({"generate_series", "range", "unnest"})

Tree = dict[str, Any]


class ViewSql(NamedTuple):
    """SQL that passed the check.

    Attributes:
        where: names the SQL in errors.
        text: the SQL as the user wrote it, without a final semicolon.
        tree: the query node, as parsed by DuckDB.
    """

    where: str
    text: str
    tree: Tree


class Functions(NamedTuple):
    """The functions in DuckDB's catalog. All names are in lower case.

    Attributes:
        aggregates: names of aggregate functions.
        unstable: names of functions that may return different values for the same arguments.
        macros: the SQL definition of each macro, by name.
    """

    aggregates: frozenset[str]
    unstable: frozenset[str]
    macros: dict[str, str]


def sql_of(view: FeatureView) -> ViewSql:
    """A view's SQL, checked.

    Raises:
        DataError: the SQL is not one SELECT from `source`, or its result does not depend on the rows alone. The error
            names the construct and says what to write instead.
        MissingDependencyError: DuckDB is not installed (`feature-store[sql]`).
    """
    assert view.sql is not None
    return _checked(f"{view.name}.sql", view.sql)


def parts_of(tree: Any) -> Iterator[Tree]:
    """Every node of a parsed query, outer nodes first."""
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from parts_of(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from parts_of(value)


def called(node: Tree) -> str:
    """The name of the function that a node calls, in lower case. Empty if the node is not a call."""
    return str(node.get("function_name", "")).lower() if node.get("class") in ("FUNCTION", "WINDOW") else ""


@lru_cache(maxsize=1)
def functions() -> Functions:
    """The functions of the installed DuckDB version."""
    from feature_store.engines.sql.duck import connected

    with connected(EngineError) as connection:
        found = connection.execute(
            "SELECT DISTINCT lower(function_name), function_type, stability, macro_definition FROM duckdb_functions()"
        ).fetchall()
    return Functions(
        frozenset(name for name, kind, _, _ in found if kind == "aggregate"),
        frozenset(name for name, _, stability, _ in found if stability not in (None, "CONSISTENT")),
        {name: text for name, kind, _, text in found if kind == "macro" and text},
    )


@lru_cache(maxsize=256)
def _checked(where: str, text: str) -> ViewSql:
    tree = _parsed(where, text)
    _refuse_tables(where, tree, frozenset({SOURCE}))
    for node in parts_of(tree):
        _refuse_node(where, node)
    return ViewSql(where, text.strip().rstrip(";"), tree)


def _parsed(where: str, text: str) -> Tree:
    with requires_extra("sql", where):
        from feature_store.engines.sql.duck import connected
    with connected(EngineError) as connection:
        (document,) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchone() or ("{}",)
    found = orjson.loads(document)
    if found.get("error") and found.get("error_type") == "not implemented":
        raise DataError(where, expected="one SELECT", got=f"{text[:80]!r}")
    if found.get("error"):
        raise DataError(where, expected="SQL", got=str(found.get("error_message")).partition("\n")[0])
    if len(found["statements"]) != 1:
        raise DataError(where, expected="one SELECT", got=f"{text[:80]!r}")
    tree: Tree = found["statements"][0]["node"]
    return tree


def _refuse_tables(where: str, tree: Any, known: frozenset[str]) -> None:
    """Refuse every table except `source` and the WITH queries that are in scope at its place."""
    if isinstance(tree, list):
        for part in tree:
            _refuse_tables(where, part, known)
        return
    if not isinstance(tree, dict):
        return
    if tree.get("type") == "BASE_TABLE":
        _refuse_table(where, tree, known)
    inner, named = dict(tree), tree.get("cte_map")
    if isinstance(named, dict):
        is_recursive = _is_recursive(named)
        for one in named.get("map", []):
            name = str(one["key"]).lower()
            _refuse_tables(where, one["value"], known | {name} if is_recursive else known)
            known = known | {name}
        del inner["cte_map"]
    if tree.get("type") in ("CTE_NODE", "RECURSIVE_CTE_NODE"):
        # The name is in scope in the query that follows it and, if recursive, in the second half of its own query.
        name = str(tree.get("cte_name", "")).lower()
        first = inner.pop("query" if tree["type"] == "CTE_NODE" else "left", None)
        _refuse_tables(where, first, known)
        known = known | {name}
    for part in inner.values():
        _refuse_tables(where, part, known)


def _is_recursive(named: Tree) -> bool:
    return any(part.get("type") == "RECURSIVE_CTE_NODE" for part in parts_of(named))


def _refuse_table(where: str, table: Tree, known: frozenset[str]) -> None:
    name = str(table.get("table_name", ""))
    path = [str(table.get(part) or "") for part in ("catalog_name", "schema_name")]
    if not any(path) and name.lower() in known:
        return
    got = ".".join([*filter(None, path), name])
    hint = "the rows of the view's source are the table `source`; a WITH query is known where it stands and within it"
    raise DataError(where, expected=f"no other table than `{SOURCE}`", got=got, hint=hint)


def _refuse_node(where: str, node: Tree) -> None:
    for found in (_call, _order, _table, _word):
        construct, hint = found(node)
        if construct:
            raise DataError(where, expected="SQL whose result depends on the rows alone", got=construct, hint=hint)


def _call(node: Tree) -> tuple[str, str]:
    """(construct, hint) if a node calls a function whose result does not depend on the rows alone, else empty texts."""
    name = called(node)
    if not name:
        return "", ""
    if _is_unstable(name) or (name == "age" and len(_arguments(node)) == 1):
        hint = "take times from the rows; `materialize` computes rows anew, and they must come out the same"
        return f"{name}(), which gives another value each time", hint
    if name in APPROXIMATE_AGGREGATES:
        return f"{name}(), which depends on the order of rows", "use quantile_cont, or count and QUALIFY"
    is_window = node.get("class") == "WINDOW"
    ordered = node.get("orders") or _orders(node.get("order_bys")) or node.get("arg_orders")
    if name in (ORDERED_WINDOWS if is_window else ORDERED_AGGREGATES) and not ordered:
        hint = (
            f"write {name}(…) OVER (… ORDER BY …)" if is_window else f"write {name}(… ORDER BY …), or max, min, arg_max"
        )
        return f"{name}() without ORDER BY, which takes rows as they come", hint
    return "", ""


def _arguments(node: Tree) -> list[Any]:
    found: list[Any] = node.get("arguments") or node.get("children") or []  # before DuckDB 2, `children`
    return found


def _orders(modifier: Any) -> Any:
    return modifier.get("orders") if isinstance(modifier, dict) else None


@lru_cache(maxsize=4096)
def _is_unstable(name: str) -> bool:
    known = functions()
    if name in known.unstable or name in TIME_FUNCTIONS | SESSION_WORDS:
        return True
    macro = known.macros.get(name)
    if macro is None:
        return False
    parts = parts_of(_parsed(f"macro {name}", f"SELECT {macro}"))
    return any(_word(part)[0] or (called(part) != name and _call(part)[0]) for part in parts)


def _order(node: Tree) -> tuple[str, str]:
    """(construct, hint) if a node takes rows in an undefined order, else empty texts."""
    if node.get("sample"):
        return "a sample", "choose rows by their values: WHERE hash(key) % 10 = 0"
    modifiers = node.get("modifiers")
    kinds = {one.get("type") for one in modifiers} if isinstance(modifiers, list) else set()
    if kinds & {"LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"} and "ORDER_MODIFIER" not in kinds:
        return "LIMIT without ORDER BY, which takes rows as they come", "write ORDER BY before it"
    on = [one for one in modifiers or () if one.get("type") == "DISTINCT_MODIFIER" and one.get("distinct_on_targets")]
    if on and "ORDER_MODIFIER" not in kinds:
        return (
            "DISTINCT ON without ORDER BY, which takes rows as they come",
            "write ORDER BY, or QUALIFY row_number() …",
        )
    return "", ""


def _table(node: Tree) -> tuple[str, str]:
    """(construct, hint) if a node is a table-like construct that is not allowed, else empty texts."""
    kind = node.get("type")
    if kind == "TABLE_FUNCTION":
        name = called(node.get("function") or {})
        if name not in TABLE_FUNCTIONS:
            return f"the table function {name}(), so no other table than `{SOURCE}`", "select from `source`"
    if kind == "JOIN" and node.get("ref_type") == "POSITIONAL":
        return "POSITIONAL JOIN, which takes rows as they come", "join by a key"
    if kind in ("SHOW_REF", "COLUMN_DATA"):
        return "DESCRIBE or SHOW", "select from `source`"
    return "", ""


def _word(node: Tree) -> tuple[str, str]:
    """(construct, hint) if a node is a word that DuckDB reads as a function of the session, else empty texts."""
    if node.get("type") == "COLUMN_REF":
        names = node.get("column_names") or [""]
        if len(names) == 1 and str(names[0]).lower() in SESSION_WORDS:
            return f"{names[0]}, which is not a column of the rows", "rename such a column: SELECT … AS …"
    return "", ""
