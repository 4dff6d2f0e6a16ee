"""The digest of an on-demand function: what it covers, what it leaves out, and that it is the same everywhere."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_store.definitions import Entity, FeatureView, Field, Float32, OnDemandFeatureView, on_demand_feature_view
from feature_store.definitions.on_demand import code_digest, legacy_digest
from feature_store.errors import DefinitionError

DIGESTED = Path(__file__).parent / "digested"
# Computed with Python 3.11, 3.12 and 3.13. When it changes, the rules of the digest have changed and need a new prefix.
GOLDEN = "v2:0b355db585ebc2c4397f290317ae94d1"
stats = FeatureView("stats", entities=[Entity("user")], schema=[Field("a", Float32)])
_NUMBERS = itertools.count()


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test import modules of its own. They are forgotten after it."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def function_of(folder: Path, file: str = "features.py") -> Any:
    """The function `f` of a file. The file is imported under a name that is used only once."""
    sys.path.insert(0, str(folder))
    known = set(sys.modules)
    try:
        spec = importlib.util.spec_from_file_location(f"private_{next(_NUMBERS)}", folder / file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - known:
            if getattr(sys.modules[name], "__file__", None) and str(folder) in str(sys.modules[name].__file__):
                del sys.modules[name]
    return module.f


def test_the_digest_is_the_same_on_every_python(importable) -> None:
    sys.path.insert(0, str(DIGESTED))
    from shop.features import scaled  # type: ignore[import-not-found]

    assert scaled.digest == GOLDEN
    assert scaled({"a": np.ones(1)})["a_scaled"] == pytest.approx([3.2])


PROJECT = {
    "features.py": """
import numpy as np
import lib.rates
import tables as t
from helpers import helper, Scale
from missing_stars import *
SCALE = 10
OFFSET = SCALE + 1
LOOKUP = {}
LOOKUP["a"] = 1
def near(x, by=3):
    return x + by
def f(inputs):
    import late
    return {"a": near(helper(inputs["x"])) * OFFSET + LOOKUP["a"] + Scale().by + lib.rates.RATE + t.FIRST + late.LATE
        + np.sum([SHADOW for SHADOW in [1]])}
SHADOW = 2
UNUSED = 1
""",
    "helpers.py": "from deeper import DEEP\nclass Scale:\n    by = 2\n"
    "def helper(x):\n    return x * DEEP\ndef other():\n    pass\n",
    "deeper.py": "DEEP = 5\nNOT_USED = 1\n",
    "tables.py": "FIRST = 1\nSECOND = 2\n",
    "late.py": "LATE = 1\n",
    "missing_stars.py": "STAR = 1\n",
    "lib/rates.py": "RATE = 1\n",
}
CHANGES = {  # (file, before, after): each changes the digest
    "the function": ("features.py", 'LOOKUP["a"] + Scale', 'LOOKUP["b"] + Scale'),
    "a constant": ("features.py", "SCALE = 10", "SCALE = 1000"),
    "what a constant is made of": ("features.py", "SCALE + 1", "SCALE + 2"),
    "what is put into a constant": ("features.py", 'LOOKUP["a"] = 1', 'LOOKUP["a"] = 2'),
    "a default": ("features.py", "by=3", "by=4"),
    "a helper": ("helpers.py", "x * DEEP", "x / DEEP"),
    "a class": ("helpers.py", "by = 2", "by = 3"),
    "a constant two files away": ("deeper.py", "DEEP = 5", "DEEP = 6"),
    "an attribute of a module": ("tables.py", "FIRST = 1", "FIRST = 2"),
    "a module of a folder": ("lib/rates.py", "RATE = 1", "RATE = 2"),
    "what the function imports": ("late.py", "LATE = 1", "LATE = 2"),
    "where a name comes from": ("features.py", "import numpy as np", "import math as np"),
}
LOOKS = {
    "a comment": ("features.py", "SCALE = 10", "SCALE = 10  # percent"),
    "the layout": ("features.py", "x + by", "(x\n        + by)"),
    "a docstring": ("features.py", "def near(x, by=3):", 'def near(x, by=3):\n    "Nearly."'),
    "annotations": ("features.py", "def near(x, by=3):", "def near(x: float, by: int = 3) -> float:"),
    "the place in the file": ("features.py", "SCALE = 10", "\n\nSCALE = 10"),
    "quotes": ("features.py", 'LOOKUP["a"] = 1', "LOOKUP['a'] = 1"),
    "what is not used": ("features.py", "UNUSED = 1", "UNUSED = 2"),
    "an unused attribute": ("tables.py", "SECOND = 2", "SECOND = 3"),
    "an unused helper": ("helpers.py", "    pass", "    return 1"),
    "an unused constant two files away": ("deeper.py", "NOT_USED = 1", "NOT_USED = 2"),
}


def write_project(folder: Path, change: tuple[str, str, str] | None = None) -> Path:
    folder.mkdir()
    for name, text in PROJECT.items():
        (folder / name).parent.mkdir(exist_ok=True)
        if change is not None and change[0] == name:
            assert change[1] in text
            text = text.replace(change[1], change[2])
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("change", [*CHANGES, *LOOKS])
def test_the_digest_covers_what_the_function_uses(tmp_path: Path, change: str) -> None:
    before = code_digest(function_of(write_project(tmp_path / "before")))
    after = code_digest(function_of(write_project(tmp_path / "after", (CHANGES | LOOKS)[change])))
    assert (before == after) is (change in LOOKS)


def test_the_digest_does_not_depend_on_how_a_file_is_loaded(tmp_path: Path, importable) -> None:
    folder = write_project(tmp_path / "project")
    private = code_digest(function_of(folder))
    sys.path.insert(0, str(folder))
    from features import f  # type: ignore[import-not-found]

    assert code_digest(f) == private


def test_files_of_the_folder_above_belong_to_the_project(tmp_path: Path) -> None:
    digests = []
    for value in (1, 2):
        root = tmp_path / str(value)
        (root / "defs").mkdir(parents=True)
        (root / "above.py").write_text(f"ABOVE = {value}\n")
        (root / "defs" / "features.py").write_text(
            "import sys; sys.path.insert(0, __file__.rsplit('/', 2)[0])\n"
            "from above import ABOVE\nsys.path.pop(0); del sys.modules['above']\n"
            "def f(inputs):\n    return {'a': inputs['x'] * ABOVE}\n"
        )
        digests.append(code_digest(function_of(root / "defs")))
    assert digests[0] != digests[1]


def test_installed_libraries_are_digested_by_name(tmp_path: Path) -> None:
    digests = []
    for value in (1, 2):
        installed = tmp_path / str(value) / "site-packages"
        (installed / "mine").mkdir(parents=True)
        (installed / "other.py").write_text(f"OTHER = {value}\n")
        (installed / "mine" / "__init__.py").write_text("")
        (installed / "mine" / "features.py").write_text("from other import OTHER\ndef f(inputs):\n    return OTHER\n")
        digests.append(code_digest(function_of(installed, "mine/features.py")))
    assert digests[0] == digests[1]


async def asynchronous(inputs):
    return {}


def generator(inputs):
    yield {}


class Holder:
    def method(self, inputs):
        return {}

    @staticmethod
    def static(inputs):
        return {}

    def __call__(self, inputs):
        return {}


def without_arguments():
    return {}


def with_nulls(inputs, nulls):
    return {}


def usual(inputs):
    return {}


def both_ways(inputs, nulls=None):
    return {}


def nested() -> Any:
    def inner(inputs):
        return {}

    return inner


@pytest.mark.parametrize(
    ("function", "nulls", "reason"),
    [
        (lambda inputs: inputs, "strict", "a lambda cannot be served"),
        (nested(), "strict", "a function defined inside another function cannot be served"),
        (asynchronous, "strict", "an async function cannot be served"),
        (generator, "strict", "a generator cannot be served"),
        (Holder().method, "strict", "a method cannot be served"),
        (Holder.method, "strict", "a method cannot be served"),
        (Holder.static, "strict", "a method cannot be served"),
        (Holder(), "strict", "an object that is called like a function cannot be served"),
        (len, "strict", "an object that is called like a function cannot be served"),
        (without_arguments, "strict", r"does not take the arguments of nulls='strict': \(inputs\)"),
        (with_nulls, "strict", r"does not take the arguments of nulls='strict': \(inputs\)"),
        (usual, "shown", r"does not take the arguments of nulls='shown': \(inputs, nulls\)"),
        (usual, "seen", "expected strict or shown"),
    ],
)
def test_a_function_that_cannot_be_served_is_refused_at_definition(function: Any, nulls: Any, reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason):
        OnDemandFeatureView("o", sources=[stats], schema=[Field("b", Float32)], function=function, nulls=nulls)


def test_a_function_without_source_is_refused() -> None:
    namespace: dict[str, Any] = {}
    exec("def f(inputs):\n    return {}\n", namespace)
    with pytest.raises(DefinitionError, match="its source cannot be read from <string>"):
        code_digest(namespace["f"])


def test_the_digest_covers_the_handling_of_nulls() -> None:
    assert code_digest(both_ways) != code_digest(both_ways, "shown")


def test_digests_of_earlier_releases_are_computed_too() -> None:
    view = on_demand_feature_view(sources=[stats], schema=[Field("b", Float32)])(usual)
    # As commit d23cf74 computed it with Python 3.11: a hash of "def usual(inputs):\n    return {}".
    assert legacy_digest(usual) == legacy_digest(view) == "source:277a751af54dfafdce364b59e66263c3"
    assert legacy_digest(len) == ""
