"""Opens the Schema Registry of a format. Its client is loaded only here, since other formats do without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feature_store.streaming.schema_registry import SchemaRegistry


def opened_registry(place: str) -> SchemaRegistry:
    """The Schema Registry at a place: `env:NAME`, or a URL.

    Raises:
        MissingDependencyError: the extra `schemas` is not installed.
        StreamError: the environment variable with its URL is not set.
    """
    from feature_store.streaming.schema_registry import registry_at

    return registry_at(place)
