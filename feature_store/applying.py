"""What applying does beside the rollout: which definitions become a version, and how new generations are filled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_store.definitions.pruned import refuse_unbound
from feature_store.errors import NotFoundError, RefusedError, extra
from feature_store.registry.diff import plan_changes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from feature_store.definitions.definition_set import DefinitionSet
    from feature_store.definitions.pruning import Pruning
    from feature_store.definitions.stream_view import StreamFeatureView
    from feature_store.engines.engine import Engine
    from feature_store.materialize.job import Folders
    from feature_store.online.store import OnlineStore
    from feature_store.registry.diff import ChangePlan
    from feature_store.registry.serving_plan import RowGroupPlan, ServingPlan, TilesPlan
    from feature_store.registry.store import Version
    from feature_store.streaming.backfill import Backfill


@dataclass(frozen=True)
class Applied:
    """What an apply did: the version that is now served, and the changes that led to it."""

    version: Version
    changes: ChangePlan
    plan: ServingPlan


@dataclass(frozen=True)
class Target:
    """Definitions that are to be a version, and how they differ from what is applied."""

    definitions: DefinitionSet
    changes: ChangePlan

    def refuse_unless_possible(self) -> None:
        """Raise a RefusedError when a change cannot be carried out on stored data."""
        if self.changes.refused:
            refused = self.changes.refused[0]
            raise RefusedError(f"{refused.kind} {refused.name}", got=str(refused.details[0]), hint=refused.reason)


def with_definitions(newest: Version | None, definitions: DefinitionSet) -> Target:
    """The definitions, pruned as those that are applied.

    Raises:
        ConflictError: a service has changed that a prune plan is applied to.
    """
    if newest is None:
        return Target(definitions, plan_changes(None, definitions))
    applied = newest.definitions()
    target = definitions.with_prunings(applied.prunings.values())
    for pruning in target.prunings.values():
        refuse_unbound(target, pruning)
    return Target(target, plan_changes(applied, target))


def with_pruning(newest: Version, service: str, pruning: Pruning | None) -> Target:
    """What is applied, with another pruning of a service, or (None) without any.

    Raises:
        NotFoundError: there is no such service, or nothing is pruned of it.
        ConflictError: the service is not what the pruning was made for.
    """
    applied = newest.definitions()
    applied.service(service)
    others = [one for one in applied.prunings.values() if one.service != service]
    if pruning is None and len(others) == len(applied.prunings):
        raise NotFoundError(f"service {service}", expected="a prune plan that is applied", got="none")
    target = applied.with_prunings(others if pruning is None else [*others, pruning])
    if pruning is not None:
        refuse_unbound(target, pruning)
    return Target(target, plan_changes(applied, target))


class Fills:
    """Fills new generations before readers see them: see rollout.Fill (`rows`) and rollout.FillTiles.

    Args:
        definitions: what is computed and stored of the version.
        folder: what sources' paths are relative to.
        online: the online store.
        engine: the configured one.
        folders: where jobs keep files.
        backfill: of a stream view.
    """

    def __init__(
        self,
        definitions: DefinitionSet,
        *,
        folder: Path,
        online: OnlineStore,
        engine: Callable[[], Engine],
        folders: Callable[[], Folders],
        backfill: Callable[[StreamFeatureView], Backfill],
    ) -> None:
        self._definitions, self._folder = definitions, folder
        self._online = online
        self._engine, self._folders, self._backfill = engine, folders, backfill

    def rows(self, view: str, group: RowGroupPlan, intervals: list[tuple[int, int]]) -> None:
        """Materialize a view into a new generation of its row group, over intervals in microseconds."""
        with extra("local", "materialize"):
            from feature_store.materialize.job import materialize

        definition = self._definitions.view(view)
        if definition.source is None:
            return
        for start_us, end_us in intervals:
            materialize(
                definition,
                source_folder=self._folder,
                start_us=start_us,
                end_us=end_us,
                lookback_us=0,
                engine=self._engine(),
                destination=self._online.filling(view, group),
                progress=self._online.progress(view, group),
                folders=self._folders(),
                digest=str(group.generation),
                report=None,
            )

    def start_us(self, tiles: TilesPlan) -> int | None:
        """See FillTiles."""
        with extra("kafka", "filling a changed stream view"):
            from feature_store.streaming.backfill import history_end_us
        return history_end_us(self._view(tiles), self._folder)

    def fill(self, tiles: TilesPlan) -> None:
        """See FillTiles."""
        self._backfill(self._view(tiles)).fill(tiles)

    def _view(self, tiles: TilesPlan) -> StreamFeatureView:
        return self._definitions.stream_feature_views[tiles.view]
