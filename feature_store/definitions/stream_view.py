"""Stream views: sliding windows over the events of a topic, per entity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field as Attribute
from pydantic import field_serializer, model_validator

from feature_store.definitions.aggregation import Aggregation
from feature_store.definitions.definition import refuse_repeats
from feature_store.definitions.entity import Entity
from feature_store.definitions.expression import expression
from feature_store.definitions.feature_view import Projectable
from feature_store.definitions.field import Field
from feature_store.definitions.source import KafkaSource
from feature_store.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Sequence

_NUMERIC = ("Bool", "Int32", "Int64", "Float32", "Float64")
_KEPT_AS_THEY_ARE = ("first", "last", "last_n")


class StreamFeatureView(Projectable):
    """Features of one entity, or of a combination of entities, that follow events within a second.

    Its features are named `{column}_{function}_{window}`, such as `rating_mean_1h`.

    Args:
        name: the view's name.
        entities: what the features describe; their join keys are members of the events.
        source: the events.
        aggregations: what is computed of them.
        description, owner, tags: for the people who browse the registry.

    Raises:
        DefinitionError: an argument is not allowed; it says which and why.
    """

    entities: tuple[Entity, ...] = Attribute(min_length=1)
    source: KafkaSource
    aggregations: tuple[Aggregation, ...] = Attribute(min_length=1)

    def __init__(
        self,
        name: str,
        *,
        entities: Sequence[Entity],
        source: KafkaSource,
        aggregations: Sequence[Aggregation],
        **about: Any,
    ) -> None:
        about.pop("schema", None)  # a document lists it; it follows from the aggregations
        super().__init__(
            name=name,
            entities=entities,
            source=source,
            aggregations=aggregations,
            schema=_features(name, source, aggregations),
            **about,
        )

    @field_serializer("entities")
    def _entities_by_name(self, entities: tuple[Entity, ...]) -> list[str]:
        return [entity.name for entity in entities]

    @model_validator(mode="after")
    def _parts_fit(self) -> StreamFeatureView:
        refuse_repeats([entity.name for entity in self.entities], "entities")
        refuse_repeats(self.join_keys, "entities")
        for i, entity in enumerate(self.entities):
            field = self.source.field(entity.join_key)
            if field is None or field.dtype != entity.dtype:
                raise DefinitionError(
                    f"entities[{i}]",
                    expected=f"{entity.join_key!r} ({entity.dtype}) in the schema of {self.source.name}",
                    got="none" if field is None else str(field.dtype),
                )
        names: dict[str, int] = {}
        for i, aggregation in enumerate(self.aggregations):
            for window in aggregation.windows:
                name = aggregation.feature_name(window)
                if names.setdefault(name, i) != i:
                    hint = "give one of the aggregations a name"
                    raise DefinitionError(f"aggregations[{i}]", expected="names that differ", got=name, hint=hint)
        return self

    @property
    def join_keys(self) -> list[str]:
        """The columns that identify an entity, in the order of the entities."""
        return [entity.join_key for entity in self.entities]


def _features(name: str, source: Any, aggregations: Any) -> list[Field]:
    where = f"StreamFeatureView({name!r}).aggregations"
    if not isinstance(source, KafkaSource):
        raise DefinitionError(f"StreamFeatureView({name!r}).source", expected="a KafkaSource", got=repr(source))
    features = []
    for i, aggregation in enumerate(aggregations):
        if not isinstance(aggregation, Aggregation):
            raise DefinitionError(f"{where}[{i}]", expected="an Aggregation", got=repr(aggregation))
        _check_columns(f"{where}[{i}]", source, aggregation)
        column = source.field(aggregation.column)
        assert column is not None
        dtype = aggregation.dtype(column.dtype)
        features += [
            Field(aggregation.feature_name(window), dtype, default=dtype.from_json(aggregation.default))
            for window in aggregation.windows
        ]
    return features


def _check_columns(where: str, source: KafkaSource, aggregation: Aggregation) -> None:
    known = {field.name: field.dtype for field in source.fields}
    wanted = [aggregation.column, *(expression(aggregation.filter).names if aggregation.filter else [])]
    for name in wanted:
        if name not in known:
            raise DefinitionError(where, expected=f"a column of {source.name}: {', '.join(known)}", got=repr(name))
    dtype = known[aggregation.column]
    if aggregation.function in ("sum", "mean", "min", "max", "stddev") and dtype.name not in _NUMERIC:
        raise DefinitionError(f"{where}.column", expected=f"numbers for {aggregation.function}", got=str(dtype))
    if aggregation.function in _KEPT_AS_THEY_ARE and dtype.width is None:
        raise DefinitionError(f"{where}.column", expected=f"a fixed width for {aggregation.function}", got=str(dtype))
    if aggregation.filter:
        for name in expression(aggregation.filter).names:
            _check_constants(f"{where}.filter", name, known[name], expression(aggregation.filter).constants_of(name))


def _check_constants(where: str, name: str, dtype: Any, constants: list[Any]) -> None:
    for constant in constants:
        is_text = isinstance(constant, str)
        if dtype.name == "Timestamp" or is_text != (dtype.name == "String"):
            raise DefinitionError(where, expected=f"{name} compared with a value of {dtype}", got=repr(constant))
