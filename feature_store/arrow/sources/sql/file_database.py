"""Databases that are files."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from feature_store.arrow.file_versions import file_versions, version_of
from feature_store.arrow.reading import reading
from feature_store.arrow.sources.sql.dialect import Dialect
from feature_store.arrow.sources.sql.session import Session, SqlError


class FileDatabase(Dialect):
    """The part of a dialect that does not depend on the database. Every change of the data changes a file.

    The URL is that of SQLAlchemy: `scheme:///relative.db` or `scheme:////absolute.db`.

    Attributes:
        log: what stands behind the name of the file in the name of its write-ahead log.
    """

    keeps_transactions: ClassVar[bool] = True
    log: ClassVar[str]

    def file(self, where: str, url: str, folder: Path) -> Path:
        """The file of a URL.

        Raises:
            SqlError: it does not exist.
        """
        path = _path(url, folder)
        if not path.exists():
            raise SqlError(where, problem=f"the file {path.name} of the connection does not exist")
        return path

    def version(self, url: str, folder: Path) -> str:
        """See Dialect."""
        path = _path(url, folder)
        log = path.with_name(path.name + self.log)
        with reading(f"database {path.name}"):
            return version_of(file_versions([path, *([log] if log.exists() and log.stat().st_size else [])]))


def has_rowid(session: Session, text: str) -> bool:
    """Whether rows have places in a table, unlike the rows of a view."""
    try:
        session.table(f"SELECT rowid FROM {text} LIMIT 0")
    except SqlError:
        return False
    return True


def _path(url: str, folder: Path) -> Path:
    path = url.partition("://")[2].partition("?")[0]
    return folder / path.removeprefix("/")
