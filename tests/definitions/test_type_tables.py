"""Each table of what is done with scalar types has all of them."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import feature_store
from feature_store.definitions.scalars import KINDS
from feature_store.definitions.type_table import TypeTable

OPTIONAL = {"engines.spark", "streaming.spark"}  # they need no tables: tasks run the local engine's code


def tables() -> dict[str, TypeTable[object]]:
    """`{module.NAME: table}` of the whole package."""
    found = {}
    for module in pkgutil.walk_packages(feature_store.__path__, "feature_store."):
        if not any(module.name.startswith(f"feature_store.{name}") for name in OPTIONAL):
            names = vars(importlib.import_module(module.name))
            own = {key: value for key, value in names.items() if isinstance(value, TypeTable)}
            found |= {id(table): (f"{module.name}.{key}", table) for key, table in own.items()}
    return dict(found.values())


TABLES = tables()


def test_there_are_tables_in_each_package_that_treats_types_differently() -> None:
    packages = {name.split(".")[1] for name in TABLES}
    assert packages == {"arrow", "online", "streaming", "ui"}


@pytest.mark.parametrize("name", TABLES)
def test_each_table_has_every_type(name: str) -> None:
    lacking, unknown = KINDS - TABLES[name].kinds, TABLES[name].kinds - KINDS
    assert not lacking, f"{name} lacks {', '.join(sorted(lacking))}"
    assert not unknown, f"{name} has {', '.join(sorted(unknown))}, which no type is"
