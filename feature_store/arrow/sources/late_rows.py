"""Late rows: rows of a source that did not exist, or were not read, at the last materialization.

The online store keeps a document that records which rows of a view's source were read. It has 1 byte for its format, 8
bytes with a hash of how the view's rows are computed, and the document of the source itself (`OfflineSource.unread`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import NamedTuple

from feature_store._intervals import Interval
from feature_store.arrow.sources.source import OfflineSource, Piece
from feature_store.arrow.time_range import TimeRange
from feature_store.arrow.types import fit
from feature_store.definitions.dtypes import MIN_TIMESTAMP_US, Timestamp
from feature_store.definitions.feature_view import FeatureView

# A document with any other first byte is ignored: then no row counts as read.
_FORMAT = b"2"
_HASH_BYTES = 8


class LateRows(NamedTuple):
    """The rows of a source that were not read.

    Attributes:
        document: the document to keep once the whole source is read.
        is_known: whether the earlier read computed the view's rows in the same way as now.
        pieces: the rows that were not read, or that changed since.
    """

    document: bytes
    is_known: bool
    pieces: tuple[Piece, ...]

    def times_before(self, event_timestamp: str, end_us: int) -> Interval | None:
        """The interval from the first to the last event time before `end_us`, in microseconds since 1970.

        None: no row has such a time.

        Raises:
            DataError: the rows cannot be read.
        """
        found = [interval for piece in self.pieces for interval in _times(piece, event_timestamp, end_us)]
        return (min(start for start, _ in found), max(end for _, end in found)) if found else None


def late_rows(rows: OfflineSource, view: FeatureView, known: bytes) -> LateRows:
    """The rows of a view's source that were not read before.

    Args:
        rows: the view's source.
        view: the view.
        known: the document of the last read. Empty: nothing was read.

    Raises:
        DataError: the source cannot be read.
    """
    head = _FORMAT + _computation(view)
    is_known = known.startswith(head)
    unread = rows.unread(known[len(head) :] if is_known else b"")
    return LateRows(head + unread.document, is_known, unread.pieces)


def _times(piece: Piece, event_timestamp: str, end_us: int) -> Iterator[Interval]:
    """For each batch, the interval of its event times before `end_us`."""
    for batch in piece.batches([event_timestamp], TimeRange(event_timestamp, MIN_TIMESTAMP_US, end_us)):
        values, bad = fit(batch.column(0), Timestamp)
        times = values.fill_null(end_us).to_numpy()[~bad]
        before = times[times < end_us]
        if len(before):
            yield int(before.min()), int(before.max()) + 1


def _computation(view: FeatureView) -> bytes:
    """A hash of the settings that determine a view's rows: the source, the SQL and the aggregations.

    If the hash changes, all rows count as not read. Field types are not part of it: if they change, the layout changes,
    and the rows go to a new generation.
    """
    assert view.source is not None
    aggregations = [aggregation.model_dump(mode="json") for aggregation in view.aggregations]
    about = json.dumps([view.source.location(), view.sql, aggregations], sort_keys=True)
    return hashlib.blake2b(repr((about,)).encode(), digest_size=_HASH_BYTES).digest()
