"""How alike names and words are. rapidfuzz's one door in the package."""

from __future__ import annotations

import re
import unicodedata

import numpy as np

from feature_store._extras import requires_extra

with requires_extra("registry", "search"):
    from rapidfuzz.distance import OSA
    from rapidfuzz.process import cdist, extract

from collections.abc import Iterable, Mapping
from typing import Any

Floats = np.ndarray[Any, np.dtype[np.float32]]

# A longer text is a document, not a name; comparing each of its words would take long.
MOST_CHARACTERS = 256
# Below these, two words or names have too little in common: `rating` and `dating` are at 0.83, `rating` and `ratio` at
# 0.67.
LIKE_WORD, LIKE_NAME = 0.7, 0.6
_WORD = re.compile(r"[^\W_]+")


def words_of(*texts: str) -> list[str]:
    """The words of texts, in small letters."""
    return [word for text in texts for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold())]


def normal(text: str) -> str:
    """A name as it is compared: words in small letters, whatever separates them in the name."""
    return " ".join(words_of(text))


def likeness(text: str, known: list[str], least: float) -> Floats:
    """How alike a text and each known text are: 1 − edits (swaps of neighbours included) per letter.

    Args:
        text: the text.
        known: n texts.
        least: anything below becomes 0.

    Returns:
        (n,) float32 from 0 to 1.
    """
    found: Floats = cdist([text], known, scorer=OSA.normalized_similarity, score_cutoff=least, dtype=np.float32)[0]
    return found


def near(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """The known names that a misspelt name may stand for, the likeliest first.

    For `view:feature` with a known view these are the view's features; a name alone may also be that of a feature.
    """
    wanted, choices = name[:MOST_CHARACTERS], list(known)
    view = wanted.partition(":")[0] + ":"
    if ":" in wanted and any(choice.startswith(view) for choice in choices):
        features = {choice: choice.removeprefix(view) for choice in choices if choice.startswith(view)}
        return _nearest(wanted.removeprefix(view), features, limit)
    found = _nearest(wanted, {choice: choice for choice in choices}, limit)
    return found or _nearest(wanted, {choice: choice.rpartition(":")[2] for choice in choices}, limit)


def _nearest(name: str, choices: Mapping[str, str], limit: int) -> list[str]:
    """The choices like a name, of `{choice: the text that it is compared by}`."""
    compared = {choice: normal(text) for choice, text in choices.items()}
    found = extract(normal(name), compared, scorer=OSA.normalized_similarity, score_cutoff=LIKE_NAME, limit=limit)
    return [str(choice) for _, _, choice in found]
