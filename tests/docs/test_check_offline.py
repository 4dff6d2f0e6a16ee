"""A page that loads anything from another site fails the build of the pages."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import DOCS

if TYPE_CHECKING:
    from pathlib import Path


def checked(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DOCS / "_ext/check_offline.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>'),
        ("a.html", '<link rel="stylesheet" href="//fonts.example/x.css">'),
        ("a.html", "<style>@import 'https://fonts.example/x.css'</style>"),
        ("a.html", '<img src="HTTPS://badge.example/x.svg">'),
        ("a.css", "@font-face {src: url(https://fonts.example/x.woff2)}"),
    ],
)
def test_what_is_loaded_from_elsewhere_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    ran = checked(tmp_path)
    assert ran.returncode == 1
    assert "example/x" in ran.stderr


def test_links_and_local_files_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="https://example.org">x</a><script src="_static/x.js"></script>')
    assert checked(tmp_path).returncode == 0


def test_a_folder_without_pages_fails(tmp_path: Path) -> None:
    assert checked(tmp_path).returncode == 1
