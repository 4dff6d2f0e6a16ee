"""What features cost, from the layout that they are stored in.

A feature costs little of itself: a few bytes of a row. What it shares with others costs more: the key that is asked
for, a segment's times, a ring of tiles. So the cost of a service is that of its *resources*, each of which is paid for
while any feature that needs it is kept:

    a row group's read      its keys, what frames them, and what other services keep in the rows anyway
    a segment               its times, and a byte of the null bitmap for every eight fields
    a field                 its width
    a stream view's read    a key, the newest event's time, and what other services keep in the tiles anyway
    a ring's tiles          their numbers; of each part, its state; slots enough for the longest window that is kept
    variable values         a key more, and their bytes

`CostModel.cost` adds them up; tests compare that with the layouts that `compile_plan` makes of the pruned definitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from feature_store.aggregates.states import state_for
from feature_store.aggregates.tiles import NUMBER_BYTES, state_bytes
from feature_store.aggregates.windows import Ring, Windows, slots_of
from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.graph import FeatureKey, graph_of
from feature_store.definitions.pruned import stays_stored
from feature_store.errors import RequestError
from feature_store.online.layout import FINGERPRINT_BYTES, RowLayout, SegmentLayout
from feature_store.online.tile_layout import TileValueLayout
from feature_store.registry.compile import compile_plan
from feature_store.registry.serving_plan import ServingPlan

# Of a String or a ragged Array, unless it was measured.
VARIABLE_BYTES = 16
_NEWEST_BYTES = 8


@dataclass(frozen=True)
class Cost:
    """What one request costs.

    Attributes:
        bytes: of the keys and values that Redis sends and is sent.
        keys: that are read.
        features: that are decoded.
    """

    bytes: int
    keys: int
    features: int


@dataclass(frozen=True)
class Resource:
    """What is paid for while features need it.

    Attributes:
        name: for people: `segment user_stats`.
        needed_by: it is needed while, of each of these sets, any feature is kept; usually there is one set.
        stored: what holds it: a row group, or a stream view.
        entities: of a request, that it is paid for.
        bytes, keys: of a request, for all those entities.
        per_eight: each set is of the features that need one field, and every eight fields need it once; `already` so
            many fields are there for others anyway.
    """

    name: str
    stored: str
    entities: int
    needed_by: tuple[frozenset[str], ...]
    bytes: int
    keys: int = 0
    per_eight: bool = False
    already: int = 0

    def count(self, kept: frozenset[str] | set[str]) -> int:
        """How often it is needed, once at most unless `per_eight`."""
        if self.per_eight:
            fields = sum(bool(one & kept) for one in self.needed_by)
            return bitmap_bytes(self.already + fields) - bitmap_bytes(self.already)
        return int(all(one & kept for one in self.needed_by))


@dataclass(frozen=True)
class CostModel:
    """The costs of a service's features.

    Attributes:
        service: its name.
        features: the names it serves, in order.
        views: of each the view that it comes from.
        resources: what is paid for.
    """

    service: str
    features: tuple[str, ...]
    views: Mapping[str, str]
    resources: tuple[Resource, ...] = field(repr=False)

    def cost(self, kept: Iterable[str]) -> Cost:
        """The cost of a request when these features are kept, and the others dropped."""
        left = set(kept)
        counts = [(resource.count(left), resource) for resource in self.resources]
        return Cost(
            sum(count * resource.bytes for count, resource in counts),
            sum(count * resource.keys for count, resource in counts),
            len(left & set(self.features)),
        )

    def alone(self, feature: str) -> Cost:
        """What is saved when one feature is dropped and all others kept."""
        full, without = self.cost(self.features), self.cost(name for name in self.features if name != feature)
        return Cost(full.bytes - without.bytes, full.keys - without.keys, 1)

    def stored_alone(self, feature: str, rows: Mapping[str, int]) -> int:
        """Bytes that the online store saves when one feature is dropped and all others kept, without what Redis adds.

        Args:
            rows: how many entities each row group and stream view holds.
        """
        every = frozenset(self.features)
        fewer = [(one.count(every) - one.count(every - {feature}), one) for one in self.resources]
        return round(sum(count * one.bytes / one.entities * rows.get(one.stored, 0) for count, one in fewer))


def bitmap_bytes(fields: int) -> int:
    """Bytes of the null bitmap of so many fields."""
    return -(-fields // 8)


def cost_model(
    definitions: DefinitionSet,
    service: str,
    request: Mapping[str, int],
    *,
    project: str = "project",
    variable_bytes: Mapping[str, float] | None = None,
) -> CostModel:
    """The costs of a service, as it is defined and without its own pruning.

    Args:
        definitions: with the prunings of other services.
        service: its name.
        request: how many distinct entities a usual request has, by entity name: `{"user": 1, "movie": 200}`; of views
            of several entities, the most of them.
        project: whose keys are read.
        variable_bytes: of a view's variable value, as measured.

    Raises:
        NotFoundError: there is no such service.
        RequestError: the request does not say how many of an entity.
    """
    if service in definitions.prunings:
        others = [pruning for name, pruning in definitions.prunings.items() if name != service]
        definitions = definitions.with_prunings(others)
    return _Model(definitions, service, request, project, variable_bytes or {}).build()


class _Model:
    def __init__(
        self,
        definitions: DefinitionSet,
        service: str,
        request: Mapping[str, int],
        project: str,
        variable_bytes: Mapping[str, float],
    ) -> None:
        self._definitions, self._service, self._request = definitions, service, request
        self._project, self._variable_bytes = project, variable_bytes
        self._plan: ServingPlan = compile_plan(definitions, project=project, version=1)
        graph = graph_of(definitions)
        self._columns = graph.columns(service)
        self._needs: dict[FeatureKey, set[str]] = {}  # per stored feature, the columns of the service that need it
        for column in self._columns:
            for stored in graph.needs(*column.key):
                self._needs.setdefault(stored, set()).add(column.name)
        self._stays = stays_stored(definitions, service)

    def build(self) -> CostModel:
        resources: list[Resource] = []
        for group in self._plan.groups:
            resources += self._of_rows(RowLayout(group))
        for tiles in self._plan.tiles:
            resources += self._of_tiles(TileValueLayout(tiles))
        return CostModel(
            self._service,
            tuple(column.name for column in self._columns),
            {column.name: column.view for column in self._columns},
            tuple(resource for resource in resources if resource.bytes or resource.keys),
        )

    def _of_rows(self, layout: RowLayout) -> list[Resource]:
        users = {segment.view: self._users(segment.view, segment.fields) for segment in layout.segments.values()}
        readers = frozenset(name for by_field in users.values() for one in by_field.values() for name in one)
        if not readers:
            return []
        count = self._count(layout.group.entities)
        fixed, found = FINGERPRINT_BYTES, []
        for segment in layout.segments.values():
            always, resources = self._of_segment(layout.name, segment, users[segment.view], count)
            fixed += always
            found += resources
        framing = _framing(layout.prefix(self._project, 0), layout.size)
        return [
            Resource(f"rows of {layout.name}", layout.name, count, (readers,), count * (framing + fixed), count),
            *found,
            *self._variable(layout, users, count),
        ]

    def _of_segment(
        self, stored: str, segment: SegmentLayout, users: Mapping[str, frozenset[str]], count: int
    ) -> tuple[int, list[Resource]]:
        """Bytes that are there whatever is dropped, and what is paid for."""
        stay = [name for name in segment.fields if (segment.view, name) in self._stays]
        widths = {name: one.dtype.width or 0 for name, one in segment.fields.items()}
        go = {name: users[name] for name in segment.fields if name not in stay}
        view = segment.view
        if not go:
            return segment.size, []
        fixed = segment.times_bytes + bitmap_bytes(len(stay)) + sum(widths[name] for name in stay) if stay else 0
        every = frozenset(name for one in go.values() for name in one)
        found = [
            Resource(
                f"null bitmap of {view}", stored, count, tuple(go.values()), count, per_eight=True, already=len(stay)
            ),
            *(
                Resource(f"field {view}:{name}", stored, count, (one,), count * widths[name])
                for name, one in go.items()
            ),
        ]
        if not stay:
            found.append(Resource(f"segment {view}", stored, count, (every,), count * segment.times_bytes))
        return fixed, found

    def _variable(
        self, layout: RowLayout, users: Mapping[str, Mapping[str, frozenset[str]]], count: int
    ) -> list[Resource]:
        found = []
        for segment in layout.segments.values():
            named = [one.name for one in segment.variable_fields]
            readers = frozenset(name for field_name in named for name in users[segment.view][field_name])
            if readers:
                size = round(self._variable_bytes.get(segment.view, VARIABLE_BYTES * len(named)))
                framing = _framing(layout.prefix(self._project, 0), size) + len(segment.view) + 1
                found.append(
                    Resource(
                        f"variable values of {segment.view}",
                        layout.name,
                        count,
                        (readers,),
                        count * (framing + size),
                        count,
                    )
                )
        return found

    def _of_tiles(self, layout: TileValueLayout) -> list[Resource]:
        view, windows = layout.plan.view, layout.plan.windows
        users = self._users(view, [window.name for window in windows.features])
        readers = frozenset(name for one in users.values() for name in one)
        if not readers:
            return []
        count = self._count(layout.plan.entities)
        fixed, found = FINGERPRINT_BYTES + _NEWEST_BYTES, []
        for i, ring in enumerate(windows.rings):
            always, resources = self._of_ring(view, windows, i, ring, users, count)
            fixed += always
            found += resources
        framing = _framing(layout.prefix(self._project, 0), layout.size)
        return [Resource(f"tiles of {view}", view, count, (readers,), count * (framing + fixed), count), *found]

    def _of_ring(
        self, view: str, windows: Windows, index: int, ring: Ring, users: Mapping[str, frozenset[str]], count: int
    ) -> tuple[int, list[Resource]]:
        fixed, found, before = 0, [], 0
        own = [window for window in windows.features if window.ring == index]
        slots = {window.name: slots_of(window.window_us, ring.hop_us) for window in own}
        for level in sorted(set(slots.values())):
            long = self._any(view, users, [window.name for window in own if slots[window.name] >= level])
            tiles = level - before + (0 if before else 1)  # the head is one more
            before = level
            parts: list[tuple[str, int, frozenset[str] | None]] = [("numbers", NUMBER_BYTES, long)]
            for place, part in enumerate(ring.parts):
                using = [window.name for window in own if place in window.parts]
                size = state_bytes(state_for(part))
                parts.append((f"{part.kind} of {part.column}", size, self._any(view, users, using)))
            for what, size, using_it in parts:
                needed = tuple(dict.fromkeys(one for one in (using_it, long) if one is not None))
                if not needed:
                    fixed += tiles * size
                elif all(needed):
                    name = f"{what}, {tiles} tiles of {ring.hop_us // 1_000_000} s, of {view}"
                    found.append(Resource(name, view, count, needed, count * tiles * size))
        return fixed, found

    def _any(self, view: str, users: Mapping[str, frozenset[str]], names: list[str]) -> frozenset[str] | None:
        """The features that need any of some windows; None: they are there for others anyway."""
        if any((view, name) in self._stays for name in names):
            return None
        return frozenset(user for name in names for user in users[name])

    def _users(self, view: str, names: Iterable[str]) -> dict[str, frozenset[str]]:
        return {name: frozenset(self._needs.get((view, name), ())) for name in names}

    def _count(self, entities: Sequence[str]) -> int:
        for name in entities:
            if name not in self._request:
                raise RequestError(
                    f"request of {self._service}",
                    expected=f"how many of {name}",
                    got=", ".join(self._request) or "none",
                )
        return max(self._request[name] for name in entities)


def _framing(prefix: bytes, size: int) -> int:
    """Bytes of a key as an argument, without the entity's, and of what frames its value."""
    return len(prefix) + len(b"$%d\r\n\r\n" % len(prefix)) + len(b"$%d\r\n\r\n" % size)
