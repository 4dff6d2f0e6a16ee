from __future__ import annotations

import pyarrow as pa
import pytest

from feature_store.arrow.batch_sizes import BATCH_BYTES, plain_pieces
from feature_store.arrow.plain import plain_batch

LONG, ROWS = "lorem ipsum " * 1700, 5000  # a text of 20 kB; all rows are 100 MB


def _dictionary() -> pa.Array:
    """Many short texts, then long texts, with nulls."""
    indices = [None if i % 7 == 0 else int(i > ROWS // 2) for i in range(ROWS)]
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(["short", LONG]))


def _run_ends() -> pa.Array:
    return pa.RunEndEncodedArray.from_arrays(pa.array([ROWS], pa.int32()), pa.array([LONG]))


@pytest.mark.parametrize(
    "values",
    [
        _dictionary(),
        _dictionary().slice(100),
        _run_ends(),
        pa.array([LONG] * ROWS),
        pa.array([None] * ROWS, pa.dictionary(pa.int8(), pa.string())),
        _dictionary().slice(0, 0),
    ],
    ids=["dictionary", "slice", "run ends", "plain", "no dictionary", "no rows"],
)
def test_repeated_texts_are_cut_before_they_are_made_plain(values: pa.Array) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(range(len(values))), values], names=["id", "text"])
    made = []
    for piece in plain_pieces(batch):
        assert piece.nbytes <= BATCH_BYTES + len(LONG) + 1024
        made.append(piece)
    whole = pa.Table.from_batches(made) if made else pa.Table.from_batches([], plain_batch(batch).schema)
    assert whole.equals(pa.Table.from_batches([plain_batch(batch)]))


def test_no_more_than_a_piece_of_repeated_texts_is_in_memory() -> None:
    before = pa.total_allocated_bytes()
    batch = pa.RecordBatch.from_arrays([_run_ends()], names=["text"])
    largest = max(pa.total_allocated_bytes() - before for _ in plain_pieces(batch))
    assert largest <= 4 * BATCH_BYTES < ROWS * len(LONG)
