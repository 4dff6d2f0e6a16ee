"""Each table by scalar type has all types."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import feature_store
from feature_store.definitions.scalars import KINDS
from feature_store.definitions.type_table import TypeTable

ROOT = Path(feature_store.__file__).parent


def tables() -> dict[str, TypeTable[object]]:
    """The tables by scalar type of the whole package, `{module.NAME: table}`."""
    found = {}
    for file in sorted(ROOT.rglob("*.py")):
        if "TypeTable" not in file.read_text("utf-8"):
            continue
        module = ".".join(["feature_store", *file.relative_to(ROOT).with_suffix("").parts])
        names = vars(importlib.import_module(module))
        found |= {f"{module}.{key}": value for key, value in names.items() if isinstance(value, TypeTable)}
    return found


TABLES = tables()


def test_the_known_tables_are_found() -> None:
    packages = {name.split(".")[1] for name in TABLES}
    assert packages == {"arrow", "definitions", "online", "ui"}


@pytest.mark.parametrize("name", TABLES)
def test_each_table_has_every_type(name: str) -> None:
    lacking, unknown = KINDS - TABLES[name].kinds, TABLES[name].kinds - KINDS
    assert not lacking, f"{name} lacks {', '.join(sorted(lacking))}"
    assert not unknown, f"{name} has {', '.join(sorted(unknown))}, which no type is"
