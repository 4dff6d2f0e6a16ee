"""A training set is made again from the versions of sources that the manifest of an earlier one records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from feature_store import FeatureStore
from feature_store.errors import DataError
from tests.arrow.sources.iceberg_tables import catalog_in

FEATURES = """
from feature_store import *

user = Entity("user", join_key="user_id")
lake = FeatureView("lake", entities=[user], schema=[Field("score", Float64)],
    source=DeltaSource("lake", event_timestamp="at", field_mapping={"points": "score"}))
files = FeatureView("files", entities=[user], source=ParquetSource("files.parquet", event_timestamp="at"),
    schema=[Field("visits", Int64)])
of_lake = FeatureService("of_lake", features=[lake])
both = FeatureService("both", features=[lake, files])
"""
LABELS = pa.table({"user_id": [1, 2], "event_timestamp": pa.array([9, 9], pa.timestamp("s"))})


def rows(second: int, **values: list[Any]) -> pa.Table:
    count = len(next(iter(values.values())))
    times = pa.array([second] * count, pa.timestamp("us"))
    return pa.table({"user_id": list(range(1, count + 1)), "at": times, **values})


@pytest.fixture
def store(tmp_path: Path, redis_url: str) -> Any:
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {redis_url}\n")
    (tmp_path / "features.py").write_text(FEATURES)
    write_deltalake(tmp_path / "lake", rows(1, points=[0.5, 1.5]))
    pq.write_table(rows(1, visits=[3, 4]), tmp_path / "files.parquet")
    with FeatureStore(tmp_path) as opened:
        opened.apply()
        yield opened


def made(store: FeatureStore, folder: Path, service: str = "both", **options: Any) -> tuple[pa.Table, Path]:
    found = store.get_historical_features(LABELS, service, **options)
    path = folder / f"{service}-{len(list(folder.glob('*.manifest.json')))}.parquet"
    found.write_parquet(path)
    return found.to_arrow(), path.with_suffix(".manifest.json")


def test_a_training_set_is_made_again_from_the_recorded_version_of_a_table(store: FeatureStore, tmp_path: Path) -> None:
    first, manifest = made(store, tmp_path)
    (lake, files) = sorted(json.loads(manifest.read_bytes())["sources"], key=lambda source: source["view"] != "lake")
    assert (lake["pinned"], files["pinned"]) == ({"version": 0}, {})
    write_deltalake(tmp_path / "lake", rows(2, points=[7.0, 8.0]), mode="append")
    DeltaTable(tmp_path / "lake").optimize.compact()
    newest, _ = made(store, tmp_path)
    again, manifest_again = made(store, tmp_path, as_recorded=manifest)
    assert newest["score"].to_pylist() == [7.0, 8.0]
    assert again.equals(first)
    assert json.loads(manifest_again.read_bytes())["sources"] == json.loads(manifest.read_bytes())["sources"]
    assert made(store, tmp_path, as_recorded=str(manifest_again))[0].equals(first)


def test_a_source_that_no_longer_has_the_recorded_rows_is_refused(store: FeatureStore, tmp_path: Path) -> None:
    _, manifest = made(store, tmp_path)
    pq.write_table(rows(1, visits=[3, 5, 6]), tmp_path / "files.parquet")
    with pytest.raises(DataError, match=r"the source of files no longer has the rows that the manifest records"):
        made(store, tmp_path, as_recorded=manifest)
    _, of_lake = made(store, tmp_path, "of_lake")
    write_deltalake(tmp_path / "lake", rows(2, points=[7.0]), mode="overwrite")
    DeltaTable(tmp_path / "lake").vacuum(0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(DataError, match="of version 0 is missing"):
        made(store, tmp_path, "of_lake", as_recorded=of_lake)
    with pytest.raises(DataError, match=r"it records no version of the source of files\. Hint: it has lake"):
        made(store, tmp_path, "both", as_recorded=of_lake)


@pytest.mark.parametrize(
    "content", [None, b"", b"[]", b"{}", b'{"format": 1, "sources": [{}]}', b'{"format":1,"sources":3}']
)
def test_what_is_no_manifest_is_refused(store: FeatureStore, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=r"manifest .*x\.json"):
        made(store, tmp_path, as_recorded=tmp_path / "x.json")


def test_a_training_set_is_made_again_from_the_recorded_snapshot(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = catalog_in(tmp_path, monkeypatch).create_table("sales.rows", rows(1, score=[0.5]).schema)
    table.append(rows(1, score=[0.5, 1.5]))
    (tmp_path / "feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {redis_url}\n")
    source = 'IcebergSource("lake.sales.rows", event_timestamp="at")'
    view = f'FeatureView("stats", entities=[Entity("user", join_key="user_id")], source={source}, schema=[Field("score", Float64)])'
    (tmp_path / "features.py").write_text(f"from feature_store import *\nstats = {view}\n")
    with FeatureStore(tmp_path) as store:
        store.apply()
        first = store.get_historical_features(LABELS, ["stats:score"])
        first.write_parquet(tmp_path / "train.parquet")
        table.overwrite(rows(1, score=[7.0, 8.0]))
        again = store.get_historical_features(LABELS, ["stats:score"], as_recorded=tmp_path / "train.manifest.json")
        newest = store.get_historical_features(LABELS, ["stats:score"])
    assert again.to_arrow().equals(first.to_arrow())
    assert again.manifest.sources == first.manifest.sources
    assert newest.to_arrow()["score"].to_pylist() == [7.0, 8.0]
    assert "sqlite" not in (tmp_path / "train.manifest.json").read_text()
