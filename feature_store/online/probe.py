"""Reads of the stored values and of the state of Redis, for people and for checks. They change nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from feature_store.errors import PermissionDeniedError, StoreReplyError
from feature_store.online import keys
from feature_store.online.entity_rows import entity_keys
from feature_store.online.inspection import inspect_row, inspect_tiles
from feature_store.online.layout import RowLayout
from feature_store.online.newest import newest_event_times
from feature_store.online.tile_layout import TileValueLayout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from feature_store.online.inspection import StoredValue
    from feature_store.online.keyspace import Keyspace
    from feature_store.online.newest import Newest
    from feature_store.online.publication import PlanStore
    from feature_store.registry.serving_plan import RowGroupPlan

# Keys of a layout whose memory is measured.
_SAMPLED_KEYS = 100
_PINGS = 20
# Error codes of a server that has no CONFIG, or does not let this user read it.
_UNTOLD = ("ERR", "NOPERM")


class Probe:
    """Answers questions about a project's part of Redis.

    Args:
        keyspace: the project's keys.
        plans: the published plans.
    """

    def __init__(self, keyspace: Keyspace, plans: PlanStore) -> None:
        self._keyspace, self._plans = keyspace, plans
        self._layouts: dict[str, RowLayout] = {}

    def server_id(self) -> bytes:
        """See `OnlineStore.server_id`."""
        return b" ".join(str(info["run_id"]).encode() for info in self._infos("server"))

    def now_us(self) -> int:
        """See `OnlineStore.now_us`."""
        clocks = self._keyspace.each_node(lambda redis: redis.time())
        return min(int(seconds) * 1_000_000 + int(microseconds) for seconds, microseconds in clocks)

    def info(self) -> dict[str, Any]:
        """See `OnlineStore.info`."""
        return self._infos()[0]

    def infos(self) -> list[dict[str, Any]]:
        """See `OnlineStore.infos`."""
        return self._infos()

    def evicted_keys(self) -> int:
        """See `OnlineStore.evicted_keys`."""
        try:
            return sum(int(info.get("evicted_keys", 0)) for info in self._infos("stats"))
        except PermissionDeniedError:
            return 0

    def config(self, name: str) -> str | None:
        """See `OnlineStore.config`."""
        try:
            with self._keyspace.commands(0) as redis:
                return next(iter(redis.config_get(name).values()), None)
        except StoreReplyError as error:
            if error.code not in _UNTOLD:
                raise
            return None

    def ping_us(self) -> float:
        """See `OnlineStore.ping_us`."""
        times = []
        for _ in range(_PINGS):
            start = time.perf_counter()
            with self._keyspace.commands(0) as redis:
                redis.ping()
            times.append((time.perf_counter() - start) * 1e6)
        return sorted(times)[_PINGS // 2]

    def statistics(self) -> dict[str, dict[str, int]]:
        """See `OnlineStore.statistics`."""
        plan = self._plans.required().plan
        layouts: list[RowLayout | TileValueLayout] = [
            *(RowLayout(group) for group in plan.groups),
            *(TileValueLayout(tiles) for tiles in plan.tiles),
        ]
        return {layout.name: self._statistics(layout, plan.buckets) for layout in layouts}

    def newest_event_times(self, limit: int) -> dict[str, Newest]:
        """See `OnlineStore.newest_event_times`."""
        return newest_event_times(self._keyspace, self._plans.required().plan, limit)

    def sample_keys(self, view: str, count: int) -> list[tuple[int | str, ...]]:
        """See `OnlineStore.sample_keys`."""
        plan = self._plans.required().plan
        tiles = plan.tiles_of(view)
        layout = TileValueLayout(tiles) if tiles is not None else RowLayout(plan.group_of(view))
        dtypes = [dtype for _, dtype in layout.join_keys]
        sample: list[tuple[int | str, ...]] = []
        for bucket in range(plan.buckets):
            prefix = layout.prefix(self._keyspace.project, bucket)
            for names in self._keyspace.scan(bucket, prefix):
                sample += [keys.decode(dtypes, name[len(prefix) :]) for name in names[: count - len(sample)]]
                if len(sample) == count:
                    return sample
        return sample

    def inspect(self, views: Sequence[str], join_keys: Mapping[str, Any], now_us: int) -> dict[str, StoredValue]:
        """See `OnlineStore.inspect`."""
        plan = self._plans.required().plan
        rows: dict[str, tuple[RowLayout, bytes, bytes | None]] = {}
        values = {}
        for view in views:
            tiles = plan.tiles_of(view)
            if tiles is not None:
                windows = TileValueLayout(tiles)
                values[view] = inspect_tiles(windows, *self._value_of(windows, join_keys, plan.buckets), now_us)
                continue
            group = plan.group_of(view)
            if group.name not in rows:
                layout = self._layout_of(group)
                rows[group.name] = layout, *self._value_of(layout, join_keys, plan.buckets)
            layout, key, value = rows[group.name]
            values[view] = inspect_row(layout, view, key, value)
        return values

    def _infos(self, *section: str) -> list[dict[str, Any]]:
        """The INFO of each node."""
        return self._keyspace.each_node(lambda redis: redis.info(*section))

    def _statistics(self, layout: RowLayout | TileValueLayout, buckets: int) -> dict[str, int]:
        count, sampled, memory = 0, 0, 0
        for bucket in range(buckets):
            for names in self._keyspace.scan(bucket, layout.prefix(self._keyspace.project, bucket)):
                count += len(names)
                for name in names[: max(0, _SAMPLED_KEYS - sampled)]:
                    with self._keyspace.commands(bucket) as redis:
                        memory += sum(redis.memory_usage(one) or 0 for one in self._strings(layout, bucket, name))
                    sampled += 1
        return {"rows": count, "row_bytes": layout.size, "bytes": memory * count // max(sampled, 1)}

    def _strings(self, layout: RowLayout | TileValueLayout, bucket: int, key: bytes) -> Iterator[bytes]:
        """The keys of what is stored of one entity: `key`, and those of its variable values."""
        yield key
        if isinstance(layout, RowLayout):
            entity = key[len(layout.prefix(self._keyspace.project, bucket)) :]
            for view, segment in layout.segments.items():
                if segment.variable_fields:
                    yield keys.variable_prefix(self._keyspace.project, bucket, layout.group, view) + entity

    def _layout_of(self, group: RowGroupPlan) -> RowLayout:
        """The layout of a row group, built once for each plan read: for 30 views it takes 5 ms."""
        layout = self._layouts.get(group.name)
        if layout is None or layout.group is not group:
            layout = self._layouts[group.name] = RowLayout(group)
        return layout

    def _value_of(
        self, layout: RowLayout | TileValueLayout, join_keys: Mapping[str, Any], buckets: int
    ) -> tuple[bytes, bytes | None]:
        entity = entity_keys(layout.join_keys, join_keys, 1).each()[0]
        bucket = keys.buckets_of([entity], buckets)[0]
        key = layout.prefix(self._keyspace.project, bucket) + entity
        with self._keyspace.commands(bucket) as redis:
            return key, redis.get(key)
