"""Opens sources, and checks that they have the columns that views take."""

from __future__ import annotations

from pathlib import Path

from feature_store.arrow.rows import source_columns
from feature_store.arrow.sources.readers import reader_of
from feature_store.arrow.sources.renamed import RenamedRows
from feature_store.arrow.sources.source import OfflineSource
from feature_store.definitions.batch_source import BatchSource
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.stream_view import StreamFeatureView


def open_source(source: BatchSource, folder: Path) -> OfflineSource:
    """The rows of a source, at its newest version.

    Args:
        source: the definition.
        folder: the folder that relative paths refer to.

    Raises:
        DataError: the source does not exist, or cannot be reached or read; or its columns do not fit `field_mapping`.
        DefinitionError: `reader` of the definition does not name an OfflineSource class.
        MissingDependencyError: a package that reads this kind of source is not installed.
    """
    reader = RenamedRows if source.field_mapping else reader_of(source)
    return reader.open(source, folder)


def open_view(source: BatchSource, view: FeatureView | StreamFeatureView, folder: Path) -> OfflineSource:
    """The rows of a view's source or history, after a check that it has the columns that the view takes.

    If the view has SQL, its columns are not checked, since only the SQL determines them.

    Raises:
        DataError: see `open_source`; or a column is missing, or its type cannot fit.
    """
    rows = open_source(source, folder)
    if not isinstance(view, FeatureView) or view.sql is None:
        for where, schema in rows.schemas():
            source_columns(view, schema, where)
    return rows


def source_exists(source: BatchSource, folder: Path) -> bool:
    """Whether a source has rows to open yet.

    Raises:
        DataError: the source can never be opened, for example because its path is a URL.
    """
    return reader_of(source).exists(source, folder)
