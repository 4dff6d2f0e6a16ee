"""Files of bad rows: the rows of several writers can be read as one table."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, strategies as st

from feature_store.arrow.quarantine import Quarantine, QuarantineFile, joint_schema

COLUMNS = [
    pa.array([1, None], pa.int8()),
    pa.array([2.5, 3.5]),
    pa.array(["a", None]),
    pa.array([0, 86_400], pa.int64()).cast(pa.timestamp("s")),
    pa.array([1, 2], pa.int32()).cast(pa.date32()),
    pa.array([[1], None]),
]
BATCHES = st.lists(st.sampled_from(COLUMNS).map(lambda column: pa.record_batch({"v": column})), min_size=1, max_size=5)


@given(BATCHES)
def test_files_with_a_joint_schema_are_read_as_one(batches: list[pa.RecordBatch]) -> None:
    schema = joint_schema(batch.slice(0, 0) for batch in batches)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, batch in enumerate(batches):
            file = QuarantineFile(folder / "parts" / f"{i}.parquet", folder / "parts" / f".{i}", schema)
            file.add(batch)
            file.close()
        alone = QuarantineFile(folder / "alone.parquet", folder / "alone.unfinished")
        for batch in batches:
            alone.add(batch)
        alone.close()
        assert pq.read_table(folder / "parts").equals(pq.read_table(folder / "alone.parquet"))
        assert len(pq.read_table(folder / "parts")) == 2 * len(batches)
        assert len(list((folder / "parts").iterdir())) == len(batches)


def test_a_job_counts_the_rows_of_its_parts(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "bad", tmp_path, "stats")
    part = QuarantineFile(quarantine.parts / "part-0.parquet", quarantine.parts / ".part-0")
    part.add(pa.record_batch({"v": COLUMNS[0]}))
    part.close()
    quarantine.count_parts(part.rows)
    quarantine.close()
    assert quarantine.rows == 2
    assert quarantine.path is not None
    assert pq.read_table(quarantine.path)["v"].to_pylist() == [1, None]


def test_a_file_without_rows_is_not_made(tmp_path: Path) -> None:
    file = QuarantineFile(tmp_path / "a.parquet", tmp_path / ".a")
    file.add(pa.record_batch({"v": COLUMNS[0]}).slice(0, 0))
    file.close()
    assert list(tmp_path.iterdir()) == []
