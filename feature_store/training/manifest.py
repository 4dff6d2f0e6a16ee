"""The manifest of a training set: a document that records its origin."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from feature_store.arrow.reading import reading

FORMAT = 1


@dataclass(frozen=True)
class SourceFile:
    """The state of a file when it was read. If size and time are equal, two reads saw the same file.

    Attributes:
        path: the path.
        bytes: the size in bytes.
        modified_ns: the time of the last change, nanoseconds since 1970.
    """

    path: str
    bytes: int
    modified_ns: int


@dataclass(frozen=True)
class SourceSnapshot:
    """The rows that were read for one view.

    Attributes:
        view: the view's name.
        files: the files of its source; empty if the source does not consist of files.
        rows: the number of rows in the source; None: the source does not report it.
        quarantined: rows in the read interval that do not fit the view.
        quarantine_file: the file with these rows; None: there are none.
        version: the version of the source. If it is equal, two reads saw the same rows.
        pinned: argument of the source's definition -> its value with which this version can be read again. Empty: the
            source keeps no versions.
    """

    view: str
    files: tuple[SourceFile, ...]
    rows: int | None
    quarantined: int = 0
    quarantine_file: str | None = None
    version: str = ""
    pinned: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The origin of a training set.

    Attributes:
        project: the project's name.
        definitions_version, definitions_digest: the applied version of the definitions, and its digest.
        service: the service's name, or the feature references.
        features: the names of the feature columns, in order.
        engine: the name of the engine that joined; `served log` for a training set from the log.
        labels: a description of the label rows.
        timestamp_column: the column of the labels' times.
        sources: the rows that were read, for each view.
        made_at: when the training set was made, UTC.
        seconds: how long that took.
        rows: the number of rows.
        missing: for each feature, the number of rows without a value. Rows filled with a default count, too.
        functions: for each on-demand view, the digests of the functions that computed it. Rows of the served log may
            have been computed by several functions.
    """

    project: str
    definitions_version: int
    definitions_digest: str
    service: str | tuple[str, ...]
    features: tuple[str, ...]
    engine: str
    labels: str
    timestamp_column: str
    sources: tuple[SourceSnapshot, ...]
    made_at: datetime
    seconds: float
    rows: int
    missing: dict[str, int]
    functions: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def missing_rates(self) -> dict[str, float]:
        """For each feature, the share of rows without a value, 0 to 1."""
        return {name: count / self.rows if self.rows else 0.0 for name, count in self.missing.items()}

    def to_document(self) -> dict[str, Any]:
        """The manifest as JSON types."""
        return {"format": FORMAT} | asdict(self) | {"missing_rates": self.missing_rates}

    def write(self, path: Path) -> None:
        """Write the manifest to a JSON file.

        Raises:
            DataError: the file cannot be written.
        """
        with reading(f"manifest {path}"):
            path.write_bytes(orjson.dumps(self.to_document(), option=orjson.OPT_INDENT_2))
