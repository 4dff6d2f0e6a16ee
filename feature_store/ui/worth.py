"""What features cost and what they are worth, service by service."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from feature_store.project.pruner import Pruner
from feature_store.pruning.cost import cost_model

if TYPE_CHECKING:
    from feature_store.project.store import FeatureStore
    from feature_store.pruning.cost import Cost, CostModel
    from feature_store.pruning.importance import FeatureImportance, Importances
    from feature_store.ui.snapshot import Snapshot


@dataclass(frozen=True)
class Worth:
    """A service's costs for a request of one of each entity, and the newest importances that are kept of it.

    Attributes:
        service: its name.
        model: what a request costs.
        importances: None when nothing is known.
    """

    service: str
    model: CostModel
    importances: Importances | None

    @cached_property
    def ranked(self) -> dict[str, tuple[int, FeatureImportance]]:
        """Per feature its rank, from 1, and its importance."""
        items = self.importances.features if self.importances is not None else ()
        ordered = sorted(items, key=lambda item: -item.importance)
        return {item.feature: (rank, item) for rank, item in enumerate(ordered, 1)}

    def alone(self, name: str) -> Cost:
        """What a request saves without one feature, by the name it is served by."""
        return self.model.alone(name)


def worth_of(store: FeatureStore, snapshot: Snapshot, service: str) -> Worth:
    """The costs and importances of a service's features.

    Raises:
        NotFoundError: there is no such service.
    """
    request = dict.fromkeys(snapshot.definitions.entities, 1)
    model = cost_model(snapshot.definitions, service, request, project=store.project)
    return Worth(service, model, Pruner(store).importances(service))
