"""All the definitions of a project, checked against each other, and as a stored document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from feature_store.definitions.aggregation import Aggregation
from feature_store.definitions.batch_source import batch_source
from feature_store.definitions.definition import Definition
from feature_store.definitions.dtypes import MICROSECOND
from feature_store.definitions.entity import Entity
from feature_store.definitions.feature_view import FeatureView, Projection
from feature_store.definitions.on_demand import OnDemandFeatureView
from feature_store.definitions.pruning import Pruning
from feature_store.definitions.service import FeatureService
from feature_store.definitions.source import KafkaSource
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.errors import DefinitionError, NotFoundError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta

D = TypeVar("D", bound=Definition)
KINDS: dict[str, type[Definition]] = {
    "entities": Entity,
    "feature_views": FeatureView,
    "stream_feature_views": StreamFeatureView,
    "on_demand_feature_views": OnDemandFeatureView,
    "feature_services": FeatureService,
}


class DefinitionSet:
    """The entities, views and services of a project, by kind and name, sorted.

    Args:
        definitions: any number of them; entities that views mention are taken along.
        prunings: what is taken from services, one of each at most.

    Raises:
        DefinitionError: two differ under one name, or one mentions what is not there.
    """

    def __init__(self, definitions: Iterable[Definition], prunings: Iterable[Pruning] = ()) -> None:
        found: dict[str, Definition] = {}
        for definition in definitions:
            members = definition.entities if isinstance(definition, (FeatureView, StreamFeatureView)) else ()
            for item in (*members, definition):
                known = found.setdefault(item.name, item)
                if known != item:
                    raise DefinitionError(
                        f"{type(item).__name__}({item.name!r})",
                        expected="one definition of a name, of whatever kind",
                        got=f"another {type(known).__name__} of that name that differs",
                    )
        self.entities = _of_kind(found, Entity)
        self.feature_views = _of_kind(found, FeatureView)
        self.stream_feature_views = _of_kind(found, StreamFeatureView)
        self.on_demand_feature_views = _of_kind(found, OnDemandFeatureView)
        self.feature_services = _of_kind(found, FeatureService)
        self.prunings = {pruning.service: pruning for pruning in prunings}
        self._check_join_keys()
        self._check_projections()
        self._check_requests()

    def __iter__(self) -> Any:
        return (item for kind in KINDS for item in getattr(self, kind).values())

    def view(self, name: str) -> FeatureView:
        """The feature view of that name.

        Raises:
            NotFoundError: there is none.
        """
        return find(self.feature_views, name, "feature view")

    @property
    def stored_views(self) -> list[FeatureView | StreamFeatureView]:
        """The views whose values the online store holds."""
        return [*self.feature_views.values(), *self.stream_feature_views.values()]

    def stored_view(self, name: str) -> FeatureView | StreamFeatureView:
        """The view of that name whose values the online store holds.

        Raises:
            NotFoundError: there is none.
        """
        return find({view.name: view for view in self.stored_views}, name, "feature view")

    def servable_view(self, name: str) -> FeatureView | StreamFeatureView | OnDemandFeatureView:
        """The view of that name, of whatever kind.

        Raises:
            NotFoundError: there is none.
        """
        views = {view.name: view for view in (*self.stored_views, *self.on_demand_feature_views.values())}
        return find(views, name, "feature view")

    def with_prunings(self, prunings: Iterable[Pruning]) -> DefinitionSet:
        """The same definitions, with these prunings and no others."""
        return DefinitionSet(self, prunings)

    def stored_views_of(self, service: str) -> list[FeatureView | StreamFeatureView]:
        """The stored views that a service reads, for its on-demand features too, each once.

        Raises:
            NotFoundError: there is no such service.
        """
        names: dict[str, None] = {}
        for projection in self.service(service).features:
            computed = self.on_demand_feature_views.get(projection.view)
            names |= dict.fromkeys([one.view for one in computed.projections] if computed else [projection.view])
        return [self.stored_view(name) for name in names]

    def service(self, name: str) -> FeatureService:
        """The feature service of that name.

        Raises:
            NotFoundError: there is none.
        """
        return find(self.feature_services, name, "feature service")

    def to_document(self) -> dict[str, Any]:
        """The definitions as JSON types: `{kind: {name: definition}}`; and, if there are any, `prunings`."""
        document: dict[str, Any] = {
            kind: {name: _as_json(item) for name, item in getattr(self, kind).items()} for kind in KINDS
        }
        if self.prunings:
            document["prunings"] = {name: pruning.model_dump(mode="json") for name, pruning in self.prunings.items()}
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Mapping[str, Any]]) -> DefinitionSet:
        """The inverse of `to_document`; on-demand views come back without their functions."""
        entities = {name: Entity(name, **about) for name, about in document["entities"].items()}
        views = [
            FeatureView(
                name,
                **about
                | {
                    "entities": [entities[entity] for entity in about["entities"]],
                    "ttl": _timedelta(about["ttl"]),
                    "freshness": _timedelta(about.get("freshness")),
                    "source": None if about["source"] is None else batch_source(about["source"]),
                    "aggregations": [Aggregation(**aggregation) for aggregation in about.get("aggregations", ())],
                },
            )
            for name, about in document["feature_views"].items()
        ]
        streams = [
            StreamFeatureView(
                name,
                **about
                | {
                    "entities": [entities[entity] for entity in about["entities"]],
                    "source": KafkaSource(**_with_history(about["source"])),
                    "freshness": _timedelta(about.get("freshness")),
                    "aggregations": [Aggregation(**aggregation) for aggregation in about["aggregations"]],
                },
            )
            for name, about in document.get("stream_feature_views", {}).items()
        ]
        on_demand = [OnDemandFeatureView(name, **about) for name, about in document["on_demand_feature_views"].items()]
        services = [FeatureService(name, **about) for name, about in document["feature_services"].items()]
        prunings = [Pruning(**about) for about in document.get("prunings", {}).values()]
        return cls([*entities.values(), *views, *streams, *on_demand, *services], prunings)

    def _check_join_keys(self) -> None:
        by_key: dict[str, Entity] = {}
        for entity in self.entities.values():
            other = by_key.setdefault(entity.join_key, entity)
            if other.dtype != entity.dtype:
                raise DefinitionError(
                    f"Entity({entity.name!r}).dtype",
                    expected=f"{other.dtype}, as join key {entity.join_key!r} has in Entity({other.name!r})",
                    got=str(entity.dtype),
                )

    def _check_projections(self) -> None:
        stored: dict[str, Any] = {**self.feature_views, **self.stream_feature_views}
        for view in self.on_demand_feature_views.values():
            self._check_columns(f"OnDemandFeatureView({view.name!r}).sources", view.projections, stored)
        servable = {**stored, **self.on_demand_feature_views}
        for service in self.feature_services.values():
            self._check_columns(f"FeatureService({service.name!r}).features", service.features, servable)

    @staticmethod
    def _check_columns(where: str, projections: tuple[Projection, ...], views: dict[str, Any]) -> None:
        for i, projection in enumerate(projections):
            if projection.view not in views:
                raise DefinitionError(
                    f"{where}[{i}]",
                    expected="a view that is defined",
                    got=repr(projection.view),
                    hint="is the module that defines it among the project's definitions?",
                )
            known = {field.name for field in views[projection.view].fields}
            for feature, _ in projection.columns:
                if feature not in known:
                    raise DefinitionError(
                        f"{where}[{i}]", expected=f"a feature of {projection.view}", got=repr(feature)
                    )

    def _check_requests(self) -> None:
        keys = {entity.join_key for entity in self.entities.values()}
        types: dict[str, tuple[Any, str]] = {}
        for view in self.on_demand_feature_views.values():
            for request in view.requests:
                for field in request.fields:
                    where = f"RequestSource({request.name!r}).{field.name}"
                    if field.name in keys:
                        raise DefinitionError(where, expected="a name that no join key has", got=repr(field.name))
                    dtype, first = types.setdefault(field.name, (field.dtype, where))
                    if dtype != field.dtype:
                        raise DefinitionError(where, expected=f"{dtype}, as in {first}", got=str(field.dtype))


def find(items: Mapping[str, D], name: str, kind: str) -> D:
    """The item of that name.

    Raises:
        NotFoundError: there is none; it lists those there are.
    """
    if not isinstance(name, str) or name not in items:
        expected = f"a {kind}: {', '.join(items) or 'none is defined'}"
        raise NotFoundError(name, expected=expected, got=repr(name)[:80], hint=did_you_mean(str(name), items))
    return items[name]


def _as_json(definition: Definition) -> dict[str, Any]:
    document = definition.model_dump(mode="json", by_alias=True, exclude={"name"})
    # Where they are not declared, the document is the one of before they could be, and so is its digest.
    unsaid = {"freshness": None, "on_breach": "block", "nulls": "strict"}
    return {name: value for name, value in document.items() if name not in unsaid or value != unsaid[name]}


def _timedelta(microseconds: int | None) -> timedelta | None:
    return None if microseconds is None else microseconds * MICROSECOND


def _with_history(source: dict[str, Any]) -> dict[str, Any]:
    history = source.get("history")
    return source | {"history": None if history is None else batch_source(history)}


def _of_kind(found: dict[str, Definition], kind: type[D]) -> dict[str, D]:
    return {name: found[name] for name in sorted(found) if type(found[name]) is kind}  # type: ignore[misc]
