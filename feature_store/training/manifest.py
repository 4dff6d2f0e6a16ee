"""What a training set was made of, as a document that goes with it."""

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
    """A file as it was when it was read: two reads saw the same when size and time are the same."""

    path: str
    bytes: int
    modified_ns: int


@dataclass(frozen=True)
class SourceSnapshot:
    """The rows that were read for one view.

    Attributes:
        view: its name.
        files: of its source; none, where it does not consist of files.
        rows: how many the source holds; None: the source did not say.
        quarantined: rows that could have counted but do not fit the view.
        quarantine_file: where they are.
        version: of the source: two reads with one version saw the same rows.
    """

    view: str
    files: tuple[SourceFile, ...]
    rows: int | None
    quarantined: int = 0
    quarantine_file: str | None = None
    version: str = ""


@dataclass(frozen=True)
class Manifest:
    """What a training set was made of.

    Attributes:
        project: its name.
        definitions_version, definitions_digest: the applied version of the definitions.
        service: the service's name, or the feature references.
        features: the names of the feature columns, in order.
        engine: what joined.
        labels: what the label rows were.
        timestamp_column: the column of their times.
        sources: per view what was read.
        made_at: when, UTC.
        seconds: how long it took.
        rows: how many.
        missing: per feature, how many rows have no value, whether a default stands there or not.
        functions: per on-demand view, the digests of the functions that computed it. Rows of the log of what was served
            may have been computed by several.
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
        """Per feature the share of rows without a value."""
        return {name: count / self.rows if self.rows else 0.0 for name, count in self.missing.items()}

    def to_document(self) -> dict[str, Any]:
        """The manifest as JSON types."""
        return {"format": FORMAT} | asdict(self) | {"missing_rates": self.missing_rates}

    def write(self, path: Path) -> None:
        """Write it to a JSON file.

        Raises:
            DataError: it cannot be written.
        """
        with reading(f"manifest {path}"):
            path.write_bytes(orjson.dumps(self.to_document(), option=orjson.OPT_INDENT_2))
