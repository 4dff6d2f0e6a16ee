"""The publication of a project: the serving plan, and the epoch of each bucket, which belong together.

One script writes the plan, the epochs and the marks of new generations of tiles. Where one script may not name the keys
of all buckets (see `Topology.together`), a publication has three steps:

    prepare    the other buckets get the marks of new generations, which no plan names yet
    publish    bucket 0, and the buckets together with it, get the plan, its epoch and the marks, at once
    announce   the other buckets get the epoch and the marks

Readers compare the epochs of all replies, so no answer mixes two plans: while buckets have different epochs, a request
that reads several buckets is repeated. Writers name the epoch of the bucket that they write, so no writer of the new
plan writes a bucket before its marks are there. Generations that the new plan retires are deleted after the last step.

Redis can lose these keys one by one: a key is evicted or deleted, or a part of an older snapshot is restored. So the
plan names the epoch that it was published with, and each reader compares. An incomplete publication is
refused, with the reason; the next apply publishes again over it. A publisher that is killed between two steps leaves
such a publication.

Each generation of a stream view has a *mark*: a random tag, which the plan names and each bucket's fences hold. If the
mark is missing, the fences were lost, and the tiles hold events that no fence counts.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from feature_store.errors import ConflictError, DamagedPlanError, LostWriteError, NotPublishedError
from feature_store.online import keys
from feature_store.online.published_plan import PublishedPlan
from feature_store.registry.plan_document import plan_from_json, plan_to_json
from feature_store.registry.serving_plan import ServingPlan, TilesPlan
from feature_store.registry.soundness import MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from feature_store.online.keyspace import Keyspace

_MARKS = files("feature_store.online").joinpath("lua/marks.lua").read_text()
PUBLISH = _MARKS + files("feature_store.online").joinpath("lua/publish.lua").read_text()
ANNOUNCE = _MARKS + files("feature_store.online").joinpath("lua/announce.lua").read_text()
DROP_EPOCH = files("feature_store.online").joinpath("lua/drop_epoch.lua").read_text()
_DONE, _OTHER_SERVER = 1, -2
# A reader may see a publication between two of its steps. It reads the publication again up to _LOOKS times, every
# _BETWEEN_LOOKS_S seconds, before the publication counts as incomplete.
_LOOKS, _BETWEEN_LOOKS_S = 10, 0.02
# Attempts to announce a bucket again after a publisher that lost the race announced it meanwhile.
_ATTEMPTS = 10


@dataclass(frozen=True)
class Publication:
    """A publication as Redis holds it, complete or not.

    Attributes:
        document: the plan's document; None when its key is absent or has another type.
        epochs: the epoch of each known bucket; None when its key is absent or has another type.
        plan: the parsed document; None when it is absent, cannot be parsed, or belongs to another publication.
        problem: why the publication is incomplete; None when it is complete, or nothing is published.
    """

    document: bytes | None
    epochs: tuple[bytes | None, ...]
    plan: ServingPlan | None
    problem: DamagedPlanError | None

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a document nor an epoch."""
        return self.document is None and not any(self.epochs)

    @property
    def published(self) -> PublishedPlan:
        """The plan that is published; the publication must be complete."""
        assert self.plan is not None
        assert self.epochs[0] is not None
        return PublishedPlan(self.plan, self.epochs[0])


class PlanStore:
    """Reads and writes the publication of a project.

    Args:
        keyspace: the project's keys.
    """

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace, self._project = keyspace, keyspace.project
        self._parsed: tuple[bytes, ServingPlan | None] = b"", None

    def find(self) -> Publication:
        """The publication that Redis holds, complete or not.

        Raises:
            NotPublishedError: the plan is of another version of the library.
            StoreConnectionError, StoreTimeoutError: Redis cannot be reached, or does not answer in time.
        """
        found = self._look()
        for _ in range(_LOOKS):
            if found.problem is None or len(self._keyspace.buckets_together(len(found.epochs))) == 1:
                break
            time.sleep(_BETWEEN_LOOKS_S)
            found = self._look()
        return found

    def published(self) -> PublishedPlan | None:
        """The plan that is published; None when nothing is published.

        Raises:
            DamagedPlanError: the publication is incomplete, or cannot be read.
            NotPublishedError, StoreConnectionError, StoreTimeoutError: as `find`.
        """
        found = self.find()
        if found.problem is not None:
            raise found.problem
        return None if found.is_empty else found.published

    def required(self) -> PublishedPlan:
        """The plan that is published.

        Raises:
            NotPublishedError: no plan is published.
            DamagedPlanError, StoreConnectionError, StoreTimeoutError: as `published`.
        """
        published = self.published()
        if published is None:
            raise NotPublishedError(
                f"project {self._project}",
                expected="a published serving plan",
                got=f"none in Redis at {self._keyspace.shown}",
                hint="run `feature-store apply`",
            )
        return published

    def publish(
        self, plan: ServingPlan, *, over: PublishedPlan | Publication | None, written_to: bytes = b""
    ) -> PublishedPlan:
        """Publish a plan in place of another, for all readers and writers.

        Args:
            plan: the plan.
            over: the publication that the caller has read, complete or not; None when nothing is published.
            written_to: as in `OnlineStore.publish`.

        Raises:
            ConflictError: another plan than `over` is published.
            LostWriteError: another server than `written_to` answers, and may lack rows that the first acknowledged.
        """
        epoch = secrets.token_hex(keys.EPOCH_BYTES // 2).encode()
        old = over.plan if over is not None else None
        plan = replace(_with_marks(plan, old), epoch=epoch.decode())
        marks = list(self._marks(plan, old))
        first, *others = self._keyspace.buckets_together(plan.all_buckets)
        expected = {bucket: self._expected_epoch(over, bucket) for group in others for bucket in group}
        for group in others:
            new = [mark for mark in marks if mark.bucket in group and mark.how == "new"]
            self._refuse_unless_done(self._announce(group, b"", expected, new, None, written_to))
        done = self._publish(first, plan, over, [m for m in marks if m.bucket in first], written_to)
        if done not in (_DONE, _OTHER_SERVER) and self._texts(1)[1][0] == epoch:
            done = _DONE  # the answer to a first call was lost, and a second one found the plan published
        self._refuse_unless_done(done)
        for group in others:
            self._announce_until_done(group, expected, [m for m in marks if m.bucket in group], plan, written_to)
        return PublishedPlan(plan, epoch)

    def stored_buckets(self) -> int | None:
        """The number of buckets in which keys are stored: the published plan's, or that of a lost plan, by its epochs.

        None: nothing is published.
        """
        found = self.find()
        if found.plan is not None:
            return found.plan.buckets
        buckets = 0
        while self._read_texts(buckets, [(keys.epoch_key(self._project, buckets), keys.EPOCH_BYTES)])[0] is not None:
            buckets += 1
        return buckets or None

    def drop_epochs(self, published: PublishedPlan, buckets: int) -> None:
        """See `OnlineStore.drop_epochs`. Another plan's epochs stay."""
        for bucket in range(buckets, published.plan.all_buckets):
            with self._keyspace.commands(bucket) as redis:
                redis.eval(DROP_EPOCH, 1, keys.epoch_key(self._project, bucket), published.epoch)

    # -- small parts --------------------------------------------------------------------------------------------

    def _look(self) -> Publication:
        buckets = self._parsed[1].all_buckets if self._parsed[1] is not None else 1
        while True:
            document, epochs = self._texts(buckets)
            plan, problem = None, None
            if document is not None:
                try:
                    plan = self._read(document)
                except DamagedPlanError as error:
                    problem = error
            if plan is None or plan.all_buckets <= buckets:
                break
            buckets = plan.all_buckets
        if problem is None and (document is not None or any(epochs)):
            plan, problem = self._checked(plan, epochs[: plan.all_buckets] if plan is not None else epochs)
        return Publication(document, tuple(epochs), plan, problem)

    def _texts(self, buckets: int) -> tuple[bytes | None, list[bytes | None]]:
        """The plan's document, at most MOST_BYTES + 1 bytes of it, and the epochs; None as in `_read_texts`."""
        document: bytes | None = None
        epochs: list[bytes | None] = [None] * buckets
        for group in self._keyspace.buckets_together(buckets):
            names = [(keys.epoch_key(self._project, bucket), keys.EPOCH_BYTES) for bucket in group]
            if group[0] == 0:
                document, *found = self._read_texts(0, [(keys.plan_key(self._project), MOST_BYTES), *names])
            else:
                found = self._read_texts(group[0], names)
            for bucket, epoch in zip(group, found, strict=True):
                epochs[bucket] = epoch
        return document, epochs

    def _read_texts(self, bucket: int, names: Sequence[tuple[bytes, int]]) -> list[bytes | None]:
        """The values of keys, each up to a last byte, in one transaction; None if a key is absent or not a string."""
        with self._keyspace.commands(bucket) as redis, redis.pipeline(transaction=True) as together:
            for name, last in names:
                together.getrange(name, 0, last)
            found = together.execute(raise_on_error=False)
            for one in found:
                if isinstance(one, Exception) and not str(one).startswith("WRONGTYPE"):
                    raise one
        return [one if isinstance(one, bytes) and one else None for one in found]

    def _publish(
        self,
        buckets: Sequence[int],
        plan: ServingPlan,
        over: PublishedPlan | Publication | None,
        marks: Sequence[_Mark],
        written_to: bytes,
    ) -> int:
        epochs = [keys.epoch_key(self._project, bucket) for bucket in buckets]
        names = [keys.plan_key(self._project), *epochs, *(key for mark in marks for key in mark.keys(self._project))]
        about = (*_expected(over), plan_to_json(plan), plan.epoch, len(buckets), written_to, MOST_BYTES)
        with self._keyspace.commands(0) as redis:
            return int(redis.eval(PUBLISH, len(names), *names, *about, *_arguments(marks, plan)))

    def _announce(
        self,
        buckets: Sequence[int],
        epoch: bytes,
        expected: dict[int, bytes],
        marks: Sequence[_Mark],
        plan: ServingPlan | None,
        written_to: bytes,
    ) -> int:
        names = [keys.epoch_key(self._project, bucket) for bucket in buckets]
        names += [key for mark in marks for key in mark.keys(self._project)]
        about = (epoch, len(buckets), written_to, keys.EPOCH_BYTES, *(expected[bucket] for bucket in buckets))
        with self._keyspace.commands(buckets[0]) as redis:
            return int(redis.eval(ANNOUNCE, len(names), *names, *about, *_arguments(marks, plan)))

    def _read(self, document: bytes) -> ServingPlan:
        # Nearly every call reads the document, which seldom changes. For 5,000 features, parsing takes 30 ms.
        known, plan = self._parsed
        if plan is None or known != document:
            plan = plan_from_json(document)
            self._parsed = document, plan
        return plan

    def _checked(
        self, plan: ServingPlan | None, epochs: list[bytes | None]
    ) -> tuple[ServingPlan | None, DamagedPlanError | None]:
        """The plan, unless it belongs to none of the stored epochs, and why the publication is incomplete."""
        if plan is None:
            return None, _incomplete(self._project, "the plan's key is lost, though an epoch is there")
        try:
            plan.refuse_other_epoch(self._project, next((epoch for epoch in epochs if epoch), plan.epoch.encode()))
        except DamagedPlanError as error:
            return (None if plan.epoch.encode() not in epochs else plan), error
        # Epochs that only retired generations need are deleted before the plan without these is published.
        lost = [
            str(bucket)
            for bucket, epoch in enumerate(epochs)
            if (epoch != epochs[0] if epoch is not None else bucket < plan.needed_buckets)
        ]
        if lost:
            return plan, _incomplete(self._project, f"the epoch of bucket {', '.join(lost)} is lost or of another plan")
        return plan, None

    def _announce_until_done(
        self,
        buckets: Sequence[int],
        expected: dict[int, bytes],
        marks: Sequence[_Mark],
        plan: ServingPlan,
        written_to: bytes,
    ) -> None:
        """Announce a published plan. A publisher that lost the race may have changed the buckets meanwhile.

        Raises:
            ConflictError: another plan is published.
            LostWriteError: another server answers.
        """
        epoch = plan.epoch.encode()
        done = self._announce(buckets, epoch, expected, marks, plan, written_to)
        for _ in range(_ATTEMPTS):
            if done in (_DONE, _OTHER_SERVER):
                break
            _, epochs = self._texts(max(buckets) + 1)
            if epochs[0] != epoch:
                break
            if all(epochs[bucket] == epoch for bucket in buckets):
                return  # the answer to the call before was lost
            done = self._announce(buckets, epoch, {b: epochs[b] or b"" for b in buckets}, marks, plan, written_to)
        self._refuse_unless_done(done)

    def _refuse_unless_done(self, done: int) -> None:
        if done == _OTHER_SERVER:
            raise LostWriteError(
                f"serving plan of {self._project}",
                problem="Redis was restarted or replaced while rows of the new plan were written",
                hint="run it again: it goes on with what is there",
            )
        if done != _DONE:
            raise ConflictError(
                f"serving plan of {self._project}",
                expected="the plan that was published before",
                got="another, published meanwhile",
                hint="plan and apply again",
            )

    def _expected_epoch(self, over: PublishedPlan | Publication | None, bucket: int) -> bytes:
        """The epoch of a bucket that a publication replaces; empty when there is none."""
        if over is None:
            return b""
        if isinstance(over, PublishedPlan):
            if bucket < over.plan.needed_buckets:
                return over.epoch
        elif bucket < len(over.epochs):
            return over.epochs[bucket] or b""
        (epoch,) = self._read_texts(bucket, [(keys.epoch_key(self._project, bucket), keys.EPOCH_BYTES)])
        return epoch or b""

    def _marks(self, plan: ServingPlan, old: ServingPlan | None) -> Iterator[_Mark]:
        """Per generation and bucket, how the fences are marked."""
        known = _generations(old)
        for tiles in (*plan.tiles, *plan.filling_tiles):
            was = known.get((tiles.view, tiles.generation))
            for bucket in range(tiles.buckets):
                if was is None:
                    yield _Mark(tiles, bucket, "new")
                elif was.mark:
                    yield _Mark(tiles, bucket, "keep")
                elif self._has_fences(tiles, bucket) or not self._has_tiles(tiles, bucket):
                    yield _Mark(tiles, bucket, "adopt")

    def _has_fences(self, tiles: TilesPlan, bucket: int) -> bool:
        with self._keyspace.commands(bucket) as redis:
            return bool(redis.exists(keys.fences_key(self._project, bucket, tiles)))

    def _has_tiles(self, tiles: TilesPlan, bucket: int) -> bool:
        return self._keyspace.has_any(bucket, keys.tiles_prefix(self._project, bucket, tiles))


class _Mark(NamedTuple):
    """How the fences of a generation are marked in a bucket: see lua/marks.lua."""

    tiles: TilesPlan
    bucket: int
    how: str

    def keys(self, project: str) -> tuple[bytes, bytes]:
        """The keys of the fences, and of the number of merges."""
        return keys.fences_key(project, self.bucket, self.tiles), keys.merges_key(project, self.bucket, self.tiles)


def _arguments(marks: Sequence[_Mark], plan: ServingPlan | None) -> list[str]:
    """The marks as arguments of the scripts, with the layout digest of each generation that the plan serves."""
    arguments = []
    for tiles, _, how in marks:
        is_served = plan is not None and tiles in plan.tiles
        start = "" if tiles.start_us is None else str(tiles.start_us)
        arguments += [how, tiles.mark, layout_digest(tiles) if is_served else "", start]
    return arguments


def layout_digest(tiles: TilesPlan) -> str:
    """A digest of a generation's layout, 16 hex digits. An equal digest means that the generation fits another plan."""
    return hashlib.sha256(repr(tiles.layout).encode()).hexdigest()[:16]


def _expected(over: PublishedPlan | Publication | None) -> tuple[bytes, str]:
    """The epoch, and the SHA-1 of the document, that a publication replaces."""
    if isinstance(over, PublishedPlan):
        return over.epoch, ""
    document, epoch = (over.document, over.epochs[0]) if over is not None else (None, None)
    return epoch or b"", hashlib.sha1(document or b"", usedforsecurity=False).hexdigest()


def _with_marks(plan: ServingPlan, old: ServingPlan | None) -> ServingPlan:
    """The plan with a mark for each generation of tiles: its own mark, or a new one."""
    known = _generations(old)

    def marked(generations: tuple[TilesPlan, ...]) -> tuple[TilesPlan, ...]:
        found = []
        for tiles in generations:
            was = known.get((tiles.view, tiles.generation))
            mark = (was.mark if was is not None else "") or secrets.token_hex(8)
            found.append(replace(tiles, mark=mark))
        return tuple(found)

    return replace(plan, tiles=marked(plan.tiles), filling_tiles=marked(plan.filling_tiles))


def _generations(plan: ServingPlan | None) -> dict[tuple[str, int], TilesPlan]:
    if plan is None:
        return {}
    found = (*plan.retired_tiles, *plan.tiles, *plan.filling_tiles)
    return {(tiles.view, tiles.generation): tiles for tiles in found}


def _incomplete(project: str, problem: str) -> DamagedPlanError:
    hint = "run `feature-store apply`: it publishes the plan again and keeps what is stored"
    return DamagedPlanError(f"serving plan of {project}", problem=problem, hint=hint)
