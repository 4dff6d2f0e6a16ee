"""Random Iceberg tables, changed by random operations, are read as pyiceberg itself reads them."""

from __future__ import annotations

import pickle
import random
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings, strategies as st
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DoubleType, ListType, LongType, StringType

from feature_store.arrow.sources.opening import open_source
from feature_store.arrow.time_range import TimeRange
from tests.arrow.sources.iceberg_tables import SOURCE, catalog_in

_START_US = 1_700_000_000_000_000
_SPAN_US = 5_000
_TYPES = {
    "double": DoubleType(),
    "text": StringType(),
    "list": ListType(element_id=99, element_type=LongType(), element_required=False),
}
_VALUES: dict[str, list[Any]] = {"double": [1.5, None], "text": ["x", "", None], "list": [[1, None], [], None]}
_ARROW = {"double": pa.float64(), "text": pa.string(), "list": pa.list_(pa.int64())}


class Lake:
    """A table that is changed by random operations.

    Args:
        catalog: its catalog.
        zone: the time zone of the event times.
        is_partitioned: whether the table is partitioned by `place`.
    """

    def __init__(self, catalog: Any, zone: str | None, is_partitioned: bool) -> None:
        self._zone, self._next = zone, 0
        self._added: dict[str, str] = {}
        fields = {"id": pa.int64(), "at": pa.timestamp("us", zone), "place": pa.string()}
        self.table = catalog.create_table("sales.rows", pa.schema(fields))
        if is_partitioned:
            with self.table.update_spec() as change:
                change.add_field("place", IdentityTransform(), "place")

    def rows(self, chosen: random.Random) -> pa.Table:
        ids = range(self._next, self._next + chosen.randrange(1, 9))
        self._next = ids.stop
        times = [None if chosen.random() < 0.1 else _START_US + chosen.randrange(_SPAN_US) for _ in ids]
        table = {"id": pa.array(ids, pa.int64()), "at": pa.array(times, pa.timestamp("us", self._zone))}
        table["place"] = pa.array([chosen.choice(["a", "b c/%20é", None]) for _ in ids], pa.string())
        for name, kind in self._added.items():
            table[name] = pa.array([chosen.choice(_VALUES[kind]) for _ in ids], _ARROW[kind])
        return pa.table(table)

    def append(self, chosen: random.Random) -> None:
        self.table.append(self.rows(chosen))

    def overwrite(self, chosen: random.Random) -> None:
        self.table.overwrite(self.rows(chosen))

    def delete(self, chosen: random.Random) -> None:
        self.table.delete(f"id >= {chosen.randrange(self._next)} and id < {chosen.randrange(self._next + 1)}")

    def add_column(self, chosen: random.Random) -> None:
        name, kind = f"c{self._next}-{len(self._added)}", chosen.choice([*_TYPES])
        with self.table.update_schema() as change:
            change.add_column(name, _TYPES[kind])
        self._added[name] = kind
        self.append(chosen)

    def rename(self, chosen: random.Random) -> None:
        for name in list(self._added)[:1]:
            with self.table.update_schema() as change:
                change.rename_column(name, f"{name}r")
            self._added = {f"{name}r" if old == name else old: kind for old, kind in self._added.items()}
        self.append(chosen)

    def drop(self, chosen: random.Random) -> None:
        for name in list(self._added)[-1:]:
            with self.table.update_schema() as change:
                change.delete_column(name)
            del self._added[name]
        self.append(chosen)


OPERATIONS = ["append", "overwrite", "delete", "add_column", "rename", "drop"]


@given(
    seed=st.integers(0, 2**32),
    zone=st.sampled_from([None, "UTC"]),
    is_partitioned=st.booleans(),
    operations=st.lists(st.sampled_from(OPERATIONS), max_size=5),
    bounds=st.tuples(st.integers(-1, _SPAN_US), st.integers(-1, _SPAN_US + 1)).map(sorted),
)
@settings(max_examples=12, deadline=None)
def test_a_table_is_read_as_pyiceberg_reads_it(
    seed: int, zone: str | None, is_partitioned: bool, operations: list[str], bounds: list[int]
) -> None:
    chosen = random.Random(seed)
    times = TimeRange("at", _START_US + bounds[0], _START_US + bounds[1])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        lake = Lake(catalog_in(Path(folder), patched), zone, is_partitioned)
        history: dict[int, Counter[str]] = {}
        document, known = b"", Counter[str]()
        for operation in ["append", *operations]:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Delete operation did not match any records")
                getattr(lake, operation)(chosen)
            found, wanted = open_source(SOURCE, Path(folder)), lake.table.refresh().scan().to_arrow()
            names = wanted.schema.names
            assert found.schema.names == names
            whole = _counted(found.batches(names), names)
            assert whole == _counted(wanted.to_batches(), names)
            assert found.total == len(wanted)
            current = lake.table.current_snapshot()
            history[current.snapshot_id] = whole

            inside = list(found.batches(names, times))
            at = wanted["at"].cast(pa.int64())
            is_wanted = pc.fill_null(pc.and_(pc.greater_equal(at, times.start_us), pc.less(at, times.end_us)), True)
            assert _counted(inside, names) == _counted(wanted.filter(is_wanted).to_batches(), names)
            pieces = pickle.loads(pickle.dumps(found.pieces(names, times, most_bytes=chosen.choice([1, 1 << 30]))))
            assert [batch for piece in pieces for batch in piece.batches(names, times)] == inside

            unread = found.unread(document)
            new = [batch for piece in unread.pieces for batch in piece.batches(names)]
            assert not _counted(new, names) - whole
            ids = _counted(wanted.to_batches(), ["id"])
            assert not ids - known - _counted(new, ["id"]), "rows that were not read before are left out"
            document, known = unread.document, ids
        for snapshot_id, rows in history.items():
            old = open_source(SOURCE.model_copy(update={"snapshot_id": snapshot_id}), Path(folder))
            assert old.pinned == {"snapshot_id": snapshot_id}
            assert _counted(old.batches(old.schema.names), old.schema.names) == rows
        lake.table.catalog.close()


def _counted(batches: Iterable[pa.RecordBatch], names: Sequence[str]) -> Counter[str]:
    """How often there is each row, by the text of its values."""
    return Counter(repr(row) for batch in batches for row in batch.select(list(names)).to_pylist())
