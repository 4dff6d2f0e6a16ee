"""Random Delta tables, changed by random operations, are read as deltalake itself reads them."""

from __future__ import annotations

import datetime
import pickle
import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings, strategies as st

from feature_store.arrow.sources.opening import open_source
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions import DeltaSource

_SOURCE = DeltaSource("t", event_timestamp="at")
_START_US = 1_700_000_000_000_000
_SPAN_US = 5_000
# Column of partitions -> values. A table may also have none.
_PARTITIONS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "text": (pa.string(), ["a", "b c/d%20=é", None, "#?&"]),
    "number": (pa.int32(), [1, -2, None]),
    "flag": (pa.bool_(), [True, False, None]),
    "day": (pa.date32(), [datetime.date(1969, 12, 31), datetime.date(2024, 2, 29), None]),
    "money": (pa.decimal128(8, 2), [Decimal("1.50"), Decimal("12.00"), None]),
}
_ADDED = {
    "more": pa.array([1.5, None, -2.0], pa.float64()),
    "items": pa.array([[1, None], [], None], pa.list_(pa.int64())),
    "note": pa.array(["x", None, ""], pa.string()),
}
_SEEDS = st.integers(0, 2**32)


class Lake:
    """A table that is changed by random operations.

    Args:
        folder: an empty folder.
        zone: the time zone of the event times.
        partition: the partition column, or None.
    """

    def __init__(self, folder: Path, zone: str | None, partition: str | None) -> None:
        self.path = folder / "t"
        self._zone, self._partition = zone, partition
        self._next = 0
        self._added: list[str] = []

    def rows(self, chosen: random.Random, count: int) -> pa.Table:
        """New rows. No two rows of a table have the same id."""
        ids = range(self._next, self._next + count)
        self._next += count
        times = [None if chosen.random() < 0.1 else _START_US + chosen.randrange(_SPAN_US) for _ in ids]
        table = {"id": pa.array(ids, pa.int64()), "at": pa.array(times, pa.timestamp("us", self._zone))}
        table["n"] = pa.array([chosen.choice([None, 0, 1, 2**62]) for _ in ids], pa.int64())
        if self._partition:
            kind, values = _PARTITIONS[self._partition]
            table[self._partition] = pa.array([chosen.choice(values) for _ in ids], kind)
        for name in self._added:
            table[name] = _ADDED[name].take(pa.array([chosen.randrange(3) for _ in ids], pa.int64()))
        return pa.table(table)

    def write(self, chosen: random.Random, mode: str) -> None:
        partitions = [self._partition] if self._partition else None
        rows = self.rows(chosen, chosen.randrange(1, 12))
        write_deltalake(self.path, rows, mode=mode, schema_mode="merge", partition_by=partitions)

    def append(self, chosen: random.Random) -> None:
        self.write(chosen, "append")

    def overwrite(self, chosen: random.Random) -> None:
        self.write(chosen, "overwrite")

    def add_column(self, chosen: random.Random) -> None:
        left = [name for name in _ADDED if name not in self._added]
        if left:
            self._added.append(chosen.choice(left))
        self.write(chosen, "append")

    def delete(self, chosen: random.Random) -> None:
        DeltaTable(self.path).delete(f"id % 5 = {chosen.randrange(5)}")

    def update(self, chosen: random.Random) -> None:
        DeltaTable(self.path).update(
            updates={"n": f"{chosen.randrange(100)}"}, predicate=f"id % 3 = {chosen.randrange(3)}"
        )

    def compact(self, chosen: random.Random) -> None:
        DeltaTable(self.path).optimize.compact()

    def z_order(self, chosen: random.Random) -> None:
        DeltaTable(self.path).optimize.z_order(["id"])

    def checkpoint(self, chosen: random.Random) -> None:
        DeltaTable(self.path).create_checkpoint()

    def merge(self, chosen: random.Random) -> None:
        known = self.oracle()
        rows = self.rows(chosen, 3)
        if len(known):
            rows = rows.set_column(0, "id", pa.array([known["id"][0].as_py(), *rows["id"].to_pylist()[1:]], pa.int64()))
        merged = DeltaTable(self.path).merge(rows, "s.id = t.id", source_alias="s", target_alias="t")
        merged.when_matched_update_all().when_not_matched_insert_all().execute()

    def oracle(self) -> pa.Table:
        return DeltaTable(self.path).to_pyarrow_table()


OPERATIONS = ["append", "overwrite", "add_column", "delete", "update", "compact", "z_order", "checkpoint", "merge"]


@given(
    seed=_SEEDS,
    zone=st.sampled_from([None, "UTC"]),
    partition=st.sampled_from([None, *_PARTITIONS]),
    operations=st.lists(st.sampled_from(OPERATIONS), max_size=7),
    bounds=st.tuples(st.integers(-1, _SPAN_US), st.integers(-1, _SPAN_US + 1)).map(sorted),
)
@settings(max_examples=25, deadline=None)
def test_a_table_is_read_as_deltalake_reads_it(
    seed: int, zone: str | None, partition: str | None, operations: list[str], bounds: list[int]
) -> None:
    chosen = random.Random(seed)
    times = TimeRange("at", _START_US + bounds[0], _START_US + bounds[1])
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder), zone, partition)
        history: dict[int, Counter[str]] = {}
        document, known = b"", pa.table({})
        for operation in ["append", *operations]:
            getattr(lake, operation)(chosen)
            rows = open_source(_SOURCE, Path(folder))
            wanted = lake.oracle()
            names = wanted.schema.names
            assert set(rows.schema.names) == set(names)
            found = _counted(rows.batches(names), names)
            assert found == _counted(wanted.to_batches(), names)
            assert rows.total in (None, len(wanted))
            history[DeltaTable(lake.path).version()] = found

            inside = list(rows.batches(names, times))
            _check_times(wanted, inside, times)
            pieces = pickle.loads(pickle.dumps(rows.pieces(names, times, most_bytes=chosen.choice([1, 1 << 30]))))
            assert [batch for piece in pieces for batch in piece.batches(names, times)] == inside

            unread = rows.unread(document)
            new = [batch for piece in unread.pieces for batch in piece.batches(names)]
            assert not _counted(new, names) - found
            missing = _counted(wanted.to_batches(), known.schema.names)
            missing -= _counted(known.to_batches(), known.schema.names)
            missing -= _counted(new, known.schema.names)
            assert not missing, "rows that were not read before are left out"
            if operation in ("compact", "z_order", "checkpoint"):
                assert not unread.pieces, "moved rows count as new"
            document, known = unread.document, wanted
        for version, then in history.items():
            old = open_source(_SOURCE.model_copy(update={"version": version}), Path(folder))
            assert _counted(old.batches(old.schema.names), old.schema.names) == then


def _counted(batches: Iterable[pa.RecordBatch], names: Sequence[str]) -> Counter[str]:
    """How often there is each row, by the text of its values."""
    return Counter(repr(row) for batch in batches for row in batch.select(list(names)).to_pylist())


def _check_times(wanted: pa.Table, found: Sequence[pa.RecordBatch], times: TimeRange) -> None:
    """Check that no row is left out whose time is in a range or null."""
    at = wanted["at"].cast(pa.int64())
    inside = pc.fill_null(pc.and_(pc.greater_equal(at, times.start_us), pc.less(at, times.end_us)), True)
    names = wanted.schema.names
    assert _counted(found, names) == _counted(wanted.filter(inside).to_batches(), names)
