"""Files and names on the pages exist, and the generated pages have everything that is public."""

from __future__ import annotations

import importlib
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from feature_store.definitions.batch_source import SOURCES
from feature_store.definitions.message_format import FORMATS
from feature_store.project.config import Config
from tests.docs.pages import DOCS, PAGES, ROOT, blocks
from tests.test_exported_members import PUBLIC

if TYPE_CHECKING:
    from types import ModuleType

TOP = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")]
# Files of the reader's own project that examples name.
THEIRS = {
    "features.py",
    "shared.py",
    "app.py",
    "wsgi.py",
    "feature_store.yaml",
    "labels.parquet",
    "my_model.py",
    "plan.json",
}
FILE = re.compile(r"`([\w./<>-]*[\w>]\.(?:py|lua|md|c|json|yml|sh|html|toml|txt)|(?:\w+/)+)`")
MODULE = re.compile(r"`(feature_store(?:\.(?!yaml`)\w+)+)`")


@cache
def repository() -> frozenset[str]:
    """The files of the repository, and its folders, which end in a slash."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True
    )
    files = listed.stdout.decode().split()
    folders = {f"{folder}/" for file in files for folder in Path(file).parents if (ROOT / file).exists()}
    return frozenset(file for file in files if (ROOT / file).exists()) | folders


def exists(name: str) -> bool:
    """Whether a name is the end of the path of a file or folder."""
    return any(path == name or path.endswith(f"/{name}") for path in repository())


@pytest.mark.parametrize("page", [*PAGES, *TOP], ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_modules_that_a_page_names_exist(page: Path) -> None:
    written = {block.file for block in blocks(page)} | THEIRS
    text = page.read_text()
    named = {name for name in FILE.findall(text) if "<" not in name and not name.startswith(".feature_store")}
    assert not sorted(name for name in named - written if not exists(name))
    for name in set(MODULE.findall(text)) - {SOURCES.group, FORMATS.group}:
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), name


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DOCS / "_ext")
    return importlib.import_module("reference_pages")


def test_the_page_of_configuration_has_each_key_with_its_meaning(reference: ModuleType) -> None:
    page = reference.configuration_page()
    for _, section in reference._sections(Config):
        for key in section.model_fields:
            (row,) = re.findall(rf"^\| `{key}` \|[^\n]*\|$", page, re.MULTILINE)
            assert len(row.rsplit("|", 2)[1]) > 10


def test_the_reference_has_each_public_module_and_each_contract(reference: ModuleType) -> None:
    assert reference.PAGES.keys() == PUBLIC.keys()
    index = (DOCS / "index.md").read_text()
    assert not [module for module in reference.PAGES if f"generated/{module}\n" not in index]
    shown = [
        name for module in PUBLIC for name in re.findall(r"^## (\w+)$", reference.api_page(module, ""), re.MULTILINE)
    ]
    assert sorted(shown) == sorted({name for names in PUBLIC.values() for name in names.split()})
    for module, names in reference.CONTRACTS.items():
        assert not [name for name in names if not hasattr(importlib.import_module(module), name)]


# Sphinx checks the links of the pages in docs/. It does not read these files, or only a part of them.
@pytest.mark.parametrize("page", [*TOP, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_the_links_of_a_file_at_the_top_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]
