"""Finds the class that reads a source, from its definition."""

from __future__ import annotations

import importlib

from feature_store._extras import missing_dependency
from feature_store.arrow.sources.source import OfflineSource
from feature_store.definitions.batch_source import BatchSource
from feature_store.errors import DefinitionError


def reader_of(source: BatchSource) -> type[OfflineSource]:
    """The class that reads a source.

    Raises:
        DefinitionError: `reader` of the definition does not name an OfflineSource class.
        MissingDependencyError: a package that the class needs is not installed.
    """
    module, _, name = source.opened_by.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise missing_dependency(error, f"source of kind {source.kind}") from error
    if not (isinstance(found, type) and issubclass(found, OfflineSource)):
        where = f"{type(source).__name__}.reader"
        raise DefinitionError(where, expected="module:class of an OfflineSource", got=repr(source.opened_by))
    return found
