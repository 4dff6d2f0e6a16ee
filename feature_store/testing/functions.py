"""The aggregation function suite: it checks on random events that a function and its states obey their laws.

    from feature_store.testing.functions import FunctionCase, FunctionSuite

    class TestMedian(FunctionSuite):
        cases = [FunctionCase("median", Float64, st.floats(-10, 10), lambda events: median(x for x, _ in events))]

        @pytest.fixture
        def redis_url(self): ...  # a server that the tests may empty

It needs pytest, hypothesis and a Redis server. The laws:

- Merging is commutative and associative: byte for byte if `State.is_exact`, else up to rounding. The merge of the
  states of two groups is the state of both groups together. Merging the empty state changes nothing.
- The fold of a window's tiles is the merge of their states. It does not depend on tiles outside the window.
- `State.struct` describes the bytes of `State.fields`. The Lua merge and the numpy merge produce the same bytes.
- The feature read from tiles, the feature of the point-in-time join and the oracle agree, also for late events.
"""

from __future__ import annotations

import itertools
import math
from functools import reduce
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from feature_store.aggregates.at_times import Events, windows_at
from feature_store.aggregates.deltas import deltas
from feature_store.aggregates.read import WindowReader
from feature_store.aggregates.tiles import state_bytes
from feature_store.definitions import (
    DefinitionSet,
    Entity,
    Field,
    Int64,
    KafkaSource,
    StreamFeatureView,
)
from feature_store.functions import Column, State, StateArrays, Values, WindowMask, _ranges
from feature_store.online import OnlineStore, keys
from feature_store.online.tile_writer import Advances, Merge
from feature_store.registry.compile import compile_plan
from feature_store.testing import tile_merges
from feature_store.testing.function_case import BASE_US, ENTITIES, SECOND_US, FunctionCase, Given, Row

_SETTINGS = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.differing_executors,  # pytest creates a suite object for each case
    ],
)


class FunctionSuite:
    """The laws of aggregation functions, for each of `cases`. Subclasses need a fixture `redis_url`."""

    cases: ClassVar[list[FunctionCase]] = []

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each law for each case."""
        metafunc.parametrize("case", self.cases, ids=str)

    @_SETTINGS
    @given(data=st.data())
    def test_merging_is_commutative_and_associative(self, case: FunctionCase, data: st.DataObject) -> None:
        """The merge of the states of several groups is the state of all their rows."""
        timed = st.lists(st.tuples(st.integers(1, 5), case.rows()), max_size=8)
        groups = [data.draw(timed) for _ in range(3)]
        for state in case.states:
            x, y, z = (_state(case, state, group) for group in groups)
            _assert_same(state, state.merge(x, y), state.merge(y, x))
            _assert_same(state, state.merge(_stored(state, state.merge(x, y)), z), state.merge(x, state.merge(y, z)))
            _assert_same(state, state.merge(state.merge(x, y), z), _state(case, state, list(itertools.chain(*groups))))
            _assert_same(state, state.merge(x, state.zero(1)), x)
            _assert_same(state, state.merge(state.zero(1), x), x)

    @_SETTINGS
    @given(data=st.data())
    def test_a_fold_is_the_merge_of_the_window_s_tiles(self, case: FunctionCase, data: st.DataObject) -> None:
        """The content of other tiles does not matter. Tiles do not overlap in time, and are in any order."""
        timed = st.lists(st.tuples(st.integers(1, 5), case.rows()), max_size=6)
        tiles = data.draw(st.lists(st.tuples(timed, st.booleans()), min_size=1, max_size=6))
        apart = [([(time + 10 * i, row) for time, row in group], held) for i, (group, held) in enumerate(tiles)]
        apart = data.draw(st.permutations(apart))
        mask = np.array([[held for _, held in apart]])
        all_states = []
        for state in case.states:
            each = [_stored(state, _state(case, state, group)) for group, _ in apart]
            together = {name: np.stack([one[name] for one in each], axis=1) for name in each[0]}
            for values in together.values():
                if values.dtype.kind == "f":
                    values[0, ~mask[0]] = math.inf
            with np.errstate(invalid="ignore"):
                folded = state.fold(together, WindowMask(mask))
            held = [one for one, (_, is_held) in zip(each, apart, strict=True) if is_held]
            all_states.append((folded, reduce(state.merge, held, state.zero(1))))
        self._assert_same_feature(case, all_states)

    def test_the_struct_format_describes_the_bytes(self, case: FunctionCase, redis_url: str) -> None:
        """The format has the size of the bytes, and Lua unpacks and packs them without loss."""
        import redis

        script = (
            "if struct.size(ARGV[1]) ~= #ARGV[2] then return 'size ' .. struct.size(ARGV[1]) end "
            "local values = {struct.unpack(ARGV[1], ARGV[2])} "
            "return struct.pack(ARGV[1], unpack(values, 1, #values - 1))"
        )
        with redis.Redis.from_url(redis_url) as client:
            for state in case.states:
                stored = _bytes(state.zero(1))
                assert len(stored) == state_bytes(state)
                assert client.eval(script, 0, f"<{state.struct}", stored) == stored

    @_SETTINGS
    @given(data=st.data())
    def test_the_join_is_the_oracle(self, case: FunctionCase, data: st.DataObject) -> None:
        """At any label times, also if events arrive late, and with both algorithms: ranges and trees."""
        delay = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 4000))
        events = data.draw(case.events(delay))
        labels = data.draw(st.lists(st.tuples(st.integers(-1, ENTITIES), st.integers(0, 3 * 3600)), max_size=6))
        windows = self._plan(case).tiles[0].windows
        times = np.array([BASE_US + second * SECOND_US for _, second in labels], np.int64)
        entities = np.array([entity for entity, _ in labels], np.intp)
        names = [window.name for window in windows.features]
        for short, pairs in ((_ranges.SHORT, _ranges.PAIRS), (-1, 3)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(_ranges, "SHORT", short)
                patch.setattr(_ranges, "PAIRS", pairs)
                found = windows_at(windows, _events(case, events), entities, times, names)
            for i, (entity, _) in enumerate(labels):
                self._assert_features(case, found, i, events, entity, int(times[i]))

    @_SETTINGS
    @given(data=st.data())
    def test_redis_merges_as_numpy_and_serves_as_the_oracle(
        self, case: FunctionCase, data: st.DataObject, redis_url: str
    ) -> None:
        """Compares the bytes of tiles, and the features read from them, after random batches of events in any order."""
        events = data.draw(case.events(st.just(0)))
        cuts = data.draw(st.lists(st.integers(0, 40), max_size=4))
        ahead_s = data.draw(st.integers(0, 8000))
        bounds = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
        store = OnlineStore(redis_url, "functions")
        store.teardown()
        store.publish(self._plan(case), over=None)
        with store.tile_writer("windows") as writer:
            layout, offset = writer.layout.tiles, None
            values = [tile_merges.empty(layout) for _ in range(ENTITIES)]
            for start, end in itertools.pairwise(bounds):
                entities, event_us, columns, _ = _events(case, events[start:end])
                made = deltas(layout, entities, event_us, columns)
                owners, counts = np.unique(made.entities, return_counts=True)
                advances: Advances = {"events:0": (offset, end)}
                writer.merge(Merge(0, [_key(owner) for owner in owners.tolist()], counts, made.records, advances))
                offset = end
                for owner in owners.tolist():
                    tile_merges.merge(layout, values[owner], made.records[made.entities == owner])
            stored = self._stored(store, writer, redis_url)
            for owner, value in enumerate(values):
                _assert_same_tiles(layout, stored[owner : owner + 1], value)
        store.close()
        newest = max((BASE_US + second * SECOND_US for _, second, _, _ in events), default=BASE_US)
        reader = WindowReader(layout, [window.name for window in layout.windows.features])
        raw = np.ascontiguousarray(stored).view(np.uint8).reshape(ENTITIES, -1)
        for now_us in (newest, newest + ahead_s * SECOND_US):
            found = reader.read(raw, now_us, np.full(reader.scratch_bytes(ENTITIES), 255, np.uint8))
            for entity in range(ENTITIES):
                self._assert_features(case, found, entity, events, entity, now_us)

    def test_an_entity_without_events_has_the_default(self, case: FunctionCase) -> None:
        """An entity that Redis does not have gets the field's default. It must equal the feature of no events."""
        aggregation = case.aggregation
        values, nulls = aggregation.computes.finalize(
            [state.zero(1) for state in case.states], aggregation.computes.at_read(aggregation.options)
        )
        assert bool(nulls[0]) == (aggregation.default is None)
        if aggregation.default is not None:
            assert np.asarray(values[0]).tolist() == aggregation.default

    # -- small parts --------------------------------------------------------------------------------------------------

    def _plan(self, case: FunctionCase) -> Any:
        schema = [Field("key", Int64), *(Field(name, dtype) for name, dtype in case.columns.items())]
        source = KafkaSource("events", topic="events", event_timestamp="ts", schema=schema)
        entity = Entity("entity", join_key="key")
        view = StreamFeatureView("windows", entities=[entity], source=source, aggregations=[case.aggregation])
        return compile_plan(DefinitionSet([view]), project="functions", version=1)

    def _stored(self, store: OnlineStore, writer: Any, redis_url: str) -> Column:
        import redis

        layout = writer.layout
        with redis.Redis.from_url(redis_url) as client:
            found = client.mget([layout.prefix("functions", 0) + _key(owner) for owner in range(ENTITIES)])
        assert all(value is None or value[:4] == layout.fingerprint for value in found)
        return np.frombuffer(b"".join((value or layout.empty)[4:] for value in found), layout.tiles.value)

    def _assert_features(
        self, case: FunctionCase, found: dict[str, Values], i: int, events: list[Given], entity: int, now_us: int
    ) -> None:
        for window in case.aggregation.windows:
            name = case.aggregation.feature_name(window)
            values, nulls = found[name]
            wanted = case.expected(events, entity, window, now_us)
            assert bool(nulls[i]) == (wanted is None), name
            if wanted is not None:
                _assert_close(case, values[i], wanted, name)

    def _assert_same_feature(self, case: FunctionCase, pairs: list[tuple[StateArrays, StateArrays]]) -> None:
        """Compare features, not states: the fields of an empty state other than its count are unspecified."""
        function = case.aggregation.computes
        options = function.at_read(case.aggregation.options)
        (values, nulls), (others, other_nulls) = (
            function.finalize([pair[i] for pair in pairs], options) for i in range(2)
        )
        assert nulls.tolist() == other_nulls.tolist()
        if not nulls[0]:
            _assert_close(case, values[0], np.asarray(others[0]).tolist(), case.function)


def _state(case: FunctionCase, state: State, rows: list[tuple[int, Row]]) -> StateArrays:
    """The state of one group of timed rows."""
    rows = sorted(rows, key=lambda row: row[0])
    values, held = state.take(case.arrays([row for _, row in rows]))
    if not held.any():
        return state.zero(1)
    at = np.array([time for time, _ in rows], np.int64)
    return state.update(values[held], at[held], np.zeros(1, np.intp))


def _stored(state: State, arrays: StateArrays) -> StateArrays:
    """States as they are after a round trip through their stored types."""
    kept = state.zero(len(next(iter(arrays.values()))))
    for name, values in arrays.items():
        kept[name][...] = values
    return kept


def _assert_same(state: State, a: StateArrays, b: StateArrays) -> None:
    a, b = _stored(state, a), _stored(state, b)
    for name, values in a.items():
        if not state.is_exact and values.dtype.kind == "f":
            np.testing.assert_allclose(values, b[name], rtol=1e-9, atol=1e-6)
        else:
            assert values.tobytes() == b[name].tobytes(), (state.kind, name, values, b[name])


def _assert_same_tiles(layout: Any, got: Column, wanted: Column) -> None:
    assert got["record"]["newest"] == wanted["record"]["newest"]
    for r, states in enumerate(layout.states):
        for mine, other in (
            (got["record"][f"ring{r}"], wanted["record"][f"ring{r}"]),
            (got[f"slots{r}"][0], wanted[f"slots{r}"][0]),
        ):
            for name in layout.tiles[r].names:
                exact = name == "number" or states[int(name.split()[0])].is_exact
                if exact or mine[name].dtype.kind != "f":
                    assert mine[name].tobytes() == other[name].tobytes(), (r, name, mine[name], other[name])
                else:
                    np.testing.assert_allclose(mine[name], other[name], rtol=1e-9, atol=1e-6)


def _assert_close(case: FunctionCase, got: Any, wanted: Any, name: str) -> None:
    got = np.asarray(got).tolist()
    if isinstance(wanted, list) and wanted and isinstance(wanted[0], str):
        assert got == wanted, name
    else:
        assert got == pytest.approx(wanted, rel=case.rel, abs=case.abs, nan_ok=True), name


def _bytes(arrays: StateArrays) -> bytes:
    return b"".join(np.ascontiguousarray(values).tobytes() for values in arrays.values())


def _events(case: FunctionCase, events: list[Given]) -> Events:
    at = np.array([BASE_US + second * SECOND_US for _, second, _, _ in events], np.int64)
    delays = np.array([delay for _, _, delay, _ in events], np.int64)
    entities = np.array([entity for entity, *_ in events], np.intp)
    return Events(entities, at, case.arrays([row for *_, row in events]), at + delays * SECOND_US)


def _key(owner: int) -> bytes:
    return keys.encode([Int64], [np.array([owner])])[0]
