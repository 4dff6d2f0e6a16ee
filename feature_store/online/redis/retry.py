"""When a pool sends a request again: one rule for blocking and asyncio connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_store.errors import StoreConnectionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.online.redis.resp import Command


def may_send_again(error: BaseException, commands: Sequence[Command], *, is_new: bool) -> bool:
    """Whether commands whose connection failed are sent again, on another connection.

    They are sent again if the connection was used before and died while it was idle, as after a restart of the server.
    If a new connection fails, or a reply breaks off, another attempt would repeat the server's error.

    Args:
        error: the error of the exchange.
        commands: the commands that were sent.
        is_new: whether the connection was opened for these commands.
    """
    return (
        isinstance(error, StoreConnectionError)
        and not is_new
        and not any(command.parser.has_begun for command in commands)
    )
