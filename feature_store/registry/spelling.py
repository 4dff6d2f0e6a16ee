"""The similarity of names and words. This module is rapidfuzz's only door in the package."""

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

# Longer texts are not names, and comparing each of their words would take long.
MOST_CHARACTERS = 256
# Less similar words or names have too little in common: `rating` and `dating` are at 0.83, `rating` and `ratio` at
# 0.67.
LIKE_WORD, LIKE_NAME = 0.7, 0.6
_WORD = re.compile(r"[^\W_]+")


def words_of(*texts: str) -> list[str]:
    """The words of texts, in lower case."""
    return [word for text in texts for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold())]


def normal(text: str) -> str:
    """A name in the form that is compared: its words in lower case, separated by spaces."""
    return " ".join(words_of(text))


def likeness(text: str, known: list[str], least: float) -> Floats:
    """The similarity of a text to each known text: 1 − edits (insert, delete, replace, swap neighbours) per letter.

    Args:
        text: the text.
        known: n texts.
        least: a lower similarity becomes 0.

    Returns:
        (n,) float32 from 0 to 1.
    """
    similar: Floats = cdist([text], known, scorer=OSA.normalized_similarity, score_cutoff=least, dtype=np.float32)[0]
    return similar


def near(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """The known names most similar to a misspelt name, the best first.

    For `view:feature` with a known view, only that view's features are compared. A single name may also be a feature's.
    """
    wanted, choices = name[:MOST_CHARACTERS], list(known)
    view = wanted.partition(":")[0] + ":"
    if ":" in wanted and any(choice.startswith(view) for choice in choices):
        features = {choice: choice.removeprefix(view) for choice in choices if choice.startswith(view)}
        return _nearest(wanted.removeprefix(view), features, limit)
    similar = _nearest(wanted, {choice: choice for choice in choices}, limit)
    return similar or _nearest(wanted, {choice: choice.rpartition(":")[2] for choice in choices}, limit)


def _nearest(name: str, choices: Mapping[str, str], limit: int) -> list[str]:
    """The choices most similar to a name, of `{choice: the text to compare}`."""
    compared = {choice: normal(text) for choice, text in choices.items()}
    matches = extract(normal(name), compared, scorer=OSA.normalized_similarity, score_cutoff=LIKE_NAME, limit=limit)
    return [str(choice) for _, _, choice in matches]
