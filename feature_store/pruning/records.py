"""The importances and prune plans that a registry keeps."""

from __future__ import annotations

import hashlib

from feature_store.errors import NotFoundError, did_you_mean
from feature_store.pruning.importance import Importances
from feature_store.pruning.plan import PrunePlan
from feature_store.registry.store import Registry, current_author


class PruningRecords:
    """Importances and prune plans of a project's services.

    Args:
        registry: the project's.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def importances(self, service: str) -> Importances | None:
        """The newest importances of a service, or None."""
        records = self._registry.prune_records("importances", service)
        return Importances.from_json(records[0].document) if records else None

    def keep_importances(self, service: str, importances: Importances) -> None:
        """Keep importances. They are then the newest of the service."""
        document = importances.to_json()
        id = hashlib.sha256(service.encode() + document).hexdigest()[:12]
        self._registry.keep_prune_record("importances", service, id, document, current_author())

    def plans(self, service: str | None = None) -> list[PrunePlan]:
        """The plans of one service, or of all, the newest first."""
        return [PrunePlan.from_json(record.document) for record in self._registry.prune_records("plan", service)]

    def keep_plan(self, plan: PrunePlan) -> None:
        """Keep a plan. It replaces one with the same id, such as itself before it was verified."""
        self._registry.keep_prune_record("plan", plan.service, plan.id, plan.to_json(), current_author())

    def plan(self, id: str) -> PrunePlan:
        """A plan by its id, or by the start of its id.

        Raises:
            NotFoundError: no plan has such an id, or several have.
        """
        plans = self.plans()
        found = [plan for plan in plans if plan.id.startswith(id)]
        if len(found) != 1:
            known = ", ".join(plan.id for plan in plans)
            raise NotFoundError(
                f"prune plan {id}",
                expected=f"the id of one plan: {known}" if known else "a plan",
                got=f"{len(found)} plans whose ids start with it" if found else "none",
                hint=did_you_mean(id, [plan.id for plan in plans])
                or ("" if known else "make one: `feature-store prune plan`"),
            )
        return found[0]
