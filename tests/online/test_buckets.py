"""The number of buckets: the rule for a Cluster, and plans of before each generation had its own number."""

from __future__ import annotations

import json
from typing import Any

import pytest
from redis.crc import key_slot

from feature_store.online import keys
from feature_store.online.buckets import buckets_for
from feature_store.registry.plan_document import plan_from_json, plan_to_json
from tests.online.stream_worlds import plan_of


@pytest.mark.parametrize("primaries", [2, 3, 5])
def test_keys_spread_over_primaries(primaries: int) -> None:
    excesses = []
    for i in range(40):
        project = f"shop{i}"
        buckets = buckets_for(project, primaries, None)
        assert 8 * primaries <= buckets <= 16 * primaries
        owners = [key_slot(keys.tag(project, bucket)) * primaries // 16_384 for bucket in range(buckets)]
        excesses.append(max(map(owners.count, owners)) * primaries / buckets)
    assert sorted(excesses)[20] < 1.15


def test_the_number_stays_while_primaries_double() -> None:
    first = buckets_for("shop", 3, None)
    assert [buckets_for("shop", primaries, first) for primaries in (1, 3, 6)] == [first] * 3
    assert buckets_for("shop", 3, 1) == first, "rows of one server that were copied to a Cluster"
    assert buckets_for("shop", 30, first) >= 240
    assert buckets_for("shop", 16_384, None) == 16_384, "as many as there are slots"


def test_a_plan_of_before_states_one_number_for_all_generations() -> None:
    plan = plan_of(buckets=16)
    document: dict[str, Any] = json.loads(plan_to_json(plan))
    for item in (*document["groups"], *document["tiles"]):
        del item["buckets"]
    assert plan_from_json(json.dumps(document).encode()) == plan


def test_the_layout_of_tiles_holds_neither_buckets_nor_what_a_view_does_not_use() -> None:
    """Fences hold a digest of the layout. Fences of earlier releases must keep theirs."""
    tiles = plan_of(buckets=16).tiles[0]
    assert tiles.layout == (tiles.join_keys, tiles.topic, tiles.event_time, tiles.windows.rings)
    assert tiles.layout == plan_of(buckets=2).tiles[0].layout
