"""Opens Iceberg tables by the catalogs that pyiceberg's own configuration names."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
from pyiceberg.utils.config import Config

from feature_store._redaction import hide, hide_password
from feature_store.errors import DataError

_SECRET = re.compile(r"(?i)pass|secret|token|key|credential|sig")


@contextlib.contextmanager
def iceberg_errors(where: str) -> Iterator[None]:
    """A block that calls pyiceberg, whose errors become a DataError.

    A catalog may be a database, a REST server or a service of a cloud, and an error may come from any of their drivers.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        text = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(where, expected="a readable Iceberg table", got=text) from error


def opened_table(where: str, table: str) -> Any:
    """The table with its newest metadata.

    Args:
        where: names the table in errors.
        table: the catalog, the namespace and the table.

    Raises:
        DataError: the catalog is not configured, or there is no such table.
    """
    catalog, name = _catalog(where, table)
    try:
        return catalog.load_table(name)
    except (NoSuchTableError, NoSuchNamespaceError) as error:
        hint = "check the namespace and the name: catalog.namespace.table"
        raise DataError(where, problem=f"the catalog has no table {'.'.join(name)}", hint=hint) from error


def table_exists(where: str, table: str) -> bool:
    """Whether a catalog has a table.

    Raises:
        DataError: the catalog is not configured, or cannot be reached.
    """
    with iceberg_errors(where):
        catalog, name = _catalog(where, table)
        return bool(catalog.table_exists(name))


def _catalog(where: str, table: str) -> tuple[Any, tuple[str, ...]]:
    name, *identifier = table.split(".")
    properties = Config().get_catalog_config(name)
    if not properties:
        hint = f"set PYICEBERG_CATALOG__{name.upper()}__URI, or name it in .pyiceberg.yaml"
        raise DataError(where, problem=f"the catalog {name} is not configured", hint=hint)
    texts = {key: str(value) for key, value in properties.items()}
    _hide_secrets(texts)
    return load_catalog(name, **texts), tuple(identifier)


def _hide_secrets(properties: Mapping[str, str]) -> None:
    for name, value in properties.items():
        if _SECRET.search(name):
            hide(value)
        if "://" in value:
            hide_password(value)
