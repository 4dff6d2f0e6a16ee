"""The steps of a client, without I/O: both clients run them and differ in how they exchange bytes.

Every request reads the epoch together with the rows, in one atomic command. If the epoch differs from the one that the
client's plan was read with, another plan has been published: the client reads it and asks again. So one plan answers a
whole request, and the rows of an old layout may be deleted as soon as the new plan is published.
"""

from __future__ import annotations

import copy
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from feature_store.errors import (
    DamagedPlanError,
    FeatureStoreError,
    NotPublishedError,
    OnlineStoreError,
    RequestError,
    StoreTimeoutError,
)
from feature_store.online import keys
from feature_store.online.answer import RequestAnswer
from feature_store.online.observer import REFERENCES, UNKNOWN
from feature_store.online.offered import Offered
from feature_store.online.plan_load import PlanLoad
from feature_store.online.published_plan import PublishedPlan
from feature_store.online.redis.resp import BoundedParser, Command, argument
from feature_store.online.response import OnlineResponse
from feature_store.online.service import CompiledService
from feature_store.online.shadow import Shadows, differ
from feature_store.registry.plan_document import plan_from_json
from feature_store.registry.soundness import MOST_BYTES

if TYPE_CHECKING:
    from feature_store.online.near.near_cache import NearCache
    from feature_store.online.observer import Observers
    from feature_store.online.read_options import ReadOptions
    from feature_store.online.request import Request

# Commands that a client exchanges at once. Afterwards each parser is complete, or the client raises an error inside the
# steps.
Exchange = list[Command]
# What a client does in a step: exchange commands, or wait for the plan that another request reads.
Step = Exchange | PlanLoad
# People and jobs publish plans. Two publications during one request are rare; ten mean that something is wrong.
MOST_RELOADS = 10
# The largest reply that holds only an epoch, and the room beside the document in a plan's reply. An error reply fits.
_MOST_EPOCH_BYTES = 4096
# A plan that cannot be read is read again after this time even if its epoch stays: a restored copy has the same epoch.
_REREAD_S = 1.0


class Conversation:
    """The steps of a client of one project.

    Args:
        project: the name of the project.
        offered: the on-demand functions that this process offers.
        observers: are called for each plan read and each shadow read.
        is_on_one_node: whether one Redis server has all keys, so that one command may read keys of several buckets.
        near: the near-cache of the client, or None.
    """

    def __init__(
        self,
        project: str,
        offered: Offered,
        observers: Observers,
        *,
        is_on_one_node: bool = True,
        near: NearCache | None = None,
    ) -> None:
        self._project, self._offered, self._observers = project, offered, observers
        self._is_on_one_node = is_on_one_node
        self._near = near
        self._published: PublishedPlan | None = None
        # By process, since a forked child does not have the request that reads: the read of the plan under way.
        self._loads: dict[int, PlanLoad] = {}
        # The document that was read last, and its plan: requests that read it at the same time share one plan.
        self._last_read: tuple[bytes, bytes, PublishedPlan] | None = None
        # The epoch of a plan that cannot be read, the reason, and when it was read.
        self._unreadable: tuple[bytes, NotPublishedError, float] | None = None
        self.shadows = Shadows(observers)
        self.skipped: Counter[str] = Counter()  # how often a row group or stream view was not read in time

    def get_online_features(
        self, service: str | Sequence[str], entity_rows: Mapping[str, Any], options: ReadOptions
    ) -> Generator[Step, None, OnlineResponse]:
        """Read the features of entity rows.

        With a deadline, each command reads one group, and a group whose reply is late is skipped. Without a deadline,
        the rows are read again for comparison while a prune plan is in the stage `shadow`.
        """
        has_deadline = options.deadline_ms is not None
        prepare = CompiledService.prepare_by_group if has_deadline else CompiledService.prepare
        for _ in range(MOST_RELOADS):
            published, compiled, request = yield from self._prepared(
                service, options, lambda compiled: prepare(compiled, entity_rows, self._near)
            )
            try:
                yield request.commands
            except StoreTimeoutError:
                if not has_deadline:
                    raise
            response = self.finish(published, compiled, request, options.now_us)
            if response is None:
                continue
            if has_deadline:
                self.skipped.update(response.skipped)
            elif compiled.is_shadowed:
                yield from self._read_in_shadow(entity_rows, response)
            return response
        raise _too_many_plans(self._project)

    def _prepared(
        self, service: str | Sequence[str], options: ReadOptions, prepare: Callable[[CompiledService], Request]
    ) -> Generator[Step, None, tuple[PublishedPlan, CompiledService, Request]]:
        """A request prepared with the plan that the client knows or, if that plan refuses it, with a newer plan.

        A newer plan may accept what an older plan refuses: a name that was unknown, a function that was not offered, a
        join key that the caller no longer sends. So a client never repeats an error that an older plan caused.
        """
        published = self._published or (yield from self._shared_plan())
        try:
            compiled = _of_plan(published, service, options)
            return published, compiled, prepare(compiled)
        except FeatureStoreError:
            fresh = yield from self._newer_than(published)
            if fresh is None:
                raise
            compiled = _of_plan(fresh, service, options)
            return fresh, compiled, prepare(compiled)

    def _newer_than(self, published: PublishedPlan) -> Generator[Exchange, None, PublishedPlan | None]:
        """The plan that was published after `published`; None when there is none.

        The epoch alone is read first, a few bytes. So a request for an unknown name costs Redis no more than a read
        does, and the client still sees a new plan at once.
        """
        if (yield from self._epoch()) == published.epoch:
            return None
        return (yield from self.load_plan())

    def _epoch(self) -> Generator[Exchange, None, bytes | None]:
        """The epoch of the plan that is published now."""
        parser, key = BoundedParser(_MOST_EPOCH_BYTES, f"epoch of {self._project}"), keys.epoch_key(self._project, 0)
        yield [Command(key, b"*2\r\n$4\r\nMGET\r\n" + argument(key), parser)]
        epoch: bytes | None = parser.replies[0][0]
        return epoch

    def label_of(self, service: str) -> str:
        """The name of a service as a label of metrics: UNKNOWN unless the plan has the service, to keep labels few."""
        is_known = self._published is not None and self._published.knows(service)
        return service if is_known or service == REFERENCES else UNKNOWN

    def begin(
        self, service: str | Sequence[str], entity_rows: Mapping[str, Any], options: ReadOptions
    ) -> tuple[PublishedPlan, CompiledService, Request] | None:
        """The first request of `get_online_features`; None when a request needs more steps than one exchange.

        Nearly every request is begin, exchange, finish. Without a generator, the read of one entity takes 1.5 µs less.
        """
        published = self._published
        if published is None or service not in published:
            return None
        compiled = published.service(service)
        if compiled.is_shadowed:
            return None
        _, model_features, prune_plan, _ = options
        if not (model_features is None and prune_plan is None) and not compiled.match.fits(model_features, prune_plan):
            return None
        try:
            return published, compiled, compiled.prepare(entity_rows, self._near)
        except RequestError:  # a newer plan may accept it
            return None

    def finish(
        self, published: PublishedPlan, compiled: CompiledService, request: Request, now: int | None
    ) -> OnlineResponse | None:
        """The response to an answered request; None when another plan was published since the client read its plan."""
        for command in request.commands:
            parser = command.parser
            # A fixed reply has the epoch that the request was prepared with.
            if not parser.fixed and parser.is_complete and not parser.saw_only(published.epoch):
                if self._published is published:
                    self._published = None
                return None
        answer = RequestAnswer(request, _clock_unless(now))
        if request.hits is not None and self._near is not None:
            self._near.keep(request.hits)
        return OnlineResponse(compiled, answer)

    def _read_in_shadow(
        self, entity_rows: Mapping[str, Any], response: OnlineResponse
    ) -> Generator[Exchange, None, None]:
        """Compare a response with the response of the pruned service. A failure is only counted."""
        service = response.service
        assert service.pruning is not None
        try:
            yield from self._compare_in_shadow(entity_rows, response, service.pruning.plan)
        except FeatureStoreError:
            self.shadows.add(service.name, service.pruning.plan, full_s=0.0, pruned_s=0.0, failed=True)

    def _compare_in_shadow(
        self, entity_rows: Mapping[str, Any], response: OnlineResponse, prune_plan: str
    ) -> Generator[Exchange, None, None]:
        published, full = self._published, response.service
        if published is None or published.plan.version != response.plan_version:
            return
        pruned = published.shadow(full)
        assert pruned is not None
        started = time.perf_counter()
        of_pruned = yield from self._read(published, pruned, entity_rows, response.now_us)
        between = time.perf_counter()
        again = yield from self._read(published, full, entity_rows, response.now_us)
        ended = time.perf_counter()
        if of_pruned is None or again is None:  # another plan was published
            return
        # A value that is written meanwhile equals the value in one of the two full reads, so it must differ from both.
        differing = differ(response, of_pruned) and differ(again, of_pruned)
        self.shadows.add(full.name, prune_plan, full_s=ended - between, pruned_s=between - started, differing=differing)

    def _read(
        self, published: PublishedPlan, compiled: CompiledService, entity_rows: Mapping[str, Any], now_us: int
    ) -> Generator[Exchange, None, OnlineResponse | None]:
        request = compiled.prepare(entity_rows)
        yield request.commands
        return self.finish(published, compiled, request, now_us)

    def _shared_plan(self) -> Generator[Step, None, PublishedPlan]:
        """The plan, of which the client knew none. Of the requests that come here at once, one reads it.

        The read may have begun before a publication that the request has seen; then the epoch of its rows tells.
        """
        process, own = os.getpid(), PlanLoad(self._project)
        while True:
            load = self._loads.setdefault(process, own)
            if load is own:
                return (yield from self._lead(own, process))
            yield load
            published = self._published
            if published is not None:
                return published
            if load.unpublished is not None:
                raise copy.copy(load.unpublished)

    def _lead(self, load: PlanLoad, process: int) -> Generator[Exchange, None, PublishedPlan]:
        """Read the plan for all requests that wait for `load`. If this fails or is cancelled, one of them reads it."""
        try:
            return self._published or (yield from self.load_plan())  # a read may just have ended
        except NotPublishedError as error:
            load.unpublished = error
            raise
        finally:
            del self._loads[process]
            load.end()

    def load_plan(self) -> Generator[Exchange, None, PublishedPlan]:
        """Read the published plan. An unreadable plan is read again when its epoch changes, or after a second."""
        if self._unreadable is not None:
            epoch, reason, read_at = self._unreadable
            if time.monotonic() - read_at < _REREAD_S and (yield from self._epoch()) == epoch:
                raise reason.with_traceback(None)
        key = keys.epoch_key(self._project, 0)
        data = b"*3\r\n$4\r\nMGET\r\n" + argument(keys.plan_key(self._project)) + argument(key)
        parser = BoundedParser(MOST_BYTES + _MOST_EPOCH_BYTES, f"serving plan of {self._project}")
        yield [Command(key, data, parser)]
        document, epoch = parser.replies[0]
        if document is None or epoch is None:
            raise _not_published(self._project, document, epoch)
        last_read = self._last_read
        if last_read is not None and last_read[:2] == (epoch, document):
            self._unreadable, self._published = None, last_read[2]
            return last_read[2]
        try:
            plan = plan_from_json(document)
            plan.refuse_other_epoch(self._project, epoch)
        except NotPublishedError as error:
            self._unreadable = epoch, error, time.monotonic()
            raise
        self._unreadable = None
        if self._near is not None:
            self._near.follow(plan)
        # Another thread may set another plan meanwhile.
        published = PublishedPlan(plan, epoch, self._offered, is_on_one_node=self._is_on_one_node)
        self._published, self._last_read = published, (epoch, document, published)
        self._observers.plan_read(plan.version)
        return published


def _of_plan(published: PublishedPlan, service: str | Sequence[str], options: ReadOptions) -> CompiledService:
    compiled = published.service(service)
    compiled.match.refuse_unless_fits(options.model_features, options.prune_plan)
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
