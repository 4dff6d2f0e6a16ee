from __future__ import annotations

import pytest

from feature_store.pruning.footprint import Counted, footprint


def test_what_asking_itself_costs_is_taken_off() -> None:
    info = {"total_net_input_bytes": 5, "total_net_output_bytes": 7, "keyspace_hits": 2, "keyspace_misses": 1}
    first = Counted.of(info)
    assert first == Counted(12, 3)
    counted = [first, Counted(112, 3), Counted(112 + 100 + 4 * 250, 3 + 4 * 52)]
    found = footprint(9, counted, 4, [0.001] * 98 + [0.002, 0.010], 1000)
    assert (found.features, found.keys, found.bytes, found.redis_bytes) == (9, 52, 250, 1000)
    assert found.p50_ms == pytest.approx(1.0) and 2.0 <= found.p99_ms <= 10.0
