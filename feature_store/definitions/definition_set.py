"""All definitions of a project: checked against each other, and as a stored document."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from feature_store.definitions.aggregation import Aggregation
from feature_store.definitions.batch_source import SOURCES
from feature_store.definitions.definition import Definition
from feature_store.definitions.dtypes import MICROSECOND
from feature_store.definitions.entity import Entity
from feature_store.definitions.feature_view import FeatureView, Projection
from feature_store.definitions.message_format import FORMATS
from feature_store.definitions.on_demand import OnDemandFeatureView
from feature_store.definitions.pruning import Pruning
from feature_store.definitions.service import FeatureService
from feature_store.definitions.source import KafkaSource
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.errors import DefinitionError, NotFoundError, did_you_mean

D = TypeVar("D", bound=Definition)
T = TypeVar("T")
Document = dict[str, Any]
KINDS: dict[str, type[Definition]] = {
    "entities": Entity,
    "feature_views": FeatureView,
    "stream_feature_views": StreamFeatureView,
    "on_demand_feature_views": OnDemandFeatureView,
    "feature_services": FeatureService,
}
# Documents of earlier releases lack these kinds.
_ADDED_LATER = {"stream_feature_views"}


class DefinitionSet:
    """The entities, views and services of a project, by kind and name, sorted. A set is immutable.

    Args:
        definitions: the definitions. The entities of their views are added.
        prunings: prunings of services, at most one per service.

    Raises:
        DefinitionError: two definitions of one name differ, or a definition refers to one that is not in the set.

    Example:
        >>> from feature_store import Entity, FeatureView, Field, Float32
        >>> from feature_store.definitions import DefinitionSet
        >>> view = FeatureView("stats", entities=[Entity("user")], schema=[Field("age", Float32)])
        >>> list(DefinitionSet([view]).entities)
        ['user']
    """

    def __init__(self, definitions: Iterable[Definition], prunings: Iterable[Pruning] = ()) -> None:
        by_name: dict[str, Definition] = {}
        for definition in definitions:
            members = definition.entities if isinstance(definition, (FeatureView, StreamFeatureView)) else ()
            for item in (*members, definition):
                known = by_name.setdefault(item.name, item)
                if known is not item and known != item:
                    raise DefinitionError(
                        f"{type(item).__name__}({item.name!r})",
                        problem=f"another {type(known).__name__} with this name is defined, and it differs",
                    )
        self.entities = _of_kind(by_name, Entity)
        self.feature_views = _of_kind(by_name, FeatureView)
        self.stream_feature_views = _of_kind(by_name, StreamFeatureView)
        self.on_demand_feature_views = _of_kind(by_name, OnDemandFeatureView)
        self.feature_services = _of_kind(by_name, FeatureService)
        self.prunings = {pruning.service: pruning for pruning in prunings}
        self._documents: dict[str, dict[str, Document]] = {kind: {} for kind in KINDS}
        self._derived: dict[Any, Any] = {}
        self._check_join_keys()
        self._check_projections()
        self._check_requests()

    def __iter__(self) -> Any:
        return (item for kind in KINDS for item in getattr(self, kind).values())

    def view(self, name: str) -> FeatureView:
        """The feature view of that name.

        Raises:
            NotFoundError: no definition of this kind has the name.
        """
        return find(self.feature_views, name, "feature view")

    @property
    def stored_views(self) -> list[FeatureView | StreamFeatureView]:
        """The views whose values the online store holds."""
        return [*self.feature_views.values(), *self.stream_feature_views.values()]

    def stored_view(self, name: str) -> FeatureView | StreamFeatureView:
        """The view of that name whose values the online store holds.

        Raises:
            NotFoundError: no definition of this kind has the name.
        """
        return find({view.name: view for view in self.stored_views}, name, "feature view")

    def servable_view(self, name: str) -> FeatureView | StreamFeatureView | OnDemandFeatureView:
        """The batch, stream or on-demand view of that name.

        Raises:
            NotFoundError: no definition of this kind has the name.
        """
        views = {view.name: view for view in (*self.stored_views, *self.on_demand_feature_views.values())}
        return find(views, name, "feature view")

    def with_prunings(self, prunings: Iterable[Pruning]) -> DefinitionSet:
        """The same definitions with these prunings in place of the current ones."""
        other = copy.copy(self)
        other.prunings = {pruning.service: pruning for pruning in prunings}
        other._derived = {}
        return other

    def derived(self, make: Callable[[DefinitionSet], T]) -> T:
        """`make(self)`, computed on the first call with this function and kept with the set."""
        if make not in self._derived:
            self._derived[make] = make(self)
        made: T = self._derived[make]
        return made

    def stored_views_of(self, service: str) -> list[FeatureView | StreamFeatureView]:
        """The stored views that a service reads, including those for its on-demand features, each once.

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
            NotFoundError: no definition of this kind has the name.
        """
        return find(self.feature_services, name, "feature service")

    def to_document(self) -> Document:
        """The definitions as JSON types: `{kind: {name: definition}}`, and `prunings` if there are any."""
        return copy.deepcopy(self.document)

    @property
    def document(self) -> Document:
        """The document of `to_document` without a copy: do not change it."""
        document: Document = {
            kind: {name: self._document(kind, item) for name, item in getattr(self, kind).items()} for kind in KINDS
        }
        if self.prunings:
            document["prunings"] = {name: pruning.model_dump(mode="json") for name, pruning in self.prunings.items()}
        return document

    def _document(self, kind: str, item: Definition) -> Document:
        known = self._documents[kind]
        if item.name not in known:
            known[item.name] = _as_json(item)
        return known[item.name]

    @classmethod
    def from_document(
        cls, document: Mapping[str, Mapping[str, Any]], like: DefinitionSet | None = None
    ) -> DefinitionSet:
        """The inverse of `to_document`.

        On-demand views come without their functions.

        Args:
            document: what `to_document` returned, in this release or an earlier one.
            like: a set with many of the same definitions. Those with an equal document are reused, with their
                functions, instead of being read again: 0.2 s for 5,100 features.
        """
        same = _same_in(document, like) if like is not None else {}
        read: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        for kind, make in _MAKERS.items():  # entities come first: views refer to them
            for name, about in (document.get(kind, {}) if kind in _ADDED_LATER else document[kind]).items():
                read[kind][name] = same.get((kind, name)) or make(name, about, read["entities"])
        prunings = [Pruning(**about) for about in document.get("prunings", {}).values()]
        made = cls([item for items in read.values() for item in items.values()], prunings)
        for kind, name in same:
            made._documents[kind][name] = document[kind][name]
        return made

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
        stored = {view.name: {field.name for field in view.fields} for view in self.stored_views}
        for view in self.on_demand_feature_views.values():
            self._check_columns(f"OnDemandFeatureView({view.name!r}).sources", view.projections, stored)
        computed = {name: {field.name for field in view.fields} for name, view in self.on_demand_feature_views.items()}
        for service in self.feature_services.values():
            self._check_columns(f"FeatureService({service.name!r}).features", service.features, stored | computed)

    @staticmethod
    def _check_columns(where: str, projections: tuple[Projection, ...], views: dict[str, set[str]]) -> None:
        for i, projection in enumerate(projections):
            if projection.view not in views:
                raise DefinitionError(
                    f"{where}[{i}]",
                    problem=f"no view {projection.view!r} is defined",
                    hint="is the module that defines it among the project's definitions?",
                )
            for feature, _ in projection.columns:
                if feature not in views[projection.view]:
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
                        raise DefinitionError(where, problem=f"{field.name!r} is a join key")
                    dtype, first = types.setdefault(field.name, (field.dtype, where))
                    if dtype != field.dtype:
                        raise DefinitionError(where, expected=f"{dtype}, as in {first}", got=str(field.dtype))


def find(items: Mapping[str, D], name: str, kind: str) -> D:
    """The item of that name.

    Raises:
        NotFoundError: there is none; the error lists the known names.
    """
    if not isinstance(name, str) or name not in items:
        expected = f"a {kind}: {', '.join(items) or 'none is defined'}"
        raise NotFoundError(name, expected=expected, got=repr(name)[:80], hint=did_you_mean(str(name), items))
    return items[name]


def _same_in(document: Mapping[str, Mapping[str, Any]], like: DefinitionSet) -> dict[tuple[str, str], Any]:
    """The definitions of `like` with an equal document, by kind and name. A view is reused only with its entities."""
    known, same = like.document, {}
    for kind in KINDS:  # entities come first
        for name, about in document.get(kind, {}).items():
            has_entities = all(("entities", entity) in same for entity in about.get("entities", ()))
            if has_entities and known[kind].get(name) == about:
                same[kind, name] = getattr(like, kind)[name]
    return same


def _as_json(definition: Definition) -> dict[str, Any]:
    document = definition.model_dump(mode="json", by_alias=True, exclude={"name"})
    # Left out if not declared: the document and its digest are then those of releases without these attributes.
    undeclared = {"freshness": None, "on_breach": "block", "nulls": "strict", "schedule": None}
    return {name: value for name, value in document.items() if name not in undeclared or value != undeclared[name]}


def _entity(name: str, about: Document, entities: Mapping[str, Entity]) -> Entity:
    return Entity(name, **about)


def _feature_view(name: str, about: Document, entities: Mapping[str, Entity]) -> FeatureView:
    source = None if about["source"] is None else SOURCES.of_document(about["source"])
    ttl = _timedelta(about["ttl"])
    return FeatureView(name, **about | _stored_view(about, entities) | {"source": source, "ttl": ttl})


def _stream_view(name: str, about: Document, entities: Mapping[str, Entity]) -> StreamFeatureView:
    source = _kafka_source(about["source"])
    return StreamFeatureView(name, **about | _stored_view(about, entities) | {"source": source})


def _stored_view(about: Document, entities: Mapping[str, Entity]) -> Document:
    """The arguments that batch views and stream views have in common."""
    return {
        "entities": [entities[entity] for entity in about["entities"]],
        "freshness": _timedelta(about.get("freshness")),
        "aggregations": [Aggregation(**aggregation) for aggregation in about.get("aggregations", ())],
    }


def _on_demand_view(name: str, about: Document, entities: Mapping[str, Entity]) -> OnDemandFeatureView:
    return OnDemandFeatureView(name, **about)


def _service(name: str, about: Document, entities: Mapping[str, Entity]) -> FeatureService:
    return FeatureService(name, **about)


# How a definition of each of the KINDS is made of its document.
_MAKERS: dict[str, Callable[[str, Document, Mapping[str, Entity]], Definition]] = {
    "entities": _entity,
    "feature_views": _feature_view,
    "stream_feature_views": _stream_view,
    "on_demand_feature_views": _on_demand_view,
    "feature_services": _service,
}


def _timedelta(microseconds: int | None) -> timedelta | None:
    return None if microseconds is None else microseconds * MICROSECOND


def _kafka_source(document: Document) -> KafkaSource:
    history, format = document.get("history"), document.get("format")
    return KafkaSource(
        **document
        | {"history": None if history is None else SOURCES.of_document(history)}
        | ({} if format is None else {"format": FORMATS.of_document(format)})
    )


def _of_kind(by_name: dict[str, Definition], kind: type[D]) -> dict[str, D]:
    return {name: found for name, found in sorted(by_name.items()) if isinstance(found, kind) and type(found) is kind}
