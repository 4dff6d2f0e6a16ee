"""The URLs of databases that sources name: `connections` of feature_store.yaml, or environment variables.

A definition holds the name of a connection, so that no secret enters the registry. Every process that reads a source
finds the URL by itself: a driver, and the executors of Spark.
"""

from __future__ import annotations

import os
from pathlib import Path

from feature_store._redaction import hide_url, with_quoted_password
from feature_store.errors import ConfigError, did_you_mean
from feature_store.project.config import FILE_NAME, read_document
from feature_store.project.config_secrets import hide_secrets
from feature_store.project.config_variables import SCHEME, interpolated

_VARIABLE = "FEATURE_STORE_CONNECTION_"


def connection_url(name: str, folder: Path) -> str:
    """The URL of a connection. From now on, no error shows its password.

    The environment variable `FEATURE_STORE_CONNECTION_<NAME>` comes before the file. Of the file, only `connections` is
    read, so that a process that reads rows needs no other variable.

    Args:
        name: the name of the connection.
        folder: the folder of feature_store.yaml.

    Raises:
        ConfigError: neither the environment nor the file has the connection, the file names a variable that is not
            set, or the value is not a URL.
    """
    variable = f"{_VARIABLE}{name.upper()}"
    url, where = os.environ.get(variable, ""), f"environment variable {variable}"
    if url:
        hide_url(url, f"${{{variable}}}")
    else:
        url, where = _configured(name, folder, variable), f"{FILE_NAME}: connections.{name}"
    if not SCHEME.match(url):
        raise ConfigError(where, expected="a URL, such as postgresql://user@host/database", got="another text")
    return with_quoted_password(url)


def _configured(name: str, folder: Path, variable: str) -> str:
    file = folder / FILE_NAME
    written = read_document(file).get("connections") if file.exists() else None
    known = written if isinstance(written, dict) else {}
    if not isinstance(known.get(name), str):
        near = did_you_mean(name, [str(key) for key in known])
        hint = near or f"add it to connections in {FILE_NAME}, or set the environment variable {variable}"
        raise ConfigError(f"connection {name}", problem=f"{FILE_NAME} does not have it", hint=hint)
    chosen = {"connections": {name: known[name]}}
    found = interpolated(chosen, FILE_NAME)
    hide_secrets(found, chosen)
    return str(found["connections"][name])
