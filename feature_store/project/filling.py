"""Fill new generations of rows and tiles before readers see them, for an apply and for a backfill."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from feature_store._extras import requires_extra
from feature_store.definitions.definition_set import DefinitionSet, find
from feature_store.definitions.dtypes import given_microseconds
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.materialize.rollout import refill
from feature_store.project.context import Project
from feature_store.registry.serving_plan import RowGroupPlan, TilesPlan

if TYPE_CHECKING:
    from feature_store.engines.report import Report
    from feature_store.streaming.backfill import Filled


class GenerationFiller:
    """Fills new generations of rows and tiles before readers see them: the Filler of `materialize.rollout`.

    Args:
        project: the project.
        definitions: the definitions of the version, pruned.
    """

    def __init__(self, project: Project, definitions: DefinitionSet) -> None:
        self._project, self._definitions = project, definitions

    def fill_rows(self, view: str, group: RowGroupPlan, intervals: list[tuple[int, int]]) -> None:
        """Materialize a view into a new generation of its row group, over intervals in microseconds."""
        with requires_extra("local", "materialize"):
            from feature_store.materialize.job import Target, materialize
            from feature_store.materialize.span import Span

        definition, online = self._definitions.view(view), self._project.online
        if definition.source is None:
            return
        for start_us, end_us in intervals:
            materialize(
                definition,
                Span(start_us, end_us),
                Target(online.filling(view, group), online.progress(view, group)),
                folders=self._project.folders,
                engine=self._project.engine(),
                digest=str(group.generation),
            )

    def tiles_start_us(self, tiles: TilesPlan) -> int | None:
        """See Filler."""
        with requires_extra("kafka", "filling a changed stream view"):
            from feature_store.streaming.backfill import history_end_us
        return history_end_us(self._view(tiles), self._project.folders.source)

    def fill_tiles(self, tiles: TilesPlan) -> None:
        """See Filler."""
        with requires_extra("local", "backfill"), requires_extra("kafka", "backfill"):
            from feature_store.streaming.backfill import Backfill
        # The topic may have lost the events after a history that ended long ago. That must not block the change.
        Backfill(self._project, self._view(tiles), allow_gap=True).fill(tiles)

    def _view(self, tiles: TilesPlan) -> StreamFeatureView:
        return self._definitions.stream_feature_views[tiles.view]


def backfill(
    project: Project, view: str, until: datetime | None, *, allow_gap: bool = False, report: Report | None = None
) -> Filled:
    """Fill a stream view from its history and from Kafka; see `FeatureStore.backfill`."""
    with requires_extra("local", "backfill"), requires_extra("kafka", "backfill"):
        from feature_store.streaming.backfill import Backfill

    version, _ = project.served()
    definition = find(version.served_definitions().stream_feature_views, view, "stream view")
    until_us = None if until is None else given_microseconds(until, "until")
    made = Backfill(project, definition, allow_gap=allow_gap, report=report)
    made.refuse_end(until_us)
    return refill(project.online, definition.name, until_us, made.fill)
