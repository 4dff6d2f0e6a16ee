"""Search over definitions: names, descriptions, tags, owners and columns. It tolerates misspelt words.

Scores lie in tiers:

    1          the query is the name
    0.9–1      every word of the query occurs as written
    below 0.9  the name, or words, are spelt similarly

Within a tier, words of names count for more than words of descriptions, and rare words for more than common ones.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any

import numpy as np

from feature_store.definitions.definition import Definition
from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.graph import feature_description, graph_of
from feature_store.errors import NotFoundError, RequestError
from feature_store.registry.catalog import KINDS, kind_of, sources
from feature_store.registry.spelling import LIKE_NAME, LIKE_WORD, MOST_CHARACTERS, likeness, normal, words_of

Floats = np.ndarray[Any, np.dtype[np.float32]]

# The weight of a word by its place.
_WEIGHTS = {"name": 1.0, "tags": 0.9, "description": 0.85, "owner": 0.8, "columns": 0.7, "view": 0.6}
# The lowest score of an exact match, and the limit of similar spellings.
_EXACT = 0.9
_WORDS_PENALTY = 0.85  # similar words count for less than a similar name
_LEAST = 0.35  # lower scores are left out
_ALMOST = 0.99  # all words of a name in another order score below the name itself


@dataclass(frozen=True)
class SearchResult:
    """A definition, source or feature that matches a query.

    Attributes:
        kind: one of the catalog's KINDS.
        name: its name; of a feature `view:feature`.
        score: from 0.35 to 1, which means that the query is the name.
        matched: the places of the query's words: name, tags, description, owner, columns, view.
        description: its description.
    """

    kind: str
    name: str
    score: float
    matched: tuple[str, ...]
    description: str


class SearchIndex:
    """A search index of definitions.

    Args:
        definitions: the definitions to index.
    """

    def __init__(self, definitions: DefinitionSet) -> None:
        self._entries = list(_entries(definitions))
        postings: dict[str, dict[int, str]] = defaultdict(dict)
        for number, entry in enumerate(self._entries):
            for place in _WEIGHTS:  # the greatest weight first: a word counts once, at its best place
                for word in entry.words.get(place, ()):
                    postings[word].setdefault(number, place)
        # Sorted, so that words with a common prefix are neighbours.
        self._vocabulary = sorted(postings)
        self._places = [postings[word] for word in self._vocabulary]
        self._numbers = [np.fromiter(numbers, np.intp, len(numbers)) for numbers in self._places]
        self._weights = [
            np.array([_WEIGHTS[place] for place in numbers.values()], np.float32) for numbers in self._places
        ]
        self._ids = {word: i for i, word in enumerate(self._vocabulary)}
        self._names = [normal(entry.name.rpartition(":")[2]) for entry in self._entries]
        self._references = [normal(entry.name) for entry in self._entries]

    def search(self, query: str, *, limit: int = 20, kinds: Collection[str] | None = None) -> list[SearchResult]:
        """The results for a query, the best first.

        Args:
            query: a name, or words. Misspelt ones score lower.
            limit: the most results.
            kinds: search only these of the catalog's KINDS.

        Raises:
            RequestError: the query is too long.
            NotFoundError: there is no such kind.
        """
        self._refuse_unknown_kinds(kinds or ())
        if len(query) > MOST_CHARACTERS:
            raise RequestError("query", expected=f"at most {MOST_CHARACTERS} characters", got=f"{len(query):,}")
        words, name = list(dict.fromkeys(words_of(query))), normal(query)
        if not words or not self._entries:
            return []
        by_name, (by_words, like) = self._name_scores(name), self._word_scores(words)
        scores = np.maximum(by_name, by_words)
        ordered = np.round(scores, 4)
        best = [int(i) for i in np.flatnonzero(scores >= _LEAST) if kinds is None or self._entries[i].kind in kinds]
        # Thousands of entries may have a common word: only the best are sorted.
        best = nsmallest(
            limit, best, key=lambda i: (-ordered[i], -by_name[i], len(self._names[i]), self._entries[i].name)
        )
        return [self._found(i, float(scores[i]), bool(by_name[i]), like) for i in best]

    def _found(self, number: int, score: float, is_named: bool, like: list[list[int]]) -> SearchResult:
        entry = self._entries[number]
        where = {"name"} if is_named else set()
        for known in like:  # for each word of the query, the entry's most similar word
            where |= {next((self._places[i][number] for i in known if number in self._places[i]), "")}
        matched = tuple(place for place in _WEIGHTS if place in where)
        return SearchResult(entry.kind, entry.name, round(score, 4), matched, entry.description)

    def _name_scores(self, name: str) -> Floats:
        """The similarity of each whole name to the query; 0 where it is small."""
        like = np.maximum(likeness(name, self._names, LIKE_NAME), likeness(name, self._references, LIKE_NAME))
        scores: Floats = np.where(like == 1, np.float32(1), like * np.float32(_EXACT))
        return scores

    def _word_scores(self, words: list[str]) -> tuple[Floats, list[list[int]]]:
        """The score of each entry for the words of the query; and for each of these the indexed words similar to it,
        the most similar first."""
        total, rarities = np.zeros(len(self._entries), np.float32), 0.0
        exact = np.ones(len(self._entries), bool)
        alike: list[list[int]] = []
        for word in words:
            best, is_exact, like = self._scores_of(word)
            rarity = 1 + math.log(len(self._entries) / max(int(np.count_nonzero(best)), 1))
            total += best * np.float32(rarity)
            rarities += rarity
            exact &= is_exact
            alike.append(like)
        mean: Floats = total / np.float32(rarities)
        written = _EXACT + (1 - _EXACT) * mean * _ALMOST
        return np.where(exact, written, mean * _WORDS_PENALTY).astype(np.float32), alike

    def _scores_of(self, word: str) -> tuple[Floats, np.ndarray[Any, np.dtype[np.bool_]], list[int]]:
        """The score of each entry for a word, whether it occurs as written, and the similar indexed words, the best
        first."""
        like = likeness(word, self._vocabulary, LIKE_WORD)
        best, exact = np.zeros(len(self._entries), np.float32), np.zeros(len(self._entries), bool)
        if word in self._ids:
            exact[self._numbers[self._ids[word]]] = True
        for i in self._begins_with(word):
            like[i] = max(like[i], LIKE_WORD + (1 - LIKE_WORD) * len(word) / len(self._vocabulary[i]))
        known: list[int] = np.argsort(-like, kind="stable")[: np.count_nonzero(like)].tolist()
        for i in known:
            numbers = self._numbers[i]
            best[numbers] = np.maximum(best[numbers], self._weights[i] * like[i])
        return best, exact, known

    def _begins_with(self, word: str) -> Sequence[int]:
        # A single letter is a prefix of too many words.
        if len(word) == 1:
            return range(0)
        last = bisect_right(self._vocabulary, word, key=lambda known: known[: len(word)])
        return range(bisect_left(self._vocabulary, word), last)

    @staticmethod
    def _refuse_unknown_kinds(kinds: Iterable[str]) -> None:
        for kind in kinds:
            if kind not in KINDS:
                raise NotFoundError("kinds", expected=f"some of {', '.join(KINDS)}", got=repr(kind))


@dataclass(frozen=True)
class _Entry:
    kind: str
    name: str
    description: str
    words: Mapping[str, list[str]]


def _entries(definitions: DefinitionSet) -> Iterator[_Entry]:
    for item in definitions:
        words = _about(item) | {"columns": words_of(*(field.name for field in getattr(item, "fields", ())))}
        yield _Entry(kind_of(item), item.name, item.description, words)
    for name, (declared, _) in sources(definitions).items():
        first = declared[0]
        about = _about(first) if isinstance(first, Definition) else {"name": words_of(first.name)}
        about["columns"] = words_of(*(field.name for source in declared for field in source.fields))
        yield _Entry("sources", name, getattr(first, "description", ""), about)
    for view in graph_of(definitions).views.values():
        inherited = {"view": [*words_of(view.name, view.owner), *_tag_words(view.tags)]}
        for field in view.fields:
            description = feature_description(view, field)
            words = _about(field) | {"description": words_of(description)} | inherited
            yield _Entry("features", f"{view.name}:{field.name}", description, words)


def _about(item: Any) -> dict[str, list[str]]:
    return {
        "name": words_of(item.name),
        "tags": _tag_words(item.tags),
        "description": words_of(item.description),
        "owner": words_of(item.owner),
    }


def _tag_words(tags: Mapping[str, str]) -> list[str]:
    return words_of(*(part for tag in tags.items() for part in tag))
