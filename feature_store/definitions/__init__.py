"""What users write: entities, fields, sources, views, services. Frozen models, no I/O."""

from typing import TYPE_CHECKING

from feature_store._lazy import lazy_names

if TYPE_CHECKING:
    from feature_store.definitions.aggregation import Aggregation
    from feature_store.definitions.definition_set import DefinitionSet
    from feature_store.definitions.dtypes import (
        Array,
        Bool,
        DType,
        Float32,
        Float64,
        Int32,
        Int64,
        String,
        Timestamp,
    )
    from feature_store.definitions.entity import Entity
    from feature_store.definitions.feature_view import FeatureView, Projection
    from feature_store.definitions.field import Field
    from feature_store.definitions.on_demand import OnDemandFeatureView, on_demand_feature_view
    from feature_store.definitions.service import FeatureService
    from feature_store.definitions.source import KafkaSource, ParquetSource, RequestSource
    from feature_store.definitions.stream_view import StreamFeatureView

__all__ = [
    "Aggregation",
    "Array",
    "Bool",
    "DType",
    "DefinitionSet",
    "Entity",
    "FeatureService",
    "FeatureView",
    "Field",
    "Float32",
    "Float64",
    "Int32",
    "Int64",
    "KafkaSource",
    "OnDemandFeatureView",
    "ParquetSource",
    "Projection",
    "RequestSource",
    "StreamFeatureView",
    "String",
    "Timestamp",
    "on_demand_feature_view",
]

_home_of = {
    "aggregation": ["Aggregation"],
    "definition_set": ["DefinitionSet"],
    "dtypes": ["Array", "Bool", "DType", "Float32", "Float64", "Int32", "Int64", "String", "Timestamp"],
    "entity": ["Entity"],
    "feature_view": ["FeatureView", "Projection"],
    "field": ["Field"],
    "on_demand": ["OnDemandFeatureView", "on_demand_feature_view"],
    "service": ["FeatureService"],
    "source": ["KafkaSource", "ParquetSource", "RequestSource"],
    "stream_view": ["StreamFeatureView"],
}
__getattr__, __dir__ = lazy_names(
    __name__, {name: f"{__name__}.{module}" for module, names in _home_of.items() for name in names}
)
