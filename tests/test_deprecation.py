from __future__ import annotations

import ast
import importlib
import re
import warnings
from pathlib import Path

import pytest

import feature_store
from feature_store._deprecation import deprecated, moved_names

PACKAGE = Path(feature_store.__file__).parent
# The names that pages and examples of release 0.1 import from modules that moved since.
MOVED = [
    ("feature_store.pruner", "Pruner"),
    ("feature_store.pruner", "Training"),
    ("feature_store.store", "FeatureStore"),
    ("feature_store.config", "load_config"),
    ("feature_store.config", "Config"),
]


class Greeter:
    @deprecated(use="hello()", since="0.2", removed_in="1.0")
    def hi(self, name: str, *, loud: bool = False) -> str:
        """Greet somebody."""
        return name.upper() if loud else name


def test_a_deprecated_method_works_and_warns_where_it_is_called() -> None:
    with pytest.warns(DeprecationWarning) as warned:
        assert Greeter().hi("ann", loud=True) == "ANN"
    assert warned[0].filename == __file__
    expected = "Greeter.hi() is deprecated since 0.2 and will be removed in 1.0; use `hello()`"
    assert str(warned[0].message) == expected
    assert Greeter.hi.__doc__ == f"Greet somebody.\n\nDeprecated: {expected}\n"


@pytest.mark.parametrize(("module", "name"), MOVED)
def test_a_moved_name_is_the_same_object_and_says_where_it_is_now(module: str, name: str) -> None:
    with pytest.warns(
        DeprecationWarning, match=rf"^{module}\.{name} is deprecated since [\d.]+ .*; use `from "
    ) as warned:
        exec(f"from {module} import {name}", found := {})
    home = re.search(r"use `from (\S+) import", str(warned[0].message))
    assert home is not None
    assert found[name] is getattr(importlib.import_module(home[1]), name)


def test_no_other_name_of_a_moved_module_is_there() -> None:
    get = moved_names("old", {"Name": "new"}, since="0.2", removed_in="1.0")
    with warnings.catch_warnings(), pytest.raises(AttributeError, match="module 'old' has no attribute 'Other'"):
        get("Other")


def test_nothing_outlives_the_release_that_removes_it() -> None:
    removals = [
        (f"{path}:{node.lineno}", str(node.value.value))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.keyword) and node.arg == "removed_in" and isinstance(node.value, ast.Constant)
    ]
    assert removals
    assert [where for where, removed_in in removals if release(removed_in) <= release(feature_store.__version__)] == []


def release(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version.partition(".dev")[0])]
