"""The code blocks of a page: what the first line of each says about it, and its text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if not {"_build", "generated"} & set(path.parts))


@dataclass(frozen=True)
class Block:
    """A fenced block, such as ```` ```python file=app.py run ````.

    Attributes:
        language: the first word of the fence.
        file: the name of the file that the block is, or "".
        runs: whether the page says that the block is run.
        text: what is between the fences.
    """

    language: str
    file: str
    runs: bool
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    fences = re.findall(r"^ *```(\w+)([^\n]*)\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [
        Block(language, file[1] if (file := re.search(r"file=(\S+)", about)) else "", " run" in about, text)
        for language, about, text in fences
    ]
