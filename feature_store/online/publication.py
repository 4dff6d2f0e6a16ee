"""What is published of a project: the serving plan, and the epoch of each bucket, which belong together.

A publication writes all of them, and the marks of new generations of tiles, in one script. Redis can still lose them
one by one: a key is evicted or deleted, or a part of an older snapshot is restored. So the plan names the epoch that
it was published with, and whoever reads a plan compares. An incomplete publication is refused, with the reason; the
next apply publishes again over it.

Each generation of a stream view has a *mark*: a random tag, which the plan names and each bucket's fences hold.
Fences without the tag are not those that the generation began with: they were lost, and events are merged into its
tiles that nobody knows of.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from feature_store.errors import ConflictError, DamagedPlanError, LostWriteError
from feature_store.online import keys
from feature_store.online.conversation import PublishedPlan
from feature_store.registry.compile import tiles_layout_of
from feature_store.registry.serving_plan import ServingPlan, TilesPlan
from feature_store.registry.soundness import MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from feature_store.online.redis.endpoint import Endpoint

PUBLISH = files("feature_store.online").joinpath("lua/publish.lua").read_text()
_OTHER_SERVER = -2


@dataclass(frozen=True)
class Found:
    """What Redis holds of a publication.

    Attributes:
        document: the plan's; None: there is none, or the key holds another type.
        epochs: of each bucket that is known of; None: there is none, or the key holds another type.
        plan: the document, read; None: there is none, it cannot be read, or it is of another publication.
        problem: why the publication is incomplete; None: it is complete, or nothing is published.
    """

    document: bytes | None
    epochs: tuple[bytes | None, ...]
    plan: ServingPlan | None
    problem: DamagedPlanError | None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing at all."""
        return self.document is None and not any(self.epochs)

    @property
    def published(self) -> PublishedPlan:
        """The plan that is published; the publication must be complete."""
        assert self.plan is not None
        assert self.epochs[0] is not None
        return PublishedPlan(self.plan, self.epochs[0])


class Publications:
    """Reads and writes what is published of a project.

    Args:
        endpoint: the Redis server.
        client: a redis-py client of it.
        project: the project's name.
    """

    def __init__(self, endpoint: Endpoint, client: Any, project: str) -> None:
        self._endpoint, self._redis, self._project = endpoint, client, project
        self._parsed: tuple[bytes, ServingPlan | None] = b"", None

    def find(self) -> Found:
        """What Redis holds, complete or not.

        Raises:
            NotPublishedError: the plan is of another version of the library.
            StoreConnectionError, StoreTimeoutError: Redis cannot be reached, or does not answer in time.
        """
        buckets = self._parsed[1].buckets if self._parsed[1] is not None else 1
        while True:
            document, epochs = self._texts(buckets)
            plan, problem = None, None
            if document is not None:
                try:
                    plan = self._read(document)
                except DamagedPlanError as error:
                    problem = error
            if plan is None or plan.buckets <= buckets:
                break
            buckets = plan.buckets
        if problem is None and (document is not None or any(epochs)):
            plan, problem = self._checked(plan, epochs[: plan.buckets] if plan is not None else epochs)
        return Found(document, tuple(epochs), plan, problem)

    def publish(
        self,
        plan: ServingPlan,
        *,
        over: PublishedPlan | Found | None,
        has_tiles: Callable[[TilesPlan, int], bool],
        written_to: bytes = b"",
    ) -> PublishedPlan:
        """Publish a plan in the place of another, at once for all readers and writers.

        Args:
            plan: the plan.
            over: what the caller has found published, complete or not; None: nothing.
            has_tiles: whether Redis holds tiles of a generation in a bucket.
            written_to: as of `OnlineStore.publish`.

        Raises:
            ConflictError: something else than `over` is published.
            LostWriteError: another server answers, which may lack rows that the other acknowledged.
        """
        epoch = secrets.token_hex(keys.EPOCH_BYTES // 2).encode()
        plan = replace(_with_marks(plan, over.plan if over is not None else None), epoch=epoch.decode())
        names = [
            keys.plan_key(self._project),
            *(keys.epoch_key(self._project, bucket) for bucket in range(plan.buckets)),
        ]
        marks: list[bytes | str] = []
        for tiles, bucket, how in self._marks(plan, over.plan if over is not None else None, has_tiles):
            names += [
                keys.fences_key(self._project, bucket, tiles),
                keys.merges_key(self._project, bucket, tiles),
            ]
            layout = layout_digest(tiles) if tiles in plan.tiles else ""
            marks += [how, tiles.mark, layout, "" if tiles.start_us is None else str(tiles.start_us)]
        expected = _expected(over)
        with self._endpoint.errors():
            about = (*expected, plan.to_json(), epoch, plan.buckets, written_to, MOST_BYTES)
            done = self._redis.eval(PUBLISH, len(names), *names, *about, *marks)
        if done == _OTHER_SERVER:
            raise LostWriteError(
                f"serving plan of {self._project}",
                problem="Redis was restarted or replaced while rows of the new plan were written",
                hint="run it again: it goes on with what is there",
            )
        if not done:
            raise ConflictError(
                f"serving plan of {self._project}",
                expected="the plan that was published before",
                got="another, published meanwhile",
                hint="plan and apply again",
            )
        return PublishedPlan(plan, epoch)

    # -- small parts --------------------------------------------------------------------------------------------

    def _texts(self, buckets: int) -> tuple[bytes | None, list[bytes | None]]:
        """The plan's document, cut where none can be meant any more, and the epochs; None: none, or of another type."""
        with self._endpoint.errors(), self._redis.pipeline(transaction=True) as together:
            for name, last in [(keys.plan_key(self._project), MOST_BYTES), *self._epochs(buckets)]:
                together.getrange(name, 0, last)
            found = together.execute(raise_on_error=False)
        refused = next((one for one in found if isinstance(one, Exception) and not _is_other_type(one)), None)
        if refused is not None:
            raise self._endpoint.refused(refused)
        document, *epochs = [one if isinstance(one, bytes) and one else None for one in found]
        return document, epochs

    def _epochs(self, buckets: int) -> Iterator[tuple[bytes, int]]:
        for bucket in range(buckets):
            yield keys.epoch_key(self._project, bucket), keys.EPOCH_BYTES

    def _read(self, document: bytes) -> ServingPlan:
        # Read again for nearly every call, and seldom another: of 5,000 features it takes 30 ms to parse.
        known, plan = self._parsed
        if plan is None or known != document:
            plan = ServingPlan.from_json(document)
            self._parsed = document, plan
        return plan

    def _checked(
        self, plan: ServingPlan | None, epochs: list[bytes | None]
    ) -> tuple[ServingPlan | None, DamagedPlanError | None]:
        """The plan, if it belongs to the epochs that are there, and why the publication is incomplete."""
        if plan is None:
            return None, _incomplete(self._project, "the plan's key is lost, though an epoch is there")
        try:
            plan.refuse_other_epoch(self._project, next((epoch for epoch in epochs if epoch), plan.epoch.encode()))
        except DamagedPlanError as error:
            return (None if plan.epoch.encode() not in epochs else plan), error
        lost = [str(bucket) for bucket, epoch in enumerate(epochs) if epoch is None or epoch != epochs[0]]
        if lost:
            return plan, _incomplete(self._project, f"the epoch of bucket {', '.join(lost)} is lost or of another plan")
        return plan, None

    def _marks(
        self, plan: ServingPlan, old: ServingPlan | None, has_tiles: Callable[[TilesPlan, int], bool]
    ) -> Iterator[tuple[TilesPlan, int, str]]:
        """Per generation and bucket, how its fences are marked."""
        known = _generations(old)
        for tiles in (*plan.tiles, *plan.filling_tiles):
            was = known.get((tiles.view, tiles.generation))
            for bucket in range(plan.buckets):
                if was is None:
                    yield tiles, bucket, "new"
                elif was.mark:
                    yield tiles, bucket, "keep"
                elif self._has_fences(tiles, bucket) or not has_tiles(tiles, bucket):
                    yield tiles, bucket, "adopt"

    def _has_fences(self, tiles: TilesPlan, bucket: int) -> bool:
        with self._endpoint.errors():
            return bool(self._redis.exists(keys.fences_key(self._project, bucket, tiles)))


def layout_digest(tiles: TilesPlan) -> str:
    """What tells whether a generation holds what another plan of the view wants: 16 hex digits."""
    return hashlib.sha256(repr(tiles_layout_of(tiles)).encode()).hexdigest()[:16]


def _expected(over: PublishedPlan | Found | None) -> tuple[bytes, str]:
    """The epoch, and the SHA-1 of the document, that a publication replaces."""
    if isinstance(over, PublishedPlan):
        return over.epoch, ""
    document, epoch = (over.document, over.epochs[0]) if over is not None else (None, None)
    return epoch or b"", hashlib.sha1(document or b"", usedforsecurity=False).hexdigest()


def _with_marks(plan: ServingPlan, old: ServingPlan | None) -> ServingPlan:
    """The plan with a mark for each generation of tiles: the one that it has, or a new one."""
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


def _is_other_type(error: Exception) -> bool:
    return str(error).startswith("WRONGTYPE")


def _incomplete(project: str, problem: str) -> DamagedPlanError:
    hint = "run `feature-store apply`: it publishes the plan again and keeps what is stored"
    return DamagedPlanError(f"serving plan of {project}", problem=problem, hint=hint)
