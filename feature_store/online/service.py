"""A service compiled from the serving plan: entity rows → one command, and the columns of what comes back.

Everything that does not depend on the request is worked out here, once per plan.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from feature_store.online import keys
from feature_store.online.column_compiler import ColumnCompiler
from feature_store.online.entity_rows import EntityKeys, entity_keys, row_count
from feature_store.online.matrix import MatrixPlan
from feature_store.online.model_match import ModelMatch
from feature_store.online.redis.resp import ReplyParser, RowRun, argument
from feature_store.online.request import GroupRequest, Request, RequestByGroup

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from feature_store.online.column import ServedColumn
    from feature_store.online.offered import Offered
    from feature_store.online.request import Places
    from feature_store.registry.serving_plan import ServicePlan, ServingPlan

NO_KEYS = EntityKeys(0, b"", None, None)
# Shapes kept per service; a server that ranks up to a thousand candidates sees a thousand.
MOST_SHAPES = 4096
# Shapes kept per list of feature references. A client keeps hundreds of lists.
MOST_SHAPES_OF_A_LIST = 128


class FixedShape(NamedTuple):
    """What requests for the same numbers of keys share: how the command starts, and where the rows will be."""

    head: bytes
    runs: list[RowRun]


class CompiledService:
    """A service of one serving plan.

    Args:
        plan: the serving plan.
        service: the service, one of the plan's or made of feature references.
        offered: the on-demand functions that this process offers.
        epoch: the epoch of the plan's publication.
        compiler: makes the columns; a ColumnCompiler unless given.

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
        self._epoch_argument = argument(keys.epoch_key(plan.project, 0))

    def prepare(self, values: Mapping[str, Any]) -> Request:
        """Check entity rows and write the command that reads them.

        Raises:
            RequestError: a join key or request field is missing, null, of a wrong type or length.
        """
        count = row_count(values)
        asked = [entity_keys(group.join_keys, values, count) for group in self.groups]
        if self._is_fixed:
            return self._prepare_fixed(count, values, asked)
        return Request(count, values, self.groups, asked, *self._commands(asked))

    def prepare_by_group(self, values: Mapping[str, Any]) -> RequestByGroup:
        """Check entity rows and write the commands that read them group by group, the most important group first.

        Raises:
            RequestError: as `prepare`.
        """
        count = row_count(values)
        asked = [entity_keys(group.join_keys, values, count) for group in self.groups]
        reads = []
        for index in self._read_order:
            alone = [NO_KEYS if i != index else of_group for i, of_group in enumerate(asked)]
            reads.append(GroupRequest(index, *self._commands(alone)))
        return RequestByGroup(count, values, self.groups, asked, reads)

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

    def _prepare_fixed(self, size: int, values: Mapping[str, Any], asked: list[EntityKeys]) -> Request:
        counts = tuple([item.size for item in asked])
        shape = self._shapes.get(counts)
        if shape is None:
            shape = self._shapes[counts] = self._shape(counts)
        parts = [shape.head]
        for group, item in zip(self.groups, asked, strict=True):
            if item.size:
                parts.append(group.arguments(item))
        parts.append(self._epoch_argument)
        return Request(size, values, self.groups, asked, b"".join(parts), ReplyParser(1, shape.runs, self._epoch), None)

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
        return FixedShape(b"*%d\r\n$4\r\nMGET\r\n" % (sum(counts) + 2), runs)

    def _commands(self, asked: list[EntityKeys]) -> tuple[bytes, ReplyParser, Places]:
        """The commands that read keys, one per bucket; what takes the replies; and the places of the keys in them."""
        commands: list[bytes] = []
        places: Places = []
        each = [item.each() for item in asked]
        buckets = [keys.buckets_of(group_keys, self.plan.buckets) for group_keys in each]
        # The first command is always bucket 0's: a request without keys still learns the epoch.
        for bucket in sorted({0}.union(*buckets)):
            chosen = [[i for i, at in enumerate(of_group) if at == bucket] for of_group in buckets]
            arguments = [
                argument(prefix + group_keys[i])
                for group, group_keys, indexes in zip(self.groups, each, chosen, strict=True)
                for prefix in group.prefixes(bucket)
                for i in indexes
            ]
            epoch = argument(keys.epoch_key(self.plan.project, bucket))
            commands.append(b"".join([b"*%d\r\n$4\r\nMGET\r\n" % (len(arguments) + 2), *arguments, epoch]))
            places.append(chosen)
        return b"".join(commands), ReplyParser(len(commands), []), places
