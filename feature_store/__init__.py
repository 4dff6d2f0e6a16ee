"""A low-latency online feature store for Python model servers, on Redis.

Names load when they are used, so that a model server which imports `feature_store.online` pays for nothing else.
"""

from typing import TYPE_CHECKING

from feature_store._lazy import lazy_names

# Here and not in the metadata alone, which a checkout on the path does not have; pyproject.toml reads it from here.
__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from feature_store.definitions import (
        Aggregation,
        Array,
        Bool,
        Entity,
        FeatureService,
        FeatureView,
        Field,
        Float32,
        Float64,
        Int32,
        Int64,
        KafkaSource,
        OnDemandFeatureView,
        ParquetSource,
        RequestSource,
        StreamFeatureView,
        String,
        Timestamp,
        on_demand_feature_view,
    )
    from feature_store.project.store import FeatureStore

__all__ = [
    "Aggregation",
    "Array",
    "Bool",
    "Entity",
    "FeatureService",
    "FeatureStore",
    "FeatureView",
    "Field",
    "Float32",
    "Float64",
    "Int32",
    "Int64",
    "KafkaSource",
    "OnDemandFeatureView",
    "ParquetSource",
    "RequestSource",
    "StreamFeatureView",
    "String",
    "Timestamp",
    "on_demand_feature_view",
]

_homes = dict.fromkeys(__all__, "feature_store.definitions") | {"FeatureStore": "feature_store.project.store"}
__getattr__, __dir__ = lazy_names(__name__, _homes)
