"""How a service reads one row group, or the tiles of one stream view: compiled once, used for every request."""

from __future__ import annotations

from bisect import insort
from functools import cached_property
from typing import TYPE_CHECKING

from feature_store.aggregates.read import WindowReader
from feature_store.online import keys
from feature_store.online.layout import RowLayout
from feature_store.online.redis.key_writer import KeyWriter, VaryingKeyWriter
from feature_store.online.tile_layout import TileValueLayout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.online.entity_rows import EntityKeys
    from feature_store.online.layout import ValueLayout
    from feature_store.registry.serving_plan import RowGroupPlan, ServingPlan, TilesPlan


class GroupRead:
    """What a service reads under the keys of the same entities.

    Args:
        plan: the serving plan.
        layout: the layout of the values.

    Attributes:
        layout: as given.
        join_keys: `(column, type)` of the entity key; `dtypes` are the types alone.
        variables: the views whose variable values are read too, sorted.
    """

    def __init__(self, plan: ServingPlan, layout: ValueLayout) -> None:
        self._plan, self.layout = plan, layout
        self.join_keys = layout.join_keys
        self.dtypes = [dtype for _, dtype in self.join_keys]
        self.variables: list[str] = []
        width = keys.fixed_width(self.dtypes)
        is_fixed = width is not None and plan.buckets == 1
        self._rows_writer = KeyWriter(layout.prefix(plan.project, 0), width) if width is not None and is_fixed else None

    @cached_property
    def _writers(self) -> list[VaryingKeyWriter]:
        """Writers of the keys of the values, then of each view's variable values. All views must be added before."""
        prefixes = [self.prefixes(bucket) for bucket in range(self._plan.buckets)]
        return [VaryingKeyWriter(of_buckets) for of_buckets in zip(*prefixes, strict=True)]

    def arguments(self, asked: EntityKeys) -> bytes:
        """The requested keys as arguments of a command, for a plan with one bucket."""
        if self._rows_writer is not None and not self.variables:
            return self._rows_writer.write(asked.size, asked.packed)
        return self.arguments_in(asked.each(), None)

    def arguments_in(self, entity_keys: Sequence[bytes], buckets: Sequence[int] | None) -> bytes:
        """Keys as arguments of a command.

        Args:
            entity_keys: the entity keys.
            buckets: the bucket of each key; None when all keys are in bucket 0.
        """
        return b"".join([writer.write(entity_keys, buckets) for writer in self._writers])

    def prefixes(self, bucket: int) -> list[bytes]:
        """The prefix of the values' keys in a bucket, then the prefix of each view's variable values."""
        return [self.layout.prefix(self._plan.project, bucket)]

    def all_prefixes(self) -> list[bytes]:
        """As `prefixes`, for all buckets."""
        return [prefix for bucket in range(self._plan.buckets) for prefix in self.prefixes(bucket)]

    def key_name(self, key: bytes, view: str = "") -> str:
        """The name of an entity key in errors."""
        values = keys.decode(self.dtypes, key)
        named = ", ".join(f"{name}={value!r}" for (name, _), value in zip(self.join_keys, values, strict=True))
        return f"project {self._plan.project}, row of {self.layout.name}({named})" + (view and f", view {view}")


class RowsRead(GroupRead):
    """How a service reads a row group."""

    layout: RowLayout

    def __init__(self, plan: ServingPlan, group: RowGroupPlan) -> None:
        super().__init__(plan, RowLayout(group))

    def add_variables(self, view: str) -> None:
        """Read the variable values of a view too."""
        if view not in self.variables:
            insort(self.variables, view)

    def prefixes(self, bucket: int) -> list[bytes]:
        """See GroupRead."""
        project, group = self._plan.project, self.layout.group
        return [
            self.layout.prefix(project, bucket),
            *(keys.variable_prefix(project, bucket, group, view) for view in self.variables),
        ]


class TilesRead(GroupRead):
    """How a service reads a stream view."""

    layout: TileValueLayout

    def __init__(self, plan: ServingPlan, tiles: TilesPlan) -> None:
        super().__init__(plan, TileValueLayout(tiles))
        self._windows: list[str] = []

    def add_window(self, name: str) -> None:
        """Read a window too. All windows are added before the first request."""
        self._windows.append(name)

    @cached_property
    def reader(self) -> WindowReader:
        """Reads all the windows of a stream view at once."""
        return WindowReader(self.layout.tiles, self._windows)
