"""The costs of features, from the layout in which they are stored.

A feature by itself costs little: a few bytes of a row. The things that it shares with others cost more: the key, a
segment's times, a ring of tiles. So the cost of a service is the cost of its *resources*. A resource is paid for while
any feature that needs it is kept:

    read of a row group     the keys, their framing, and the fields that other services keep in the rows
    segment                 the times, and a byte of the null bitmap for every eight fields
    field                   its width
    read of a stream view   a key, the time of the newest event, and the tiles that other services keep
    tiles of a ring         tile numbers; for each part, its state; slots for the longest kept window
    variable values         another key, and the bytes

`CostModel.cost` adds them up. Tests compare the sum with the layouts that `compile_plan` makes of pruned definitions.
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

# The assumed bytes of a String or a ragged Array.
VARIABLE_BYTES = 16
_NEWEST_BYTES = 8


@dataclass(frozen=True)
class Cost:
    """The cost of a request.

    Attributes:
        bytes: bytes of keys and values between client and Redis, both ways.
        keys: the number of keys that are read.
        features: the number of features that are decoded.
    """

    bytes: int
    keys: int
    features: int


@dataclass(frozen=True)
class Resource:
    """A cost that is paid while features need it.

    Attributes:
        name: its name for people, such as `segment user_stats`.
        needed_by: sets of features. It is needed while a feature of every set is kept. Usually there is one set.
        stored: the row group or stream view that holds it.
        entities: the number of entities in a request that it is paid for.
        bytes, keys: its cost in a request, for all these entities.
        per_eight: each set has the features that need one field, and every eight fields need the resource once.
        already: with `per_eight`, the number of fields that others keep.
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
        """The number of times it is needed: 0 or 1 unless `per_eight`."""
        if self.per_eight:
            fields = sum(bool(one & kept) for one in self.needed_by)
            return bitmap_bytes(self.already + fields) - bitmap_bytes(self.already)
        return int(all(one & kept for one in self.needed_by))


@dataclass(frozen=True)
class CostModel:
    """The costs of a service's features.

    Attributes:
        service: the service's name.
        features: the names of its features, in order.
        views: the view of each feature.
        resources: the resources of the service.
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
        """The saving if one feature is dropped and all others are kept."""
        full, without = self.cost(self.features), self.cost(name for name in self.features if name != feature)
        return Cost(full.bytes - without.bytes, full.keys - without.keys, 1)

    def stored_alone(self, feature: str, rows: Mapping[str, int]) -> int:
        """The bytes saved in the online store if one feature is dropped, without Redis's own overhead.

        Args:
            rows: the number of entities in each row group and stream view.
        """
        every = frozenset(self.features)
        fewer = [(one.count(every) - one.count(every - {feature}), one) for one in self.resources]
        return round(sum(count * one.bytes / one.entities * rows.get(one.stored, 0) for count, one in fewer))


def bitmap_bytes(fields: int) -> int:
    """The size of the null bitmap of a number of fields, in bytes."""
    return -(-fields // 8)


def cost_model(
    definitions: DefinitionSet,
    service: str,
    request: Mapping[str, int],
    *,
    project: str = "project",
    variable_bytes: Mapping[str, float] | None = None,
) -> CostModel:
    """The costs of a service without its own pruning.

    Args:
        definitions: the definitions, with the prunings of other services.
        service: the service's name.
        request: the number of distinct entities in a usual request, by entity name: `{"user": 1, "movie": 200}`. A view
            of several entities counts the largest of their numbers.
        project: the project's name, a part of the keys.
        variable_bytes: the measured bytes of a view's variable values.

    Raises:
        NotFoundError: there is no such service.
        RequestError: the request lacks an entity.
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
        self._needs: dict[FeatureKey, set[str]] = {}  # stored feature -> the service's columns that need it
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
        """The bytes that stay whatever is dropped, and the resources."""
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
            tiles = level - before + (0 if before else 1)  # and the head
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
                    where = f"{tiles} tiles of {ring.hop_us // 1_000_000} s" if ring.slots else "one cell"
                    name = f"{what}, {where}, of {view}"
                    found.append(Resource(name, view, count, needed, count * tiles * size))
        return fixed, found

    def _any(self, view: str, users: Mapping[str, frozenset[str]], names: list[str]) -> frozenset[str] | None:
        """The features that need any of some windows; None if other services keep these windows."""
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
                    expected=f"the number of {name} entities",
                    got=", ".join(self._request) or "none",
                )
        return max(self._request[name] for name in entities)


def _framing(prefix: bytes, size: int) -> int:
    """The bytes of a key without its entity's part, and of the protocol around the key and its value."""
    return len(prefix) + len(b"$%d\r\n\r\n" % len(prefix)) + len(b"$%d\r\n\r\n" % size)
