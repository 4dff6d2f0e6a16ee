"""Fail when a page loads something from another site when it is viewed: a script, a font, a style or a picture.

Usage: python docs/_ext/check_offline.py docs/_build/html
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

# Elements that load what they name, and the attribute that names it. A link (`a`) loads nothing until it is followed.
LOADING = dict.fromkeys(("script", "img", "iframe", "source", "video", "audio"), "src") | {"object": "data"}
LOADING_LINKS = {"stylesheet", "preload", "modulepreload", "prefetch", "preconnect", "icon", "shortcut icon"}
ELSEWHERE = re.compile(r"(?i)^\s*(https?:)?//")
IN_STYLE = re.compile(r"""(?i)(?:url\(\s*['"]?|@import\s+['"])((?:https?:)?//[^'")\s]+)""")


class Loaded(HTMLParser):
    """The addresses that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element loads."""
        about = dict(attrs)
        if tag == "link" and (about.get("rel") or "").lower() in LOADING_LINKS:
            self.addresses.append(about.get("href") or "")
        elif tag in LOADING:
            self.addresses.append(about.get(LOADING[tag]) or "")


def elsewhere(path: Path) -> list[str]:
    """The addresses of other sites that a file loads."""
    text = path.read_text()
    if path.suffix == ".css":
        return IN_STYLE.findall(text)
    page = Loaded()
    page.feed(text)
    return [address for address in page.addresses if ELSEWHERE.match(address)] + IN_STYLE.findall(text)


def main() -> int:
    """Print each file that loads from elsewhere, with the address."""
    folder = Path(sys.argv[1])
    files = [path for path in folder.rglob("*") if path.suffix in (".html", ".css")]
    loaded = [(path, address) for path in files for address in elsewhere(path)]
    for path, address in loaded:
        print(f"{path}: loads {address}", file=sys.stderr)
    return 1 if loaded or not files else 0


if __name__ == "__main__":
    sys.exit(main())
