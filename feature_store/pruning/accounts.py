"""The profit and loss of features: what each is worth, what it costs, who consumes it."""

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
    """The profit and loss of one feature.

    Attributes:
        feature, view: its name as served, and where it comes from.
        importance, std: None when nothing is known.
        bytes, keys: of a request, that go with it alone.
        redis_bytes: of the online store, that go with it alone; None when the store was not asked.
        daily_bytes: that materializing it writes a day; None when that is not known, as of what is pushed or streamed.
        round_trip: the share of a request's time between client and Redis that goes with it alone, 0 to 1; None when
            requests were not timed.
        decode_ns: to make a matrix of it alone, of a request's rows; None when it was not timed.
        consumers: the services that serve it.
        labels: see `labels.classify`; `required` when a tag pins it.
        dropped_by: the prune plan that drops it now.
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
        """Importance per byte of a request; None when it costs nothing, or nothing is known."""
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
        definitions: as they are applied.
        model: the costs of the service.
        importances: None: nothing is known.
        pinned: features that tags pin.
        rows: how many each row group and stream view holds; None: not known.
        daily: how many rows a view is materialized a day, where that is known.
        latency: of requests; None: not timed.
        decode_ns: of each feature that was timed.
    """
    known = {item.feature: item for item in importances.features} if importances is not None else {}
    graph = graph_of(definitions)
    columns = graph.columns(model.service)
    needs = {column.name: {stored for stored, _ in graph.needs(*column.key)} for column in columns}
    served = {column.name: graph.services_with(*column.key) for column in columns}
    labels = classify(importances, served) if importances is not None else {}
    pruning = definitions.prunings.get(model.service)
    dropped = {feature.name for feature in pruning.dropped} if pruning is not None else set()
    found = []
    for name in model.features:
        alone, item = model.alone(name), known.get(name)
        found.append(
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
    return sorted(found, key=lambda account: -(account.importance or 0.0))


def _daily(model: CostModel, name: str, views: set[str], daily: Mapping[str, float]) -> int | None:
    """Bytes a day, when it is known of all the views that the feature needs."""
    if not views or not views <= daily.keys():
        return None
    per_row = model.stored_alone(name, dict.fromkeys({one.stored for one in model.resources}, 1))
    return round(per_row * max(daily[view] for view in views))


def _round_trip(latency: Latency, model: CostModel, alone: Cost) -> float | None:
    """The share of what keys and bytes take, and of what any request takes."""

    def of(cost: Cost) -> float:
        return latency.per_key * cost.keys + latency.per_byte * cost.bytes

    whole = latency.base + of(model.cost(model.features))
    return of(alone) / whole if whole > 0 else None
