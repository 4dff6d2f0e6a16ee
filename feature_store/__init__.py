"""A low-latency online feature store for Python model servers, on Redis.

Names load when they are used, so that a model server which imports `feature_store.online` pays for nothing else.
"""

from typing import TYPE_CHECKING

from feature_store._lazy import lazy_names

# Here and not in the metadata alone, which a checkout on the path does not have; pyproject.toml reads it from here.
__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from feature_store.definitions import (
        Aggregation as Aggregation,
        Array as Array,
        ArrowSource as ArrowSource,
        AvroFormat as AvroFormat,
        AvroSource as AvroSource,
        Bool as Bool,
        Bytes as Bytes,
        CloudEventsFormat as CloudEventsFormat,
        CsvSource as CsvSource,
        Date as Date,
        Decimal as Decimal,
        DeltaSource as DeltaSource,
        Entity as Entity,
        FeatureService as FeatureService,
        FeatureView as FeatureView,
        Field as Field,
        Float16 as Float16,
        Float32 as Float32,
        Float64 as Float64,
        IcebergSource as IcebergSource,
        InMemorySource as InMemorySource,
        Int8 as Int8,
        Int16 as Int16,
        Int32 as Int32,
        Int64 as Int64,
        JsonFormat as JsonFormat,
        JsonLinesSource as JsonLinesSource,
        JsonSchemaFormat as JsonSchemaFormat,
        KafkaSource as KafkaSource,
        MessagePackFormat as MessagePackFormat,
        OnDemandFeatureView as OnDemandFeatureView,
        ParquetSource as ParquetSource,
        RequestSource as RequestSource,
        Sequence as Sequence,
        SqlSource as SqlSource,
        StreamFeatureView as StreamFeatureView,
        String as String,
        Timestamp as Timestamp,
        on_demand_feature_view as on_demand_feature_view,
    )
    from feature_store.project.pruner import Pruner as Pruner
    from feature_store.project.store import FeatureStore as FeatureStore

__getattr__, __dir__ = lazy_names(__name__)
