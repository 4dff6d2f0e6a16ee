"""Merges deltas of stream views into their tiles, and moves the fences in the same call.

A fence is, per bucket and source of events (`<topic>:<partition>`), the offset of the next event to merge. A call
names the fences that it expects and the fences that it leaves. If a stored fence differs, the call changes nothing.
So every event is merged once, however often it is sent: tiles and fences are written, lost and restored together.

A Redis that loses keys one by one may lose the fences and keep the tiles. So the fences hold the generation's mark (see
publication.py), and a call that does not find the mark changes nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feature_store.errors import CorruptRowError, FenceError, StaleWriteError, StoreReplyError
from feature_store.functions import LIFETIME_US
from feature_store.online import keys
from feature_store.online.fence_marks import BORN, fences_lost, is_offset
from feature_store.online.merge_script import merge_script
from feature_store.online.redis.key_writer import KeyWriter
from feature_store.online.redis.resp import argument
from feature_store.online.redis.script_connection import ScriptCalls
from feature_store.online.tile_layout import TileValueLayout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from feature_store.definitions.dtypes import DType
    from feature_store.online.published_plan import PublishedPlan
    from feature_store.online.redis.topology import Topology
    from feature_store.registry.serving_plan import TilesPlan

_STALE, _FENCED, _LOST = -1, -2, -3
# A field of the fences' hash that is no fence. The name of a fence has a colon.
LATE = b"late"

# By source of events: the expected offset of its fence (None: there is no fence yet), and the new offset.
Advances = dict[str, tuple[int | None, int]]


class Merge(NamedTuple):
    """The deltas that one call merges, in one bucket.

    Attributes:
        bucket: the bucket of all entity keys.
        entity_keys: the distinct entities, as `keys.encode` writes them.
        counts: (len(entity_keys),) int, the number of records of each entity.
        records: (sum of counts,) of the layout's record: the deltas, entity after entity, each entity's in order.
        advances: how the call moves the fences.
    """

    bucket: int
    entity_keys: Sequence[bytes]
    counts: np.ndarray[Any, Any]
    records: np.ndarray[Any, Any]
    advances: Advances


class TileWriter:
    """Merges into one generation of one stream view.

    Args:
        topology: the Redis servers.
        published: the published plan. A merge is refused once another plan is published.
        tiles: one of its stream views, or a generation that is being filled.

    Raises:
        StoreConnectionError, StoreTimeoutError: the server cannot be reached.
    """

    def __init__(self, topology: Topology, published: PublishedPlan, tiles: TilesPlan) -> None:
        self._project, self._epoch = published.plan.project, published.epoch
        self.buckets = tiles.buckets
        self.plan, self.layout = tiles, TileValueLayout(tiles)
        self.dtypes: list[DType] = [dtype for _, dtype in self.layout.join_keys]
        longest_us = tiles.windows.longest_us
        self._keep_ms = -(-longest_us // 1000) if published.plan.expire_keys and longest_us < LIFETIME_US else 0
        width = keys.fixed_width(self.dtypes)
        self._key_writers = (
            [KeyWriter(self.layout.prefix(self._project, bucket), width) for bucket in range(self.buckets)]
            if width is not None
            else None
        )
        layout = self.layout
        self._before = [
            argument(layout.fingerprint),
            argument(bytes(layout.size - len(layout.fingerprint) - layout.tiles.record.itemsize)),
            argument(layout.record_format.encode()),
            argument(layout.rings_text.encode()),
            argument(b"%d" % (layout.longest_ring + 1)),
        ]
        self._under_way: deque[Merge] = deque()
        self._epoch_keys = [keys.epoch_key(self._project, bucket) for bucket in range(self.buckets)]
        self._calls = ScriptCalls(topology, merge_script(layout.states), f"merge into {tiles.view}")
        self._sha_argument = argument(self._calls.sha)

    def fences(self) -> list[dict[str, int]]:
        """Per bucket and source of events, the offset of the next event to merge.

        Raises:
            FencesLostError: the fences lack the generation's mark, or a fence is not a number.
            StoreConnectionError, StoreTimeoutError: Redis went away or does not answer in time.
        """
        fences = []
        for bucket, found in enumerate(self._hashes()):
            if self.plan.mark and found.get(BORN) != self.plan.mark.encode():
                raise fences_lost(
                    self.plan, bucket, "they are of another generation" if BORN in found else "they are gone"
                )
            offsets = {field.decode(errors="replace"): value for field, value in found.items() if b":" in field}
            if not all(map(is_offset, offsets.values())):
                raise fences_lost(self.plan, bucket, "a fence is not a number")
            fences.append({field: int(value) for field, value in offsets.items()})
        return fences

    def late(self) -> int:
        """How many deltas came too late for every window since the generation began.

        Raises:
            StoreConnectionError, StoreTimeoutError: as `fences`.
        """
        counts = [found.get(LATE, b"0") for found in self._hashes()]
        return sum(int(count) for count in counts if is_offset(count))

    def merge(self, merge: Merge) -> list[int]:
        """Merge, and wait for the answer. Returns the indexes of the records that came too late for every window.

        Raises:
            StaleWriteError: another plan was published meanwhile; nothing was merged.
            FenceError: a fence is elsewhere; nothing was merged.
            FencesLostError: the fences are lost or come from an older copy; nothing was merged.
            CorruptRowError: a stored value has another layout; nothing was merged.
            StoreReplyError: Redis refuses the merge (it is full, a replica, …); nothing was merged.
            StoreConnectionError, StoreTimeoutError: Redis went away or does not answer in time. The stored fences tell
                whether it merged.
        """
        self.send(merge)
        return self.answer()

    def send(self, merge: Merge) -> None:
        """Send a merge. `answer()` takes the answers in the order of sending.

        A merge that is sent before an earlier answer is taken must expect the fences that the earlier merge leaves. If
        the earlier merge is refused, these fences refuse the later merge too.

        Raises:
            StoreConnectionError, StoreTimeoutError: as `merge`.
        """
        self._calls.send(self._epoch_keys[merge.bucket], self._command(merge))
        self._under_way.append(merge)

    def answer(self) -> list[int]:
        """The answer to the oldest merge whose answer was not taken yet; see `merge`."""
        merge = self._under_way.popleft()
        reply = self._calls.answer()
        if isinstance(reply, list):
            return [number - 1 for number in reply]
        if reply == _STALE:
            raise StaleWriteError(
                f"merge into {self.plan.view}",
                expected="the serving plan that the writer was made with",
                got="another, published meanwhile",
                hint="make a writer of the new plan and go on at its fences",
            )
        if reply == _FENCED:
            raise FenceError(
                f"merge into {self.plan.view}",
                expected=f"fences at {_expected(merge.advances)}",
                got="others",
                hint="go on at the stored fences",
            )
        if reply == _LOST:
            raise fences_lost(self.plan, merge.bucket, "they are gone, or come from an older copy")
        key = keys.decode(self.dtypes, merge.entity_keys[-reply - 4])
        raise CorruptRowError(
            f"project {self._project}, tiles of {self.plan.view}({key})",
            expected=f"{self.layout.size} bytes that start with {self.layout.fingerprint.hex()}",
            got="another value",
            hint="something else wrote this key: delete the entity and backfill the view",
        )

    @property
    def under_way(self) -> int:
        """How many merges wait for their answer."""
        return len(self._under_way)

    def close(self) -> None:
        """Close the connection."""
        self._calls.close()

    def __enter__(self) -> TileWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _command(self, merge: Merge) -> bytes:
        count = len(merge.entity_keys)
        return b"".join(
            [
                b"*%d\r\n$7\r\nEVALSHA\r\n" % (count + 18),
                self._sha_argument,
                argument(b"%d" % (count + 3)),
                argument(self._epoch_keys[merge.bucket]),
                argument(keys.fences_key(self._project, merge.bucket, self.plan)),
                argument(keys.merges_key(self._project, merge.bucket, self.plan)),
                self._key_arguments(merge),
                argument(self._epoch),
                argument(_moves(merge.advances)),
                *self._before,
                argument(" ".join(map(str, merge.counts.tolist())).encode()),
                argument(merge.records.tobytes()),
                argument(b"%d" % self._keep_ms),
                argument(self.plan.mark.encode()),
                argument(b"%d" % self.layout.size),
            ]
        )

    def _key_arguments(self, merge: Merge) -> bytes:
        if self._key_writers is None:
            prefix = self.layout.prefix(self._project, merge.bucket)
            return b"".join([argument(prefix + key) for key in merge.entity_keys])
        if not merge.entity_keys:
            return b""
        return self._key_writers[merge.bucket].write(len(merge.entity_keys), b"".join(merge.entity_keys))

    def _hashes(self) -> list[dict[bytes, bytes]]:
        head = b"*2\r\n$7\r\nHGETALL\r\n"
        named = [keys.fences_key(self._project, bucket, self.plan) for bucket in range(self.buckets)]
        try:
            listed = self._calls.replies([(key, head + argument(key)) for key in named])
        except StoreReplyError as error:
            if error.code != "WRONGTYPE":
                raise
            raise fences_lost(self.plan, None, "a key is of another type") from error
        return [dict(zip(reply[::2], reply[1::2], strict=True)) for reply in listed]


def _moves(advances: Mapping[str, tuple[int | None, int]]) -> bytes:
    return " ".join(f"{source} {_shown(at)} {to}" for source, (at, to) in advances.items()).encode()


def _expected(advances: Advances) -> str:
    return ", ".join(f"{source} {_shown(at)}" for source, (at, _) in advances.items())


def _shown(offset: int | None) -> str:
    return "-" if offset is None else str(offset)
