"""A request, checked and encoded: its entity keys, and the commands that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from feature_store.online.entity_rows import EntityKeys
    from feature_store.online.group_reads import GroupRead
    from feature_store.online.near.found import Hits
    from feature_store.online.redis.resp import Command

# Per group that a command reads, in the order of the service's groups: the indexes of the keys that the command asks
# for. None: all keys of the group, which no other command asks for.
Places = dict[int, "list[int] | None"]


class Request(NamedTuple):
    """A request.

    Attributes:
        size: rows of the response.
        values: the entity rows: `{join key or request field: value or values}`.
        groups: how the service reads its groups.
        asked: per group its distinct entity keys.
        commands: the commands to send, the most important first.
        places: per command, the indexes of its keys among the keys that are read.
        hits: the values that the near-cache has; the commands read the others. None without a near-cache.
    """

    size: int
    values: Mapping[str, Any]
    groups: Sequence[GroupRead]
    asked: list[EntityKeys]
    commands: list[Command]
    places: list[Places]
    hits: Hits | None = None

    @property
    def unread(self) -> list[EntityKeys]:
        """Per group, the keys that the commands read."""
        return self.asked if self.hits is None else self.hits.unread
