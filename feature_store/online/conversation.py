"""What a client says and hears, without I/O: both clients run these steps and differ in how they exchange bytes.

Every request reads the epoch together with the rows, in one atomic command. If it is not the one that the client's
plan was read with, another plan has been published: the client reads it and asks again. So a request is answered by one
plan as a whole, and the rows of an old layout may go as soon as the new plan is there.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from feature_store.errors import (
    DamagedPlanError,
    FeatureStoreError,
    NotPublishedError,
    OnlineStoreError,
    RequestError,
    StoreTimeoutError,
)
from feature_store.online import keys
from feature_store.online.answer import PartialAnswer, RequestAnswer
from feature_store.online.observer import REFERENCES, UNKNOWN
from feature_store.online.offered import Offered
from feature_store.online.redis.resp import BoundedParser, ReplyParser, argument
from feature_store.online.response import OnlineResponse
from feature_store.online.service import CompiledService
from feature_store.online.shadow import Shadows, differ
from feature_store.registry.plan_document import plan_from_json
from feature_store.registry.serving_plan import ColumnPlan, ServicePlan, ServingPlan
from feature_store.registry.soundness import MOST_BYTES

if TYPE_CHECKING:
    from feature_store.online.observer import Observers
    from feature_store.online.request import GroupRequest, Request

P = TypeVar("P")
Exchange = tuple[bytes, ReplyParser]
# What a model was made for: see ModelMatch.fits.
MadeFor = tuple["Sequence[str] | None", "str | None"]
WHATEVER: MadeFor = (None, None)
# Plans are published by people and by jobs: two in the time of one request is rare, ten says that something is wrong.
MOST_RELOADS = 10
# Of a reply with an epoch alone, and of what a plan's reply holds beside the document. An error of Redis fits, too.
_MOST_EPOCH_BYTES = 4096
# How often a plan that cannot be read is read again under the same epoch: a restored copy of it has that epoch.
_REREAD_S = 1.0
# Lists of feature references that stay compiled, the ones used last. A list takes some 20 kB; a server asks for a few
# dozen, unless they come from its callers.
MOST_LISTS = 256


class PublishedPlan:
    """A serving plan as it was read, with the services compiled from it.

    Services by name are at most as many as the plan has. Of lists of feature references, the MOST_LISTS used last stay
    compiled.
    """

    def __init__(self, plan: ServingPlan, epoch: bytes, offered: Offered | None = None) -> None:
        self.plan, self.epoch, self._offered = plan, epoch, offered or Offered()
        self._compiled: dict[str, CompiledService] = {}
        self._shadows: dict[str, CompiledService] = {}
        # Not a method of this object: a cycle would keep a replaced plan, and all its lists, until the collector comes.
        self._of_references = lru_cache(MOST_LISTS)(partial(_compiled_of_references, plan, self._offered, epoch))

    def __contains__(self, service: object) -> bool:
        """Whether a service, by name, was compiled already."""
        return isinstance(service, str) and service in self._compiled

    def service(self, asked: str | Sequence[str]) -> CompiledService:
        """A service by name, or one made of feature references `view:feature`.

        Raises:
            NotFoundError, RequestError: it is not in the plan.
            TransformError: an on-demand function is not offered, or differs from the applied ones.
        """
        if not isinstance(asked, str):
            return self._of_references(_normalised(asked))
        compiled = self._compiled.get(asked)
        if compiled is None:
            compiled = self._compiled[asked] = self._compile(self.plan.service(asked))
        return compiled

    def knows(self, service: str) -> bool:
        """Whether the plan has a service of that name."""
        return service in self._compiled or any(one.name == service for one in self.plan.services)

    def shadow(self, compiled: CompiledService) -> CompiledService | None:
        """The service as a prune plan in the stage `shadow` would leave it; None when there is no such plan."""
        if not compiled.is_shadowed:
            return None
        found = self._shadows.get(compiled.name)
        if found is None:
            service = self.plan.service(compiled.name).shadowed()
            found = self._shadows[compiled.name] = self._compile(service)
        return found

    def _compile(self, service: ServicePlan) -> CompiledService:
        return CompiledService(self.plan, service, self._offered, self.epoch)


class Conversation:
    """The steps of a client of one project.

    Args:
        project: its name.
        offered: the on-demand functions that this process offers.
        observers: are told of plans and of reads in shadow.
    """

    def __init__(self, project: str, offered: Offered, observers: Observers) -> None:
        self._project, self._offered, self._observers = project, offered, observers
        self._published: PublishedPlan | None = None
        # The epoch of a plan that cannot be read, the reason, and when it was read.
        self._unreadable: tuple[bytes, NotPublishedError, float] | None = None
        self.shadows = Shadows(observers)
        self.skipped: Counter[str] = Counter()  # how often a row group or stream view was not read in time

    def get_online_features(
        self,
        service: str | Sequence[str],
        entity_rows: Mapping[str, Any],
        now: int | None,
        made_for: MadeFor = WHATEVER,
    ) -> Generator[Exchange, None, OnlineResponse]:
        """Read the features of entity rows."""
        for _ in range(MOST_RELOADS):
            published, compiled, request = yield from self._prepared(
                service, made_for, lambda compiled: compiled.prepare(entity_rows)
            )
            yield request.command, request.parser
            response = self.finish(published, compiled, request, now)
            if response is not None:
                return response
            self._published = None
        raise _too_many_plans(self._project)

    def get_in_time(
        self,
        service: str | Sequence[str],
        entity_rows: Mapping[str, Any],
        now: int | None,
        made_for: MadeFor = WHATEVER,
    ) -> Generator[Exchange, None, OnlineResponse]:
        """Read the features of entity rows, group by group; what throws a StoreTimeoutError in skips the rest."""
        for _ in range(MOST_RELOADS):
            published, compiled, request = yield from self._prepared(
                service, made_for, lambda compiled: compiled.prepare_by_group(entity_rows)
            )
            answered: list[GroupRequest] = []
            with contextlib.suppress(StoreTimeoutError):
                for read in request.reads:
                    yield read.command, read.parser
                    answered.append(read)
            if all(read.parser.saw_only(published.epoch) for read in answered):
                response = OnlineResponse(compiled, PartialAnswer(request, answered, _clock_unless(now)))
                self.skipped.update(response.skipped)
                return response
            self._published = None
        raise _too_many_plans(self._project)

    def _prepared(
        self, service: str | Sequence[str], made_for: MadeFor, prepare: Callable[[CompiledService], P]
    ) -> Generator[Exchange, None, tuple[PublishedPlan, CompiledService, P]]:
        """A request of the plan that the client knows; when that refuses it, of one that was published since.

        Whatever the reason of the refusal, another plan may not have it: an unknown name, a function that is not
        offered, a join key that the caller does not send any more. So a client never stays with an error that an older
        plan caused.
        """
        published = self._published or (yield from self.load_plan())
        try:
            compiled = _of_plan(published, service, made_for)
            return published, compiled, prepare(compiled)
        except FeatureStoreError:
            fresh = yield from self._newer_than(published)
            if fresh is None:
                raise
            compiled = _of_plan(fresh, service, made_for)
            return fresh, compiled, prepare(compiled)

    def _newer_than(self, published: PublishedPlan) -> Generator[Exchange, None, PublishedPlan | None]:
        """The plan that was published since; None when there is none.

        Asks for the epoch alone, some bytes: a caller that makes names up costs Redis no more than a read does, and a
        new plan is still seen at once.
        """
        if (yield from self._epoch()) == published.epoch:
            return None
        return (yield from self.load_plan())

    def _epoch(self) -> Generator[Exchange, None, bytes | None]:
        """The epoch of the plan that is published now."""
        parser = BoundedParser(_MOST_EPOCH_BYTES, f"epoch of {self._project}")
        yield b"*2\r\n$4\r\nMGET\r\n" + argument(keys.epoch_key(self._project, 0)), parser
        epoch: bytes | None = parser.replies[0][0]
        return epoch

    def label_of(self, service: str) -> str:
        """The name of a service for a label of metrics: UNKNOWN unless the plan has it, so that labels are few."""
        is_known = self._published is not None and self._published.knows(service)
        return service if is_known or service == REFERENCES else UNKNOWN

    def begin(
        self, service: str | Sequence[str], entity_rows: Mapping[str, Any], made_for: MadeFor = WHATEVER
    ) -> tuple[PublishedPlan, CompiledService, Request] | None:
        """The first request of `get_online_features`, or None when a plan must be read first.

        The steps of nearly every request are begin, exchange, finish; run so, without a generator, one entity is read
        1.5 µs sooner.
        """
        published = self._published
        if published is None or service not in published:
            return None
        compiled = published.service(service)
        if made_for is not WHATEVER and not compiled.match.fits(*made_for):
            return None
        try:
            return published, compiled, compiled.prepare(entity_rows)
        except RequestError:  # does another plan take it?
            return None

    def finish(
        self, published: PublishedPlan, compiled: CompiledService, request: Request, now: int | None
    ) -> OnlineResponse | None:
        """The response to an answered request; None when another plan was published since the client read its own."""
        parser = request.parser
        if not parser.fixed and not parser.saw_only(published.epoch):
            return None
        return OnlineResponse(compiled, RequestAnswer(request, _clock_unless(now)))

    def read_in_shadow(
        self, entity_rows: Mapping[str, Any], response: OnlineResponse
    ) -> Generator[Exchange, None, None]:
        """Read a request again, as the plan in the stage `shadow` would have it and as it was, and compare."""
        published, full = self._published, response.service
        if published is None or published.plan.version != response.plan_version:
            return
        pruned = published.shadow(full)
        assert pruned is not None and full.pruning is not None
        started = time.perf_counter()
        found = yield from self._read(published, pruned, entity_rows, response.now_us)
        between = time.perf_counter()
        again = yield from self._read(published, full, entity_rows, response.now_us)
        ended = time.perf_counter()
        if found is None or again is None:  # another plan is published
            return
        # What is written in the meantime is in the read before or in the one after.
        differing = differ(response, found) and differ(again, found)
        self.shadows.add(
            full.name, full.pruning.plan, full_s=ended - between, pruned_s=between - started, differing=differing
        )

    def shadow_failed(self, response: OnlineResponse) -> None:
        """Count a read in shadow that failed; the caller has the answer already."""
        service = response.service
        assert service.pruning is not None
        self.shadows.add(service.name, service.pruning.plan, full_s=0.0, pruned_s=0.0, failed=True)

    def _read(
        self, published: PublishedPlan, compiled: CompiledService, entity_rows: Mapping[str, Any], now_us: int
    ) -> Generator[Exchange, None, OnlineResponse | None]:
        request = compiled.prepare(entity_rows)
        yield request.command, request.parser
        return self.finish(published, compiled, request, now_us)

    def load_plan(self) -> Generator[Exchange, None, PublishedPlan]:
        """Read the published plan. One that cannot be read is read again when its epoch changes, or after a second."""
        if self._unreadable is not None:
            epoch, reason, read_at = self._unreadable
            if time.monotonic() - read_at < _REREAD_S and (yield from self._epoch()) == epoch:
                raise reason.with_traceback(None)
        command = b"".join(
            [
                b"*3\r\n$4\r\nMGET\r\n",
                argument(keys.plan_key(self._project)),
                argument(keys.epoch_key(self._project, 0)),
            ]
        )
        parser = BoundedParser(MOST_BYTES + _MOST_EPOCH_BYTES, f"serving plan of {self._project}")
        yield command, parser
        document, epoch = parser.replies[0]
        if document is None or epoch is None:
            raise _not_published(self._project, document, epoch)
        try:
            plan = plan_from_json(document)
            plan.refuse_other_epoch(self._project, epoch)
        except NotPublishedError as error:
            self._unreadable = epoch, error, time.monotonic()
            raise
        self._unreadable = None
        self._published = PublishedPlan(plan, epoch, self._offered)
        self._observers.plan_read(self._published.plan.version)
        return self._published


def _of_plan(published: PublishedPlan, service: str | Sequence[str], made_for: MadeFor) -> CompiledService:
    compiled = published.service(service)
    compiled.match.refuse_unless_fits(*made_for)
    return compiled


def _not_published(project: str, document: bytes | None, epoch: bytes | None) -> NotPublishedError:
    if document is None and epoch is None:
        return NotPublishedError(
            f"project {project}",
            expected="a published serving plan",
            got="none in this Redis",
            hint="run `feature-store apply`; is it the right URL and project?",
        )
    lost, there = ("plan's key", "epoch") if document is None else ("epoch", "plan")
    return DamagedPlanError(
        f"serving plan of {project}",
        problem=f"the {lost} is lost, though the {there} is there",
        hint="run `feature-store apply`: it publishes the plan again and keeps what is stored",
    )


def _too_many_plans(project: str) -> OnlineStoreError:
    return OnlineStoreError(
        f"project {project}",
        problem=f"the epochs did not fit the serving plan, though it was read {MOST_RELOADS} times",
        hint="the epoch of a bucket may be lost: run `feature-store apply`, which publishes the plan again",
    )


def _clock_unless(now_us: int | None) -> int:
    return time.time_ns() // 1000 if now_us is None else now_us


def _normalised(references: Sequence[str]) -> tuple[str, ...]:
    """References as a key: plain text, whatever kind of list and of text the caller has (numpy's, say)."""
    for i, reference in enumerate(references):
        if not isinstance(reference, str):
            raise RequestError(f"features[{i}]", expected="a feature reference, view:feature", got=repr(reference))
    return tuple(map(str, references))


def _compiled_of_references(
    plan: ServingPlan, offered: Offered, epoch: bytes, references: tuple[str, ...]
) -> CompiledService:
    return CompiledService(plan, _from_references(references), offered, epoch)


def _from_references(references: tuple[str, ...]) -> ServicePlan:
    columns: dict[str, ColumnPlan] = {}
    for i, reference in enumerate(references):
        view, separator, feature = reference.partition(":")
        if not separator or not feature:
            raise RequestError(f"features[{i}]", expected="a feature reference, view:feature", got=repr(reference))
        if feature in columns:
            other = f"{columns[feature].view}:{feature}"
            hint = "define a service that renames one of them"
            raise RequestError(
                f"features[{i}]", expected="names that differ", got=f"{reference} and {other}", hint=hint
            )
        columns[feature] = ColumnPlan(feature, view, feature)
    if not columns:
        raise RequestError("features", expected="a service's name or at least one feature reference", got="none")
    return ServicePlan("", tuple(columns.values()))
