"""The sdist and the wheel are whole, and the wheel works without the checkout. `bin/package` tries each extra."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).parents[1]
MAIN = "from feature_store.cli import main; main()"
# Folders that are neither in git nor in an sdist.
LEFT_OUT = (
    ".git", ".venv", ".cache", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".benchmarks", "__pycache__",
    "*.egg-info", "build", "dist", "_build", "generated", ".import_linter_cache", ".grimp_cache", ".feature_store",
)  # fmt: skip


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    ran = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=os.environ | environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this folder, since a build leaves files behind."""
    folder = tmp_path_factory.mktemp("checkout") / "feature-store"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    return folder


@pytest.fixture(scope="session")
def built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with an sdist, and a wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=checkout)
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel alone, unpacked into a folder that can be put on the path."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def test_the_wheel_has_each_file_of_the_package_and_no_other(wheel: Path, checkout: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == {f"feature_store/{name}" for name in files_of(checkout / "feature_store")}


def test_the_sdist_has_each_file_of_the_checkout(built: Path, checkout: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    made_by_the_build = {"PKG-INFO", "setup.cfg"} | {name for name in packed if ".egg-info/" in name}
    kept = {name for name in files_of(checkout) if not name.startswith("feature_store.egg-info")}
    assert packed - made_by_the_build == kept


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_string(archive.read(name).decode())


def test_the_metadata_say_who_may_use_it_and_with_what(wheel: Path) -> None:
    about = metadata(wheel)
    assert about["License-Expression"] == "Apache-2.0"
    assert about.get_all("License-File") == ["LICENSE"]
    assert about["Requires-Python"] == ">=3.11"
    classifiers = about.get_all("Classifier")
    assert classifiers is not None
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= set(classifiers)


def test_the_package_index_takes_both(built: Path) -> None:
    said = run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)
    assert said.count("PASSED") == 2


def test_the_wheel_works_without_the_checkout(installed: Path, tmp_path: Path, redis_url: str) -> None:
    def feature_store(*arguments: str, cwd: Path) -> str:
        return run(sys.executable, "-c", MAIN, *arguments, cwd=cwd, PYTHONPATH=str(installed))

    where = "import feature_store; print(feature_store.__file__)"
    said = run(sys.executable, "-c", where, cwd=tmp_path, PYTHONPATH=str(installed))
    assert Path(said.strip()).is_relative_to(installed)
    feature_store("init", "shop", cwd=tmp_path)
    shop = tmp_path / "shop"
    (shop / "feature_store.yaml").write_text(f"project: packaged\nonline_store: {{url: '{redis_url}'}}\n")
    for command in (["apply"], ["teardown", "--yes"]):
        feature_store(*command, cwd=shop)
