"""The fixed-stride parser against hiredis, on replies cut anywhere."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
from hypothesis import given, strategies as st

from feature_store.online.layout import RowLayout
from feature_store.online.redis import resp
from feature_store.online.redis.key_writer import KeyWriter, VaryingKeyWriter
from feature_store.online.redis.replies import Replies
from feature_store.online.redis.reply_shape import ReplyShape
from feature_store.online.redis.resp import ReplyParser
from tests.online.worlds import plan_of

LAYOUTS = [RowLayout(group) for group in plan_of().groups]
EPOCH = b"0123456789abcdef"


def bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


@st.composite
def replies(draw: st.DrawFn):
    values: list[bytes | None] = []
    chosen = draw(st.lists(st.tuples(st.sampled_from(LAYOUTS), st.integers(1, 12)), min_size=1, max_size=3))
    for layout, count in chosen:
        for _ in range(count):
            body = b"x" + draw(st.binary(min_size=1, max_size=40).map(lambda b, n=layout.size - 5: (b * n)[:n]))
            kinds = st.sampled_from(["row"] * 12 + ["missing", "longer", "shorter", "other"])
            kind = draw(kinds)
            row = layout.fingerprint + body
            values.append(
                {"row": row, "missing": None, "longer": row + b"x", "shorter": row[:-1], "other": b"?" * len(row)}[kind]
            )
    values.append(draw(st.sampled_from([EPOCH, EPOCH, EPOCH, None])))
    raw = b"*%d\r\n" % len(values) + b"".join(map(bulk, values))
    cuts = draw(st.lists(st.integers(1, len(raw)), max_size=6))
    return ReplyShape(chosen, EPOCH), values, raw, sorted({*cuts, len(raw)})


def feed(parser: ReplyParser, raw: bytes, cuts: list[int]) -> int:
    """Feed a reply in pieces, as a socket would. Returns how many bytes completed it, or -1."""
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


def held(parser: ReplyParser) -> list[bytes | None]:
    """The values of the reply that a parser took. Rows without data become None."""
    if not parser.fixed:
        (values,) = parser.replies
        return values
    assert parser.shape is not None
    empty = {run.size: run.blank[-run.size - 2 : -2] for run in parser.shape.runs}
    rows = [row.tobytes() for run in parser.shape.runs for row in run.rows(parser.reply)]
    return [*(None if row == empty[len(row)] else row for row in rows), EPOCH]


@given(replies())
def test_any_reply_cut_anywhere_reads_as_hiredis_reads_it(world) -> None:
    shape, values, raw, cuts = world
    oracle = hiredis.Reader()
    oracle.feed(raw)
    assert oracle.gets() == values

    parser = ReplyParser(1, shape)
    assert feed(parser, raw, cuts) == len(raw), "complete exactly when the last byte has come"
    assert values[-1] is None or parser.saw_only(values[-1])
    assert held(parser) == values


@given(replies())
def test_a_reply_of_rows_and_missing_rows_is_never_taken_apart(world) -> None:
    shape, values, raw, cuts = world
    parser = ReplyParser(1, shape)
    feed(parser, raw, cuts)
    sizes = [run.size for run in shape.runs for _ in range(run.count)]
    fits = all(
        value is None or (len(value) == size and value[:1] != b"?") for size, value in zip(sizes, values, strict=False)
    )
    assert parser.fixed == (fits and values[-1] is not None)


@given(st.lists(replies(), min_size=1, max_size=4), st.data())
def test_replies_of_one_connection_fill_their_parsers(worlds: list[Any], data: st.DataObject) -> None:
    """However the bytes are cut, and wherever they stop, exactly the replies that came whole are complete."""
    parsers = [ReplyParser(1, shape if data.draw(st.booleans()) else None) for shape, *_ in worlds]
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
            owed.received(len(piece))
            completed += owed.completed
            at += len(piece)
    assert completed == len(parsers) - len(owed) == sum(parser.is_complete for parser in parsers)
    end = 0
    for parser, (_, values, raw, _) in zip(parsers, worlds, strict=True):
        end += len(raw)
        assert parser.is_complete == (end <= stop)
        assert not parser.is_complete or held(parser) == values


class CountingReader(hiredis.Reader):
    """Counts the bytes that all readers of its class are fed."""

    fed = 0

    def feed(self, data: Any, *place: Any) -> None:
        CountingReader.fed += len(data)
        super().feed(data, *place)


@pytest.mark.parametrize("sizes", [[500] * 200, [40_000] * 20, [16, 5000] * 50, [10, 10, 30_000, 10] * 20], ids=str)
@pytest.mark.parametrize("has_shape", [False, True], ids=["unknown", "other shape"])
def test_replies_of_unknown_size_are_parsed_once(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], has_shape: bool
) -> None:
    """However many come together, about as many bytes are parsed as came."""
    monkeypatch.setattr(resp.hiredis, "Reader", CountingReader)
    CountingReader.fed = 0
    shape = ReplyShape([(LAYOUTS[0], 3)], EPOCH) if has_shape else None
    parsers = [ReplyParser(1, shape) for _ in sizes]
    stream = memoryview(b"".join([b"*1\r\n%b" % bulk(bytes(size)) for size in sizes]))
    owed = Replies()
    owed.expect(parsers)
    while stream:
        room = owed.buffer()
        count = min(len(room), len(stream), 1 << 16)
        room[:count] = stream[:count]
        stream = stream[count:]
        owed.received(count)
    assert [len(parser.replies[0][0]) for parser in parsers] == sizes
    assert CountingReader.fed < 3 * sum(sizes) + 1100 * len(sizes) + (1 << 17)


def test_bytes_that_nobody_asked_for_are_refused() -> None:
    owed, parser = Replies(), ReplyParser(1)
    owed.expect([parser])
    raw = b"*1\r\n$1\r\na\r\n+OK\r\n"
    owed.buffer()[: len(raw)] = raw
    with pytest.raises(hiredis.ProtocolError, match="without a request"):
        owed.received(len(raw))
    assert parser.replies == [[b"a"]]


@given(replies(), st.integers(0))
def test_a_parser_that_moved_takes_the_rest(world, cut: int) -> None:
    """The ended request keeps the old parser, which stays incomplete and, once restarted, can take another reply."""
    shape, values, raw, _ = world
    parser = ReplyParser(1, shape)
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
        assert held(complete) == values


def test_an_error_reply_is_a_reply() -> None:
    parser = ReplyParser(1, ReplyShape([(LAYOUTS[0], 3)], EPOCH))
    raw = b"-NOAUTH Authentication required.\r\n"
    assert feed(parser, raw, [5, len(raw)]) == len(raw)
    assert isinstance(parser.replies[0], hiredis.ReplyError)
    assert parser.is_complete and not parser.saw_only(EPOCH)


def test_several_commands_have_several_replies() -> None:
    parser = ReplyParser(2)
    raw = b"*2\r\n$1\r\na\r\n$16\r\n" + EPOCH + b"\r\n*1\r\n$16\r\n" + EPOCH + b"\r\n"
    assert feed(parser, raw, [3, 30, len(raw)]) == len(raw)
    assert parser.replies == [[b"a", EPOCH], [EPOCH]]


@given(st.lists(st.binary(min_size=8, max_size=8), min_size=1, max_size=700))
def test_keys_are_written_as_hiredis_writes_them(entity_keys: list[bytes]) -> None:
    writer = KeyWriter(b"{p:0}r:movie:1:", 8)
    wanted = hiredis.pack_command(tuple(b"{p:0}r:movie:1:" + key for key in entity_keys)).split(b"\r\n", 1)[1]
    assert writer.write(len(entity_keys), b"".join(entity_keys)) == wanted


@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=300)), max_size=60), st.booleans())
def test_keys_of_any_length_and_bucket_are_written_as_hiredis_writes_them(
    keys: list[tuple[int, bytes]], has_buckets: bool
) -> None:
    prefixes = [b"{p:0}r:movie:1:", b"{p:1}r:movie:1:", b"{p:17}r:movie:1:"]
    writer = VaryingKeyWriter(prefixes)
    buckets = [bucket for bucket, _ in keys] if has_buckets else None
    wanted = [prefixes[bucket if has_buckets else 0] + key for bucket, key in keys]
    packed = hiredis.pack_command(tuple(wanted)).split(b"\r\n", 1)[1]
    for _ in range(2):  # the second time from kept parts
        assert writer.write([key for _, key in keys], buckets) == packed
