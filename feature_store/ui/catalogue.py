"""The data of the catalogue: all definitions, searched and filtered, a page at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from feature_store._formatting import counted
from feature_store.definitions.definition import Definition
from feature_store.errors import RequestError
from feature_store.registry.catalog import KINDS, kind_of
from feature_store.ui.rendering import query_url
from feature_store.ui.snapshot import Snapshot

PER_PAGE = 50
# The most results of a search: nobody turns more pages.
_MOST_RESULTS = 1000
# The most owners and tags in the filters, by frequency. Others can be searched for.
_MOST_CHOICES = 200
# The most characters of a search: the page shows it again.
_LONGEST = 500


@dataclass(frozen=True)
class Entry:
    """A definition as the catalogue lists it.

    Attributes:
        kind: one of the catalog's KINDS.
        name: its name; of a feature, `view:feature`.
        about: its type, or the number of its features.
        entities: the entities that it describes.
        owner, tags, description: those of the definition.
    """

    kind: str
    name: str
    about: str
    entities: tuple[str, ...]
    owner: str
    tags: Mapping[str, str]
    description: str


@dataclass(frozen=True)
class CatalogueQuery:
    """A search of the catalogue.

    Attributes:
        q: words to search for.
        kind: one of the catalog's KINDS; empty: all.
        owner, tag, entity: filters; a tag is `name=value`.
        page: the number of the page, from 1.
    """

    q: str = ""
    kind: str = ""
    owner: str = ""
    tag: str = ""
    entity: str = ""
    page: int = 1

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> CatalogueQuery:
        """Read the query of an address.

        Raises:
            RequestError: the page is not a number from 1.
        """
        named = {name: parameters.get(name, "")[:_LONGEST] for name in ("q", "kind", "owner", "tag", "entity")}
        page = parameters.get("page", "1")
        if not (page.isascii() and page.isdigit() and 0 < len(page) < 7) or int(page) < 1:
            raise RequestError("page", expected="a number from 1", got=repr(page[:20]))
        return cls(**named, page=int(page))

    def url(self, **changed: str | int) -> str:
        """The address of the same search with changes."""
        values = vars(self) | {"page": 1} | changed
        return query_url("/catalogue", values | {"page": values["page"] if values["page"] != 1 else ""})


@dataclass(frozen=True)
class CataloguePage:
    """A page of the catalogue.

    Attributes:
        query: the search.
        entries: the entries of this page, and where their words matched; the best match first.
        total: the number of matching entries.
        pages: the number of pages.
        kinds: the number of matching entries of each kind.
        owners, tags, entities: the choices of the filters.
        problem: why the search failed; empty: it did not.
    """

    query: CatalogueQuery
    entries: tuple[tuple[Entry, tuple[str, ...]], ...]
    total: int
    pages: int
    kinds: Mapping[str, int]
    owners: tuple[str, ...]
    tags: tuple[str, ...]
    entities: tuple[str, ...]
    problem: str = ""


def catalogue(snapshot: Snapshot, query: CatalogueQuery) -> CataloguePage:
    """The page for a search."""
    problem = ""
    try:
        results = _results(snapshot, query)
    except RequestError as error:
        results, problem = [], error.reason
    fitting = [(entry, matched) for entry, matched in results if _fits(entry, query)]
    kinds = Counter(entry.kind for entry, _ in fitting)
    chosen = [item for item in fitting if not query.kind or item[0].kind == query.kind]
    first, filters = (query.page - 1) * PER_PAGE, snapshot.derived(choices)
    return CataloguePage(
        query,
        tuple(chosen[first : first + PER_PAGE]),
        len(chosen),
        max(1, -(-len(chosen) // PER_PAGE)),
        {kind: kinds[kind] for kind in KINDS if kinds[kind]},
        filters.owners,
        filters.tags,
        tuple(snapshot.definitions.entities),
        problem,
    )


@dataclass(frozen=True)
class Choices:
    """The choices of the filters."""

    owners: tuple[str, ...]
    tags: tuple[str, ...]


def entries(snapshot: Snapshot) -> dict[tuple[str, str], Entry]:
    """The entries of the catalogue, by kind and name, in order."""
    return {(entry.kind, entry.name): entry for entry in _entries(snapshot)}


def choices(snapshot: Snapshot) -> Choices:
    """The most frequent owners and tags, sorted."""
    owners: Counter[str] = Counter()
    tags: Counter[str] = Counter()
    for entry in snapshot.derived(entries).values():
        owners[entry.owner] += bool(entry.owner)
        tags.update(f"{name}={value}" for name, value in entry.tags.items())
    return Choices(*(tuple(sorted(one for one, n in of.most_common(_MOST_CHOICES) if n)) for of in (owners, tags)))


def _results(snapshot: Snapshot, query: CatalogueQuery) -> list[tuple[Entry, tuple[str, ...]]]:
    if not query.q.strip():
        return [(entry, ()) for entry in snapshot.derived(entries).values()]
    known = snapshot.derived(entries)
    results = snapshot.search.search(query.q, limit=_MOST_RESULTS)
    return [(known[one.kind, one.name], one.matched) for one in results]


def _fits(entry: Entry, query: CatalogueQuery) -> bool:
    if query.owner and entry.owner != query.owner:
        return False
    if query.entity and query.entity not in entry.entities:
        return False
    return not query.tag or any(f"{name}={value}" == query.tag for name, value in entry.tags.items())


def _entries(snapshot: Snapshot) -> Iterator[Entry]:
    definitions = snapshot.definitions
    for service in definitions.feature_services.values():
        about = counted(len(snapshot.graph.columns(service.name)), "feature")
        yield _entry("services", service, about, snapshot.graph.entities_of_service(service.name))
    for view in snapshot.views.values():
        about = counted(len(view.fields), "feature")
        yield _entry(kind_of(view), view, about, snapshot.graph.entities_of[view.name])
    for entity in definitions.entities.values():
        yield _entry("entities", entity, f"{entity.join_key}: {entity.dtype}", (entity.name,))
    for name, (declared, readers) in snapshot.sources.items():
        about = f"read by {', '.join(readers[:3])}{' …' if len(readers) > 3 else ''}"
        first = declared[0]
        if isinstance(first, Definition):
            yield Entry("sources", name, about, (), first.owner, first.tags, first.description)
        else:
            yield Entry("sources", name, about, (), "", {}, "")
    for feature in snapshot.features.values():
        yield Entry(
            "features",
            feature.reference,
            str(feature.field.dtype),
            feature.entities,
            feature.owner,
            feature.tags,
            feature.description,
        )


def _entry(kind: str, item: Definition, about: str, entities: tuple[str, ...]) -> Entry:
    return Entry(kind, item.name, about, entities, item.owner, item.tags, item.description)
