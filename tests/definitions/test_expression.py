"""Filters: accepted and refused texts, and masks against comparisons row by row."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from feature_store.definitions.expression import expression
from feature_store.errors import DefinitionError

Row = dict[str, Any]
OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def columns_of(rows: list[Row]) -> dict[str, Any]:
    """Columns as decoders make them: texts as objects with None, numbers with any value where there is none."""
    columns = {}
    for name, dtype in (
        ("action", object),
        ("price", np.float64),
        ("rating", np.float32),
        ("count", np.int64),
        ("seen", bool),
    ):
        values = [row[name] for row in rows]
        nulls = np.array([value is None for value in values], bool)
        filled = values if dtype is object else [0 if value is None else value for value in values]
        column = np.empty(len(rows), dtype)
        column[:] = filled
        columns[name] = column, nulls
    return columns


def passing(text: str, rows: list[Row]) -> list[bool]:
    return expression(text).mask(columns_of(rows), len(rows)).tolist()


ROWS: list[Row] = [
    {"action": "buy", "price": 10.0, "rating": 0.1, "count": 2**53 + 1, "seen": True},
    {"action": "view", "price": -1.5, "rating": 3.5, "count": 0, "seen": False},
    {"action": "", "price": math.nan, "rating": math.nan, "count": -5, "seen": True},
    {"action": None, "price": None, "rating": None, "count": None, "seen": None},
    {"action": "it's", "price": math.inf, "rating": math.inf, "count": 7, "seen": False},
]
T, F = True, False


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("action == 'buy'", [T, F, F, F, F]),
        ("action != 'buy'", [F, T, T, F, T]),
        ("not action == 'buy'", [F, T, T, T, T]),  # null is not equal, so the opposite is true
        ("action in ('buy', 'view')", [T, T, F, F, F]),
        ("action in ['buy']", [T, F, F, F, F]),
        ("action not in ('buy', 'view')", [F, F, T, F, T]),
        ("not action in ('buy',)", [F, T, T, T, T]),
        ("action > 'buy'", [F, T, F, F, T]),  # as Python compares texts
        ('action == "it\'s"', [F, F, F, F, T]),
        ("action == ''", [F, F, T, F, F]),
        ("price > 0", [T, F, F, F, T]),
        ("price != 10", [F, T, F, F, T]),  # NaN counts as null
        ("not price > 0", [F, T, T, T, F]),
        ("price not in (10, -1.5)", [F, F, F, F, T]),
        ("price >= -1.5 and price <= 10.0", [T, T, F, F, F]),
        ("price < 0 or action == 'buy'", [T, T, F, F, F]),
        ("price < 0 or action == 'buy' and count == 3", [F, T, F, F, F]),
        ("(price < 0 or action == 'buy') and seen == False", [F, T, F, F, F]),
        ("not (seen == True)", [F, T, F, T, T]),
        ("seen == 1", [T, F, T, F, F]),
        ("seen in (False, True)", [T, T, T, F, T]),
        ("rating == 0.1", [T, F, F, F, F]),  # compared as float32
        ("rating in (0.1, 9)", [T, F, F, F, F]),
        ("rating < 1e300", [T, T, F, F, F]),
        ("count == 9007199254740993", [T, F, F, F, F]),  # no rounding to a double's 53 bits
        ("count == 9007199254740992", [F, F, F, F, F]),
        ("count in (9007199254740992, 7)", [F, F, F, F, T]),
        ("count < 100000000000000000000000", [T, T, T, F, T]),
        ("count > 0.5", [T, F, F, F, T]),
        ("count == -5", [F, F, T, F, F]),
    ],
)
def test_rows_that_pass(text: str, wanted: list[bool]) -> None:
    assert passing(text, ROWS) == wanted
    assert passing(text, []) == []


rows_of = st.lists(
    st.fixed_dictionaries(
        {
            "action": st.sampled_from([None, "a", "b", ""]),
            "price": st.sampled_from([None, math.nan, -1.0, 0.0, 2.5]),
            "rating": st.just(0.0),
            "count": st.sampled_from([None, -1, 0, 3]),
            "seen": st.sampled_from([None, True, False]),
        }
    ),
    max_size=6,
)
constants = {"action": ["a", "b", ""], "price": [-1.0, 0.0, 2.5], "count": [-1, 0, 3], "seen": [True, False]}
compared = st.sampled_from(sorted(constants)).flatmap(
    lambda name: st.one_of(
        st.tuples(st.just(name), st.sampled_from(sorted(OPERATORS)), st.sampled_from(constants[name])),
        st.tuples(
            st.just(name),
            st.sampled_from(["in", "not in"]),
            st.lists(st.sampled_from(constants[name]), min_size=1, max_size=3),
        ),
    )
)
trees = st.recursive(
    compared,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner), st.tuples(st.sampled_from(["and", "or"]), inner, inner)
    ),
    max_leaves=6,
)  # fmt: skip


def shown(tree: Any) -> str:
    match tree:
        case ("not", inner):
            return f"not ({shown(inner)})"
        case (("and" | "or") as join, a, b):
            return f"({shown(a)}) {join} ({shown(b)})"
        case (name, op, constant):
            return f"{name} {op} {constant!r}"
    raise AssertionError(tree)


def holds(tree: Any, row: Row) -> bool:
    match tree:
        case ("not", inner):
            return not holds(inner, row)
        case ("and", a, b):
            return holds(a, row) and holds(b, row)
        case ("or", a, b):
            return holds(a, row) or holds(b, row)
        case (name, op, constant):
            value = row[name]
            if value is None or value != value:
                return False
            return (
                {"in": value in constant, "not in": value not in constant}[op]
                if op not in OPERATORS
                else OPERATORS[op](value, constant)
            )
    raise AssertionError(tree)


@settings(max_examples=150)
@given(tree=trees, rows=rows_of)
def test_a_mask_equals_the_comparison_row_by_row(tree: Any, rows: list[Row]) -> None:
    assert passing(shown(tree), rows) == [holds(tree, row) for row in rows]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "action",
        "action ==",
        "action = 'buy'",
        "'buy' == action",
        "0 < price < 3",
        "price == other",
        "price + 1 > 3",
        "price > 1 + 1",
        "price == None",
        "action == b'buy'",
        "price == 1j",
        "price == ...",
        "price == -'a'",
        "seen == -True",
        "price == +1",
        "price == (1, 2)",
        "price in ()",
        "price in 5",
        "price in (1, other)",
        "price in {1: 2}",
        "action is 'buy'",
        "action.upper() == 'BUY'",
        "len(action) > 3",
        "__import__('os').system('true') == 0",
        "price == __import__('os').getpid()",
        "action == f'{price}'",
        "[x for x in (1,)] == 1",
        "(lambda: 1)() == 1",
        "price := 3",
        "True",
        "price > 1; price < 3",
        "price > 1\nprice < 3",
        "price > '\0'",
        "~price == 1",
        "not " * 5_000 + "price > 1",
        "(" * 300 + "price > 1" + ")" * 300,
    ],
)
def test_a_text_that_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(
        DefinitionError, match=r"filter: expected comparisons of columns with constants.*, got "
    ) as caught:
        expression(text)
    assert len(str(caught.value)) < 400


def test_a_filter_is_never_evaluated_as_python(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    def refuse(*_: Any) -> None:
        raise AssertionError("run")

    monkeypatch.setattr(builtins, "eval", refuse)
    monkeypatch.setattr(builtins, "exec", refuse)
    assert passing("price > 0 and action in ('buy',)", ROWS[:1]) == [True]


def test_a_filter_has_names_and_constants() -> None:
    found = expression("(price > 1 or not price in (2, 3)) and action == 'buy' and seen != True")
    assert found.names == ["action", "price", "seen"]
    assert sorted(found.constants_of("price")) == [1, 2, 3]
    assert found.constants_of("action") == ["buy"]
    assert found.constants_of("seen") == [True]
    assert expression(found.text) is expression(found.text)
