"""Batch sources of several kinds: how they are registered, stored and read back."""

from __future__ import annotations

from typing import ClassVar

import pytest

from feature_store.definitions import DefinitionSet, Entity, FeatureView, Field, Float32, KafkaSource, ParquetSource
from feature_store.definitions.batch_source import SOURCES, BatchSource
from feature_store.errors import DefinitionError

user = Entity("user", join_key="user_id")


class Unregistered(BatchSource):
    kind: ClassVar[str] = "unregistered"
    reader: ClassVar[str] = "nowhere:Nothing"

    @property
    def name(self) -> str:
        return "rows"


class Impostor(Unregistered):
    kind: ClassVar[str] = "parquet"


def view(source: BatchSource) -> FeatureView:
    return FeatureView("profile", entities=[user], source=source, schema=[Field("age", Float32)])


def test_the_document_of_a_parquet_source_has_no_kind() -> None:
    source = ParquetSource("rows.parquet", event_timestamp="at")
    document = DefinitionSet([view(source)]).to_document()["feature_views"]["profile"]["source"]
    assert document == {"path": "rows.parquet", "event_timestamp": "at", "created_timestamp": None, "schema": []}
    assert SOURCES.of_document(document) == source
    assert DefinitionSet.from_document(DefinitionSet([view(source)]).to_document()).view("profile").source == source


@pytest.mark.parametrize(
    "make",
    [
        lambda source: view(source),
        lambda source: KafkaSource(
            "clicks", topic="clicks", event_timestamp="ts", schema=[Field("age", Float32)], history=source
        ),
    ],
    ids=["of a view", "of a history"],
)
def test_a_kind_that_no_package_registers_is_refused_where_it_is_used(make: object) -> None:
    with pytest.raises(DefinitionError, match=r"entry point group feature_store\.sources") as raised:
        make(Unregistered(event_timestamp="at"))  # type: ignore[operator]
    assert "parquet" in raised.value.hint
    with pytest.raises(DefinitionError, match="is registered for"):
        make(Impostor(event_timestamp="at"))  # type: ignore[operator]


def test_an_object_that_is_no_source_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"source: expected a batch source, such as a ParquetSource"):
        view({"path": "rows.parquet"})  # type: ignore[arg-type]


def test_a_document_of_an_unregistered_kind_is_an_error_with_a_hint() -> None:
    with pytest.raises(DefinitionError, match="did you mean 'parquet'"):
        SOURCES.of_document({"kind": "parqet", "event_timestamp": "at"})
