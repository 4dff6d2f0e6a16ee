"""Reads from the log of a Delta table which data files hold rows that an earlier read did not see.

The document of a read names the table, the version that was read, and a hash of the commit of this version. If the
table was replaced, or restored from a backup, or the log no longer has the commits in between, all files count as not
read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Self

import orjson

from feature_store.arrow.opened_files import content_of

_HASH_DIGITS = 16


class ReadVersion(NamedTuple):
    """A version of a table that was read.

    Attributes:
        table: the id of the table.
        version: the version.
        commit: a hash of the commit of the version. Empty: the log no longer has it.
    """

    table: str
    version: int
    commit: str

    @classmethod
    def of(cls, root: str, table: str, version: int) -> Self:
        """The present version of a table.

        Raises:
            DataError, OSError: the log cannot be read.
        """
        commit = _commit(root, version)
        digest = "" if commit is None else hashlib.sha256(commit).hexdigest()[:_HASH_DIGITS]
        return cls(table, version, digest)

    @classmethod
    def parse(cls, document: bytes) -> Self | None:
        """The version of a document. None: the document names none."""
        table, _, rest = document.decode(errors="replace").partition("\n")
        version, _, commit = rest.partition("\n")
        return cls(table, int(version), commit) if version.isdecimal() else None

    def document(self) -> bytes:
        """The version as a document."""
        return "\n".join(map(str, self)).encode()


def added_since(root: str, known: ReadVersion, now: ReadVersion) -> set[str] | None:
    """The paths, as the log has them, of files that may hold rows that were not read at an earlier version.

    Files of a commit that only moves rows, such as OPTIMIZE, hold rows that were read, unless the commit removes a file
    that was not read.

    Args:
        root: the folder or URL of the table.
        known: the version that was read.
        now: the present version.

    Returns:
        The paths; some may be removed from the table again. None: the log does not show which files were read.

    Raises:
        DataError, OSError: a commit cannot be read.
        ValueError: a commit is not JSON.
    """
    if known.table != now.table or known.version > now.version or not known.commit:
        return None
    if ReadVersion.of(root, known.table, known.version) != known:
        return None
    added: set[str] = set()
    for version in range(known.version + 1, now.version + 1):
        commit = _commit(root, version)
        if commit is None:
            return None
        _follow(added, list(_actions(commit)))
    return added


def _follow(added: set[str], actions: Iterable[dict[str, Any]]) -> None:
    """Change the files that were not read by the actions of a commit."""
    adds = [action["add"] for action in actions if action.get("add")]
    removed = {action["remove"]["path"] for action in actions if action.get("remove")}
    moves_new_rows = not added.isdisjoint(removed)
    added -= removed
    added.update(add["path"] for add in adds if add.get("dataChange", True) or moves_new_rows)


def _actions(commit: bytes) -> Iterator[dict[str, Any]]:
    for line in commit.splitlines():
        if line.strip():
            yield orjson.loads(line)


def _commit(root: str, version: int) -> bytes | None:
    """The commit of a version, or None if the log does not have it."""
    return content_of(f"{root}/_delta_log/{version:020d}.json")
