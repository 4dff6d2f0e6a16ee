"""Rows that came late: which rows of a source were not there, or not read, at the last materialization.

The online store keeps a document of what was read of a view's source: a byte for its format, 8 bytes of a hash of how
the view's rows are computed, then the document of the source itself (`OfflineSource.unread`).
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

# A document that starts otherwise says nothing about what was read.
_FORMAT = b"2"
_HASH_BYTES = 8


class LateRows(NamedTuple):
    """What was not read of a source.

    Attributes:
        document: what to keep when all of the source is read.
        is_known: whether rows were computed before in the way in which they are computed now.
        pieces: the rows that were not read as they are now.
    """

    document: bytes
    is_known: bool
    pieces: tuple[Piece, ...]

    def times_before(self, event_timestamp: str, end_us: int) -> Interval | None:
        """The interval from the first to the last event time before `end_us`; None: no row has such a time.

        Raises:
            DataError: the rows cannot be read.
        """
        found = [interval for piece in self.pieces for interval in _times(piece, event_timestamp, end_us)]
        return (min(start for start, _ in found), max(end for _, end in found)) if found else None


def late_rows(rows: OfflineSource, view: FeatureView, known: bytes) -> LateRows:
    """Compare a view's source with what was read of it.

    Args:
        rows: the view's source.
        view: the view.
        known: the document of the last read; empty: nothing was read.

    Raises:
        DataError: the source cannot be read.
    """
    head = _FORMAT + _computation(view)
    is_known = known.startswith(head)
    unread = rows.unread(known[len(head) :] if is_known else b"")
    return LateRows(head + unread.document, is_known, unread.pieces)


def _times(piece: Piece, event_timestamp: str, end_us: int) -> Iterator[Interval]:
    """Of each batch, the interval of the times before an end."""
    for batch in piece.batches([event_timestamp], TimeRange(event_timestamp, MIN_TIMESTAMP_US, end_us)):
        values, bad = fit(batch.column(0), Timestamp)
        times = values.fill_null(end_us).to_numpy()[~bad]
        before = times[times < end_us]
        if len(before):
            yield int(before.min()), int(before.max()) + 1


def _computation(view: FeatureView) -> bytes:
    """A hash of what decides which rows a view's source gives. Rows that were computed otherwise count as not read.

    The types of fields are not part of it: other types are another layout, in a generation of its own.
    """
    assert view.source is not None
    aggregations = [aggregation.model_dump(mode="json") for aggregation in view.aggregations]
    about = json.dumps([view.source.location(), view.sql, aggregations], sort_keys=True)
    return hashlib.blake2b(repr((about,)).encode(), digest_size=_HASH_BYTES).digest()
