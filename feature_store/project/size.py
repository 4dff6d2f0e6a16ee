"""The memory that a project needs in Redis: computed from definitions before anything is stored, and measured after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from feature_store.errors import NotFoundError, RequestError, StoreConnectionError, StoreTimeoutError, did_you_mean
from feature_store.online import keys
from feature_store.online.layout import RowLayout, SegmentLayout, ValueLayout
from feature_store.online.memory import ServerMemory
from feature_store.online.tile_layout import TileValueLayout
from feature_store.project.proposed import with_definitions
from feature_store.registry.compile import compile_plan

if TYPE_CHECKING:
    from feature_store.project.context import Project
    from feature_store.registry.serving_plan import ServingPlan

# The assumed bytes of a String in a key, and of each String, Bytes or ragged Array in a row.
ASSUMED_BYTES = 16


@dataclass(frozen=True)
class ViewSize:
    """A view's part of what is stored of one entity.

    Attributes:
        view: its name.
        bytes_per_entity: the bytes of its segment or of its windows, and the memory of its variable values.
    """

    view: str
    bytes_per_entity: int


@dataclass(frozen=True)
class GroupSize:
    """The memory of a row group or of a stream view.

    Attributes:
        name: its name.
        kind: `rows` or `windows`.
        views: its views.
        entities: the number of entities that the estimate is for; None: not given.
        key_bytes: the length of a key.
        bytes_per_entity: the memory of one entity: the views' bytes, the key and what Redis adds.
        bytes: the memory of all entities; None: no number of entities.
        stored_entities: the number of entities that are stored now; None: unknown.
        stored_bytes: their memory, by `MEMORY USAGE` of a sample, and the hash table, which that does not count.
    """

    name: str
    kind: str
    views: tuple[ViewSize, ...]
    entities: int | None
    key_bytes: int
    bytes_per_entity: int
    bytes: int | None
    stored_entities: int | None = None
    stored_bytes: int | None = None

    @property
    def switching_bytes(self) -> int | None:
        """The memory while an apply or a backfill fills a new generation beside the served one."""
        return None if self.bytes is None else 2 * self.bytes


@dataclass(frozen=True)
class ProjectSize:
    """The memory that a project needs in Redis, replicas not counted.

    Attributes:
        server: the server whose memory is computed.
        groups: the row groups, then the stream views.
    """

    server: str
    groups: tuple[GroupSize, ...]

    @property
    def bytes(self) -> int | None:
        """The memory of all groups; None: the number of entities of one is not known."""
        sizes = [group.bytes for group in self.groups]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def switching_bytes(self) -> int | None:
        """The memory while all generations are filled again at once, which is the most that an apply needs."""
        return None if self.bytes is None else 2 * self.bytes

    @property
    def stored_bytes(self) -> int | None:
        """The memory of everything that is stored now; None: unknown."""
        sizes = [group.stored_bytes for group in self.groups if group.stored_bytes is not None]
        return sum(sizes) if sizes else None


def size_of(
    project: Project,
    entities: Mapping[str, int] | None = None,
    *,
    key_bytes: Mapping[str, int] | None = None,
    variable_bytes: Mapping[str, int] | None = None,
) -> ProjectSize:
    """The memory of what the folder's definitions store, and of what is stored now.

    Args:
        project: the project.
        entities: the number of entities, by entity name, or by names that are joined by `+` for views of several
            entities: `{"user": 1_000_000, "user+product": 5_000_000}`. Where no number is given, that of the stored
            entities is taken, if there are any.
        key_bytes: the mean length of an entity's String key, by entity name. Default: 16 bytes.
        variable_bytes: the mean bytes of the String, Bytes and ragged Array values of one row, by view name. Default:
            16 bytes for each such field.

    Raises:
        NotFoundError: a name is not that of an entity, row group or view.
        StoreReplyError: Redis refuses to answer, for example because of the user's rights.
    """
    newest = project.registry.latest()
    definitions = with_definitions(newest, project.definitions).definitions
    server, memory, stored, buckets = _asked(project)
    plan = compile_plan(
        definitions,
        project=project.name,
        version=newest.version if newest is not None else 1,
        buckets=buckets,
        expire_keys=project.config.online_store.expire_keys,
    )
    estimate = _Estimate(plan, memory, entities or {}, key_bytes or {}, variable_bytes or {}, stored)
    return ProjectSize(server, estimate.groups())


def _asked(project: Project) -> tuple[str, ServerMemory, Mapping[str, Mapping[str, int]], int]:
    """What the online store says: its name, how it stores strings, what is stored, the number of buckets."""
    try:
        info = project.online.info()
        published = project.online.published()
        stored = project.online.statistics() if published is not None else {}
        name = f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info['redis_version']}"
        return name, ServerMemory.of(info), stored, project.buckets
    except (StoreConnectionError, StoreTimeoutError):
        return "redis 7.0, because the online store does not answer", ServerMemory(), {}, 1


class _OneEntity(NamedTuple):
    """What is stored of one entity in a row group or stream view."""

    name: str
    kind: str
    views: tuple[ViewSize, ...]
    entities: tuple[str, ...]
    key_bytes: int
    memory: int  # bytes, without the share of the hash table
    strings: int  # keys
    expires: bool


class _Estimate:
    def __init__(
        self,
        plan: ServingPlan,
        memory: ServerMemory,
        entities: Mapping[str, int],
        key_bytes: Mapping[str, int],
        variable_bytes: Mapping[str, int],
        stored: Mapping[str, Mapping[str, int]],
    ) -> None:
        self._plan, self._memory, self._stored = plan, memory, stored
        self._entities, self._key_bytes, self._variable_bytes = entities, key_bytes, variable_bytes
        groups = {"+".join(group.entities) for group in plan.groups}
        groups |= {"+".join(tiles.entities) for tiles in plan.tiles}
        names = {name for group in groups for name in group.split("+")}
        views = {segment.view for group in plan.groups for segment in group.segments}
        _refuse_unknown("entities", entities, groups)
        _refuse_unknown("key bytes", key_bytes, names)
        _refuse_unknown("variable bytes", variable_bytes, views)

    def groups(self) -> tuple[GroupSize, ...]:
        found = [self._rows(RowLayout(group)) for group in self._plan.groups]
        found += [self._windows(TileValueLayout(tiles)) for tiles in self._plan.tiles]
        counts = [self._count(one) for one in found]
        keys_of_all = sum((count or 0) * one.strings for count, one in zip(counts, found, strict=True)) or 1_000_000
        # A server has one table for the keys of all groups: each key has its share of it.
        share = self._memory.table_bytes(keys_of_all) / keys_of_all
        return tuple(self._sized(one, count, share) for one, count in zip(found, counts, strict=True))

    def _rows(self, layout: RowLayout) -> _OneEntity:
        group, segments = layout.group, list(layout.segments.items())
        expires = self._plan.expire_keys and all(segment.ttl_us is not None for segment in group.segments)
        key, last = self._key(layout, group.entities), self._plan.buckets - 1
        prefix = len(layout.prefix(self._plan.project, last))
        variable = {
            name: self._memory.key_bytes(
                len(keys.variable_prefix(self._plan.project, last, group, name)) + key - prefix,
                self._variable_value(name, segment),
                expires=expires,
            )
            for name, segment in segments
            if segment.variable_fields
        }
        views = tuple(ViewSize(name, segment.size + variable.get(name, 0)) for name, segment in segments)
        # The second view of a group writes its segment into the row that the first one wrote.
        row = self._memory.key_bytes(key, layout.size, is_rewritten=len(segments) > 1, expires=expires)
        memory = row + sum(variable.values())
        return _OneEntity(layout.name, "rows", views, group.entities, key, memory, 1 + len(variable), expires)

    def _windows(self, layout: TileValueLayout) -> _OneEntity:
        expires, key = self._plan.expire_keys, self._key(layout, layout.plan.entities)
        memory = self._memory.key_bytes(key, layout.size, expires=expires)
        views = (ViewSize(layout.name, layout.size),)
        return _OneEntity(layout.name, "windows", views, layout.plan.entities, key, memory, 1, expires)

    def _count(self, one: _OneEntity) -> int | None:
        stored = self._stored.get(one.name, {}).get("rows") or None
        return self._entities.get("+".join(one.entities), stored)

    def _sized(self, one: _OneEntity, count: int | None, share: float) -> GroupSize:
        tables = share * one.strings * (1 + one.expires)
        each = one.memory + tables
        total = None if count is None else round(count * each)
        found = self._stored.get(one.name)
        if found is None:
            return GroupSize(one.name, one.kind, one.views, count, one.key_bytes, round(each), total)
        uncounted = one.strings * self._memory.uncounted_bytes(expires=one.expires) + tables
        stored = found["bytes"] + round(uncounted * found["rows"])
        return GroupSize(one.name, one.kind, one.views, count, one.key_bytes, round(each), total, found["rows"], stored)

    def _key(self, layout: ValueLayout, entities: tuple[str, ...]) -> int:
        """The length of a key."""
        length = len(layout.prefix(self._plan.project, self._plan.buckets - 1))
        for entity, (_, dtype) in zip(entities, layout.join_keys, strict=True):
            width = dtype.width
            if width is None:
                width = self._key_bytes.get(entity, ASSUMED_BYTES) + (4 if len(entities) > 1 else 0)
            length += width
        return length

    def _variable_value(self, view: str, segment: SegmentLayout) -> int:
        fields = len(segment.variable_fields)
        return segment.times_bytes + 4 * fields + self._variable_bytes.get(view, ASSUMED_BYTES * fields)


def _refuse_unknown(what: str, given: Mapping[str, int], known: set[str]) -> None:
    for name, count in given.items():
        if name not in known:
            expected = f"one of {', '.join(sorted(known))}"
            raise NotFoundError(what, expected=expected, got=repr(name), hint=did_you_mean(name, known))
        if count < 0:
            raise RequestError(what, expected="a number of at least 0", got=f"{name}={count}")
