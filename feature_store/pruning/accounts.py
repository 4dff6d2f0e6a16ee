"""Accounts of features: importance, cost and consumers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.graph import graph_of
from feature_store.pruning.budget import Latency
from feature_store.pruning.cost import Cost, CostModel
from feature_store.pruning.importance import Importances
from feature_store.pruning.labels import classify


@dataclass(frozen=True)
class FeatureAccount:
    """The account of a feature. A cost is what dropping this feature alone saves.

    Attributes:
        feature: its name as served.
        view: the view that it comes from.
        importance, std: its importance and standard deviation; None: not known.
        bytes, keys: its cost in a request.
        redis_bytes: its cost in the online store; None: the store was not asked.
        daily_bytes: the bytes that materializing it writes per day; None: not known, as for pushed views.
        round_trip: its share of the time between client and Redis, 0 to 1; None: requests were not timed.
        decode_ns: nanoseconds to make a matrix of it alone from a request's rows; None: not timed.
        consumers: the services that serve it.
        labels: see `labels.classify`; also `required` if a tag pins it.
        dropped_by: the applied prune plan that drops it.
    """

    feature: str
    view: str
    importance: float | None
    std: float | None
    bytes: int
    keys: int
    redis_bytes: int | None
    daily_bytes: int | None
    round_trip: float | None
    decode_ns: int | None
    consumers: tuple[str, ...]
    labels: tuple[str, ...]
    dropped_by: str | None

    @property
    def importance_per_byte(self) -> float | None:
        """Importance per byte of a request; None if it costs no bytes or its importance is not known."""
        return self.importance / self.bytes if self.importance is not None and self.bytes else None


def accounts_of(
    definitions: DefinitionSet,
    model: CostModel,
    importances: Importances | None,
    *,
    pinned: Collection[str],
    rows: Mapping[str, int] | None,
    daily: Mapping[str, float],
    latency: Latency | None,
    decode_ns: Mapping[str, int],
) -> list[FeatureAccount]:
    """The accounts of a service's features, the most important first.

    Args:
        definitions: the applied definitions.
        model: the costs of the service.
        importances: the importances; None: not known.
        pinned: features that tags pin.
        rows: the number of rows of each row group and stream view; None: not known.
        daily: the number of rows that are materialized per day, for each view where it is known.
        latency: the latency of requests; None: not timed.
        decode_ns: nanoseconds to decode each timed feature.
    """
    known = {item.feature: item for item in importances.features} if importances is not None else {}
    graph = graph_of(definitions)
    columns = graph.columns(model.service)
    needs = {column.name: {stored for stored, _ in graph.needs(*column.key)} for column in columns}
    served = {column.name: graph.services_with(*column.key) for column in columns}
    labels = classify(importances, served) if importances is not None else {}
    pruning = definitions.prunings.get(model.service)
    dropped = {feature.name for feature in pruning.dropped} if pruning is not None else set()
    accounts = []
    for name in model.features:
        alone, item = model.alone(name), known.get(name)
        accounts.append(
            FeatureAccount(
                feature=name,
                view=model.views[name],
                importance=item.importance if item is not None else None,
                std=item.std if item is not None else None,
                bytes=alone.bytes,
                keys=alone.keys,
                redis_bytes=model.stored_alone(name, rows) if rows is not None else None,
                daily_bytes=_daily(model, name, needs[name], daily),
                round_trip=None if latency is None else _round_trip(latency, model, alone),
                decode_ns=decode_ns.get(name),
                consumers=served[name],
                labels=(*labels.get(name, ()), *(["required"] if name in pinned else [])),
                dropped_by=pruning.plan if pruning is not None and name in dropped else None,
            )
        )
    return sorted(accounts, key=lambda account: -(account.importance or 0.0))


def _daily(model: CostModel, name: str, views: set[str], daily: Mapping[str, float]) -> int | None:
    """Bytes per day; None unless known for all views that the feature needs."""
    if not views or not views <= daily.keys():
        return None
    per_row = model.stored_alone(name, dict.fromkeys({one.stored for one in model.resources}, 1))
    return round(per_row * max(daily[view] for view in views))


def _round_trip(latency: Latency, model: CostModel, alone: Cost) -> float | None:
    """The share of the time of keys, bytes and the request itself."""

    def of(cost: Cost) -> float:
        return latency.per_key * cost.keys + latency.per_byte * cost.bytes

    whole = latency.base + of(model.cost(model.features))
    return of(alone) / whole if whole > 0 else None
