"""How definitions relate: what a service serves, who consumes a feature, and what a feature needs.

All code asks these questions here. Every answer is computed once for a `DefinitionSet` and kept with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from feature_store._formatting import shown_duration
from feature_store.definitions.aggregation import shown_window
from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.dtypes import MICROSECOND
from feature_store.definitions.feature_view import FeatureView, Projection
from feature_store.definitions.field import Field
from feature_store.definitions.on_demand import OnDemandFeatureView
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.functions import LIFETIME_US

AnyView = FeatureView | StreamFeatureView | OnDemandFeatureView
BatchOrStreamView = FeatureView | StreamFeatureView

FeatureKey = tuple[str, str]
"""A view's name and the name of one of its features."""


class ServedFeature(NamedTuple):
    """A column of a service, or an input of an on-demand view.

    Attributes:
        name: the column's name.
        view: the view that the feature comes from.
        feature: its name in that view.
        field: its definition in that view.
    """

    name: str
    view: str
    feature: str
    field: Field

    @property
    def key(self) -> FeatureKey:
        """The view and the feature."""
        return self.view, self.feature

    @property
    def reference(self) -> str:
        """`view:feature`."""
        return f"{self.view}:{self.feature}"


class Consumer(NamedTuple):
    """A column of a service that takes a feature.

    Attributes:
        service: the service; None for an on-demand view that no service serves.
        name: the column's name; of an on-demand view that no service serves, the name of its input.
        through: the on-demand view that takes the feature; None when the service takes it directly.
        pruned_by: the prune plan that drops the column; None when it is served.
    """

    service: str | None
    name: str
    through: str | None
    pruned_by: str | None


@dataclass(frozen=True)
class Feature:
    """A feature of a view, and its consumers.

    Attributes:
        view, field: its definition.
        entities: names of the entities that it describes; for an on-demand feature, those of its inputs.
        consumers: the columns that serve it directly, as `(service, name)`.
        inputs_of: names of the on-demand views that have it as an input.
    """

    view: AnyView
    field: Field
    entities: tuple[str, ...]
    consumers: tuple[tuple[str, str], ...]
    inputs_of: tuple[str, ...]

    @property
    def reference(self) -> str:
        """`view:feature`."""
        return f"{self.view.name}:{self.field.name}"

    @property
    def owner(self) -> str:
        """The field's owner, or else the view's."""
        return self.field.owner or self.view.owner

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the view and of the field. The field's win."""
        return {**self.view.tags, **self.field.tags}

    @property
    def description(self) -> str:
        """See `feature_description`."""
        return feature_description(self.view, self.field)

    @property
    def aggregation(self) -> dict[str, Any]:
        """See `aggregated_as`."""
        return aggregated_as(self.view, self.field.name)


class DefinitionGraph:
    """The relations of a set of definitions. `graph_of` makes one per set.

    Args:
        definitions: the set. Columns that its prunings drop stay in the graph, marked as dropped.
    """

    def __init__(self, definitions: DefinitionSet) -> None:
        self._definitions = definitions
        self._columns: dict[str, tuple[ServedFeature, ...]] = {}
        self._inputs: dict[str, tuple[ServedFeature, ...]] = {}

    # -- views and features -------------------------------------------------------------------------------------

    @cached_property
    def views(self) -> dict[str, AnyView]:
        """All views by name: batch, then stream, then on-demand views."""
        return {**self.stored_views, **self._definitions.on_demand_feature_views}

    @cached_property
    def stored_views(self) -> dict[str, BatchOrStreamView]:
        """The views whose values the online store holds, by name."""
        return {view.name: view for view in self._definitions.stored_views}

    @cached_property
    def _fields(self) -> dict[str, dict[str, Field]]:
        return {name: {field.name: field for field in view.fields} for name, view in self.views.items()}

    def field(self, view: str, feature: str) -> Field | None:
        """The definition of a feature; None: there is no such view or feature."""
        return self._fields.get(view, {}).get(feature)

    @cached_property
    def features(self) -> dict[str, Feature]:
        """All features by reference `view:feature`, in the order of `views`."""
        inputs: dict[FeatureKey, dict[str, None]] = {}
        for computed in self._definitions.on_demand_feature_views:
            for taken in self.inputs(computed):
                inputs.setdefault(taken.key, {})[computed] = None
        features = (
            Feature(
                view,
                field,
                self.entities_of[name],
                tuple(
                    (one.service, one.name)
                    for one in self.consumers(name, field.name)
                    if one.through is None and one.service is not None
                ),
                tuple(inputs.get((name, field.name), ())),
            )
            for name, view in self.views.items()
            for field in view.fields
        )
        return {feature.reference: feature for feature in features}

    @cached_property
    def entities_of(self) -> dict[str, tuple[str, ...]]:
        """The names of each view's entities; for an on-demand view, those of its inputs."""
        names = {name: tuple(entity.name for entity in view.entities) for name, view in self.stored_views.items()}
        for computed in self._definitions.on_demand_feature_views.values():
            of_inputs = (entity for projection in computed.projections for entity in names[projection.view])
            names[computed.name] = tuple(dict.fromkeys(of_inputs))
        return names

    # -- services -----------------------------------------------------------------------------------------------

    def columns(self, service: str) -> tuple[ServedFeature, ...]:
        """The columns of a service in order, including those that a prune plan drops.

        Raises:
            NotFoundError: there is no such service.
        """
        if service not in self._columns:
            self._columns[service] = tuple(self._served(self._definitions.service(service).features))
        return self._columns[service]

    def inputs(self, on_demand_view: str) -> tuple[ServedFeature, ...]:
        """The stored features that an on-demand view takes, in order, by the names of its inputs."""
        if on_demand_view not in self._inputs:
            projections = self._definitions.on_demand_feature_views[on_demand_view].projections
            self._inputs[on_demand_view] = tuple(self._served(projections))
        return self._inputs[on_demand_view]

    def _served(self, projections: Iterable[Projection]) -> Iterator[ServedFeature]:
        for projection in projections:
            fields = self._fields[projection.view]
            for feature, name in projection.columns:
                yield ServedFeature(name, projection.view, feature, fields[feature])

    def entities_of_service(self, service: str) -> tuple[str, ...]:
        """The names of the entities whose join keys a request for a service carries."""
        views = dict.fromkeys(column.view for column in self.columns(service))
        return tuple(dict.fromkeys(entity for view in views for entity in self.entities_of[view]))

    def request_of(self, *views: str) -> dict[str, str]:
        """The columns of a request for views: `{join key or request field: its type}`."""
        columns: dict[str, str] = {}
        for view in views:
            for name in self.entities_of[view]:
                entity = self._definitions.entities[name]
                columns[entity.join_key] = str(entity.dtype)
            computed = self._definitions.on_demand_feature_views.get(view)
            for request in computed.requests if computed is not None else ():
                columns |= {field.name: str(field.dtype) for field in request.fields}
        return columns

    def request_of_service(self, service: str) -> dict[str, str]:
        """The columns of a request for a service: `{join key or request field: its type}`.

        Raises:
            NotFoundError: there is no such service.
        """
        return self.request_of(*dict.fromkeys(column.view for column in self.columns(service)))

    # -- consumers ----------------------------------------------------------------------------------------------

    def needs(self, view: str, feature: str) -> list[FeatureKey]:
        """The stored features that a feature needs: itself, or the inputs of the on-demand view that computes it."""
        if view not in self._definitions.on_demand_feature_views:
            return [(view, feature)]
        return [taken.key for taken in self.inputs(view)]

    def needed_by(self, service: str, kept: Iterable[str] | None = None) -> set[FeatureKey]:
        """The stored features that a service needs.

        Args:
            service: its name.
            kept: the columns that it serves; None for all.

        Raises:
            NotFoundError: there is no such service.
        """
        wanted = None if kept is None else set(kept)
        names, views = set[FeatureKey](), self.stored_views
        for column in self.columns(service):
            if wanted is not None and column.name not in wanted:
                continue
            if column.view in views:
                names.add(column.key)
            else:
                names.update(self.needs(*column.key))
        return names

    def consumers(self, view: str, feature: str) -> tuple[Consumer, ...]:
        """The columns that take a feature: those that serve it, then those of on-demand views that compute from it."""
        return tuple(self._consumers.get((view, feature), ()))

    def services_with(self, view: str, feature: str) -> tuple[str, ...]:
        """The services that serve a feature, each once, including services whose prune plan drops it."""
        direct = (one.service for one in self.consumers(view, feature) if one.through is None)
        return tuple(dict.fromkeys(service for service in direct if service is not None))

    @cached_property
    def _consumers(self) -> dict[FeatureKey, list[Consumer]]:
        consumers: dict[FeatureKey, list[Consumer]] = {}
        of_view: dict[str, list[Consumer]] = {}
        for service in self._definitions.feature_services:
            pruning = self._definitions.prunings.get(service)
            dropped = pruning.not_served if pruning is not None else frozenset()
            for column in self.columns(service):
                plan = pruning.plan if pruning is not None and column.name in dropped else None
                one = Consumer(service, column.name, None, plan)
                consumers.setdefault(column.key, []).append(one)
                of_view.setdefault(column.view, []).append(one)
        for computed in self._definitions.on_demand_feature_views:
            for taken in self.inputs(computed):
                readers = of_view.get(computed) or [Consumer(None, taken.name, None, None)]
                consumers.setdefault(taken.key, []).extend(one._replace(through=computed) for one in readers)
        return consumers


def graph_of(definitions: DefinitionSet) -> DefinitionGraph:
    """The graph of a set of definitions, made on the first call."""
    return definitions.derived(DefinitionGraph)


def aggregated_as(view: AnyView, feature: str) -> dict[str, Any]:
    """How a feature is computed from events; empty: it is not an aggregation.

    Returns:
        `function`, `column`, `filter` (None without one), `window`, and `hop`, which is None for a cell;
        `parameters`, if the function has any.
    """
    for aggregation in getattr(view, "aggregations", ()):
        for window in aggregation.windows:
            if aggregation.feature_name(window) == feature:
                return {
                    "function": aggregation.function,
                    "column": aggregation.parameters.get("serves", aggregation.column),  # a sequence has several
                    "filter": aggregation.filter,
                    "window": shown_window(window),
                    "hop": None
                    if aggregation.hop_us(window) == LIFETIME_US
                    else shown_duration(aggregation.hop_us(window) * MICROSECOND),
                    **({"parameters": dict(aggregation.parameters)} if aggregation.parameters else {}),
                }
    return {}


def feature_description(view: AnyView, field: Field) -> str:
    """The description of a feature; for an aggregation without one, a generated description."""
    if field.description or not (made := aggregated_as(view, field.name)):
        return field.description
    where = f" where {made['filter']}" if made["filter"] else ""
    over = "all events" if made["window"] == "lifetime" else made["window"]
    return f"{made['function']} of {made['column']} over {over}{where}"
