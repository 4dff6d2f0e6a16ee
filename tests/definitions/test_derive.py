"""Derived columns: random expressions on random rows against an evaluation row by row, and the texts that are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from feature_store.definitions.dtypes import (
    Bool,
    Bytes,
    Date,
    Decimal,
    DType,
    Float32,
    Float64,
    Int8,
    Int64,
    String,
    Timestamp,
)
from feature_store.definitions.expressions._reference import reference
from feature_store.definitions.expressions.derived import Derivation
from feature_store.definitions.field import Field
from feature_store.definitions.source import KafkaSource
from feature_store.errors import DefinitionError

Row = dict[str, Any]
TYPES: dict[str, DType] = {
    "price": Float64,
    "rating": Float32,
    "n": Int64,
    "small": Int8,
    "name": String,
    "seen": Bool,
    "since": Timestamp,
    "born": Date,
    "paid": Decimal(6, 2),
    "raw": Bytes,
}
DAY_US = 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FailedError(Exception):
    """The row has no value."""


class Expr(NamedTuple):
    """An expression: its text, and the value that it has for one row (None: null).

    An integer is an int, and a float a float, so that the two show which arithmetic applies.
    """

    text: str
    of: Callable[[Row], Any]


# -- rows ---------------------------------------------------------------------------------------------------------

INTS = [0, 1, -1, 7, -8, 2**31, 2**53 + 1, 2**62, 2**63 - 1, -(2**63)]
FLOATS = [0.0, -0.0, 0.5, -2.5, 1e300, math.inf, -math.inf, math.nan, 3.0, 9.3e18]
TEXTS = ["", "a", " aB ", "7", "-12", "1.5", "1e999", "true", "é%_x", "2026-02-28", "line\nbreak"]
TIMES = [0, 1, -1, 1_772_236_800_000_000, 951_782_399_999_999, -62_135_596_800_000_000, 253_402_300_799_999_999]


def or_null(values: list[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), st.sampled_from(values))


rows_of = st.lists(
    st.fixed_dictionaries(
        {
            "price": or_null(FLOATS),
            "rating": or_null([0.1, -1.5, 3.0, math.nan, math.inf]).map(
                lambda value: None if value is None else float(np.float32(value))
            ),
            "n": or_null(INTS),
            "small": or_null([0, 1, -128, 127]),
            "name": or_null(TEXTS),
            "seen": or_null([True, False]),
            "since": or_null(TIMES),
            "born": or_null([0, -1, 20_000, -719_162, 2_932_896]),
            "at": st.sampled_from(TIMES),
        }
    ),
    max_size=5,
)


def columns_of(rows: list[Row]) -> tuple[dict[str, Any], Any]:
    """Columns as decoders and checks of rows make them: texts as objects, nulls with any value."""
    columns = {}
    for name, dtype in TYPES.items():
        values = [row.get(name) for row in rows]
        nulls = np.array([value is None for value in values], bool)
        column = np.empty(len(rows), dtype.numpy)
        column[:] = (
            [dtype.scalar.zero if value is None and dtype.width is None else value or 0 for value in values]
            if (dtype.width is not None)
            else values
        )
        columns[name] = column, nulls
    return columns, np.array([row["at"] for row in rows], np.int64)


# -- the language, row by row ---------------------------------------------------------------------------------------


def strict(text: str, compute: Callable[..., Any], *parts: Expr) -> Expr:
    def of(row: Row) -> Any:
        values = [part.of(row) for part in parts]
        return None if None in values else compute(*values)

    return Expr(text.format(*(part.text for part in parts)), of)


def whole(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise FailedError
    return value


def real(value: float) -> float | None:
    return None if math.isnan(value) else value


def column(name: str) -> Expr:
    def of(row: Row) -> Any:
        value = row[name]
        return None if isinstance(value, float) and math.isnan(value) else value

    return Expr(name, of)


def truncated_quotient(a: int, b: int) -> int | None:
    if b == 0:
        return None
    found = abs(a) // abs(b)
    return whole(found if (a < 0) == (b < 0) else -found)


def remainder(a: int, b: int) -> int | None:
    return None if b == 0 else int(math.copysign(1, a)) * (abs(a) % abs(b))


def divided(a: float, b: float) -> float | None:
    if b == 0:
        return None
    with np.errstate(all="ignore"):
        return real(float(np.float64(a) / np.float64(b)))


def calculated(op: str, a: float, b: float) -> float | None:
    with np.errstate(all="ignore"):
        x, y = np.float64(a), np.float64(b)
        return real(float({"+": x + y, "-": x - y, "*": x * y}[op]))


def to_int(value: float) -> int:
    if math.isinf(value):
        raise FailedError
    return whole(math.trunc(value))


def parsed_int(text: str) -> int:
    if not text.lstrip("+-").isascii() or not text.lstrip("+-").isdigit() or len(text) - len(text.lstrip("+-")) > 1:
        raise FailedError
    return whole(int(text))


def tried(expr: Expr) -> Expr:
    return Expr(expr.text.replace("cast(", "try_cast(", 1), lambda row: _none_if_failed(expr, row))


def _none_if_failed(expr: Expr, row: Row) -> Any:
    try:
        return expr.of(row)
    except FailedError:
        return None


def both(a: Expr, b: Expr) -> Expr:
    def of(row: Row) -> Any:
        left = a.of(row)
        if left is False:
            return False
        right = b.of(row)
        return False if right is False else None if left is None or right is None else True

    return Expr(f"({a.text} and {b.text})", of)


def either(a: Expr, b: Expr) -> Expr:
    def of(row: Row) -> Any:
        left = a.of(row)
        if left is True:
            return True
        right = b.of(row)
        return True if right is True else None if left is None or right is None else False

    return Expr(f"({a.text} OR {b.text})", of)


def coalesced(a: Expr, b: Expr) -> Expr:
    return Expr(f"coalesce({a.text}, {b.text})", lambda row: b.of(row) if (found := a.of(row)) is None else found)


def case(condition: Expr, a: Expr, b: Expr) -> Expr:
    text = f"case when {condition.text} then {a.text} else {b.text} end"
    return Expr(f"({text})", lambda row: a.of(row) if condition.of(row) is True else b.of(row))


def nullif(a: Expr, b: Expr) -> Expr:
    def of(row: Row) -> Any:
        value, other = a.of(row), b.of(row)
        return None if value is None or value == other else value

    return Expr(f"nullif({a.text}, {b.text})", of)


def extreme(name: str, best: Callable[..., Any], a: Expr, b: Expr) -> Expr:
    def of(row: Row) -> Any:
        values = [value for value in (a.of(row), b.of(row)) if value is not None]
        return best(values) if values else None

    return Expr(f"{name}({a.text}, {b.text})", of)


def time_of(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def start_of(unit: str, us: int) -> int:
    at = time_of(us).replace(microsecond=0)
    if unit == "week":
        at -= timedelta(days=at.weekday())
    if unit in ("quarter", "year"):
        at = at.replace(month=1 if unit == "year" else (at.month - 1) // 3 * 3 + 1, day=1)
    if unit == "month":
        at = at.replace(day=1)
    kept = {"second": 3, "minute": 2, "hour": 1}.get(unit, 0)
    cut = dict(list({"second": 0, "minute": 0, "hour": 0}.items())[: 3 - kept])
    return (at.replace(**cut) - EPOCH) // timedelta(microseconds=1)


def constant(value: Any) -> Expr:
    return Expr(repr(value), lambda _: value)


INT_LEAVES = st.one_of(st.sampled_from(["n", "small"]).map(column), st.sampled_from([0, 1, -3, 2**40]).map(constant))
FLOAT_LEAVES = st.one_of(st.just(column("price")), st.sampled_from([0.0, -1.5, 1e200]).map(constant))
TEXT_LEAVES = st.one_of(st.just(column("name")), st.sampled_from(["", "a", "7", "it's"]).map(constant))
TRUTH_LEAVES = st.one_of(st.just(column("seen")), st.sampled_from([True, False]).map(constant))
TIME_LEAVES = st.sampled_from(["since", "at"]).map(column)


class Kinds(NamedTuple):
    """Strategies for expressions of each type."""

    ints: st.SearchStrategy[Expr]
    floats: st.SearchStrategy[Expr]
    texts: st.SearchStrategy[Expr]
    truths: st.SearchStrategy[Expr]
    times: st.SearchStrategy[Expr]


LEAVES = Kinds(INT_LEAVES, FLOAT_LEAVES, TEXT_LEAVES, TRUTH_LEAVES, TIME_LEAVES)


def forms(one: st.SearchStrategy[Expr], truths: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    """The forms that take values of any type."""
    return st.one_of(
        st.builds(coalesced, one, one),
        st.builds(nullif, one, one),
        st.builds(case, truths, one, one),
        st.builds(lambda a, b: extreme("least", min, a, b), one, one),
        st.builds(lambda a, b: extreme("greatest", max, a, b), one, one),
    )


def grown(parts: Kinds) -> Kinds:
    """Expressions made of simpler ones."""
    ints, floats, texts, truths, times = (
        st.one_of(leaves, simpler) for leaves, simpler in zip(LEAVES, parts, strict=True)
    )

    def of_times(text: str, compute: Callable[[datetime], int]) -> st.SearchStrategy[Expr]:
        return times.map(lambda t: strict(text, lambda us: compute(time_of(us)), t))

    int_trees = st.one_of(
        st.builds(lambda a, b: strict("({} + {})", lambda x, y: whole(x + y), a, b), ints, ints),
        st.builds(lambda a, b: strict("({} - {})", lambda x, y: whole(x - y), a, b), ints, ints),
        st.builds(lambda a, b: strict("({} * {})", lambda x, y: whole(x * y), a, b), ints, ints),
        st.builds(lambda a, b: strict("({} // {})", truncated_quotient, a, b), ints, ints),
        st.builds(lambda a, b: strict("({} % {})", remainder, a, b), ints, ints),
        st.builds(lambda a: strict("(-({}))", lambda x: whole(-x), a), ints),
        st.builds(lambda a: strict("abs({})", lambda x: whole(abs(x)), a), ints),
        st.builds(lambda a: strict("length({})", len, a), texts),
        st.builds(lambda a: strict("cast({} as Int64)", to_int, a), floats),
        st.builds(lambda a: strict("cast({} as Int64)", parsed_int, a), texts),
        st.builds(lambda a: tried(strict("cast({} as Int64)", parsed_int, a)), TEXT_LEAVES),
        st.builds(lambda a: strict("epoch_us({})", lambda us: us, a), times),
        of_times("year({})", lambda at: at.year),
        of_times("quarter({})", lambda at: (at.month + 2) // 3),
        of_times("month({})", lambda at: at.month),
        of_times("day({})", lambda at: at.day),
        of_times("dayofyear({})", lambda at: at.timetuple().tm_yday),
        of_times("weekday({})", lambda at: at.weekday()),
        of_times("HOUR({})", lambda at: at.hour),
        of_times("minute({})", lambda at: at.minute),
        of_times("second({})", lambda at: at.second),
        forms(ints, truths),
    )
    float_trees = st.one_of(
        *(
            st.builds(
                lambda a, b, op=op: strict(f"({{}} {op} {{}})", lambda x, y: calculated(op, x, y), a, b), one, other
            )
            for op in "+-*"
            for one, other in ((floats, floats), (ints, floats))
        ),
        st.builds(lambda a, b: strict("({} / {})", divided, a, b), st.one_of(ints, floats), st.one_of(ints, floats)),
        st.builds(
            lambda a: strict(
                "round({})", lambda x: x if math.isinf(x) else math.copysign(math.floor(abs(x) + 0.5), x), a
            ),
            st.sampled_from([0.5, -2.5, 1.4, -0.2]).map(constant),
        ),
        st.builds(lambda a: strict("floor({})", lambda x: x if math.isinf(x) else float(math.floor(x)), a), floats),
        st.builds(lambda a: strict("sqrt({})", lambda x: None if x < 0 else math.sqrt(x), a), floats),
        st.builds(lambda a: strict("cast({} as Float64)", float, a), ints),
        forms(floats, truths),
    )
    text_trees = st.one_of(
        st.builds(lambda a, b: strict("({} || {})", lambda x, y: x + y, a, b), texts, texts),
        st.builds(lambda a: strict("upper({})", str.upper, a), texts),
        st.builds(lambda a: strict("trim({})", lambda x: x.strip(" "), a), texts),
        st.builds(
            lambda a, start, n: strict(
                f"substring({{}}, {start}, {n})",
                lambda x: "".join(x[i - 1 : i] for i in range(start, start + n) if i >= 1),
                a,
            ),
            texts,
            st.integers(-2, 4),
            st.integers(0, 3),
        ),
        st.builds(lambda a: strict("cast({} as String)", str, a), ints),
        st.builds(lambda a: strict("replace({}, 'a', 'bc')", lambda x: x.replace("a", "bc"), a), texts),
        forms(texts, truths),
    )
    truth_trees = st.one_of(
        *(
            st.builds(lambda a, b, op=op, f=f: strict(f"({{}} {op} {{}})", f, a, b), one, one)
            for op, f in (
                ("=", lambda x, y: x == y),
                ("<>", lambda x, y: x != y),
                ("<", lambda x, y: x < y),
                (">=", lambda x, y: x >= y),
            )
            for one in (ints, floats, texts, times)
        ),
        st.builds(both, truths, truths),
        st.builds(either, truths, truths),
        st.builds(lambda a: strict("(not {})", lambda x: not x, a), truths),
        st.builds(
            lambda a: Expr(f"({a.text} is null)", lambda row: a.of(row) is None), st.one_of(ints, floats, texts, truths)
        ),
        st.builds(lambda a: strict("({} like '%_a%')", lambda x: "a" in x[1:], a), texts),
        st.builds(lambda a: strict("({} in (1, 7, -1))", lambda x: x in (1, 7, -1), a), ints),
        st.builds(lambda a: strict("({} between 0 and 7)", lambda x: 0 <= x <= 7, a), ints),
        st.builds(lambda a: strict("contains({}, 'a')", lambda x: "a" in x, a), texts),
    )
    time_trees = st.one_of(
        *(
            times.map(lambda t, unit=unit: strict(f"date_trunc('{unit}', {{}})", lambda us: start_of(unit, us), t))
            for unit in ("second", "minute", "hour", "day", "week", "month", "quarter", "year")
        ),
        st.builds(coalesced, times, times),
    )
    return Kinds(int_trees, float_trees, text_trees, truth_trees, time_trees)


EXPRESSIONS = st.one_of(*grown(grown(LEAVES)))


def computed(text: str, rows: list[Row]) -> tuple[list[Any], dict[int, str]]:
    derivation = Derivation.of({"found": text}, TYPES, "at")
    found, reasons = derivation.computed(*columns_of(rows))
    values, nulls = found["found"]
    assert values.dtype == derivation.types["found"].numpy
    return [None if null else value for value, null in zip(values.tolist(), nulls, strict=True)], reasons["found"]


@settings(max_examples=150, deadline=None)
@given(expr=EXPRESSIONS, rows=rows_of)
def test_a_column_equals_the_evaluation_row_by_row(expr: Expr, rows: list[Row]) -> None:
    values, reasons = computed(expr.text, rows)
    for i, row in enumerate(rows):
        try:
            wanted = expr.of(row)
        except FailedError:
            assert i in reasons
            continue
        assert i not in reasons, (expr.text, reasons)
        assert values[i] == wanted and (values[i] is None) == (wanted is None), expr.text


ONE: Row = {
    "price": 2.5,
    "rating": float(np.float32(0.1)),
    "n": 7,
    "small": 100,
    "name": "it's 5%",
    "seen": True,
    "since": 1_772_236_800_000_000,
    "born": 20_000,
    "paid": 1250,
    "raw": b"x",
    "at": 1_772_236_800_000_001,
}


@pytest.mark.parametrize(
    ("text", "dtype", "wanted"),
    [
        ("price * n", Float64, 17.5),
        ("n / 2", Float64, 3.5),
        ("n // 2 * 2 + n % 2", Int64, 7),
        ("-7 // 2", Int64, -3),
        ("-7 % 3", Int64, -1),
        ("2 + 3 * 4", Int64, 14),
        ("10 - 3 - 2", Int64, 5),
        ("- - n", Int64, 7),
        ("small + 100", Int64, 200),
        ("coalesce(small, 0)", Int8, 100),
        ("coalesce(small, 1000)", Int64, 100),
        ("coalesce(rating, 0)", Float32, float(np.float32(0.1))),
        ("rating = 0.1", Bool, True),  # a constant is rounded as the column is
        ("paid", Decimal(6, 2), 1250),
        ("paid >= 12.5", Bool, True),
        ("cast(paid as Float64)", Float64, 12.5),
        ("cast(paid as String)", String, "12.50"),
        ("raw", Bytes, b"x"),
        ("raw is not null", Bool, True),
        ("seen = 1", Bool, True),
        ("seen == True and True", Bool, True),
        ("name = 'it''s 5%'", Bool, True),
        (r'name == "it\'s 5%"', Bool, True),
        ("name LIKE '%5!%' ESCAPE '!'", Bool, True),
        ("name NOT LIKE 'it_s%'", Bool, False),
        ("n not in [1, 2]", Bool, True),
        ("n in (1, null)", Bool, None),
        ("n not between 1 and 5", Bool, True),
        ("case n when 1 then 'one' when 7 then 'seven' end", String, "seven"),
        ("case when n = 1 then 1 else 2.5 end", Float64, 2.5),
        ("CASE WHEN n <> 0 THEN 10 // n END", Int64, 1),
        ("case when true then 1 else cast('x' as Int64) end", Int64, 1),  # the other branch is not evaluated
        ("n = 7 or cast(name as Int64) = 1", Bool, True),
        ("coalesce(n, cast(name as Int64))", Int64, 7),
        ("null and n = 1", Bool, False),
        ("null or n = 1", Bool, None),
        ("not null", Bool, None),
        ("n + null", Int64, None),
        ("1 / 0", Float64, None),
        ("n % 0", Int64, None),
        ("cast(2.9 as Int8)", Int8, 2),
        ("cast(-2.9 as int32)", DType.parse("Int32"), -2),
        ("cast('2026-02-28T12:00:00+02:00' as Timestamp)", Timestamp, 1_772_272_800_000_000),
        ("cast('2026-02-28' as Date)", Date, 20_512),
        ("cast(since as Date)", Date, 20_512),
        ("since >= '2026-02-28'", Bool, True),
        ("born < '2026-01-01'", Bool, True),
        ("born < since", Bool, True),
        ("at > since", Bool, True),
        ("date_trunc('month', '2026-02-28')", Timestamp, 1_769_904_000_000_000),
        ("from_epoch_us(1)", Timestamp, 1),
        ("substring('abcdef', 3)", String, "cdef"),
        ("greatest(n, null, 9)", Int64, 9),
        ("round(2.5)", Float64, 3.0),
        ("round(0.49999999999999994)", Float64, 0.0),
        ("ceil(n)", Int64, 7),
        ("try_cast(name as Float32)", Float32, None),
        ("try_cast(1e300 as Float32)", Float32, None),
    ],
)
def test_examples(text: str, dtype: DType, wanted: Any) -> None:
    assert Derivation.of({"found": text}, TYPES, "at").types["found"] == dtype
    assert computed(text, [ONE]) == ([wanted], {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("n + 9223372036854775807", "expected a result that Int64 can hold, got 7 + 9223372036854775807"),
        ("cast(name as Int64)", 'expected a value that Int64 can hold, got "it\'s 5%"'),
        ("cast(n * 100 as Int8)", "expected a value that Int8 can hold, got 700"),
        ("from_epoch_us(9223372036854775807)", "expected a result that Timestamp can hold"),
        ("cast('31.12.2026' as Date)", "expected a value that Date can hold, got '31.12.2026'"),
    ],
)
def test_a_row_without_a_value_has_a_reason(text: str, reason: str) -> None:
    _, reasons = computed(text, [ONE])
    assert reasons[0].startswith(reason)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "character 1: expected a column"),
        ("prise * n", "character 1: there is no column 'prise'.*did you mean 'price'"),
        ("price * lenght(name)", "character 9: there is no function 'lenght'.*did you mean 'length'"),
        ("length(name, 1)", "character 1: length.s. does not take 2 arguments"),
        ("price + name", r"character 9: expected a number for \+, got String.*join texts with"),
        ("paid * 2", "character 1: expected a number .*got Decimal.*cast"),
        ("price // 2", "character 1: // divides integers"),
        ("name = 1", "character 8: String and Int64 do not go together"),
        ("upper(n)", "character 7: upper takes a String here, got Int64.*cast"),
        ("n and seen", "character 1: expected a condition, got Int64"),
        ("case when n then 1 end", "character 11: expected a condition"),
        ("case when seen then 1 else 'x' end", "Int64 and String do not go together"),
        ("case 1 end", "character 8: expected when"),
        ("0 < n < 3", "character 7: expected an operator or the end, got '<'.*join comparisons"),
        ("n = ", "character 5: expected a column, a constant or a function, got the end"),
        ("(n", "character 3: expected '\\)', got the end"),
        ("n ? 2", "character 3: unexpected '\\?'"),
        ("'abc", "character 1: the text does not end"),
        ("cast(n as Strin)", "character 11: there is no type 'Strin'.*did you mean 'String'"),
        ("cast(raw as Int64)", "character 13: Bytes cannot be converted to Int64"),
        ("date_trunc('dya', at)", "character 12: expected one of .*did you mean 'day'"),
        ("date_trunc(name, at)", "character 12: expected one of"),
        ("since > 'yesterday'", "character 9: expected a Timestamp such as"),
        ("99999999999999999999", "outside of Int64"),
        ("null", "always null"),
        ("n in ()", "character 7: expected a column"),
        ("n is 3", "expected null after is"),
        ("n not 3", "expected in, like or between after not"),
        ("name.upper()", "character 5: unexpected '.'"),
        ("__import__('os')", "there is no function"),
        ("lambda: n", "character 7: unexpected .:."),
        ("(" * 3_000 + "n" + ")" * 3_000, "nest more than"),
        ("+".join(["n"] * 1_000), "more than 50 operators in a row"),
        ("not " * 2_000 + "n", "expected a condition"),
        ("n" * 20_000, "at most 10,000 characters"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem) as caught:
        KafkaSource(
            "clicks",
            topic="clicks",
            event_timestamp="at",
            schema=[Field(name, dtype) for name, dtype in TYPES.items()],
            derive={"found": text},
        )
    assert caught.value.where == "KafkaSource('clicks').derive['found']"
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("derive", "problem"),
    [
        ({"price": "1"}, "already have a column of that name"),
        ({"at": "1"}, "already have a column of that name"),
        ({"not a name": "1"}, "expected a name of letters"),
        ({"a": "b", "b": "a + 1"}, "a, b read each other or themselves"),
        ({"a": "a"}, "a read each other or themselves"),
        ({"a": 3}, "expected text"),
    ],
)
def test_wrong_columns_are_refused(derive: dict[str, Any], problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        KafkaSource(
            "clicks", topic="clicks", event_timestamp="at", schema=[Field("price", Float64)], derive=derive
        )  # fmt: skip


def test_columns_read_each_other_in_any_order() -> None:
    source = KafkaSource(
        "clicks",
        topic="clicks",
        event_timestamp="at",
        schema=[Field("price", Float64), Field("unread", Int64)],
        derive={"a_large": "spend > 10", "spend": "price * 2", "hour": "hour(at)"},
    )
    assert [(column.name, column.dtype) for column in source.columns[2:]] == [
        ("hour", Int64),
        ("spend", Float64),
        ("a_large", Bool),
    ]
    assert source.derivation.inputs == ["price"]
    assert source.derivation.used_by(["a_large"]) == {"a_large": "spend > 10", "spend": "price * 2"}
    assert "derive" not in source.model_copy(update={"derive": {}}).model_dump()


def test_names_of_keywords_are_columns_where_no_keyword_can_stand() -> None:
    names = ["case", "end", "then", "date", "year", "like", "cast"]
    types = dict.fromkeys(names, Int64)
    text = "case when case = 1 then end + then else date - year * like + cast end"
    found, _ = Derivation.of({"found": text}, types, "at").computed(
        {name: (np.array([i + 1]), np.array([False])) for i, name in enumerate(names)}, np.array([0])
    )
    assert found["found"].values.tolist() == [2 + 3]


def test_the_page_lists_all_functions() -> None:
    page = (Path(__file__).parents[2] / "docs" / "expressions.md").read_text()
    table = page.partition("<!-- functions -->\n")[2].partition("<!-- end -->")[0]
    assert table == reference(), "python -m feature_store.definitions.expressions._reference"
