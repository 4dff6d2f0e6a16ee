"""Prune plans applied to a served project: what is served, stored and computed changes at once for every reader."""

from __future__ import annotations

import multiprocessing
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.definitions.pruned import pruning_of
from feature_store.errors import ConflictError, ModelMismatchError, NotFoundError, StoreConnectionError
from feature_store.online import AsyncOnlineClient, OnlineClient, Status, conversation
from feature_store.online.shadow import differ
from feature_store.project.pruner import Pruner
from tests.streaming.running import until

if TYPE_CHECKING:
    from feature_store.definitions.pruning import Pruning

NOW = datetime(2026, 1, 10, tzinfo=UTC)
USERS = 3_000
FEATURES = """
from datetime import timedelta
from feature_store import *
user, shop = Entity("user", join_key="user_id"), Entity("shop", join_key="shop_id", dtype=String)
stats = FeatureView("stats", entities=[user], source=ParquetSource("stats.parquet", event_timestamp="at"),
    schema=[Field("visits", Int64), Field("spent", Float32, default=-1.0), Field("f1", Float32), Field("f2", Float32), Field("town", String)])
extras = FeatureView("extras", entities=[user], source=ParquetSource("stats.parquet", event_timestamp="at"),
    schema=[Field("f3", Float64), Field("f4", Float32)])
shops = FeatureView("shops", entities=[shop], source=ParquetSource("shops.parquet", event_timestamp="at"), schema=[Field("rank", Float32)])
ranking = FeatureService("ranking", features=[stats[["visits", "spent", "f1", "f2"]], extras, shops])
towns = FeatureService("towns", features=[stats[["town", "f1"]]])
"""
ALL = ["visits", "spent", "f1", "f2", "f3", "f4", "rank"]
DROPPED = ["spent", "f1", "f2", "f3", "f4", "rank"]


@pytest.fixture
def folder(tmp_path: Path, redis_url: str) -> Path:
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {redis_url}\n")
    (tmp_path / "features.py").write_text(FEATURES)
    ids = np.arange(USERS)
    at = pa.array([NOW - timedelta(days=1)] * USERS, pa.timestamp("us", "UTC"))
    columns: dict[str, Any] = {"user_id": ids, "at": at, "visits": ids, "spent": (ids / 2).astype("f4")}
    columns |= {f"f{i}": ids * 10.0 + i for i in (3,)} | {f"f{i}": (ids * 10.0 + i).astype("f4") for i in (1, 2, 4)}
    columns["town"] = [f"town {i % 7}" for i in range(USERS)]
    pq.write_table(pa.table(columns), tmp_path / "stats.parquet")
    shops = {"shop_id": ["a", "b"], "at": at[:2], "rank": pa.array([1.0, 2.0], pa.float32())}
    pq.write_table(pa.table(shops), tmp_path / "shops.parquet")
    with FeatureStore(tmp_path) as store:
        store.apply()
        store.materialize(end=NOW)
    return tmp_path


def plan(store: FeatureStore, dropped: list[str], stage: Any, answer: Any = "error") -> Pruning:
    return pruning_of(store.applied(), "ranking", dropped, plan="p7", stage=stage, answer=answer)


def rows(count: int = 50) -> dict[str, Any]:
    return {"user_id": list(range(count)), "shop_id": "b"}


def served(store: FeatureStore) -> Any:
    return store.get_online_features("ranking", rows(), now=NOW)


def test_masked_features_are_not_served_and_come_back_at_once(folder: Path) -> None:
    with FeatureStore(folder) as store:
        before, stored = served(store).to_dict(), store.online.statistics()
        applied = store.prune("ranking", plan(store, ["f1", "rank"], "mask"))
        assert applied.version.version == 2 and "2 of 7 features are no longer served" in str(applied.changes)
        found = served(store)
        assert found.names == ["visits", "spent", "f2", "f3", "f4"]
        assert found.prune_plan == "p7"
        assert found.to_dict() == {name: before[name] for name in found.names}
        with pytest.raises(KeyError, match="f1: dropped by prune plan p7"):
            found.status["f1"]
        assert store.online.statistics() == stored, "all is still stored"
        assert store.get_online_features(["stats:f1"], rows(), now=NOW).to_dict()["f1"] == before["f1"]
        store.prune("ranking", None)
        assert served(store).to_dict() == before
        assert served(store).prune_plan is None


def test_redis_counts_what_is_saved(folder: Path) -> None:
    with FeatureStore(folder) as store:
        requests, pruner = [rows(50), rows(20)], Pruner(store)
        model = pruner.costs("ranking", {"user": 35, "shop": 1})  # the mean number of keys of the two requests
        before = pruner.footprint("ranking", requests, repeats=20, now=NOW)
        store.prune("ranking", plan(store, DROPPED, "drop"))
        after = pruner.footprint("ranking", requests, repeats=20, now=NOW)
        # One key is the epoch. The shop's key is no longer read.
        assert (before.features, before.keys) == (7, 35 + 1 + 1)
        assert (after.features, after.keys) == (1, 35 + 1)
        assert after.redis_bytes < before.redis_bytes
        saved = model.cost(ALL).bytes - model.cost(["visits"]).bytes
        assert before.bytes - after.bytes == pytest.approx(saved, rel=0.05), "as reckoned from the layout"


def test_what_is_dropped_leaves_redis_and_what_is_kept_stays_to_the_byte(folder: Path) -> None:
    with FeatureStore(folder) as store:
        before, stored, kept = served(store), store.online.statistics(), plan(store, DROPPED, "drop")
        full = before.to_numpy()
        store.prune("ranking", kept)
        found = served(store)
        assert found.to_numpy().tobytes() == np.ascontiguousarray(full[:, [0]]).tobytes()
        now = store.online.statistics()
        assert set(now) == {"user"}, "the shop's row group has gone with its last feature"
        assert now["user"]["row_bytes"] < 0.8 * stored["user"]["row_bytes"]
        assert store.get_online_features("towns", rows(3), now=NOW).to_dict() == {
            "town": ["town 0", "town 1", "town 2"], "f1": [1.0, 11.0, 21.0]
        }  # fmt: skip
        for reference in ("stats:f2", "extras:f3", "shops:rank"):
            with pytest.raises(NotFoundError, match="dropped by prune plan p7 of service ranking"):
                store.get_online_features([reference], rows(), now=NOW)
        later = store.materialize(end=NOW + timedelta(days=1))
        assert [summary.view for summary in later] == ["stats"], "the others are not computed"

        store.prune("ranking", None)
        again = served(store)
        assert again.to_dict() == before.to_dict()
        assert again.to_numpy().tobytes() == full.tobytes()


def test_a_model_that_was_not_refitted_can_have_defaults(folder: Path) -> None:
    with FeatureStore(folder) as store:
        full = served(store).to_numpy()
        store.prune("ranking", plan(store, ["spent", "f2", "rank"], "drop", "default"))
        found = served(store)
        assert found.names == ALL
        matrix = found.to_numpy()
        assert (matrix[:, 1] == -1).all() and np.isnan(matrix[:, [3, 6]]).all()
        np.testing.assert_array_equal(matrix[:, [0, 2, 4, 5]], full[:, [0, 2, 4, 5]])
        assert found.to_dict()["spent"] == [-1.0] * 50
        assert found.status["rank"] == [Status.PRUNED] * 50
        assert found.status["f1"] == [Status.PRESENT] * 50
        assert found.event_timestamps["f2"] == [None] * 50
        assert found.to_arrow()["f2"].null_count == 50
        assert served_one(store).tolist() == matrix[:1].tolist() or np.isnan(matrix[0]).any()


def served_one(store: FeatureStore) -> Any:
    return store.get_online_features("ranking", {"user_id": 0, "shop_id": "b"}, now=NOW).to_numpy()


def test_a_model_is_not_fed_features_that_it_was_not_made_for(folder: Path) -> None:
    with FeatureStore(folder) as store:
        ask = lambda **made_for: store.client.get_online_features("ranking", rows(), now=NOW, **made_for)  # noqa: E731
        ask(model_features=ALL)
        ask(plan="")
        with pytest.raises(ModelMismatchError, match="expected prune plan p7, as the model, got none"):
            ask(plan="p7")
        store.prune("ranking", plan(store, ["f1", "f2"], "mask"))
        ask(plan="p7", model_features=["visits", "spent", "f3", "f4", "rank"])
        with pytest.raises(ModelMismatchError, match="without f1, f2; prune plan p7 is applied"):
            ask(model_features=ALL)
        with pytest.raises(ModelMismatchError, match="another order"):
            ask(model_features=["spent", "visits", "f3", "f4", "rank"])
        with pytest.raises(ModelMismatchError, match="expected prune plan none, as the model, got p7"):
            ask(plan="")
        store.prune("ranking", None)
        ask(model_features=ALL)


def test_a_plan_of_a_service_that_changed_is_refused_and_so_is_the_change_while_it_is_applied(folder: Path) -> None:
    with FeatureStore(folder) as store:
        pruning = plan(store, ["f1"], "mask")
    changed = FEATURES.replace('stats[["visits", "spent", "f1", "f2"]]', 'stats[["spent", "visits", "f1", "f2"]]')
    (folder / "features.py").write_text(changed)
    with FeatureStore(folder) as store:
        store.apply(allow_destructive=True)
        with pytest.raises(ConflictError, match="prune plan p7 of service ranking"):
            store.prune("ranking", pruning)
        store.prune("ranking", plan(store, ["f1"], "mask"))
    (folder / "features.py").write_text(FEATURES)
    with FeatureStore(folder) as store:
        with pytest.raises(ConflictError, match="roll the plan back first"):
            store.apply()
        assert served(store).names[:2] == ["spent", "visits"]


def test_applying_again_keeps_what_is_pruned(folder: Path) -> None:
    with FeatureStore(folder) as store:
        store.prune("ranking", plan(store, DROPPED, "drop"))
    (folder / "features.py").write_text(FEATURES + 'more = FeatureService("more", features=[extras[["f4"]]])\n')
    with FeatureStore(folder) as store:
        store.apply()
        assert served(store).names == ["visits"]
        assert store.get_online_features("more", rows(2), now=NOW).to_dict() == {"f4": [4.0, 14.0]}, "needed again"


def test_nothing_is_pruned_twice_or_undone_without_a_plan(folder: Path) -> None:
    with FeatureStore(folder) as store:
        with pytest.raises(NotFoundError, match="no prune plan is applied to it"):
            store.prune("ranking", None)
        first = store.prune("ranking", plan(store, ["f1"], "mask")).version
        assert store.prune("ranking", plan(store, ["f1"], "mask")).version == first


KEPT = ["visits", "f3"]


def hammer(url: str, seed: int, stop: Any, told: Any, answers: Any) -> None:
    """Read with the features of two models, and check each matrix. Reports how many answers of each kind came.

    `answers` counts the answers of all readers.
    """
    chance, counts, wrong = random.Random(seed), {"full": 0, "kept": 0, "refused": 0}, []
    models = {"full": ALL, "kept": KEPT}
    with OnlineClient(url, "shop") as client:
        while not stop.is_set():
            with answers.get_lock():
                answers.value += 1
            users = chance.sample(range(USERS), 20)
            model = chance.choice(list(models))
            try:
                found = client.get_online_features(
                    "ranking", {"user_id": users, "shop_id": "b"}, now=NOW, model_features=models[model]
                )
            except ModelMismatchError:
                counts["refused"] += 1
                continue
            full = np.array([[i, i / 2, i * 10 + 1, i * 10 + 2, i * 10 + 3, i * 10 + 4, 2] for i in users], np.float32)
            wanted = full if model == "full" else full[:, [0, 4]]
            if not np.array_equal(found.to_numpy(), wanted):
                wrong.append((model, users[:3], found.to_numpy()[:3].tolist()))
            counts[model] += 1
    told.put((counts, wrong))


def test_readers_never_see_a_mixed_matrix_while_plans_are_applied_and_rolled_back(folder: Path, redis_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    stop, told, answers = context.Event(), context.Queue(), context.Value("q", 0)
    readers = [context.Process(target=hammer, args=(redis_url, seed, stop, told, answers)) for seed in range(4)]

    def until_read() -> None:
        """Wait until 100 more requests are answered."""
        before = answers.value
        until(lambda: answers.value >= before + 100)

    for reader in readers:
        reader.start()
    try:
        with FeatureStore(folder) as store:
            dropped = [name for name in ALL if name not in KEPT]
            for stage in ("mask", "drop", "mask", "drop"):
                until_read()
                store.prune("ranking", plan(store, dropped, stage))
                until_read()
                store.prune("ranking", None)
    finally:
        stop.set()
        results = [told.get(timeout=60) for _ in readers]
        for reader in readers:
            reader.join(30)
    assert not [wrong for _, wrong in results if wrong]
    for kind in ("full", "kept", "refused"):
        assert sum(counts[kind] for counts, _ in results) > 50, kind


def test_training_sets_have_the_features_that_were_served_at_a_time(folder: Path) -> None:
    labels = pa.table({"user_id": [1, 2], "shop_id": ["a", "b"], "event_timestamp": pa.array([NOW] * 2)})
    with FeatureStore(folder) as store:

        def names(**about: Any) -> list[str]:
            found = store.get_historical_features(labels, "ranking", **about).to_arrow().column_names
            return [name for name in found if name not in labels.column_names]

        unpruned = datetime.now(UTC)
        store.prune("ranking", plan(store, DROPPED, "drop"))
        pruned_at = datetime.now(UTC)
        assert names() == ["visits"]
        assert names(prune_as_of=unpruned) == names(prune_as_of="never") == ALL
        store.prune("ranking", None)
        assert names() == ALL
        assert names(prune_as_of=pruned_at) == ["visits"]
        assert names(prune_as_of=datetime(2000, 1, 1, tzinfo=UTC)) == ALL


def test_in_shadow_nothing_changes_and_both_are_compared(folder: Path, redis_url: str) -> None:
    with FeatureStore(folder) as store, OnlineClient(redis_url, "shop") as client:
        full = served(store).to_numpy()
        assert client.shadow("ranking") is None
        store.prune("ranking", plan(store, DROPPED, "shadow"))
        for _ in range(5):
            found = client.get_online_features("ranking", rows(), now=NOW, model_features=ALL, plan="")
            assert found.to_numpy().tobytes() == full.tobytes()
        counts = client.shadow("ranking")
        assert counts is not None
        assert (counts.plan, counts.reads, counts.differing, counts.failed) == ("p7", 5, 0, 0)
        assert counts.full_s > 0 and counts.pruned_s > 0
        store.prune("ranking", plan(store, DROPPED, "mask"))
        client.get_online_features("ranking", rows(), now=NOW)
        assert client.shadow("ranking") == counts, "not in shadow any more"


async def test_the_async_client_reads_in_shadow_too(folder: Path, redis_url: str) -> None:
    with FeatureStore(folder) as store:
        store.prune("ranking", plan(store, ["f1", "rank"], "shadow"))
    async with AsyncOnlineClient(redis_url, "shop") as client:
        await client.get_online_features("ranking", rows(), now=NOW)
        counts = client.shadow("ranking")
        assert counts is not None and (counts.reads, counts.differing, counts.failed) == (1, 0, 0)


def test_what_differs_or_fails_in_shadow_is_counted_and_the_caller_has_an_answer(
    folder: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FeatureStore(folder) as store, OnlineClient(redis_url, "shop") as client:
        store.prune("ranking", plan(store, ["f1"], "shadow"))
        monkeypatch.setattr(conversation, "differ", lambda full, pruned: full.names != pruned.names)
        assert client.get_online_features("ranking", rows(), now=NOW).names == ALL
        monkeypatch.setattr(client._conversation, "_read", _failing)
        assert client.get_online_features("ranking", rows(), now=NOW).names == ALL
        counts = client.shadow("ranking")
        assert counts is not None and (counts.reads, counts.differing, counts.failed) == (2, 1, 1)


def _failing(*_: Any) -> Any:
    raise StoreConnectionError("Redis", got="gone")
    yield


def test_nan_is_not_a_difference(folder: Path) -> None:
    with FeatureStore(folder) as store:
        store.push("stats", pa.table({"user_id": [1], "at": pa.array([NOW]), "visits": [1], "spent": pa.array([float("nan")], pa.float32()), "f1": pa.array([None], pa.float32()), "f2": pa.array([float("inf")], pa.float32()), "town": ["x"]}))  # fmt: skip
        assert not differ(served(store), served(store))
        assert differ(
            served(store), store.get_online_features("ranking", {**rows(), "user_id": list(range(1, 51))}, now=NOW)
        )
