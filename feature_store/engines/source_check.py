"""Whether views' sources hold what the views take, by schemas alone: no rows are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_store.arrow.sources import files_found, parquet_rows
from feature_store.definitions.dtypes import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US
from feature_store.definitions.feature_view import FeatureView
from feature_store.engines.sql.run import selected_schema, selection

if TYPE_CHECKING:
    from pathlib import Path

    from feature_store.definitions.stream_view import StreamFeatureView


def has_files(view: FeatureView | StreamFeatureView, folder: Path) -> bool:
    """Whether the source of a view, or the history of a stream view, has any file; True where it has no source.

    Raises:
        DataError: the source is a URL.
    """
    return view.history is None or bool(files_found(view.history, folder)[1])


def check_source(view: FeatureView | StreamFeatureView, folder: Path) -> None:
    """Compare the schemas of a source's files with what its view takes, and compile the view's SQL against them.

    Raises:
        DataError: there is no file, or the source is of a kind that is not supported, or a column is missing or of a
            type that cannot fit, or the SQL does not run on these columns.
    """
    source = view.history
    if source is None:
        return
    rows = parquet_rows(source, view, folder)
    if isinstance(view, FeatureView) and view.sql is not None:
        selected_schema(selection(view, rows, MIN_TIMESTAMP_US, MAX_TIMESTAMP_US))
