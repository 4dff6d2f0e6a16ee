"""The settings under `spark:` in feature_store.yaml: those of the Spark session, and those of its Kafka source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Settings of `spark:` with this prefix belong to the Kafka source. They override the settings of `kafka:`.
KAFKA_PREFIX = "kafka."


def session_settings(spark: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the Spark session: all but those of the Kafka source."""
    return {name: value for name, value in spark.items() if not name.startswith(KAFKA_PREFIX)}
