from __future__ import annotations

import string
from functools import cache

import pytest
from hypothesis import assume, given, strategies as st

from feature_store.errors import NotFoundError, RequestError
from feature_store.registry.search import SearchIndex
from feature_store.registry.spelling import near
from tests.registry.browsed import large, shop


@cache
def _large() -> tuple[SearchIndex, dict[str, str]]:
    """The index of a large project, and the descriptions of its features by name."""
    definitions = large()
    return SearchIndex(definitions), {
        f"{view.name}:{field.name}": field.description
        for view in definitions.feature_views.values()
        for field in view.fields
    }


def _edits(left: str, right: str) -> int:
    """The number of letters that are inserted, deleted, changed or swapped with a neighbour, by definition."""
    rows = [list(range(len(right) + 1))]
    for i, one in enumerate(left, 1):
        row = [i]
        for j, other in enumerate(right, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (one != other)))
            if i > 1 and j > 1 and (one, left[i - 2]) == (right[j - 2], other):
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]


@given(st.data())
def test_a_misspelt_name_comes_first_among_thousands(data: st.DataObject) -> None:
    index, descriptions = _large()
    wanted = data.draw(st.sampled_from(sorted(descriptions)))
    name = wanted.rpartition(":")[2]
    place = data.draw(st.integers(0, len(name) - 1))
    letter = data.draw(st.sampled_from(string.ascii_lowercase + string.digits))
    edited = data.draw(
        st.sampled_from(
            [
                name[:place] + name[place + 1 :],
                name[:place] + letter + name[place:],
                name[:place] + letter + name[place + 1 :],
                name[:place] + name[place : place + 2][::-1] + name[place + 2 :],
            ]
        )
    )
    first = index.search(edited, limit=1)[0]
    if first.name != wanted:  # then the first result is at least as near
        spelt = edited.replace("_", " ")
        distance = _edits(first.name.rpartition(":")[2].replace("_", " "), spelt)
        assert distance <= _edits(name.replace("_", " "), spelt), first


@given(st.data())
def test_a_rare_word_of_a_description_comes_first_among_thousands(data: st.DataObject) -> None:
    index, descriptions = _large()
    wanted = data.draw(st.sampled_from(sorted(descriptions)))
    word = descriptions[wanted].split()[-1]
    assume(sum(word in (name + " " + about) for name, about in descriptions.items()) == 1)
    first = index.search(word, limit=1)[0]
    assert (first.name, first.matched) == (wanted, ("description",))


def test_a_name_is_found_whole_in_parts_and_in_another_order() -> None:
    index = SearchIndex(shop())
    assert index.search("profile:year")[0].name == "profile:year"
    assert index.search("profile:year")[0].score == 1
    assert index.search("RATING MEAN 1h")[0].name == "activity:rating_mean_1h"
    assert index.search("mean rating")[0].kind == "features"
    assert index.search("rat", kinds=["sources"])[0].name == "ratings"


@pytest.mark.parametrize(
    ("query", "name", "place"),
    [
        ("dollar", "profile:budget", "tags"),
        ("ada", "profile:year", "owner"),
        ("showing", "profile:year", "description"),
        ("shwoing", "profile:year", "description"),
        ("events", "ratings", "owner"),
        ("rankng", "ranking", "name"),
        ("films", "profile", "tags"),
    ],
)
def test_every_described_attribute_is_searched(query: str, name: str, place: str) -> None:
    found = SearchIndex(shop()).search(query)
    assert found[0].name == name
    assert place in found[0].matched


def test_columns_find_the_views_that_have_them() -> None:
    found = SearchIndex(shop()).search("budget")
    assert [(one.name, one.matched) for one in found[:2]] == [
        ("profile:budget", ("name",)),
        ("profile", ("columns",)),
    ]


def test_limits_and_kinds() -> None:
    index = SearchIndex(shop())
    assert len(index.search("profile", limit=1)) == 1
    assert {found.kind for found in index.search("ranking year", kinds={"services", "views"})} <= {"services", "views"}
    with pytest.raises(NotFoundError, match="some of entities"):
        index.search("a", kinds=["tables"])


@pytest.mark.parametrize("query", ["", "   ", "::::", "[/]", "\x00", "qqqqqqqqqqqq", "\u202e", "é" * 200])
def test_a_query_without_words_finds_nothing(query: str) -> None:
    assert SearchIndex(shop()).search(query) == []


def test_a_long_query_is_refused() -> None:
    with pytest.raises(RequestError, match="at most 256 characters"):
        SearchIndex(shop()).search("a" * 10_000)


@given(st.text(max_size=256))
def test_any_text_is_a_query(query: str) -> None:
    for found in SearchIndex(shop()).search(query):
        assert 0 < found.score <= 1


@given(st.text(max_size=400))
def test_similar_names_are_known_names(name: str) -> None:
    assert set(near(name, ["profile", "profile:year"])) <= {"profile", "profile:year"}
