"""The catalogue: all there is, searched and filtered, a page at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_store.errors import RequestError
from feature_store.registry.catalog import KINDS
from feature_store.ui.rendering import query_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from feature_store.ui.snapshot import Entry, Snapshot

PER_PAGE = 50
# What a search gives at most: nobody turns more pages.
_MOST_FOUND = 1000
# Owners and tags to choose from, the commonest; others can be searched for.
_MOST_CHOICES = 200
# Characters of what is searched for: a page shows it again.
_LONGEST = 500


@dataclass(frozen=True)
class Query:
    """What was asked for.

    Attributes:
        q: words to search for.
        kind: of the catalog's KINDS; empty: all.
        owner, tag, entity: what things must have; a tag as `name=value`.
        page: from 1.
    """

    q: str = ""
    kind: str = ""
    owner: str = ""
    tag: str = ""
    entity: str = ""
    page: int = 1

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> Query:
        """From an address.

        Raises:
            RequestError: a page that is no number.
        """
        named = {name: parameters.get(name, "")[:_LONGEST] for name in ("q", "kind", "owner", "tag", "entity")}
        page = parameters.get("page", "1")
        if not (page.isascii() and page.isdigit() and 0 < len(page) < 7) or int(page) < 1:
            raise RequestError("page", expected="a number from 1", got=repr(page[:20]))
        return cls(**named, page=int(page))

    def url(self, **changed: str | int) -> str:
        """The address of the same with something changed."""
        values = vars(self) | {"page": 1} | changed
        return query_url("/catalogue", values | {"page": values["page"] if values["page"] != 1 else ""})


@dataclass(frozen=True)
class CataloguePage:
    """What is shown.

    Attributes:
        query: what was asked for.
        entries: of this page; with a search the best first, and where the words were found.
        total, pages: of all that fits.
        kinds: how many fit of each kind, were it chosen.
        owners, tags, entities: what can be chosen.
        problem: why the search gave nothing.
    """

    query: Query
    entries: tuple[tuple[Entry, tuple[str, ...]], ...]
    total: int
    pages: int
    kinds: Mapping[str, int]
    owners: tuple[str, ...]
    tags: tuple[str, ...]
    entities: tuple[str, ...]
    problem: str = ""


def catalogue(snapshot: Snapshot, query: Query) -> CataloguePage:
    """The page that a query asks for."""
    problem = ""
    try:
        found = _found(snapshot, query)
    except RequestError as error:
        found, problem = [], error.reason
    fitting = [(entry, matched) for entry, matched in found if _fits(entry, query)]
    kinds = Counter(entry.kind for entry, _ in fitting)
    chosen = [item for item in fitting if not query.kind or item[0].kind == query.kind]
    first = (query.page - 1) * PER_PAGE
    return CataloguePage(
        query,
        tuple(chosen[first : first + PER_PAGE]),
        len(chosen),
        max(1, -(-len(chosen) // PER_PAGE)),
        {kind: kinds[kind] for kind in KINDS if kinds[kind]},
        snapshot.choices.owners,
        snapshot.choices.tags,
        tuple(snapshot.definitions.entities),
        problem,
    )


@dataclass(frozen=True)
class Choices:
    """What filters can be set to."""

    owners: tuple[str, ...]
    tags: tuple[str, ...]


def choices(entries: Iterable[Entry]) -> Choices:
    """The commonest owners and tags, sorted."""
    owners: Counter[str] = Counter()
    tags: Counter[str] = Counter()
    for entry in entries:
        owners[entry.owner] += bool(entry.owner)
        tags.update(f"{name}={value}" for name, value in entry.tags.items())
    return Choices(*(tuple(sorted(one for one, n in of.most_common(_MOST_CHOICES) if n)) for of in (owners, tags)))


def _found(snapshot: Snapshot, query: Query) -> list[tuple[Entry, tuple[str, ...]]]:
    if not query.q.strip():
        return [(entry, ()) for entry in snapshot.entries.values()]
    found = snapshot.search.search(query.q, limit=_MOST_FOUND)
    return [(snapshot.entries[one.kind, one.name], one.matched) for one in found]


def _fits(entry: Entry, query: Query) -> bool:
    if query.owner and entry.owner != query.owner:
        return False
    if query.entity and query.entity not in entry.entities:
        return False
    return not query.tag or any(f"{name}={value}" == query.tag for name, value in entry.tags.items())
