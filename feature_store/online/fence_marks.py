"""The marks of a generation's fences: checked before each merge, and set again when the generation starts over.

born     the tag that the serving plan names for the generation
merges   how often the fences were moved; a key beside the fences holds the same number
layout   in a generation that is served: a digest of the layout of its tiles
start    in a generation that is served: `start_us` of its plan, empty when it has none
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feature_store.errors import FencesLostError
from feature_store.online import keys

if TYPE_CHECKING:
    from feature_store.online.keyspace import Keyspace
    from feature_store.registry.serving_plan import TilesPlan

_MOST_DIGITS = 19
BORN, MERGES, LAYOUT, START, TOPIC = b"born", b"merges", b"layout", b"start", b"topic"


def lost(keyspace: Keyspace, tiles: TilesPlan) -> FencesLostError | None:
    """The error for a generation whose fences lack the mark of its plan; None when they have it.

    Raises:
        StoreConnectionError, StoreTimeoutError: Redis cannot be reached, or does not answer in time.
    """
    if not tiles.mark:
        return None
    for bucket in range(tiles.buckets):
        with keyspace.commands(bucket) as redis, redis.pipeline(transaction=True) as together:
            together.hgetall(keys.fences_key(keyspace.project, bucket, tiles))
            together.get(keys.merges_key(keyspace.project, bucket, tiles))
            fences, merges = together.execute(raise_on_error=False)
        problem = _problem(tiles, fences, merges)
        if problem:
            return fences_lost(tiles, bucket, problem)
    return None


def mark(keyspace: Keyspace, tiles: TilesPlan, bucket: int) -> None:
    """Write the plan's mark into a bucket's fences, with 0 merges. The bucket's tiles must be deleted before."""
    with keyspace.commands(bucket) as redis, redis.pipeline(transaction=True) as together:
        together.hset(keys.fences_key(keyspace.project, bucket, tiles), mapping={BORN: tiles.mark, MERGES: 0})
        together.set(keys.merges_key(keyspace.project, bucket, tiles), 0)
        together.execute()


def topic_id(keyspace: Keyspace, tiles: TilesPlan) -> str:
    """The id of the topic whose events are merged into a generation; empty when no id was recorded."""
    with keyspace.commands(0) as redis:
        found = redis.hget(keys.fences_key(keyspace.project, 0, tiles), TOPIC)
    return "" if found is None else str(found.decode(errors="replace"))


def note_topic_id(keyspace: Keyspace, tiles: TilesPlan, found: str) -> None:
    """Record the id of the topic whose events are merged into a generation, unless an id was recorded before."""
    if found and tiles.mark:
        with keyspace.commands(0) as redis:
            redis.hsetnx(keys.fences_key(keyspace.project, 0, tiles), TOPIC, found)


def fences_lost(tiles: TilesPlan, bucket: int | None, problem: str) -> FencesLostError:
    """The error for fences that do not belong to a generation."""
    return FencesLostError(
        f"fences of {tiles.view}, generation {tiles.generation}" + ("" if bucket is None else f", bucket {bucket}"),
        problem=f"{problem}; events that are merged already would count again, so nothing is merged into the view",
        hint=f"run `feature-store backfill {tiles.view}` (with --until, if its source has a history), which fills the "
        "view anew; and see that Redis evicts no keys",
    )


def is_offset(value: bytes) -> bool:
    """Whether a fence's value is an offset of an event: a number of 63 bits in decimal digits."""
    return value.isdigit() and len(value) <= _MOST_DIGITS and int(value) < 1 << 63


def _problem(tiles: TilesPlan, fences: Any, merges: Any) -> str:
    if isinstance(fences, Exception) or isinstance(merges, Exception):
        return "a key is of another type"
    if BORN not in fences:
        return "they are gone"
    if fences[BORN] != tiles.mark.encode():
        return "they are of another generation"
    if any(b":" in name and not is_offset(at) for name, at in fences.items()):
        return "a fence is not a number"
    return "" if fences.get(MERGES, b"") == merges else "they, or the key beside them, come from an older copy"
