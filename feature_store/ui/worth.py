"""The importances of a service's features, and their costs in a request of one of each entity."""

from __future__ import annotations

from dataclasses import dataclass

from feature_store.pruning.accounts import FeatureAccount
from feature_store.pruning.cost import Cost
from feature_store.pruning.service import PrunableService


@dataclass(frozen=True)
class Worth:
    """The accounts of a service.

    Attributes:
        cost: the cost of all its features.
        method: the method of its importances; empty: none are kept.
        accounts: the account of each feature, the most important first.
    """

    cost: Cost
    method: str
    accounts: dict[str, FeatureAccount]

    def rank(self, name: str) -> int | None:
        """The rank of a feature by importance, from 1. None if its importance is not known."""
        known = [feature for feature, account in self.accounts.items() if account.importance is not None]
        return known.index(name) + 1 if name in known else None


def worth_of(service: PrunableService) -> Worth:
    """The accounts of a service for a request of one of each entity."""
    request = dict.fromkeys(service.definitions.entities, 1)
    model = service.costs(request)
    method = service.known.method if service.known is not None else ""
    accounts = {account.feature: account for account in service.accounts(request)}
    return Worth(model.cost(model.features), method, accounts)
