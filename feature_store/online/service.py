"""A service compiled from the serving plan: entity rows → commands, and replies → columns.

Everything that does not depend on a request is computed here, once per plan.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from feature_store.online.column_blocks import AnswerPlan
from feature_store.online.column_compiler import ColumnCompiler
from feature_store.online.commands import MOST_SHAPES, MOST_SHAPES_OF_A_LIST, CommandWriter
from feature_store.online.entity_rows import EntityKeys, entity_keys, row_count
from feature_store.online.matrix import MatrixPlan
from feature_store.online.model_match import ModelMatch
from feature_store.online.request import Request

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from feature_store.online.column import ServedColumn
    from feature_store.online.group_reads import GroupRead
    from feature_store.online.near.found import Hits
    from feature_store.online.near.space import Space
    from feature_store.online.offered import Offered
    from feature_store.online.redis.resp import Command
    from feature_store.online.request import Places
    from feature_store.registry.serving_plan import ServicePlan, ServingPlan

# Builds a NamedTuple without its __new__, which is Python code: 0.2 µs less for each, and each request builds two.
_new_tuple = tuple.__new__
NO_KEYS = EntityKeys(0, b"", None, None)


class KnownValues(Protocol):
    """The part of a client's near-cache that a service uses (`near/near_cache.py`)."""

    def spaces(self, plan: ServingPlan, groups: Sequence[GroupRead]) -> list[tuple[int, Space]]:
        """The groups whose values are kept, and where."""

    def look_up(
        self, spaces: Sequence[tuple[int, Space]], groups: Sequence[GroupRead], asked: list[EntityKeys]
    ) -> Hits:
        """The values that are kept of the keys that a request asks for."""


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
        pruning: the prune plan of the service, or None.
        prune_plan: the id of the prune plan; empty before the stage `mask`.
        is_shadowed: whether the prune plan is in the stage `shadow`.
        writer: writes the commands of requests.

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
        self.plan, self.name = plan, service.name
        self.pruning = service.pruning
        self.is_shadowed = self.pruning is not None and self.pruning.stage == "shadow"
        self.prune_plan = self.pruning.plan if self.pruning is not None and not self.is_shadowed else ""
        compiler = compiler or ColumnCompiler(plan, offered)
        self.columns = compiler.columns(service)
        self.groups, self.transforms = compiler.groups, compiler.transforms
        self.names = list(self.columns)
        most_shapes = MOST_SHAPES if service.name else MOST_SHAPES_OF_A_LIST
        self.writer = CommandWriter(plan, self.groups, epoch, most_shapes, is_on_one_node=is_on_one_node)
        # Which groups the near-cache of the client has; a compiled service belongs to one client.
        self._spaces: list[tuple[int, Space]] | None = None

    def prepare(self, values: Mapping[str, Any], near: KnownValues | None = None) -> Request:
        """Check entity rows and write the commands that read them.

        Args:
            values: the entity rows.
            near: the near-cache of the client. Values that it has are not read from Redis.

        Raises:
            RequestError: a join key is missing, null or of a wrong type, or two sequences have different lengths.
        """
        count = row_count(values)
        asked = [entity_keys(group.join_keys, values, count) for group in self.groups]
        hits = self._hits(near, asked) if near is not None else None
        unread = hits.unread if hits is not None else asked
        return _new_tuple(Request, (count, values, self.groups, asked, *self.writer.write(unread), hits))

    def prepare_by_group(self, values: Mapping[str, Any], near: KnownValues | None = None) -> Request:
        """As `prepare`, with commands that each read one group. The commands of the most important group come first.

        Raises:
            RequestError: as `prepare`.
        """
        count = row_count(values)
        asked = [entity_keys(group.join_keys, values, count) for group in self.groups]
        hits = self._hits(near, asked) if near is not None else None
        unread = hits.unread if hits else asked
        commands: list[Command] = []
        places: list[Places] = []
        for index in self._read_order:
            if unread[index].size:
                alone = [NO_KEYS if i != index else of_group for i, of_group in enumerate(unread)]
                of_group_commands, of_group_places = self.writer.write(alone)
                commands += of_group_commands
                places += of_group_places
        if not commands:
            commands, places = self.writer.write(unread)
        return Request(count, values, self.groups, asked, commands, places, hits)

    def _hits(self, near: KnownValues, asked: list[EntityKeys]) -> Hits | None:
        if self._spaces is None or not all(space.is_open for _, space in self._spaces):
            self._spaces = near.spaces(self.plan, self.groups)
        return near.look_up(self._spaces, self.groups, asked) if self._spaces else None

    @cached_property
    def _read_order(self) -> list[int]:
        """The indexes of the groups, as the prune plan ranks their views; without a prune plan, in ascending order."""
        ranked = self.pruning.read_order if self.pruning is not None else ()
        places = {view: i for i, view in enumerate(ranked)}

        def rank(index: int) -> tuple[int, int]:
            views = self.groups[index].layout.views
            return min((places[view] for view in views if view in places), default=len(places)), index

        return sorted(range(len(self.groups)), key=rank)

    @cached_property
    def columns_by_source(self) -> list[list[ServedColumn]]:
        """The columns, grouped by `source`."""
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
        """Per on-demand view, the digest of its function."""
        return {name: transform.digest for name, transform in self.transforms.items()}
