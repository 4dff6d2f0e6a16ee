"""Finds the snapshots of an Iceberg table that added rows since an earlier read.

The document of a read names the table and the snapshot that was read. If the table was replaced, rolled back or moved
to another branch, or if snapshots in between expired, all files count as not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

from pyiceberg.table.snapshots import Operation


class ReadSnapshot(NamedTuple):
    """A snapshot of a table that was read.

    Attributes:
        table: the UUID of the table.
        snapshot: the id of the snapshot. 0: the table had none.
    """

    table: str
    snapshot: int

    @classmethod
    def parse(cls, document: bytes) -> Self | None:
        """The snapshot of a document. None: the document names none."""
        table, _, snapshot = document.decode(errors="replace").partition("\n")
        return cls(table, int(snapshot)) if snapshot.isdecimal() else None

    def document(self) -> bytes:
        """The snapshot as a document."""
        return f"{self.table}\n{self.snapshot}".encode()


def added_since(snapshots: Iterable[Any], known: ReadSnapshot, now: ReadSnapshot) -> set[int] | None:
    """The ids of the snapshots whose files may hold rows that were not read at an earlier snapshot.

    A snapshot that only moves rows, as a compaction makes, adds files with rows that were read, unless a snapshot
    before it added rows.

    Args:
        snapshots: the snapshots of the table.
        known: the snapshot that was read.
        now: the present snapshot.

    Returns:
        The ids. None: the snapshots do not show which files were read.
    """
    if known.table != now.table:
        return None
    by_id = {snapshot.snapshot_id: snapshot for snapshot in snapshots}
    later = []
    current = now.snapshot
    while current != known.snapshot:
        snapshot = by_id.get(current)
        if snapshot is None:
            return None
        later.append(snapshot)
        current = snapshot.parent_snapshot_id or 0
    added: set[int] = set()
    for snapshot in reversed(later):
        moves = snapshot.summary is not None and snapshot.summary.operation == Operation.REPLACE
        if added or not moves:
            added.add(snapshot.snapshot_id)
    return added
