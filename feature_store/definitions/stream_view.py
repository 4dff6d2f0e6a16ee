"""Stream views: sliding windows over the events of a topic, per entity."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pydantic import Field as Attribute, field_serializer, model_validator

from feature_store.definitions.aggregated import aggregated_columns, aggregated_features, check_keys, check_names
from feature_store.definitions.aggregation import Aggregation
from feature_store.definitions.batch_source import BatchSource
from feature_store.definitions.definition import refuse_repeats
from feature_store.definitions.dtypes import DType
from feature_store.definitions.entity import Entity
from feature_store.definitions.feature_view import StoredView
from feature_store.definitions.field import Field
from feature_store.definitions.sequence import Sequence as EventSequence, with_sequences
from feature_store.definitions.source import KafkaSource
from feature_store.definitions.validation import shown
from feature_store.errors import DefinitionError

# The script that merges unpacks a delta to Lua's stack, which holds 8,000 values: up to four of a feature, and two of
# each value that functions such as last_n list.
_MOST_FEATURES, _MOST_LISTED = 1_000, 1_000


class StreamFeatureView(StoredView):
    """Features of one entity, or of a combination of entities, that follow events within a second.

    A feature's name is `{column}_{function}_{window}`: `rating_mean_1h`.

    Args:
        name: the view's name.
        entities: the entities that the features describe; their join keys are members of the events.
        source: the events.
        aggregations: aggregations and sequences. At most 1,000 features, and 1,000 values listed by all `last_n`
            together.
        freshness: the greatest age of the newest merged event; `feature-store freshness` reports an older one.
        description, owner, tags: for the people who browse the registry.

    Raises:
        DefinitionError: an argument is not allowed; the error names it and says why.

    Example:
        >>> from datetime import timedelta
        >>> from feature_store import Aggregation, Entity, Field, Float32, Int64, KafkaSource, StreamFeatureView
        >>> fields = [Field("user_id", Int64), Field("price", Float32)]
        >>> clicks = KafkaSource("clicks", topic="clicks", event_timestamp="at", schema=fields)
        >>> recent = StreamFeatureView(
        ...     "recent",
        ...     entities=[Entity("user", join_key="user_id")],
        ...     source=clicks,
        ...     aggregations=[Aggregation("price", "mean", windows=[timedelta(hours=1)])],
        ... )
        >>> [field.name for field in recent.fields]
        ['price_mean_1h']
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
        aggregations: Sequence[Aggregation | EventSequence],
        freshness: timedelta | None = None,
        **about: Any,
    ) -> None:
        about.pop("schema", None)  # in documents; the features follow from the aggregations
        if isinstance(source, KafkaSource):
            aggregations = with_sequences(f"StreamFeatureView({name!r}).aggregations", aggregations, source.fields)
        super().__init__(
            name=name,
            entities=entities,
            source=source,
            aggregations=aggregations,
            freshness=freshness,
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
        check_keys(self.entities, self.source.name, self.source.fields)
        check_names(self.aggregations)
        self._check_size()
        return self

    def _check_size(self) -> None:
        listed = {
            (aggregation.function, aggregation.column, aggregation.filter, aggregation.hop_us(window), count)
            for aggregation in self.aggregations
            if (count := aggregation.computes.values_kept(aggregation.options))
            for window in aggregation.windows
        }
        for what, most, count in (
            ("features", _MOST_FEATURES, len(self.fields)),
            ("values listed by functions such as last_n", _MOST_LISTED, sum(count for *_, count in listed)),
        ):
            if count > most:
                hint = "divide them among several views"
                raise DefinitionError("aggregations", expected=f"at most {most:,} {what}", got=f"{count:,}", hint=hint)

    @property
    def join_keys(self) -> list[str]:
        """The columns that identify an entity, in the order of the entities."""
        return [entity.join_key for entity in self.entities]

    @property
    def history(self) -> BatchSource | None:
        """The source of past events; None: they are not kept."""
        return self.source.history

    @property
    def event_columns(self) -> dict[str, DType]:
        """The members of events that the aggregations read."""
        return aggregated_columns(self.source.columns, self.aggregations)

    @property
    def ttl_us(self) -> None:
        """None: windows bound the age of events."""
        return None


def _features(name: str, source: Any, aggregations: Any) -> list[Field]:
    if not isinstance(source, KafkaSource):
        raise DefinitionError(f"StreamFeatureView({name!r}).source", expected="a KafkaSource", got=shown(source))
    return aggregated_features(f"StreamFeatureView({name!r}).aggregations", source.name, source.columns, aggregations)
