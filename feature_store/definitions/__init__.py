"""What users write: entities, fields, sources, views, services. Frozen models, no I/O."""

from typing import TYPE_CHECKING

from feature_store._lazy import lazy_names

if TYPE_CHECKING:
    from feature_store.definitions.aggregation import Aggregation as Aggregation
    from feature_store.definitions.avro_format import AvroFormat as AvroFormat
    from feature_store.definitions.avro_source import AvroSource as AvroSource
    from feature_store.definitions.cloud_events_format import CloudEventsFormat as CloudEventsFormat
    from feature_store.definitions.csv_source import CsvSource as CsvSource
    from feature_store.definitions.definition_set import DefinitionSet as DefinitionSet
    from feature_store.definitions.delta_source import DeltaSource as DeltaSource
    from feature_store.definitions.dtypes import (
        Array as Array,
        Bool as Bool,
        Bytes as Bytes,
        Date as Date,
        Decimal as Decimal,
        DType as DType,
        Float16 as Float16,
        Float32 as Float32,
        Float64 as Float64,
        Int8 as Int8,
        Int16 as Int16,
        Int32 as Int32,
        Int64 as Int64,
        String as String,
        Timestamp as Timestamp,
    )
    from feature_store.definitions.entity import Entity as Entity
    from feature_store.definitions.feature_view import FeatureView as FeatureView, Projection as Projection
    from feature_store.definitions.field import Field as Field
    from feature_store.definitions.iceberg_source import IcebergSource as IcebergSource
    from feature_store.definitions.json_lines_source import JsonLinesSource as JsonLinesSource
    from feature_store.definitions.json_schema_format import JsonSchemaFormat as JsonSchemaFormat
    from feature_store.definitions.memory_source import InMemorySource as InMemorySource
    from feature_store.definitions.message_format import JsonFormat as JsonFormat
    from feature_store.definitions.message_pack_format import MessagePackFormat as MessagePackFormat
    from feature_store.definitions.on_demand import (
        OnDemandFeatureView as OnDemandFeatureView,
        on_demand_feature_view as on_demand_feature_view,
    )
    from feature_store.definitions.sequence import Sequence as Sequence
    from feature_store.definitions.service import FeatureService as FeatureService
    from feature_store.definitions.source import (
        ArrowSource as ArrowSource,
        KafkaSource as KafkaSource,
        ParquetSource as ParquetSource,
        RequestSource as RequestSource,
    )
    from feature_store.definitions.sql_source import SqlSource as SqlSource
    from feature_store.definitions.stream_view import StreamFeatureView as StreamFeatureView

__getattr__, __dir__ = lazy_names(__name__)
