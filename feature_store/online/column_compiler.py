"""The columns of a service, compiled from the serving plan: which kind each column is, and what must be read for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_store.definitions.dtypes import DType
from feature_store.errors import NotFoundError, RequestError
from feature_store.online.columns import ComputedColumn, PrunedColumn, StoredColumn, WindowColumn
from feature_store.online.group_reads import RowsRead, TilesRead
from feature_store.online.transforms import CompiledTransform, TransformInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from feature_store.online.column import ServedColumn
    from feature_store.online.group_reads import GroupRead
    from feature_store.online.offered import Offered
    from feature_store.registry.serving_plan import (
        ColumnPlan,
        InputPlan,
        PrunedColumnPlan,
        RowGroupPlan,
        ServicePlan,
        ServingPlan,
        TilesPlan,
    )


class ColumnCompiler:
    """Compiles the columns of one service.

    Args:
        plan: the serving plan.
        offered: the on-demand functions that this process offers.

    Attributes:
        groups: how each group that the columns need is read, in the order of first use.
        transforms: the on-demand views that the columns need, by name.
    """

    def __init__(self, plan: ServingPlan, offered: Offered) -> None:
        self._plan, self._offered = plan, offered
        self._transform_plans = {transform.name: transform for transform in plan.transforms}
        self._rows: dict[str, tuple[int, RowsRead]] = {}
        self._tiles: dict[str, tuple[int, TilesRead]] = {}
        self.groups: list[GroupRead] = []
        self.transforms: dict[str, CompiledTransform] = {}

    def columns(self, service: ServicePlan) -> dict[str, ServedColumn]:
        """The columns of the service by name, in its order.

        Raises:
            NotFoundError: the plan has no such view, or a prune plan dropped the feature.
            RequestError: a view has no such feature.
            TransformError: an on-demand function is not offered, or differs from the applied ones.
        """
        read = {column.name: self.column(column) for column in service.columns}
        pruning = service.pruning
        if pruning is None or pruning.stage == "shadow" or pruning.answer != "default":
            return read
        dropped = {column.name: column for column in pruning.dropped}
        return {name: _pruned(dropped[name]) if name in dropped else read[name] for name in pruning.columns}

    def column(self, column: ColumnPlan) -> ServedColumn:
        """A column of the plan.

        Raises:
            NotFoundError, RequestError, TransformError: as `columns`.
        """
        try:
            return self._column(column)
        except (NotFoundError, RequestError):
            dropped = self._plan.dropped_by(column.view, column.feature)
            if dropped is None:
                raise
        expected = "a feature that is stored"
        hint = "roll the plan back (`feature-store prune rollback`) to have it again"
        raise NotFoundError(f"{column.view}:{column.feature}", expected=expected, got=dropped, hint=hint)

    def _column(self, column: ColumnPlan) -> ServedColumn:
        plan = self._transform_plans.get(column.view)
        if plan is None:
            return self._stored(column.view, column.feature)
        if plan.name not in self.transforms:
            chosen = self._offered.choose(plan)
            inputs = [self._input(item) for item in plan.inputs]
            self.transforms[plan.name] = CompiledTransform(plan, chosen.function, inputs, chosen.digest)
        output = next((field for field in plan.outputs if field.name == column.feature), None)
        if output is None:
            raise RequestError(
                f"{column.view}:{column.feature}", expected=f"a feature of {column.view}", got=column.feature
            )
        dtype = DType.parse(output.dtype)
        return ComputedColumn(self.transforms[plan.name], output.name, dtype, dtype.from_json(output.default))

    def _stored(self, view: str, feature: str) -> StoredColumn | WindowColumn:
        tiles = self._plan.tiles_of(view)
        if tiles is not None:
            return self._window(tiles, feature)
        group, read = self._rows_of(self._plan.group_of(view))
        segment = read.layout.segments[view]
        field = segment.fields[_known(view, feature, segment.fields)]
        if field.slot >= 0:
            read.add_variables(view)
        return StoredColumn(group, segment, field)

    def _window(self, tiles: TilesPlan, feature: str) -> WindowColumn:
        group, read = self._tiles_of(tiles)
        windows = {window.name: window for window in tiles.windows.features}
        window = windows[_known(tiles.view, feature, windows)]
        read.add_window(window.name)
        dtype = DType.parse(window.dtype)
        return WindowColumn(group, tiles.view, window, dtype, dtype.from_json(window.default))

    def _rows_of(self, group: RowGroupPlan) -> tuple[int, RowsRead]:
        if group.name not in self._rows:
            self._rows[group.name] = len(self.groups), RowsRead(self._plan, group)
            self.groups.append(self._rows[group.name][1])
        return self._rows[group.name]

    def _tiles_of(self, tiles: TilesPlan) -> tuple[int, TilesRead]:
        if tiles.view not in self._tiles:
            self._tiles[tiles.view] = len(self.groups), TilesRead(self._plan, tiles)
            self.groups.append(self._tiles[tiles.view][1])
        return self._tiles[tiles.view]

    def _input(self, plan: InputPlan) -> TransformInput:
        dtype = DType.parse(plan.dtype)
        column = self._stored(plan.view, plan.feature) if plan.view else None
        return TransformInput(plan.name, column, dtype, dtype.from_json(plan.default))


def _pruned(column: PrunedColumnPlan) -> PrunedColumn:
    dtype = DType.parse(column.dtype)
    return PrunedColumn(dtype, dtype.from_json(column.default))


def _known(view: str, feature: str, features: Mapping[str, object]) -> str:
    """Return `feature` when the view has it.

    Raises:
        RequestError: the view has no such feature.
    """
    if feature not in features:
        expected = f"a feature of {view}: {', '.join(features)}"
        raise RequestError(f"{view}:{feature}", expected=expected, got=repr(feature))
    return feature
