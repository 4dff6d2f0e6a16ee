"""A request, checked and encoded: its entity keys, and the commands that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from feature_store.online.entity_rows import EntityKeys
    from feature_store.online.group_reads import GroupRead
    from feature_store.online.redis.resp import ReplyParser

# Per command, per group, the indexes of the keys that the command asks for.
Places = list[list[list[int]]]


class Request(NamedTuple):
    """A request that is answered at once.

    Attributes:
        size: rows of the response.
        values: the entity rows: `{join key or request field: value or values}`.
        groups: how the service reads its groups.
        asked: per group its distinct entity keys.
        command: the bytes to send.
        parser: takes the reply.
        places: None when one command asks for all keys of each group.
    """

    size: int
    values: Mapping[str, Any]
    groups: Sequence[GroupRead]
    asked: list[EntityKeys]
    command: bytes
    parser: ReplyParser
    places: Places | None


class GroupRequest(NamedTuple):
    """The commands that read one group of a request.

    Attributes:
        group: the index of the group.
        command, parser, places: as in Request.
    """

    group: int
    command: bytes
    parser: ReplyParser
    places: Places


class RequestByGroup(NamedTuple):
    """A request that is answered group by group, so that a deadline can end it early.

    Attributes:
        size, values, groups, asked: as in Request.
        reads: one per group, the most important group first.
    """

    size: int
    values: Mapping[str, Any]
    groups: Sequence[GroupRead]
    asked: list[EntityKeys]
    reads: list[GroupRequest]
