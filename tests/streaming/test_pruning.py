"""A prune plan on stream views while workers run: kept features go on, and dropped features can come back."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from feature_store import FeatureStore
from feature_store.definitions.pruned import pruning_of
from feature_store.definitions.pruning import Pruning
from feature_store.errors import NotFoundError
from feature_store.pruning.cost import cost_model
from tests.streaming.running import streaming, until
from tests.streaming.streaming_worlds import DEFINITIONS, make_topic, project, send, some_clicks, value_of
from tests.streaming.test_backfill import CLICKS, DAYS, NOW_US, START_US, history_of, wrong

SERVICE = (
    '\nevery = FeatureService("every", features=[by_user, by_shop.project().rename({"price_count_7d": "sold"})])\n'
)
DROPPED = ["price_sum_1h", "price_sum_7d", "price_count_7d", "sold", "price_max_7d"]


def plan(store: FeatureStore) -> Pruning:
    return pruning_of(store.applied(), "every", DROPPED, plan="p1", stage="drop")


def served(store: FeatureStore) -> dict[str, list[object]]:
    rows = {"user_id": [1, 2, 3], "shop": ["shop 1", "shop 2", "shop 3"]}
    return store.get_online_features("every", rows, now=NOW_US).to_dict()


def test_windows_are_dropped_and_brought_back_while_events_come(tmp_path: Path, redis_url: str, kafka: str) -> None:
    clicks = some_clicks(CLICKS, users=300, seed=1, start_us=START_US, seconds=DAYS * 86_400)
    first, second, third = clicks[:4_000], clicks[4_000:5_000], clicks[5_000:]
    make_topic(kafka, "clicks", 3)
    history_of(tmp_path, first)
    send(kafka, "clicks", map(value_of, first), 3)
    with (
        project(tmp_path, redis_url, kafka, history=True, definitions=DEFINITIONS + SERVICE) as store,
        streaming(tmp_path, "--workers", "2") as running,
    ):
        until(lambda: wrong(store, first) == [], 60, running.log)
        before, model = served(store), cost_model(store.applied(), "every", {"user": 1, "shop": 1})

        later = threading.Thread(target=send, args=(kafka, "clicks", map(value_of, second), 3))
        later.start()
        applied = store.prune("every", plan(store))
        later.join()
        kept = [name for name in before if name not in DROPPED]
        assert list(served(store)) == kept == ["price_count_1h"]
        assert [tiles.view for tiles in applied.plan.tiles] == ["by_user"], "a view without features is not streamed"
        stored = store.online.statistics()
        assert set(stored) == {"by_user"}
        full, left = (model.cost(names).bytes for names in (before, kept))
        assert left < 0.5 * full
        with pytest.raises(NotFoundError, match="dropped by prune plan p1 of service every"):
            store.get_online_features(["by_shop:price_max_7d"], {"shop": "shop 1"})

        later = threading.Thread(target=send, args=(kafka, "clicks", map(value_of, third), 3))
        later.start()
        store.prune("every", None)
        later.join()
        assert list(served(store)) == list(before)
        until(lambda: wrong(store, clicks) == [], 60, running.log)
        assert running.stop()["restarts"] == 0
