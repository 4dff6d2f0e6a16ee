"""The commands that read the keys of a request, and the shapes of their replies."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from feature_store.online import keys
from feature_store.online.redis.reply_shape import ReplyShape
from feature_store.online.redis.resp import Command, ReplyParser, argument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.online.entity_rows import EntityKeys
    from feature_store.online.group_reads import GroupRead
    from feature_store.online.request import Places
    from feature_store.registry.serving_plan import ServingPlan

# Builds a NamedTuple without its __new__, which is Python code: 0.2 µs less for each request.
_new_tuple = tuple.__new__
# Shapes kept per service; a server that ranks up to a thousand candidates sees a thousand.
MOST_SHAPES = 4096
# Shapes kept per list of feature references. A client keeps hundreds of lists.
MOST_SHAPES_OF_A_LIST = 128


class CommandShape(NamedTuple):
    """The parts that commands for the same numbers of keys per group share.

    Attributes:
        head: the bytes that the command starts with.
        reply: the shape of its reply; None when the command reads variable values, whose length varies.
        places: as in Request.
    """

    head: bytes
    reply: ReplyShape | None
    places: Places


class CommandWriter:
    """Writes commands, each an MGET of entity keys and of the epochs of their buckets.

    An MGET is atomic: when each of its epochs is the plan's, every value in its reply was written under that plan.

    Args:
        plan: the serving plan.
        groups: how a service reads its groups.
        epoch: the epoch of the plan's publication.
        most_shapes: the most shapes to keep.
        is_on_one_node: whether one command may read keys of several buckets. With 16 buckets, the 200 keys of a request
            then cost one reply and one check instead of 16.

    Attributes:
        shapes: the shapes that are kept, by the numbers of keys per group and the number of epochs.
    """

    def __init__(
        self, plan: ServingPlan, groups: Sequence[GroupRead], epoch: bytes, most_shapes: int, *, is_on_one_node: bool
    ) -> None:
        self._groups, self._epoch, self._most_shapes = groups, epoch, most_shapes
        self._buckets, self._is_on_one_node = plan.buckets, is_on_one_node
        self._epoch_keys = [keys.epoch_key(plan.project, bucket) for bucket in range(plan.buckets)]
        self._epoch_arguments = [argument(key) for key in self._epoch_keys]
        self.shapes: dict[tuple[tuple[int, ...], int], CommandShape] = {}

    def write(self, asked: Sequence[EntityKeys]) -> tuple[list[Command], list[Places]]:
        """The commands that read the keys of each group, and the places of the keys in them."""
        if self._buckets > 1:
            return self._across_buckets(asked)
        counts = tuple([item.size for item in asked])
        shape = self._shape(counts, 1)
        parts = [shape.head]
        for group, item in zip(self._groups, asked, strict=True):
            if item.size:
                parts.append(group.arguments(item))
        parts.append(self._epoch_arguments[0])
        parser = ReplyParser(1, shape.reply)
        command = _new_tuple(Command, (self._epoch_keys[0], b"".join(parts), parser, self._epoch))
        return [command], [shape.places]

    def _across_buckets(self, asked: Sequence[EntityKeys]) -> tuple[list[Command], list[Places]]:
        each = [item.each() for item in asked]
        buckets = [keys.buckets_of(of_group, self._buckets) for of_group in each]
        # A request without keys still reads an epoch.
        named = sorted(set().union(*buckets)) or [0]
        if self._is_on_one_node:
            shape = self._shape(tuple(map(len, each)), len(named))
            return [self._command(shape, each, buckets, named)], [shape.places]
        commands: list[Command] = []
        places: list[Places] = []
        for bucket in named:
            chosen = [[i for i, at in enumerate(of_group) if at == bucket] for of_group in buckets]
            of_bucket = [[of_group[i] for i in indexes] for of_group, indexes in zip(each, chosen, strict=True)]
            shape = self._shape(tuple(map(len, chosen)), 1)
            commands.append(
                self._command(shape, of_bucket, [[bucket] * len(of_group) for of_group in of_bucket], [bucket])
            )
            places.append({group: indexes for group, indexes in enumerate(chosen) if indexes})
        return commands, places

    def _command(
        self, shape: CommandShape, each: list[list[bytes]], buckets: list[list[int]], named: list[int]
    ) -> Command:
        """A command that reads the keys of each group and the epochs of the buckets `named`.

        `buckets` holds the bucket of each key.
        """
        parts = [shape.head]
        for group, of_group, of_keys in zip(self._groups, each, buckets, strict=True):
            if of_group:
                parts.append(group.arguments_in(of_group, of_keys))
        parts += [self._epoch_arguments[bucket] for bucket in named]
        parser = ReplyParser(1, shape.reply, len(named))
        return Command(self._epoch_keys[named[0]], b"".join(parts), parser, self._epoch)

    def _shape(self, counts: tuple[int, ...], epochs: int) -> CommandShape:
        shape = self.shapes.get((counts, epochs))
        if shape is not None:
            return shape
        if len(self.shapes) >= self._most_shapes:
            self.shapes.clear()
        read = [(group, count) for group, count in zip(self._groups, counts, strict=True) if count]
        # MGET itself is one more element of the command than of the reply.
        elements = 1 + sum(count * (1 + len(group.variables)) for group, count in read) + epochs
        reply = None
        if not any(group.variables for group, _ in read):
            reply = ReplyShape([(group.layout, count) for group, count in read], self._epoch, epochs)
        places: Places = {group: None for group, count in enumerate(counts) if count}
        shape = CommandShape(b"*%d\r\n$4\r\nMGET\r\n" % elements, reply, places)
        self.shapes[counts, epochs] = shape
        return shape
