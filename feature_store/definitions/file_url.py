"""URLs of files, as definitions name them: `s3://bucket/orders/*.parquet`.

A definition is stored in the registry, so a URL must not hold a password. Credentials are in the environment of the
processes that read.
"""

from __future__ import annotations

import re

from feature_store.errors import DefinitionError

# A single slash too, as in `s3:/bucket`: pathlib removes the second one.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
# Schemes whose URLs name a container of an account before the host, as in `abfss://container@account.dfs.…`.
_WITH_CONTAINER = ("abfs", "abfss")
WEB = ("http", "https")
SCHEMES = ("s3", "gs", "az", *_WITH_CONTAINER, *WEB)


def is_url(path: str) -> bool:
    """Whether a path is a URL."""
    return _URL.match(path) is not None


def scheme_of(url: str) -> str:
    """The scheme of a URL, in lower case."""
    return url.partition(":")[0].lower()


def check_file_url(where: str, path: str) -> str:
    """The path of files, which may be a URL of a kind that can be read.

    Args:
        where: names the path in errors.
        path: the path or URL.

    Raises:
        DefinitionError: the URL has a scheme that is not supported, names no bucket or host, or may hold a secret.
    """
    if not is_url(path):
        return path
    scheme = scheme_of(path)
    if scheme not in SCHEMES:
        names = ", ".join(f"{name}://" for name in SCHEMES)
        raise DefinitionError(where, problem=f"files are not read from {scheme}:// URLs", hint=f"use one of {names}")
    rest = path[len(scheme) + 1 :]
    place = rest.removeprefix("//").partition("/")[0]
    if not rest.startswith("//") or not place:
        hint = f"write {scheme}://, then the bucket or host, as text: pathlib.Path removes a slash"
        raise DefinitionError(where, problem="the URL names no bucket or host", hint=hint)
    user, mark, _ = place.rpartition("@")
    if (mark and (scheme not in _WITH_CONTAINER or ":" in user)) or (scheme in WEB and ("?" in path or "#" in path)):
        hint = (
            "leave out users, passwords and signatures: the processes that read take credentials from the environment"
        )
        raise DefinitionError(where, problem="the URL may hold a secret, and the registry stores it", hint=hint)
    return path
