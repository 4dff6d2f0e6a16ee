"""The extras of pyproject.toml: each brings what its name promises, and hints name one that brings what is missing."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from feature_store._extras import MODULES_OF_EXTRAS, requires_extra
from feature_store.errors import MissingDependencyError
from tests.package_smoke import BASE, USES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# Distributions whose modules have other names.
MODULES = {"scikit-learn": "sklearn", "opentelemetry-api": "opentelemetry"}


def modules_of(name: str) -> set[str]:
    """The modules that an extra brings, with those of the extras that it includes."""
    found: set[str] = set()
    for requirement in EXTRAS[name]:
        if taken := re.fullmatch(r"feature-store\[(.*)\]", requirement):
            found |= {module for other in taken[1].split(",") for module in modules_of(other)}
        else:
            distribution = re.split(r"[><=\[]", requirement)[0]
            found.add(MODULES.get(distribution, distribution.replace("-", "_")))
    return found


def test_what_errors_know_of_extras_is_what_they_bring() -> None:
    assert {name: set(modules) for name, modules in MODULES_OF_EXTRAS.items()} == {
        name: modules_of(name) for name in EXTRAS if name != "all"
    }


@pytest.mark.parametrize("door", sorted(EXTRAS.keys() - {"all"}))
@pytest.mark.parametrize("module", sorted({module for modules in MODULES_OF_EXTRAS.values() for module in modules}))
def test_a_hint_names_an_extra_that_brings_the_module(door: str, module: str) -> None:
    with pytest.raises(MissingDependencyError) as caught, requires_extra(door, "this"):
        raise ModuleNotFoundError(f"No module named '{module}.x'", name=f"{module}.x")
    named = re.fullmatch(r"pip install 'feature-store\[(\w+)\]'", caught.value.hint)
    assert named is not None
    assert module in modules_of(named[1])
    if module in modules_of(door):
        assert named[1] == door


@pytest.mark.parametrize("extra", sorted(USES))
def test_what_tries_an_extra_alone_is_a_program(extra: str) -> None:
    compile(BASE + USES[extra], extra, "exec")


def test_every_door_names_an_extra_that_there_is() -> None:
    doors = {
        (node.args[0].value, path.name)
        for path in (ROOT / "feature_store").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "requires_extra"
        if isinstance(node.args[0], ast.Constant)
    }
    assert doors
    assert {name for name, _ in doors} <= EXTRAS.keys()


# A finder that has only what the base and some extras bring.
WITH_EXTRAS = """
import importlib.abc, os, sys
absent = set(os.environ["ABSENT"].split(","))
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Finder())
from feature_store.cli import main
main()
"""


def run(project: Path, *arguments: str, extras: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    brought = {module for name in extras for module in modules_of(name)}
    absent = {module for name in EXTRAS for module in modules_of(name)} - brought
    how = {"cwd": project, "env": os.environ | {"ABSENT": ",".join(absent)}, "capture_output": True, "text": True}
    return subprocess.run([sys.executable, "-c", WITH_EXTRAS, *arguments], check=False, **how)


def test_the_command_line_works_with_its_extra_alone(tmp_path: Path, redis_url: str) -> None:
    made = run(tmp_path, "init", "shop", extras=("cli",))
    assert made.returncode == 0, made.stderr
    project = tmp_path / "shop"
    (project / "feature_store.yaml").write_text(f"project: extras\nonline_store: {{url: '{redis_url}'}}\n")
    for arguments in (
        ["plan"],
        ["apply"],
        ["materialize"],
        ["get", "ranking", "user_id=1", "product_id=1", "basket_price=1"],
        ["list"],
        ["search", "price"],
        ["describe", "ranking"],
        ["freshness"],
        ["schema", "infer", "user_stats"],
        ["prune", "--help"],
        ["teardown", "--yes"],
    ):
        done = run(project, *arguments, extras=("cli",))
        assert done.returncode == 0, (arguments, done.stderr)


@pytest.mark.parametrize(
    ("arguments", "extras", "hint"),
    [
        (["list"], (), "cli"),
        (["ui"], ("cli",), "ui"),
        (["stream"], ("cli",), "kafka"),
        (["materialize", "--engine", "spark"], ("cli",), "spark"),
    ],
)
def test_a_missing_extra_is_named(
    tmp_path: Path, redis_url: str, arguments: list[str], extras: tuple[str, ...], hint: str
) -> None:
    run(tmp_path, "init", "shop", extras=("cli",))
    project = tmp_path / "shop"
    (project / "feature_store.yaml").write_text(f"project: extras\nonline_store: {{url: '{redis_url}'}}\n")
    run(project, "apply", extras=("cli",))
    done = run(project, *arguments, extras=extras)
    assert done.returncode == 1, done.stderr
    assert f"hint: pip install 'feature-store[{hint}]'\n" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "module", ["feature_store.project.pruner", "feature_store.ui.app", "feature_store.engines.local.engine"]
)
def test_a_module_that_needs_an_extra_says_so(module: str) -> None:
    absent = ",".join({module for name in EXTRAS for module in modules_of(name)})
    program = WITH_EXTRAS.replace("from feature_store.cli import main\nmain()", f"import {module}")
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"ABSENT": absent},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "feature_store.errors.MissingDependencyError" in done.stderr
    assert "pip install 'feature-store[" in done.stderr


def test_lower_bounds_have_no_known_faults() -> None:
    """typer 0.15.0 does not work with today's click; older jinja2 and starlette have published vulnerabilities."""
    stated = {requirement for name in EXTRAS for requirement in EXTRAS[name]}
    assert {"typer>=0.15.4", "jinja2>=3.1.6", "starlette>=0.49.1"} <= stated
