"""Checks that sources have the columns that views take, by their schemas: no rows are read."""

from __future__ import annotations

import tempfile
from pathlib import Path

from feature_store.arrow.sources.export import schema_files
from feature_store.arrow.sources.opening import open_view, source_exists
from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.stream_view import StreamFeatureView
from feature_store.engines.sql.run import selected_schema, selection


def has_source(view: FeatureView | StreamFeatureView, folder: Path) -> bool:
    """Whether the source of a view, or the history of a stream view, exists yet; True where a view has no source.

    Raises:
        DataError: the source can never be opened, such as a URL where none is supported.
    """
    return view.history is None or source_exists(view.history, folder)


def check_source(view: FeatureView | StreamFeatureView, folder: Path) -> None:
    """Compare the schemas of a source with what its view takes, and compile the view's SQL against them.

    Raises:
        DataError: the source is missing or not supported, or a column is missing or of a type that cannot fit, or the
            SQL does not run on these columns.
    """
    source = view.history
    if source is None:
        return
    rows = open_view(source, view, folder)
    if isinstance(view, FeatureView) and view.sql is not None:
        with tempfile.TemporaryDirectory() as work:
            files = schema_files(rows, Path(work))
            selected_schema(selection(view, rows, files, MIN_TIMESTAMP_US, MAX_TIMESTAMP_US))
