"""Decides whether a view's SQL can run on partitions of its source with the same result as on the whole source.

It can if the rows that the query combines (in a group, a window or a join) always share their value of some source
column. The source is then partitioned by this column. SQL that handles each row alone needs no such column. All other
SQL runs on the whole source, in one task.

`_carriers` analyses a query from the innermost SELECT outwards. For each subquery it returns the carriers: the result
columns that hold the partitioning column unchanged. If the analysis is unsure, it assumes that partitioning is not
possible. The SQL then runs on the whole source, which is slower but correct.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from feature_store.engines.sql.transformation import SOURCE, Tree, called, functions, parts_of

# Names, in lower case, of columns that hold the partitioning column of the source unchanged.
Carriers = frozenset[str]
_NONE: Carriers = frozenset()
_LEFT, _RIGHT = {"INNER", "LEFT", "SEMI", "ANTI"}, {"INNER", "RIGHT"}


class _NeedsAllRowsError(Exception):
    """The query cannot run on partitions of its source."""


def row_by_row(tree: Tree) -> bool:
    """Whether each result row depends on one source row only."""
    return _runs_on_parts(tree, None)


def cut_by(tree: Tree, columns: Sequence[str], preferred: Sequence[str]) -> str | None:
    """The column by which the source can be partitioned, or None if the query needs all rows in one task.

    Args:
        tree: the query, as parsed by DuckDB.
        columns: the columns of the source.
        preferred: columns to try first: those with many distinct values, such as join keys.
    """
    known = {name.lower(): name for name in columns}
    named = [name.lower() for name in preferred]
    named += [str(part["column_names"][-1]).lower() for part in parts_of(tree) if part.get("type") == "COLUMN_REF"]
    return next((known[name] for name in dict.fromkeys(named) if name in known and _runs_on_parts(tree, name)), None)


def _runs_on_parts(tree: Tree, column: str | None) -> bool:
    try:
        _carriers(tree, {SOURCE: _NONE if column is None else frozenset({column})})
    except _NeedsAllRowsError:
        return False
    return True


def _carriers(node: Tree, tables: Mapping[str, Carriers]) -> Carriers:
    """The carriers among the result columns of a query.

    Args:
        node: the query.
        tables: the carriers of each table that the query can read, by table name.

    Raises:
        _NeedsAllRowsError: the query cannot run on partitions of its source.
    """
    tables = _with_queries(node, tables)
    kind = node.get("type")
    if kind == "SET_OPERATION_NODE":
        found = _of_set(node, tables)
    elif kind == "SELECT_NODE":
        found = _Select(node, tables).carriers()
    else:
        raise _NeedsAllRowsError
    for modifier in node.get("modifiers") or ():
        _check_modifier(modifier, found)
    return found


def _with_queries(node: Tree, tables: Mapping[str, Carriers]) -> Mapping[str, Carriers]:
    known = dict(tables)
    for one in (node.get("cte_map") or {}).get("map", ()):
        query = one["value"].get("query_node") or one["value"].get("query", {}).get("node")
        if one["value"].get("aliases") or query is None:
            raise _NeedsAllRowsError
        known[str(one["key"]).lower()] = _carriers(query, known)
    return known


def _of_set(node: Tree, tables: Mapping[str, Carriers]) -> Carriers:
    sides = [node.get(side) for side in ("left", "right")]
    children = node.get("children") or [side for side in sides if side]
    found = [_carriers(child, tables) for child in children]
    # Set operations match columns by position, so a column can be matched with a different column of the other side.
    shared = frozenset.intersection(*found) if "BY_NAME" in str(node.get("setop_type")) or _aligned(children) else _NONE
    is_union_all = str(node.get("setop_type")).startswith("UNION") and node.get("setop_all")
    if not is_union_all and not shared:
        raise _NeedsAllRowsError
    return shared


def _aligned(children: Iterable[Tree]) -> bool:
    """Whether all sides of a set operation list the same column names in the same order."""
    lists = {tuple(_output(item) for item in child.get("select_list") or [{}]) for child in children}
    return len(lists) == 1 and "" not in next(iter(lists))


def _check_modifier(modifier: Tree, found: Carriers) -> None:
    kind = modifier.get("type")
    if kind == "ORDER_MODIFIER":
        return  # the order of the result does not matter
    on = modifier.get("distinct_on_targets")
    names = {_column(target)[-1] for target in on or () if _column(target)}
    if kind != "DISTINCT_MODIFIER" or not (found & names if on else found):
        raise _NeedsAllRowsError


class _Select:
    """The analysis of one SELECT.

    Args:
        node: the SELECT, as parsed by DuckDB.
        tables: the carriers of each table that the SELECT can read, by table name.
    """

    def __init__(self, node: Tree, tables: Mapping[str, Carriers]) -> None:
        self._node, self._items = node, node.get("select_list") or []
        self._relations = _relations(node.get("from_table") or {}, tables)

    def carriers(self) -> Carriers:
        """The carriers among the result columns; see `_carriers`."""
        without_from = {name: part for name, part in self._node.items() if name not in ("from_table", "cte_map")}
        aggregates = functions().aggregates
        is_grouped = bool(self._node.get("group_expressions")) or bool(self._node.get("having"))
        is_grouped = is_grouped or self._node.get("aggregate_handling") == "FORCE_AGGREGATES"
        for part in parts_of(without_from):
            if part.get("class") == "SUBQUERY":
                raise _NeedsAllRowsError
            if part.get("class") == "WINDOW":
                self._need(part.get("partitions") or ())
            is_grouped = is_grouped or (part.get("class") == "FUNCTION" and called(part) in aggregates)
        if is_grouped:
            self._check_groups()
        return self._result()

    def _check_groups(self) -> None:
        if len(self._node.get("group_sets") or ()) > 1:  # ROLLUP and CUBE also form one group of all rows
            raise _NeedsAllRowsError
        if self._node.get("aggregate_handling") == "FORCE_AGGREGATES":
            self._need(self._items)
            return
        groups = [self._item(group) for group in self._node.get("group_expressions") or ()]
        self._need(groups)

    def _item(self, group: Tree) -> Tree:
        """The expression of a group: `GROUP BY 1` stands for the first item of the SELECT."""
        literal = group.get("literal") or group.get("value")
        text = str(literal.get("text", literal.get("value"))) if isinstance(literal, dict) else ""
        if group.get("class") == "CONSTANT" and text.isdigit() and 1 <= int(text) <= len(self._items):
            item: Tree = self._items[int(text) - 1]
            return item
        return group

    def _need(self, expressions: Iterable[Tree]) -> None:
        if not any(self._is_carrier(expression) for expression in expressions):
            raise _NeedsAllRowsError

    def _is_carrier(self, expression: Tree) -> bool:
        names = _column(expression)
        if not names:
            return False
        candidates = [found for alias, found in self._relations if len(names) == 1 or alias == names[-2]]
        return any(names[-1] in found for found in candidates)

    def _result(self) -> Carriers:
        """Carriers that the SELECT returns unchanged, under their names in the result."""
        kept: set[str] = set()
        others: set[str] = set()
        for item in self._items:
            if item.get("type") == "STAR":
                star = self._star(item)
                kept |= star
                others |= {str(one["key"]).lower() for one in item.get("replace_list") or ()}
            elif self._is_carrier(item):
                kept.add(_output(item))
            else:
                others.add(_output(item))
        return frozenset(kept - others)

    def _star(self, star: Tree) -> Carriers:
        if star.get("columns") or star.get("rename_list") or star.get("expr"):
            return _NONE
        alias = str(star.get("relation_name") or "").lower()
        found = [carriers for name, carriers in self._relations if alias in ("", name)]
        gone = {str(_last(name)).lower() for name in star.get("exclude_list") or ()}
        gone |= {str(_last(name)).lower() for name in star.get("qualified_exclude_list") or ()}
        return frozenset().union(*found) - gone


def _last(name: Any) -> Any:
    return list(name.values())[-1] if isinstance(name, dict) else name


def _column(expression: Tree) -> list[str]:
    """The parts of a column reference's name, in lower case. Empty for any other expression."""
    if expression.get("type") != "COLUMN_REF":
        return []
    return [str(name).lower() for name in expression["column_names"]]


def _output(item: Tree) -> str:
    """The name of a result column, or an empty string if the SQL does not state it."""
    return str(item.get("alias") or "").lower() or (_column(item) or [""])[-1]


def _relations(table: Tree, tables: Mapping[str, Carriers]) -> list[tuple[str, Carriers]]:
    """(name, carriers) of each table in a FROM clause.

    Raises:
        _NeedsAllRowsError: the clause combines rows of different partitions, or its kind is not supported here.
    """
    kind = table.get("type")
    if table.get("column_name_alias"):
        raise _NeedsAllRowsError
    if kind == "BASE_TABLE":
        name = str(table["table_name"]).lower()
        return [(str(table.get("alias") or name).lower(), tables[name])]
    if kind == "SUBQUERY":
        inner = table["subquery"].get("node", table["subquery"])
        return [(str(table.get("alias") or "").lower(), _carriers(inner, tables))]
    if kind == "JOIN":
        return _joined(table, tables)
    raise _NeedsAllRowsError  # a table that is not made from source rows would repeat in every partition


def _joined(join: Tree, tables: Mapping[str, Carriers]) -> list[tuple[str, Carriers]]:
    right = join["right"]
    left = _relations(join["left"], tables)
    if _is_unnest(right) and join.get("join_type") in ("INNER", "LEFT"):
        return left
    other = _relations(right, tables)
    using = [str(name).lower() for name in join.get("using_columns") or ()]
    if not (_shares(using, left, other) or _equal(join.get("condition") or {}, left, other)):
        raise _NeedsAllRowsError
    kind = join.get("join_type")
    # An outer join fills the unmatched side with NULL in every partition, so that side's columns carry nothing.
    kept = [(name, found if kind in _LEFT else _NONE) for name, found in left]
    if kind in ("SEMI", "ANTI"):
        return kept
    return kept + [(name, found if kind in _RIGHT else _NONE) for name, found in other]


def _is_unnest(table: Tree) -> bool:
    if table.get("type") != "TABLE_FUNCTION" or called(table.get("function") or {}) != "unnest":
        return False
    return not any(part.get("class") == "SUBQUERY" for part in parts_of(table))


def _shares(names: Sequence[str], left: list[tuple[str, Carriers]], right: list[tuple[str, Carriers]]) -> bool:
    return any(all(any(name in found for _, found in side) for side in (left, right)) for name in names)


def _equal(condition: Tree, left: list[tuple[str, Carriers]], right: list[tuple[str, Carriers]]) -> bool:
    """Whether a join condition requires a carrier of the left side to equal a carrier of the right side."""
    if any(part.get("class") == "SUBQUERY" for part in parts_of(condition)):
        raise _NeedsAllRowsError
    if condition.get("type") == "CONJUNCTION_AND":
        return any(_equal(part, left, right) for part in condition.get("children") or ())
    if condition.get("type") != "COMPARE_EQUAL":
        return False
    sides = [_column(condition[side]) for side in ("left", "right")]
    return any(_of(a, left) and _of(b, right) for a, b in (sides, sides[::-1]))


def _of(names: Sequence[str], relations: list[tuple[str, Carriers]]) -> bool:
    """Whether a qualified column name (`table.column`) is a carrier of one of these tables."""
    return len(names) > 1 and any(alias == names[-2] and names[-1] in found for alias, found in relations)
