"""A service compiled from the serving plan: entity rows → commands, and replies → columns.

All that does not depend on the request is computed here, once per plan.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from feature_store.online import keys
from feature_store.online.column_blocks import AnswerPlan
from feature_store.online.column_compiler import ColumnCompiler
from feature_store.online.entity_rows import EntityKeys, entity_keys, row_count
from feature_store.online.matrix import MatrixPlan
from feature_store.online.model_match import ModelMatch
from feature_store.online.redis.resp import Command, ReplyParser, RowRun, argument
from feature_store.online.request import Request

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from feature_store.online.column import ServedColumn
    from feature_store.online.offered import Offered
    from feature_store.online.request import Places
    from feature_store.registry.serving_plan import ServicePlan, ServingPlan

# Makes a NamedTuple without its __new__, written in Python: each request makes two, 0.2 µs less each.
_new_tuple = tuple.__new__
NO_KEYS = EntityKeys(0, b"", None, None)
# Shapes kept per service; a server that ranks up to a thousand candidates sees a thousand.
MOST_SHAPES = 4096
# Shapes kept per list of feature references. A client keeps hundreds of lists.
MOST_SHAPES_OF_A_LIST = 128


class FixedShape(NamedTuple):
    """What commands for the same numbers of keys per group share.

    Attributes:
        head: the bytes that the command starts with.
        runs: where the rows are in the reply.
        places: as of a Request.
    """

    head: bytes
    runs: list[RowRun]
    places: Places


class CompiledService:
    """A service of one serving plan.

    Args:
        plan: the serving plan.
        service: the service, one of the plan's or made of feature references.
        offered: the on-demand functions that this process offers.
        epoch: the epoch of the plan's publication.
        compiler: makes the columns; a ColumnCompiler unless given.
        is_on_one_node: whether one Redis server has all keys, so that one command may read keys of several buckets.

    Attributes:
        columns: the columns by name, in the order of the service; `names` are their names.
        groups: how the service reads each group.
        transforms: the on-demand views that it computes, by name.
        pruning: the prune plan of the service, or None; `prune_plan` is its id, empty before the stage `mask`.
        is_shadowed: whether the prune plan is in the stage `shadow`.

    Raises:
        NotFoundError: the plan has no such view, or a prune plan dropped a feature.
        RequestError: a view has no such feature.
        TransformError: an on-demand function is not offered, or differs from the applied ones.
    """

    def __init__(
        self,
        plan: ServingPlan,
        service: ServicePlan,
        offered: Offered,
        epoch: bytes,
        compiler: ColumnCompiler | None = None,
        *,
        is_on_one_node: bool = True,
    ) -> None:
        self.plan, self.name, self._epoch = plan, service.name, epoch
        self.pruning = service.pruning
        self.is_shadowed = self.pruning is not None and self.pruning.stage == "shadow"
        self.prune_plan = self.pruning.plan if self.pruning is not None and not self.is_shadowed else ""
        compiler = compiler or ColumnCompiler(plan, offered)
        self.columns = compiler.columns(service)
        self.groups, self.transforms = compiler.groups, compiler.transforms
        self.names = list(self.columns)
        self._is_fixed = all(group.is_fixed for group in self.groups)
        self._shapes: dict[tuple[int, ...], FixedShape] = {}
        self._most_shapes = MOST_SHAPES if service.name else MOST_SHAPES_OF_A_LIST
        self._is_on_one_node = is_on_one_node
        self._epoch_key = keys.epoch_key(plan.project, 0)
        self._epoch_argument = argument(self._epoch_key)

    def prepare(self, values: Mapping[str, Any]) -> Request:
        """Check entity rows and write the commands that read them, one per bucket.

        Raises:
            RequestError: a join key or request field is missing, null, of a wrong type or length.
        """
        count = row_count(values)
        asked = [entity_keys(group.join_keys, values, count) for group in self.groups]
        if self._is_fixed:
            command, places = self._fixed(asked)
            return _new_tuple(Request, (count, values, self.groups, asked, [command], [places]))
        return Request(count, values, self.groups, asked, *self._by_bucket(asked))

    def prepare_by_group(self, values: Mapping[str, Any]) -> Request:
        """As `prepare`, with commands that each read one group, those of the most important group first.

        Raises:
            RequestError: as `prepare`.
        """
        count = row_count(values)
        asked = [entity_keys(group.join_keys, values, count) for group in self.groups]
        commands: list[Command] = []
        places: list[Places] = []
        for index in self._read_order:
            if asked[index].size:
                alone = [NO_KEYS if i != index else of_group for i, of_group in enumerate(asked)]
                of_group_commands, of_group_places = self._commands(alone)
                commands += of_group_commands
                places += of_group_places
        if not commands:
            commands, places = self._commands(asked)
        return Request(count, values, self.groups, asked, commands, places)

    @cached_property
    def _read_order(self) -> list[int]:
        """The groups, as the prune plan ranks their views; without one, as the service names them."""
        ranked = self.pruning.read_order if self.pruning is not None else ()
        places = {view: i for i, view in enumerate(ranked)}

        def rank(index: int) -> tuple[int, int]:
            views = self.groups[index].layout.views
            return min((places[view] for view in views if view in places), default=len(places)), index

        return sorted(range(len(self.groups)), key=rank)

    @cached_property
    def columns_by_source(self) -> list[list[ServedColumn]]:
        """The columns, those of one `source` together."""
        by_source: dict[Hashable, list[ServedColumn]] = {}
        for column in self.columns.values():
            by_source.setdefault(column.source, []).append(column)
        return list(by_source.values())

    @cached_property
    def matrix_plan(self) -> MatrixPlan:
        """How to fill the service's matrix.

        Raises:
            RequestError: a column has no place in a float matrix.
        """
        return MatrixPlan(self.columns)

    @cached_property
    def answer_plan(self) -> AnswerPlan:
        """How the service's answers become columns."""
        return AnswerPlan(self.columns)

    @cached_property
    def match(self) -> ModelMatch:
        """The names under which a model may know the features."""
        types = {name: column.dtype for name, column in self.columns.items()}
        return ModelMatch(f"service {self.name}, served by version {self.plan.version}", types, self.prune_plan)

    def matrix_columns(self) -> list[str]:
        """The names of the matrix's columns."""
        return list(self.match.matrix_columns)

    def functions(self) -> dict[str, str]:
        """Per on-demand view the digest of its function."""
        return {name: transform.digest for name, transform in self.transforms.items()}

    def _commands(self, asked: list[EntityKeys]) -> tuple[list[Command], list[Places]]:
        """The commands that read keys, and the places of the keys in them."""
        if not self._is_fixed:
            return self._by_bucket(asked)
        command, places = self._fixed(asked)
        return [command], [places]

    def _fixed(self, asked: list[EntityKeys]) -> tuple[Command, Places]:
        counts = tuple([item.size for item in asked])
        shape = self._shapes.get(counts)
        if shape is None:
            shape = self._shapes[counts] = self._shape(counts)
        parts = [shape.head]
        for group, item in zip(self.groups, asked, strict=True):
            if item.size:
                parts.append(group.arguments(item))
        parts.append(self._epoch_argument)
        parser = ReplyParser(1, shape.runs, self._epoch)
        return _new_tuple(Command, (self._epoch_key, b"".join(parts), parser, self._epoch)), shape.places

    def _shape(self, counts: tuple[int, ...]) -> FixedShape:
        if len(self._shapes) >= self._most_shapes:
            self._shapes.clear()
        runs: list[RowRun] = []
        at = len(b"*%d\r\n" % (sum(counts) + 1))
        for group, count in zip(self.groups, counts, strict=True):
            if count:
                runs.append(RowRun(group.layout, count, at))
                at = runs[-1].end
        # MGET itself is one more element of the command than of the reply.
        head = b"*%d\r\n$4\r\nMGET\r\n" % (sum(counts) + 2)
        return FixedShape(head, runs, {group: None for group, count in enumerate(counts) if count})

    def _by_bucket(self, asked: list[EntityKeys]) -> tuple[list[Command], list[Places]]:
        commands: list[Command] = []
        places: list[Places] = []
        each = [item.each() for item in asked]
        buckets = [keys.buckets_of(group_keys, self.plan.buckets) for group_keys in each]
        # A request without keys still reads an epoch.
        for bucket in sorted(set().union(*buckets)) or [0]:
            chosen = [[i for i, at in enumerate(of_group) if at == bucket] for of_group in buckets]
            arguments = [
                argument(prefix + group_keys[i])
                for group, group_keys, indexes in zip(self.groups, each, chosen, strict=True)
                for prefix in group.prefixes(bucket)
                for i in indexes
            ]
            epoch_key = keys.epoch_key(self.plan.project, bucket)
            head = b"*%d\r\n$4\r\nMGET\r\n" % (len(arguments) + 2)
            data = b"".join([head, *arguments, argument(epoch_key)])
            commands.append(Command(epoch_key, data, ReplyParser(1, []), self._epoch))
            places.append({group: indexes for group, indexes in enumerate(chosen) if indexes})
        return commands, places
