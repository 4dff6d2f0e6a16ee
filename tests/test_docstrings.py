"""The examples in the docstrings of public names run as they stand, in the project of `feature-store init shop`."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from feature_store import FeatureStore
from feature_store.cli.project import init
from feature_store.definitions.dtypes import SCALARS
from tests.servers import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = ("", ".online", ".monitoring", ".streaming", ".pruning", ".definitions", ".project", ".functions", ".cli")
NAMES = [
    (f"feature_store{module}", name)
    for module in MODULES
    for name in importlib.import_module(f"feature_store{module}").__all__
]
# Names without an example of their own, and the places that use them.
SHOWN_ELSEWHERE = {
    "KafkaSink": "needs a broker: docs/kafka.md, tests/streaming",
    "PrunePlan": "Pruner.plan returns it",
    "Verification": "Pruner.verify returns it, which needs a training set and a model: docs/pruning.md",
    "draw_curve": "feature-store prune curve",
    "Config": "load_config returns it",
    # The parts of a function of one's own: `feature_store/functions/` has a file for each function.
    **dict.fromkeys(
        ("CellFunction", "Function", "State", "Part", "StateSpec", "Parameter", "state_type"), "CONTRIBUTING.md"
    ),
    "LIFETIME_US": "a number: docs/aggregations.md",
    "TimeSpan": "CellFunction.finalize gets it: feature_store/functions/decayed.py",
    **dict.fromkeys(
        ("Column", "Mask", "StateArrays", "Values", "WindowMask", "sizes_of", "values_of"), "CONTRIBUTING.md"
    ),
    # What commands print with: examples/movielens/demo.py uses each.
    **dict.fromkeys(("CountReport", "ProgressReport", "console"), "examples/movielens/demo.py"),
    **dict.fromkeys(("show_changes", "show_footprints", "show_summaries", "show_verification"), "examples"),
} | dict.fromkeys(SCALARS, "a value: docs/types.md")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis that serves a new project, whose folder is the current one."""
    folder, before = tmp_path_factory.mktemp("examples"), Path.cwd()
    os.chdir(folder)
    with redis_server() as server, contextlib.ExitStack() as after:
        after.callback(os.chdir, before)
        init(Path("shop"))
        os.chdir("shop")
        Path("feature_store.yaml").write_text(f"project: shop\nonline_store: {{url: '{server.url}'}}\n")
        with FeatureStore(".") as store:
            store.apply()
            store.materialize()
        yield server.url


@pytest.mark.parametrize(("module", "name"), [one for one in NAMES if one[1] not in SHOWN_ELSEWHERE])
def test_the_example_of_a_public_name_runs(module: str, name: str, shop: str) -> None:
    item = getattr(importlib.import_module(module), name)
    globals_ = {"redis_url": shop, "__name__": "__main__"}
    (example,) = doctest.DocTestFinder(recurse=False).find(item, name, module=False, globs=globals_)
    assert example.examples, f"{module}.{name} has no example"
    failed, tried = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert tried
    assert failed == 0


def test_names_without_an_example_are_public() -> None:
    assert SHOWN_ELSEWHERE.keys() <= {name for _, name in NAMES}
