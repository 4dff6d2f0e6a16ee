"""The fixed-stride parser against hiredis, on replies cut anywhere."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
from hypothesis import given, strategies as st

from feature_store.online.layout import RowLayout
from feature_store.online.redis.replies import Replies
from feature_store.online.redis.resp import KeyWriter, ReplyParser, RowRun
from tests.online.worlds import plan_of

LAYOUTS = [RowLayout(group) for group in plan_of().groups]
EPOCH = b"0123456789abcdef"


def bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


@st.composite
def replies(draw: st.DrawFn):
    runs = []
    values: list[bytes | None] = []
    chosen = draw(st.lists(st.tuples(st.sampled_from(LAYOUTS), st.integers(1, 12)), min_size=1, max_size=3))
    at = len(b"*%d\r\n" % (sum(count for _, count in chosen) + 1))
    for layout, count in chosen:
        runs.append(RowRun(layout, count, at))
        at = runs[-1].end
        for _ in range(count):
            body = draw(st.binary(min_size=1, max_size=40).map(lambda b, n=layout.size - 4: (b * n)[:n]))
            kinds = st.sampled_from(["row"] * 12 + ["missing", "longer", "shorter", "other"])
            kind = draw(kinds)
            row = layout.fingerprint + body
            values.append(
                {"row": row, "missing": None, "longer": row + b"x", "shorter": row[:-1], "other": b"?" * len(row)}[kind]
            )
    values.append(draw(st.sampled_from([EPOCH, EPOCH, EPOCH, None])))
    raw = b"*%d\r\n" % len(values) + b"".join(map(bulk, values))
    cuts = draw(st.lists(st.integers(1, len(raw)), max_size=6))
    return runs, values, raw, sorted({*cuts, len(raw)})


def feed(parser: ReplyParser, raw: bytes, cuts: list[int]) -> int:
    """Feed a reply in pieces, as a socket would; returns how many bytes it took."""
    at = 0
    for cut in cuts:
        while at < cut:
            room = parser.buffer()
            assert len(room) > 0
            piece = raw[at : min(cut, at + len(room))]
            room[: len(piece)] = piece
            at += len(piece)
            if parser.received(len(piece)):
                return at
    return -1


@given(replies())
def test_any_reply_cut_anywhere_reads_as_hiredis_reads_it(world) -> None:
    runs, values, raw, cuts = world
    oracle = hiredis.Reader()
    oracle.feed(raw)
    assert oracle.gets() == values

    parser = ReplyParser(1, runs, EPOCH)
    assert feed(parser, raw, cuts) == len(raw), "complete exactly when the last byte has come"
    assert values[-1] is None or parser.saw_only(values[-1])
    if parser.fixed:
        assert [row.tobytes() for run in runs for row in run.rows(parser.reply)] == values[:-1]
    else:
        assert parser.replies == [values]


@given(replies())
def test_a_whole_reply_of_whole_rows_is_never_taken_apart(world) -> None:
    runs, values, raw, cuts = world
    parser = ReplyParser(1, runs, EPOCH)
    feed(parser, raw, cuts)
    stride = iter(values)
    whole = all(
        (value := next(stride)) is not None and len(value) == run.size and value[:4] == run.marks[4:8]
        for run in runs
        for _ in range(run.count)
    )
    assert parser.fixed == (whole and values[-1] is not None)


@given(st.lists(replies(), min_size=1, max_size=4), st.data())
def test_replies_of_one_connection_fill_their_parsers(worlds: list[Any], data: st.DataObject) -> None:
    """However the bytes are cut, also if they stop: each reply that came whole is complete, and no other."""
    parsers = [ReplyParser(1, runs, EPOCH) for runs, *_ in worlds]
    stream = b"".join(raw for _, _, raw, _ in worlds)
    stop = data.draw(st.integers(0, len(stream)))
    cuts = sorted({*data.draw(st.lists(st.integers(1, len(stream)), max_size=8)), stop})
    owed, at, completed = Replies(), 0, 0
    owed.expect(parsers)
    for cut in [cut for cut in cuts if cut <= stop]:
        while at < cut:
            room = owed.buffer()
            piece = stream[at : min(cut, at + len(room))]
            room[: len(piece)] = piece
            completed += owed.received(len(piece))
            at += len(piece)
    assert completed == len(parsers) - len(owed) == sum(parser.is_complete for parser in parsers)
    if owed:
        parsers[completed].settle()
    end = 0
    for parser, (runs, values, raw, _) in zip(parsers, worlds, strict=True):
        end += len(raw)
        assert parser.is_complete == (end <= stop)
        if parser.fixed:
            assert [row.tobytes() for run in runs for row in run.rows(parser.reply)] == values[:-1]
        elif parser.is_complete:
            assert parser.replies == [values]


def test_bytes_that_nobody_asked_for_are_refused() -> None:
    owed, parser = Replies(), ReplyParser(1, [])
    owed.expect([parser])
    raw = b"*1\r\n$1\r\na\r\n+OK\r\n"
    owed.buffer()[: len(raw)] = raw
    with pytest.raises(hiredis.ProtocolError, match="without a request"):
        owed.received(len(raw))
    assert parser.replies == [[b"a"]]


@given(replies(), st.integers(0))
def test_a_parser_that_moved_takes_the_rest(world, cut: int) -> None:
    """The request that is over keeps a parser that stays incomplete; restarted, it takes another reply."""
    runs, values, raw, _ = world
    parser = ReplyParser(1, runs, EPOCH)
    cut %= len(raw)
    assert feed(parser, raw, [cut] if cut else []) == -1
    moved = parser.moved()
    assert feed(moved, raw[cut:], [len(raw) - cut]) == len(raw) - cut
    assert not parser.is_complete and not parser.has_begun
    parser.restart()
    assert feed(parser, raw, [len(raw)]) == len(raw)
    other = parser.again()
    other.take_over(parser)
    for complete in (moved, other):
        rows = [row.tobytes() for run in runs for row in run.rows(complete.reply)] if complete.fixed else []
        assert rows == values[:-1] if complete.fixed else complete.replies == [values]


def test_an_error_reply_is_a_reply() -> None:
    parser = ReplyParser(1, [RowRun(LAYOUTS[0], 3, 4)])
    raw = b"-NOAUTH Authentication required.\r\n"
    assert feed(parser, raw, [5, len(raw)]) == len(raw)
    assert isinstance(parser.replies[0], hiredis.ReplyError)


def test_several_commands_have_several_replies() -> None:
    parser = ReplyParser(2, [])
    raw = b"*2\r\n$1\r\na\r\n$16\r\n" + EPOCH + b"\r\n*1\r\n$16\r\n" + EPOCH + b"\r\n"
    assert feed(parser, raw, [3, 30, len(raw)]) == len(raw)
    assert parser.replies == [[b"a", EPOCH], [EPOCH]]


@given(st.lists(st.binary(min_size=8, max_size=8), min_size=1, max_size=700))
def test_keys_are_written_as_hiredis_writes_them(entity_keys: list[bytes]) -> None:
    writer = KeyWriter(b"{p:0}r:movie:1:", 8)
    wanted = hiredis.pack_command(tuple(b"{p:0}r:movie:1:" + key for key in entity_keys)).split(b"\r\n", 1)[1]
    assert writer.write(len(entity_keys), b"".join(entity_keys)) == wanted
