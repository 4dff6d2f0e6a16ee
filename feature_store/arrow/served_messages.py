"""Messages of the served log: the rows of one request, as an Arrow stream or as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import orjson
import pyarrow as pa

from feature_store.arrow.served_log import REQUEST_ID, REQUEST_ROW, SERVED_STATUS, About, plain
from feature_store.definitions.scalars import json_form
from feature_store.online.status import STATUSES


def requests(batches: Sequence[pa.RecordBatch]) -> Iterator[tuple[bytes | None, pa.RecordBatch]]:
    """(id, rows) of each request. The id is None if the request has none."""
    for batch in plain(pa.Table.from_batches(batches)).to_batches():
        # The rows of a request are consecutive and numbered from 0.
        starts = np.flatnonzero(batch.column(REQUEST_ROW).to_numpy() == 0).tolist()
        for start, end in zip(starts, [*starts[1:], len(batch)], strict=True):
            rows = batch.slice(start, end - start)
            id = rows.column(REQUEST_ID)[0].as_py()
            yield id.encode() if id else None, rows


def as_arrow(rows: pa.RecordBatch) -> bytes:
    """The rows as an Arrow IPC stream of one record batch."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def as_json(rows: pa.RecordBatch) -> bytes:
    """The rows as a JSON array of objects, in UTF-8."""
    features = list(About.of(rows.schema, "served records").features)
    listed = rows.to_pylist()
    for row in listed:
        codes = zip(features, row[SERVED_STATUS], strict=True)
        row[SERVED_STATUS] = {name: STATUSES[code].name for name, code in codes if code}
    return orjson.dumps(listed, default=json_form)
