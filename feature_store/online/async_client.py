"""The asyncio client of a model server: the same conversation over asyncio transports."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

import hiredis

from feature_store.errors import FeatureStoreError, OnlineStoreError, StoreConnectionError
from feature_store.online.conversation import Conversation
from feature_store.online.endpoint import Endpoint
from feature_store.online.observer import Observed, Observers
from feature_store.online.offered import Offered

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from datetime import datetime
    from typing import Self

    import redis

    from feature_store.online.conversation import Exchange
    from feature_store.online.observer import Observer
    from feature_store.online.offered import Definitions, Transforms
    from feature_store.online.resp import ReplyParser
    from feature_store.online.response import OnlineResponse
    from feature_store.online.shadow import ShadowCounts
    from feature_store.registry.serving_plan import ServingPlan


T = TypeVar("T")


class AsyncOnlineClient:
    """`OnlineClient` for asyncio. One per event loop; any number of requests can be under way at once.

    Args:
        url, project, timeout_s, transforms, definitions, observers: as of `OnlineClient`; timeout_s bounds the whole of
            an answer.

    Raises:
        ConfigError: the URL cannot be read, or `transforms` or `definitions` is no such thing.
        DefinitionError: a file of `definitions` cannot be imported.
    """

    def __init__(
        self,
        url: str | redis.ConnectionPool,
        project: str,
        *,
        timeout_s: float = 1.0,
        transforms: Transforms | None = None,
        definitions: Definitions | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._observers = Observers(observers)
        self._endpoint = Endpoint(url, timeout_s)
        self._conversation = Conversation(project, Offered(transforms, definitions), self._observers)
        self._idle: deque[_Connection] = deque()

    async def get_online_features(
        self,
        service: str | Sequence[str],
        entity_rows: Mapping[str, Any],
        *,
        now: datetime | int | None = None,
        model_features: Sequence[str] | None = None,
        plan: str | None = None,
        deadline_ms: float | None = None,
        request_id: str | None = None,
        log_fields: Mapping[str, Any] | None = None,
    ) -> OnlineResponse:
        """As `OnlineClient.get_online_features`."""
        if self._observers:
            label_of = self._conversation.label_of
            with Observed(self._observers, label_of, service, entity_rows, request_id, log_fields) as observed:
                observed.response = await self._read(service, entity_rows, now, model_features, plan, deadline_ms)
            return observed.response
        return await self._read(service, entity_rows, now, model_features, plan, deadline_ms)

    async def _read(
        self,
        service: str | Sequence[str],
        entity_rows: Mapping[str, Any],
        now: datetime | int | None,
        model_features: Sequence[str] | None,
        plan: str | None,
        deadline_ms: float | None,
    ) -> OnlineResponse:
        if deadline_ms is not None:
            steps = self._conversation.get_in_time(service, entity_rows, now, (model_features, plan))
            return await self._run_in_time(steps, time.monotonic() + deadline_ms / 1000)
        response = await self._run(
            self._conversation.get_online_features(service, entity_rows, now, (model_features, plan))
        )
        if response.service.is_shadowed:
            try:
                await self._run(self._conversation.read_in_shadow(entity_rows, response))
            except FeatureStoreError:
                self._conversation.shadow_failed(response)
        return response

    @property
    def skipped(self) -> dict[str, int]:
        """As `OnlineClient.skipped`."""
        return dict(self._conversation.skipped)

    def shadow(self, service: str) -> ShadowCounts | None:
        """As `OnlineClient.shadow`."""
        return self._conversation.shadows.of(service)

    async def plan(self) -> ServingPlan:
        """As `OnlineClient.plan`."""
        return (await self._run(self._conversation.load_plan())).plan

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop().close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, steps: Generator[Exchange, None, T]) -> T:
        try:
            while True:
                await self._exchange(*next(steps))
        except StopIteration as finished:
            result: T = finished.value
            return result

    async def _run_in_time(self, steps: Generator[Exchange, None, OnlineResponse], deadline: float) -> OnlineResponse:
        try:
            exchange = next(steps)
            while True:
                try:
                    async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                        await self._exchange(*exchange)
                except TimeoutError:
                    exchange = steps.throw(self._endpoint.timeout())
                else:
                    exchange = next(steps)
        except StopIteration as finished:
            response: OnlineResponse = finished.value
            return response

    async def _exchange(self, command: bytes, parser: ReplyParser) -> None:
        while True:
            is_new = not self._idle
            connection = await _Connection.open(self._endpoint) if is_new else self._idle.pop()
            try:
                await connection.exchange(command, parser)
            except BaseException as error:  # cancellation too: an answer may still come to this connection
                await connection.close()
                if isinstance(error, StoreConnectionError) and not is_new and not parser.has_begun:
                    await self.close()  # a server that restarted has closed them all
                    self._observers.reconnected()
                    continue
                raise
            self._idle.append(connection)
            return


class _Connection(asyncio.BufferedProtocol):
    """One connection with at most one request under way. asyncio receives straight into the request's parser."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._transport: Any = None
        self._keep: Any = None
        self._parser: ReplyParser | None = None
        self._done: asyncio.Future[None] | None = None
        self._lost = ""
        self._stray = bytearray(1)

    @classmethod
    async def open(cls, endpoint: Endpoint) -> _Connection:
        """Connect and authenticate."""
        connection = cls(endpoint)
        connection._transport, connection._keep = await endpoint.connect_async()
        # redis-py has said all it had to: what comes from now on is for this protocol.
        connection._transport.set_protocol(connection)
        return connection

    async def exchange(self, command: bytes, parser: ReplyParser) -> None:
        """Send a command and take its reply.

        Raises:
            StoreConnectionError, StoreTimeoutError: the server went away, or does not answer in time.
        """
        if self._lost:
            raise self._endpoint.lost(self._lost)
        self._parser, self._done = parser, asyncio.get_running_loop().create_future()
        self._transport.write(command)
        try:
            async with asyncio.timeout(self._endpoint.timeout_s):
                await self._done
        except TimeoutError as error:
            raise error if isinstance(error, OnlineStoreError) else self._endpoint.timeout() from error
        finally:
            self._parser = self._done = None

    async def close(self) -> None:
        """Close the transport."""
        self._transport.abort()
        with contextlib.suppress(Exception):  # whatever a broken connection has to say, it is gone now
            await self._keep.disconnect(nowait=True)

    def get_buffer(self, sizehint: int) -> bytearray | memoryview:
        """Where asyncio puts what it receives."""
        return self._parser.buffer() if self._parser is not None else self._stray

    def buffer_updated(self, nbytes: int) -> None:
        """Called by asyncio when bytes have come."""
        if self._parser is None or self._done is None:
            self._fail("bytes that nobody asked for")
            self._transport.abort()
            return
        try:
            complete = self._parser.received(nbytes)
        except hiredis.HiredisError as error:
            self._fail(str(error))
            return
        if complete and not self._done.done():
            self._done.set_result(None)

    def eof_received(self) -> None:
        """Called by asyncio when the server has closed its side."""
        self._fail("the server closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio when the connection is gone."""
        self._fail(str(exc or "the connection was closed"))

    def _fail(self, reason: str) -> None:
        self._lost = self._lost or reason
        if self._done is not None and not self._done.done():
            self._done.set_exception(self._endpoint.lost(reason))
