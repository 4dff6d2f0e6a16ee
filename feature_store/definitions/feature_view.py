"""Feature views: features of one or more entities from one source, and projections of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field as Attribute, field_serializer, field_validator, model_validator

from feature_store.definitions.aggregated import aggregated_columns, aggregated_features, check_keys, check_names
from feature_store.definitions.aggregation import Aggregation
from feature_store.definitions.batch_source import AnyBatchSource, BatchSource
from feature_store.definitions.definition import Definition, Model, Name, OnChange, refuse_repeats
from feature_store.definitions.dtypes import MICROSECOND, DType
from feature_store.definitions.entity import Entity
from feature_store.definitions.field import Field, HasSchema
from feature_store.definitions.schedule import check_schedule
from feature_store.definitions.sequence import Sequence as EventSequence, with_sequences
from feature_store.definitions.validation import shown
from feature_store.errors import DefinitionError, NotFoundError


class Projection(Model):
    """Some features of a view, each with its served name.

    Made by `view[["year", "is_drama"]]`; `.rename({"year": "release_year"})` changes served names.

    Example:
        >>> from feature_store import Entity, FeatureService, FeatureView, Field, Float32
        >>> view = FeatureView("stats", entities=[Entity("user")], schema=[Field("age", Float32)])
        >>> FeatureService("ranking", features=[view[["age"]].rename({"age": "years"})]).name
        'ranking'
    """

    view: Name
    columns: tuple[tuple[Name, Name], ...]  # (feature of the view, name it is served by)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Projection:
        if not self.columns:
            raise DefinitionError(f"{self.view}[[]]", expected="at least one feature", got="none")
        refuse_repeats([served for _, served in self.columns], "columns")
        return self

    def rename(self, names: Mapping[str, str]) -> Projection:
        """The projection with other served names: `{feature: served name}`.

        Raises:
            NotFoundError: a feature is not in the projection.
        """
        known = [feature for feature, _ in self.columns]
        for name in names:
            if name not in known:
                raise _unknown(self.view, name, known)
        columns = tuple((feature, names.get(feature, served)) for feature, served in self.columns)
        return Projection(view=self.view, columns=columns)


class Projectable(HasSchema, Definition):
    """A view with fields. A service can take all of them, or some."""

    fields: tuple[Field, ...] = Attribute(alias="schema", min_length=1)

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)

    def field(self, name: str) -> Field:
        """The field of that name.

        Raises:
            NotFoundError: the view has no such field.
        """
        field = next((field for field in self.fields if field.name == name), None)
        if field is None:
            raise _unknown(self.name, name, [field.name for field in self.fields])
        return field

    def __getitem__(self, features: str | Sequence[str]) -> Projection:
        names = [features] if isinstance(features, str) else list(features)
        return Projection(view=self.name, columns=tuple((self.field(name).name, name) for name in names))

    def project(self) -> Projection:
        """All of the view's features, under their own names."""
        return Projection(view=self.name, columns=tuple((field.name, field.name) for field in self.fields))


class StoredView(Projectable):
    """A view whose values the online store holds. `freshness` is a bound on their age that monitoring watches."""

    freshness: Annotated[timedelta | None, OnChange("watched from now on", keeps_meaning=True)] = None

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)

    @field_validator("freshness", mode="before")
    @classmethod
    def _freshness_is_a_timedelta(cls, freshness: Any) -> Any:
        if freshness is not None and not isinstance(freshness, timedelta):
            raise ValueError("expected a timedelta")
        if freshness is not None and freshness <= timedelta(0):
            raise DefinitionError("freshness", expected="a timedelta above zero", got=str(freshness))
        return freshness

    @field_serializer("freshness")
    def _freshness_as_microseconds(self, freshness: timedelta | None) -> int | None:
        return None if freshness is None else freshness // MICROSECOND


class FeatureView(StoredView):
    """Features of one entity, or of a combination of entities, that come in batches.

    Three kinds of sources make three kinds of views:

    - a table of feature values, with a row for each change: `schema` lists its columns that are features;
    - a table from which SQL makes such rows: `sql` selects from a table named `source`. DuckDB runs it, on Spark too;
      docs/sql.md lists what it may not contain;
    - a table of events: `aggregations` compute windows of them. Features are named as those of stream views, and the
      source's `schema` lists the columns that aggregations read. `sql` may make the events.

    Batch windows: `materialize` computes one row for every entity whose windows may have changed, as of the interval's
    end, which is the row's event time. A window of length W then holds the events that happened in
    `[floor(end - W, hop), end)` and were created by the end. This row is served until the next one is computed, so
    windows slide with each `materialize`, not with the clock; `ttl` bounds how old they may become. A training set has
    the windows as of each label's time, as if `materialize` had run at that moment.

    Args:
        name: the view's name.
        entities: the entities that the features describe; several make a composite key.
        schema: the features. With aggregations, leave it out: the features follow from them.
        source: the source of the rows; None: rows are only pushed.
        ttl: the age, counted from its event time, at which a row expires; None or zero: never.
        aggregations: the aggregations and sequences of events.
        sql: one SELECT from `source`. It must return the columns that the view would otherwise read from the source.
        freshness: the greatest age of the newest stored event time; `feature-store freshness` reports an older one.
        on_breach: when rows to be written have unexpected values: `block` writes none of the rows and raises DataError,
            `warn` writes them and reports the values.
        schedule: when `feature-store run-due` materializes the view, up to the scheduled time: a cron expression of
            five fields, in UTC, such as `0 3 * * *`. It needs the extra `registry`.
        description, owner, tags: for the people who browse the registry.

    Raises:
        DefinitionError: an argument is not allowed; the error names it and says why.

    Example:
        >>> from datetime import timedelta
        >>> from feature_store import Entity, FeatureView, Field, Int32, ParquetSource
        >>> stats = FeatureView(
        ...     "user_stats",
        ...     entities=[Entity("user", join_key="user_id")],
        ...     source=ParquetSource("users.parquet", event_timestamp="at"),
        ...     ttl=timedelta(days=90),
        ...     schema=[Field("orders_30d", Int32, default=0)],
        ... )
        >>> stats.name
        'user_stats'
    """

    entities: tuple[Entity, ...] = Attribute(min_length=1)
    source: Annotated[AnyBatchSource | None, OnChange("the next materialize reads all rows again")] = None
    ttl: Annotated[timedelta | None, OnChange("applied when rows are read")] = None
    aggregations: Annotated[tuple[Aggregation, ...], OnChange("the next materialize computes all rows again")] = ()
    sql: Annotated[str | None, OnChange("the next materialize selects all rows again")] = Attribute(
        default=None, min_length=1
    )
    on_breach: Annotated[Literal["block", "warn"], OnChange("from the next materialize on", keeps_meaning=True)] = (
        "block"
    )
    schedule: Annotated[str | None, OnChange("run-due follows it from now on", keeps_meaning=True)] = None

    def __init__(
        self,
        name: str,
        *,
        entities: Sequence[Entity],
        schema: Sequence[Field] = (),
        source: BatchSource | None = None,
        ttl: timedelta | None = None,
        aggregations: Sequence[Aggregation | EventSequence] = (),
        sql: str | None = None,
        freshness: timedelta | None = None,
        on_breach: str = "block",
        schedule: str | None = None,
        **about: Any,
    ) -> None:
        if isinstance(source, BatchSource) and aggregations:
            aggregations = with_sequences(f"FeatureView({name!r}).aggregations", aggregations, source.fields)
        super().__init__(
            name=name,
            entities=entities,
            schema=_features(name, source, aggregations, schema) if aggregations else schema,
            source=source,
            ttl=ttl,
            aggregations=aggregations,
            sql=sql,
            freshness=freshness,
            on_breach=on_breach,
            schedule=schedule,
            **about,
        )

    @field_validator("ttl", mode="before")
    @classmethod
    def _ttl_is_a_timedelta(cls, ttl: Any) -> Any:
        if ttl is not None and not isinstance(ttl, timedelta):  # pydantic would read a number as seconds
            raise ValueError("expected a timedelta")
        return ttl

    @field_serializer("ttl")
    def _ttl_as_microseconds(self, ttl: timedelta | None) -> int | None:
        return None if ttl is None else ttl // MICROSECOND

    @field_serializer("entities")
    def _entities_by_name(self, entities: tuple[Entity, ...]) -> list[str]:
        return [entity.name for entity in entities]

    @model_validator(mode="after")
    def _parts_fit(self) -> FeatureView:
        refuse_repeats([entity.name for entity in self.entities], "entities")
        refuse_repeats(self.join_keys, "entities")
        refuse_repeats([field.name for field in self.fields], "schema")
        if self.ttl is not None and self.ttl < timedelta(0):
            raise DefinitionError("ttl", expected="a timedelta of zero or more", got=str(self.ttl))
        if self.sql is not None and self.source is None:
            raise DefinitionError("sql", problem="there is no source to select from")
        if self.schedule is not None:
            if self.source is None:
                raise DefinitionError("schedule", problem="there is no source to materialize")
            check_schedule(self.schedule)
        if self.aggregations and self.source is not None:
            check_keys(self.entities, self.source.name, self.source.fields)
            check_names(self.aggregations)
        reserved = dict.fromkeys(self.join_keys, "a join key")
        if self.source is not None:
            reserved[self.source.event_timestamp] = "the event timestamp"
            reserved[self.source.created_timestamp or ""] = "the created timestamp"
        for i, field in enumerate(self.fields):
            if field.name in reserved:
                problem = f"{field.name!r} is {reserved[field.name]}, so it cannot be a feature"
                raise DefinitionError(f"schema[{i}].name", problem=problem)
        return self

    @property
    def join_keys(self) -> list[str]:
        """The columns that identify a row of this view, in the order of its entities."""
        return [entity.join_key for entity in self.entities]

    @property
    def history(self) -> BatchSource | None:
        """The source, which holds all past rows or events."""
        return self.source

    @property
    def event_columns(self) -> dict[str, DType]:
        """The columns of events that the aggregations read."""
        return aggregated_columns(self.source.fields, self.aggregations) if self.source is not None else {}

    @property
    def ttl_us(self) -> int | None:
        """The ttl in microseconds; None: rows never expire."""
        return self.ttl // MICROSECOND if self.ttl else None


def _unknown(view: str, name: str, known: list[str]) -> NotFoundError:
    return NotFoundError(f"{view}[{name!r}]", expected=f"one of {', '.join(known)}", got=repr(name))


def _features(name: str, source: Any, aggregations: Any, schema: Any) -> list[Field]:
    where = f"FeatureView({name!r})"
    if not isinstance(source, BatchSource):
        expected = "a batch source of events, such as a ParquetSource"
        raise DefinitionError(f"{where}.source", expected=expected, got=shown(source))
    if any(isinstance(field, Field) for field in schema):  # not a document, which lists the features, too
        hint = "the columns of the events belong in the source's schema"
        raise DefinitionError(
            f"{where}.schema",
            problem="a view with aggregations takes no schema: its features follow from them",
            hint=hint,
        )
    return aggregated_features(f"{where}.aggregations", source.name, source.fields, aggregations)
