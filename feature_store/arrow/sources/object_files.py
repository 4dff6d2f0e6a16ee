"""Finds the objects of a URL: one object, the objects of a kind below a folder, or the objects of a pattern."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import NamedTuple

from feature_store.arrow.file_versions import FileVersion, stores
from feature_store.definitions.file_url import check_file_url


class FoundObjects(NamedTuple):
    """The objects of a URL.

    Attributes:
        root: the object or folder that the URL names.
        files: the objects that match, sorted by their URLs.
        names: of everything below the root: the path relative to it. Empty for one object.
    """

    root: str
    files: tuple[FileVersion, ...]
    names: frozenset[str]


def objects_found(url: str, suffixes: Sequence[str]) -> FoundObjects:
    """The objects of a URL, of which there may be none.

    Args:
        url: an object, a folder, or a pattern as `glob` reads it, whose bucket is without a pattern.
        suffixes: the ends of the names of objects in a folder.

    Raises:
        DataError: the store cannot be reached or refuses access, or there is no such bucket.
        DefinitionError: the URL is not one that can be read.
    """
    named = check_file_url(f"source {url}", url).rstrip("/")
    one = None if url.endswith("/") else stores().described(named)
    if one is not None:
        return FoundObjects(named, (FileVersion(*one),), frozenset())
    scheme, _, rest = named.partition("://")
    place, *folders = rest.split("/")
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), folders))
    pattern = folders[len(fixed) :]
    root = f"{scheme}://{'/'.join([place, *fixed])}"
    below = {found.url[len(root) + 1 :]: FileVersion(*found) for found in stores().listed(root)}
    chosen = [name for name in sorted(below) if _is_chosen(name, pattern, suffixes)]
    return FoundObjects(root, tuple(below[name] for name in chosen), frozenset(below))


def folders_of(names: Iterable[str]) -> set[str]:
    """The folders that hold files, and the folders above them. The root is an empty text."""
    above = (PurePosixPath(name).parents for name in names)
    return {"" if str(folder) == "." else f"{folder}/" for folders in above for folder in folders}


def _is_chosen(name: str, pattern: Sequence[str], suffixes: Sequence[str]) -> bool:
    parts = name.split("/")
    if any(part.startswith(("_", ".")) for part in parts) or not parts[-1]:
        return False
    return _matches(parts, pattern) if pattern else name.endswith(tuple(suffixes))


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the folders and the name of an object match a pattern. `**` stands for any number of folders."""
    if not pattern or not parts:
        return not parts and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
