"""Opens the sources of a training set in the versions that the manifest of an earlier one records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import orjson

from feature_store.arrow.reading import reading
from feature_store.arrow.sources.opening import open_view
from feature_store.errors import DataError
from feature_store.training.manifest import FORMAT

if TYPE_CHECKING:
    from feature_store.arrow.sources.source import OfflineSource
    from feature_store.definitions.batch_source import BatchSource
    from feature_store.definitions.feature_view import FeatureView
    from feature_store.definitions.stream_view import StreamFeatureView


class RecordedSource(NamedTuple):
    """The version of a view's source that a manifest records; see SourceSnapshot."""

    version: str
    pinned: dict[str, int]


class RecordedSources:
    """The versions of sources that a manifest records.

    Args:
        where: names the manifest in errors.
        sources: the version of each view's source, by the name of the view.
    """

    def __init__(self, where: str, sources: Mapping[str, RecordedSource]) -> None:
        self._where, self._sources = where, sources

    @classmethod
    def read(cls, path: Path) -> Self:
        """The versions in the manifest at a path.

        Raises:
            DataError: there is no such file, or it is not a manifest of a training set.
        """
        where = f"manifest {path}"
        with reading(where):
            content = path.read_bytes()
        try:
            document: dict[str, Any] = orjson.loads(content)
            is_known = document["format"] == FORMAT
            sources = {
                source["view"]: RecordedSource(str(source["version"]), dict(source.get("pinned", {})))
                for source in document["sources"]
            }
        except (ValueError, KeyError, TypeError) as error:
            hint = "give the file that was written beside the training set: train.manifest.json"
            raise DataError(where, problem="it is not the manifest of a training set", hint=hint) from error
        if not is_known:
            raise DataError(where, expected=f"a manifest of format {FORMAT}", got=f"format {document['format']}")
        return cls(where, sources)

    def open_view(self, source: BatchSource, view: FeatureView | StreamFeatureView, folder: Path) -> OfflineSource:
        """The rows of a view's source or history, in the version that is recorded; see `opening.open_view`.

        Raises:
            DataError: see `opening.open_view`; or the manifest has no such view, or the rows of that version are gone.
        """
        recorded = self._sources.get(view.name)
        if recorded is None or not recorded.version:
            hint = f"it has {', '.join(sorted(self._sources)) or 'no views'}"
            raise DataError(self._where, problem=f"it records no version of the source of {view.name}", hint=hint)
        kept = {name: value for name, value in recorded.pinned.items() if name in type(source).model_fields}
        rows = open_view(source.model_copy(update=kept), view, folder)
        if rows.version != recorded.version:
            hint = "restore the source, or make a training set without as_recorded"
            problem = f"the source of {view.name} no longer has the rows that the manifest records"
            raise DataError(self._where, problem=problem, hint=hint)
        return rows
