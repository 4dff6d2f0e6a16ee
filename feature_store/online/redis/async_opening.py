"""How a connection of an event loop is opened: find the server, connect, encrypt, authenticate, see that it answers.

The functions take the connection that they open, and know nothing of how it keeps its requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from feature_store.errors import OnlineStoreError
from feature_store.online.redis.address import UNIX, is_replica
from feature_store.online.redis.errors import is_connection_refused
from feature_store.online.redis.resolver import look_up_in_loop
from feature_store.online.redis.resp import PING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from feature_store.online.redis.address import Address
    from feature_store.online.redis.endpoint import Endpoint
    from feature_store.online.redis.limit import Limit

    Connect = Callable[[Address, Endpoint, Limit], Awaitable["Opened"]]


class Opened(asyncio.BufferedProtocol, ABC):
    """A connection, as far as its opening needs it."""

    @abstractmethod
    async def replies(self, commands: list[bytes], limit: Limit) -> list[Any]:
        """The replies to commands. Error replies are returned, not raised."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


async def find(endpoint: Endpoint, limit: Limit, connect: Connect) -> Address:
    """The address of an endpoint. Sentinels are asked for it, on connections of their own, if the endpoint has any.

    Raises:
        StoreConnectionError: no Sentinel names a server.
        StoreTimeoutError: the limit ended.
    """
    steps = endpoint.finding()
    try:
        question = next(steps)
        while True:
            try:
                share = limit.share(question.servers).further()
                connection = await connect(question.address, endpoint, share)
                reply = await _answer(connection, question.command, endpoint, share)
            except OnlineStoreError as error:
                question = steps.throw(error)
            except TimeoutError:
                raise endpoint.timeout(limit) from None
            else:
                question = steps.send(reply)
    except StopIteration as finished:
        address: Address = finished.value
        return address


async def _answer(connection: Opened, command: bytes, endpoint: Endpoint, limit: Limit) -> Any:
    """The reply to the only command of a connection."""
    try:
        (reply,) = await connection.replies([command], limit)
    finally:
        connection.close()
    if isinstance(reply, Exception):
        raise endpoint.refused(reply)
    return reply


async def connect(connection: Opened, endpoint: Endpoint, address: Address, limit: Limit) -> bool:
    """Connect to an address and authenticate. Returns whether the server has answered on the connection.

    Raises:
        StoreConnectionError, StoreTimeoutError: the server cannot be reached, or not in time.
        StoreReplyError: the server refuses the user, the password or the database.
    """
    try:
        async with asyncio.timeout_at(limit.at):
            given = await _credentials(address)
            await _transport(connection, address, limit)
    except OnlineStoreError:
        raise
    except TimeoutError as error:
        raise endpoint.timeout(limit) from error
    except OSError as error:
        raise endpoint.lost(str(error)) from error
    return await _greet(connection, endpoint, address, given, limit)


async def _credentials(address: Address) -> tuple[str, ...]:
    if address.credential_provider is None:
        return address.credentials()
    return await asyncio.to_thread(address.credentials)  # it may ask a server


async def _transport(connection: Opened, address: Address, limit: Limit) -> None:
    """Connect, and encrypt. If a host has several addresses, the first that answers is used."""
    loop = asyncio.get_running_loop()
    if address.transport == UNIX:
        await loop.create_unix_connection(lambda: connection, address.path)
        return
    context = address.tls.context if address.tls is not None else None
    places = await look_up_in_loop(address.host, address.port)
    for i, (_, place) in enumerate(places):
        try:
            async with asyncio.timeout_at(limit.share(len(places) - i).at):
                transport, _ = await loop.create_connection(
                    lambda: connection,
                    str(place[0]),
                    address.port,
                    ssl=context,
                    server_hostname=address.host if context is not None else None,
                )
        except OSError:
            if i == len(places) - 1:
                raise
        else:
            with contextlib.suppress(OSError):
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return


async def _greet(
    connection: Opened, endpoint: Endpoint, address: Address, credentials: tuple[str, ...], limit: Limit
) -> bool:
    commands = address.greeting(credentials)
    if not commands:
        return False
    replies = await connection.replies(commands, limit)
    for reply in replies[:-1] if address.is_master else replies:
        if isinstance(reply, Exception):
            raise endpoint.refused(reply)
    if address.is_master and is_replica(replies):
        raise endpoint.lost(f"{address.shown}, which the Sentinels name, is no master")
    return True


async def try_out(connection: Opened, endpoint: Endpoint, limit: Limit) -> None:
    """See that the server answers. A server that has its most clients accepts a connection, and refuses the first
    command.

    Raises:
        StoreConnectionError, StoreTimeoutError, StoreReplyError: it does not.
    """
    (reply,) = await connection.replies([PING], limit)
    if isinstance(reply, Exception) and is_connection_refused(reply):
        raise endpoint.refused(reply)
