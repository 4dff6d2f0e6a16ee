"""Feature views: features of an entity from one source, and projections of them."""

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
from feature_store.definitions.validation import shown
from feature_store.errors import DefinitionError, NotFoundError


class Projection(Model):
    """Some features of a view, each under the name that it is served by.

    Made by `view[["year", "is_drama"]]`; `.rename({"year": "release_year"})` changes the names served.

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
        """Serve features under other names: `{feature: name served}`.

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
    """A view with fields, some or all of which a service can take."""

    fields: tuple[Field, ...] = Attribute(alias="schema", min_length=1)

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)

    def field(self, name: str) -> Field:
        """The field of that name.

        Raises:
            NotFoundError: the view has no such field.
        """
        found = next((field for field in self.fields if field.name == name), None)
        if found is None:
            raise _unknown(self.name, name, [field.name for field in self.fields])
        return found

    def __getitem__(self, features: str | Sequence[str]) -> Projection:
        names = [features] if isinstance(features, str) else list(features)
        return Projection(view=self.name, columns=tuple((self.field(name).name, name) for name in names))

    def project(self) -> Projection:
        """All of the view's features, under their own names."""
        return Projection(view=self.name, columns=tuple((field.name, field.name) for field in self.fields))


class StoredView(Projectable):
    """A view whose values the online store holds. They are to be no older than `freshness`, which is only watched."""

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

    - a table of features, a row when they change: `schema` lists the columns that are features;
    - a table from which SQL makes such rows: `sql` selects them from `source`, as a table of that name. It is DuckDB's
      SQL, and DuckDB runs it, on Spark too; docs/sql.md says what it may not say;
    - a table of events: `aggregations` compute windows of them; the features are named as those of stream views, and
      the source's `schema` lists the columns that are taken. `sql` may make the events.

    Windows of events, in batch: `materialize` computes, for every entity whose events can have changed it, one row as
    of the interval's end; that is the row's event time. A window of length W then holds the events that happened in
    `[floor(end - W, hop), end)` and were created by the end. Serving gives this row until the next is computed, so the
    windows slide with each `materialize` and not with the clock, and `ttl` says for how long that is good enough. A
    training set has the windows as of each label's time, as if it had been computed at that very moment.

    Args:
        name: the view's name.
        entities: what the features describe; several make a composite key.
        schema: the features; of a view with aggregations they follow from these.
        source: where their values come from; None when they are only pushed.
        ttl: how long after its event time a row counts; None or zero: for ever.
        aggregations: what is computed of events.
        sql: one SELECT from `source`; it must return the columns that are taken from the source without it.
        freshness: how old the newest event time stored may become; `feature-store freshness` tells when it is older.
        on_breach: what happens when rows that are to be written have values that their fields do not expect. `block`:
            none of them is written; `warn`: they are, and it is told.
        description, owner, tags: for the people who browse the registry.

    Raises:
        DefinitionError: an argument is not allowed; it says which and why.

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

    def __init__(
        self,
        name: str,
        *,
        entities: Sequence[Entity],
        schema: Sequence[Field] = (),
        source: BatchSource | None = None,
        ttl: timedelta | None = None,
        aggregations: Sequence[Aggregation] = (),
        sql: str | None = None,
        freshness: timedelta | None = None,
        on_breach: str = "block",
        **about: Any,
    ) -> None:
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
            **about,
        )

    @field_validator("ttl", mode="before")
    @classmethod
    def _ttl_is_a_timedelta(cls, ttl: Any) -> Any:
        if ttl is not None and not isinstance(ttl, timedelta):  # pydantic would take a number as seconds
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
            raise DefinitionError("sql", expected="a source to select from", got="none")
        if self.aggregations and self.source is not None:
            check_keys(self.entities, self.source.name, self.source.fields)
            check_names(self.aggregations)
        reserved = dict.fromkeys(self.join_keys, "a join key")
        if self.source is not None:
            reserved[self.source.event_timestamp] = "the event timestamp"
            reserved[self.source.created_timestamp or ""] = "the created timestamp"
        for i, field in enumerate(self.fields):
            if field.name in reserved:
                raise DefinitionError(
                    f"schema[{i}].name",
                    expected="a column of its own",
                    got=f"{field.name!r}, which is {reserved[field.name]}",
                )
        return self

    @property
    def join_keys(self) -> list[str]:
        """The columns that identify a row of this view, in the order of its entities."""
        return [entity.join_key for entity in self.entities]

    @property
    def history(self) -> BatchSource | None:
        """The source: all rows or events that there were."""
        return self.source

    @property
    def event_columns(self) -> dict[str, DType]:
        """The columns of the events that the aggregations take."""
        return aggregated_columns(self.source.fields, self.aggregations) if self.source is not None else {}

    @property
    def ttl_us(self) -> int | None:
        """The ttl in microseconds, or None when rows count for ever."""
        return self.ttl // MICROSECOND if self.ttl else None


def _unknown(view: str, name: str, known: list[str]) -> NotFoundError:
    return NotFoundError(f"{view}[{name!r}]", expected=f"one of {', '.join(known)}", got=repr(name))


def _features(name: str, source: Any, aggregations: Any, schema: Any) -> list[Field]:
    where = f"FeatureView({name!r})"
    if not isinstance(source, BatchSource):
        expected = "a batch source of events, such as a ParquetSource"
        raise DefinitionError(f"{where}.source", expected=expected, got=shown(source))
    if any(isinstance(field, Field) for field in schema):  # a document lists what follows from the aggregations
        hint = "the columns of the events go into the source's schema"
        raise DefinitionError(f"{where}.schema", expected="none beside aggregations", got="fields", hint=hint)
    return aggregated_features(f"{where}.aggregations", source.name, source.fields, aggregations)
