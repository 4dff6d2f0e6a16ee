"""Whether a view's SQL can run on parts of its source, one by one, with the result that it has on the whole.

It can when all rows that meet in it, in a group, a window, a join, have one value in some column: the source is then
cut by this column. SQL that takes each row alone needs no such column. Other SQL runs as a whole, in one place.

`_carriers` goes through a query from the inside to the outside. Of each part of it, it knows the columns that still
hold, unchanged, the column of the source by which this is cut. What it does not know for sure counts as not possible:
then SQL runs as a whole, and is slower, not wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from feature_store.engines.sql.transformation import SOURCE, Tree, called, functions, parts_of

# Names of columns that hold the column by which the source is cut, in lower case.
Carriers = frozenset[str]
_NONE: Carriers = frozenset()
_LEFT, _RIGHT = {"INNER", "LEFT", "SEMI", "ANTI"}, {"INNER", "RIGHT"}


class _NeedsAllRowsError(Exception):
    """The query cannot run on parts."""


def row_by_row(tree: Tree) -> bool:
    """Whether each row of the result comes from one row of the source."""
    return _runs_on_parts(tree, None)


def cut_by(tree: Tree, columns: Sequence[str], preferred: Sequence[str]) -> str | None:
    """The column of the source by which it may be cut; None: the query needs all rows in one place.

    Args:
        tree: the query, as DuckDB's parser reads it.
        columns: those of the source.
        preferred: those that have many values, such as join keys.
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
    """The columns of a query's result that are carriers; `tables` are those of the tables that it sees.

    Raises:
        _NeedsAllRowsError: the query cannot run on parts.
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
    # By position, a column of one side can meet another column of the other side.
    shared = frozenset.intersection(*found) if "BY_NAME" in str(node.get("setop_type")) or _aligned(children) else _NONE
    is_union_all = str(node.get("setop_type")).startswith("UNION") and node.get("setop_all")
    if not is_union_all and not shared:
        raise _NeedsAllRowsError
    return shared


def _aligned(children: Iterable[Tree]) -> bool:
    """Whether sides list the same names of columns, in one order."""
    lists = {tuple(_output(item) for item in child.get("select_list") or [{}]) for child in children}
    return len(lists) == 1 and "" not in next(iter(lists))


def _check_modifier(modifier: Tree, found: Carriers) -> None:
    kind = modifier.get("type")
    if kind == "ORDER_MODIFIER":
        return  # the result is a set of rows
    on = modifier.get("distinct_on_targets")
    names = {_column(target)[-1] for target in on or () if _column(target)}
    if kind != "DISTINCT_MODIFIER" or not (found & names if on else found):
        raise _NeedsAllRowsError


class _Select:
    """One SELECT.

    Args:
        node: as the parser reads it.
        tables: the carriers of the tables that it sees.
    """

    def __init__(self, node: Tree, tables: Mapping[str, Carriers]) -> None:
        self._node, self._items = node, node.get("select_list") or []
        self._relations = _relations(node.get("from_table") or {}, tables)

    def carriers(self) -> Carriers:
        """See the function of that name."""
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
        if len(self._node.get("group_sets") or ()) > 1:  # ROLLUP and CUBE have a group of all rows
            raise _NeedsAllRowsError
        if self._node.get("aggregate_handling") == "FORCE_AGGREGATES":
            self._need(self._items)
            return
        groups = [self._item(group) for group in self._node.get("group_expressions") or ()]
        self._need(groups)

    def _item(self, group: Tree) -> Tree:
        """What GROUP BY 1 means."""
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
        """Columns that go out as they came in, under their last names."""
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
    """The names of a column reference, in lower case; none of other expressions."""
    if expression.get("type") != "COLUMN_REF":
        return []
    return [str(name).lower() for name in expression["column_names"]]


def _output(item: Tree) -> str:
    """The name of a column of the result; empty when it is not known here."""
    return str(item.get("alias") or "").lower() or (_column(item) or [""])[-1]


def _relations(table: Tree, tables: Mapping[str, Carriers]) -> list[tuple[str, Carriers]]:
    """What stands in FROM: (name, carriers) of each table.

    Raises:
        _NeedsAllRowsError: rows of different parts meet in it.
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
    raise _NeedsAllRowsError  # a table without rows of the source would stand in every part


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
    # The side that may be missing is NULL there, in whichever part that is.
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
    """Whether a condition of a join demands that a carrier of one side equals one of the other."""
    if any(part.get("class") == "SUBQUERY" for part in parts_of(condition)):
        raise _NeedsAllRowsError
    if condition.get("type") == "CONJUNCTION_AND":
        return any(_equal(part, left, right) for part in condition.get("children") or ())
    if condition.get("type") != "COMPARE_EQUAL":
        return False
    sides = [_column(condition[side]) for side in ("left", "right")]
    return any(_of(a, left) and _of(b, right) for a, b in (sides, sides[::-1]))


def _of(names: Sequence[str], relations: list[tuple[str, Carriers]]) -> bool:
    """Whether a qualified column is a carrier of these tables."""
    return len(names) > 1 and any(alias == names[-2] and names[-1] in found for alias, found in relations)
