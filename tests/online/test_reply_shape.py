"""Replies with missing rows, brought into the shape of whole replies, against a parser that goes value by value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from feature_store.online.layout import RowLayout
from feature_store.online.redis.reply_shape import ReplyShape, Whole
from tests.online.worlds import plan_of

LAYOUTS = [RowLayout(group) for group in plan_of().groups]
EPOCH, OTHER = b"0123456789abcdef", b"fedcba9876543210"
NIL = b"$-1\r\n"
# Values that look like the bytes between values.
HOSTILE = [NIL, NIL * 40, b"\r\n", b"*1\r\n", b"$16\r\n" + EPOCH + b"\r\n", *(b"$%d\r\n" % one.size for one in LAYOUTS)]


def bulk(value: bytes | None) -> bytes:
    return NIL if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def oracle(raw: bytes) -> tuple[list[bytes | None], int] | None:
    """The values of the array at the start, and where the array ends; None when it is incomplete."""
    try:
        end = raw.index(b"\r\n")
        count, at, values = int(raw[1:end]), end + 2, []
        for _ in range(count):
            end = raw.index(b"\r\n", at)
            length = int(raw[at + 1 : end])
            at = end + 2
            if length < 0:
                values.append(None)
                continue
            if len(raw) < at + length + 2:
                return None
            values.append(raw[at : at + length])
            at += length + 2
    except ValueError:
        return None
    return values, at


@st.composite
def rows_of(draw: st.DrawFn, layout: RowLayout) -> bytes | None:
    kind = draw(st.sampled_from(["row"] * 6 + ["missing"] * 3 + ["other length", "other mark"]))
    if kind == "missing":
        return None
    body = draw(st.one_of(st.binary(min_size=1, max_size=9), st.sampled_from(HOSTILE)))
    row = layout.fingerprint + (body * layout.size)[: layout.size - 4]
    return {"row": row, "other length": row + body, "other mark": b"?" + row[1:]}[kind]


@st.composite
def replies(draw: st.DrawFn) -> tuple[Any, list[bytes | None], bytes]:
    counts = draw(st.lists(st.tuples(st.sampled_from(LAYOUTS), st.integers(1, 9)), max_size=3))
    epochs = draw(st.integers(1, 3))
    values = [draw(rows_of(layout)) for layout, count in counts for _ in range(count)]
    values += [draw(st.sampled_from([EPOCH, EPOCH, EPOCH, EPOCH, OTHER, None])) for _ in range(epochs)]
    return (counts, epochs), values, b"*%d\r\n" % len(values) + b"".join(map(bulk, values))


def shape_of(world: Any) -> ReplyShape:
    counts, epochs = world
    return ReplyShape(counts, EPOCH, epochs)


def expected(world: Any, values: list[bytes | None]) -> list[bytes] | None:
    """The expected rows, without data where they are missing; None when the reply must be taken apart."""
    counts, epochs = world
    if values[-epochs:] != [EPOCH] * epochs:
        return None
    rows = []
    for layout, value in zip([layout for layout, count in counts for _ in range(count)], values, strict=False):
        if value is not None and (len(value) != layout.size or not value.startswith(layout.fingerprint)):
            return None
        rows.append(value or layout.empty)
    return rows


def rows_in(shape: ReplyShape, reply: bytes | bytearray) -> list[bytes]:
    return [row.tobytes() for run in shape.runs for row in run.rows(reply)]


@given(replies(), st.sampled_from([b"", b"*2\r\n$1\r\na\r\n", b"*1\r\n" + NIL, NIL, b"$16\r\n" + EPOCH + b"\r\n"]))
def test_a_reply_has_its_shape_whatever_follows_it(world, after: bytes) -> None:
    about, values, raw = world
    shape, wanted = shape_of(about), expected(about, values)
    found = shape.whole(raw + after, len(raw + after), 0)
    if wanted is None:
        assert found is None or shape.size > len(raw + after), "it must be taken apart"
        assert not isinstance(found, Whole)
        return
    assert isinstance(found, Whole)
    assert (rows_in(shape, found.reply), found.end) == (wanted, len(raw))
    assert len(found.reply) == shape.size
    assert shape.is_in(raw + after) == (None not in values)


@given(replies(), st.binary(max_size=30))
def test_at_every_cut_it_is_complete_exactly_when_the_oracle_says_so(world, after: bytes) -> None:
    about, values, raw = world
    shape, scanned = shape_of(about), 0
    for got in range(1, len(raw) + 1):
        # Bytes of an earlier reply may follow the received bytes in the buffer.
        found = shape.whole(raw[:got] + after, got, scanned)
        if found is None:
            assert expected(about, values) is None
            return
        assert isinstance(found, Whole) == (oracle(raw[:got]) is not None)
        if not isinstance(found, Whole):
            assert scanned <= found <= got or found == 0
            scanned = found
    assert isinstance(found, Whole) and rows_in(shape, found.reply) == expected(about, values)


@given(replies())
def test_a_reply_that_is_over_is_never_waited_for(world) -> None:
    _, _, raw = world
    assert not isinstance(shape_of(world[0]).whole(raw, len(raw), 0), int)


@pytest.mark.parametrize("missing", [(0,), (1,), (0, 1)])
def test_a_missing_epoch_is_no_missing_row(missing: tuple[int, ...]) -> None:
    layout = LAYOUTS[0]
    values = [None if i in missing else layout.empty for i in range(2)] + [None]
    raw = b"*3\r\n" + b"".join(map(bulk, values))
    assert ReplyShape([(layout, 2)], EPOCH).whole(raw, len(raw), 0) is None


@pytest.mark.parametrize(
    "raw", [b"-", b"-NOAUTH Authentication required.\r\n", b"*1\r\n", b"+OK\r\n", b"$3\r\nabc\r\n"]
)
def test_what_is_no_such_array_is_taken_apart_at_once(raw: bytes) -> None:
    assert ReplyShape([(LAYOUTS[0], 2)], EPOCH).whole(raw, len(raw), 0) is None
