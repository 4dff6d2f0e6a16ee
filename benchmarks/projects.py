"""The measured projects, made as a user makes them: definitions in a folder, applied, then filled by push."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from feature_store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

STORED = 10_000  # entities, of which requests choose at random
_HEAD = "from datetime import timedelta\nfrom feature_store import *\n"
# 50 features in 2 views of one entity.
READ = f"""{_HEAD}
source = ParquetSource("source.parquet", event_timestamp="event_timestamp")
user = Entity("user", join_key="user_id")
views = [FeatureView(name, entities=[user], ttl=timedelta(days=7), source=source,
                     schema=[Field(f"{{name}}_{{i}}", Float32) for i in range(25)])
         for name in ("left", "right")]
left, right = views
both = FeatureService("both", features=views)
"""
# 5 views of 20 features of a user, and as many of an item.
MIXED = f"""{_HEAD}
user, item = Entity("user", join_key="user_id"), Entity("item", join_key="item_id")
views = [FeatureView(f"{{side.name}}{{i}}", entities=[side], ttl=timedelta(days=7),
                     schema=[Field(f"{{side.name}}{{i}}_{{j}}", Float32) for j in range(20)])
         for side in (user, item) for i in range(5)]
globals().update({{view.name: view for view in views}})
mixed = FeatureService("mixed", features=views)
"""
# Values that answers are made of: per service an entity of its own, so that each reads rows of its own.
ANSWERS = f"""{_HEAD}
def service(name, *views):
    entity = Entity(f"{{name}}_key", join_key=f"{{name}}_id")
    made = [FeatureView(f"{{name}}{{i}}", entities=[entity], ttl=timedelta(days=7), schema=fields)
            for i, fields in enumerate(views)]
    return entity, *made, FeatureService(name, features=made)

def fields(dtype, name, count=25):
    return [Field(f"{{name}}_{{i}}", dtype) for i in range(count)]

made = [service(name, fields(dtype, "left"), fields(dtype, "right"))
        for name, dtype in (("numbers", Float32), ("holes", Float32), ("whole", Int64), ("texts", String))]
made.append(service("profile", [*fields(Float32, "number"), Field("name", String),
                                Field("vector", Array(Float32, 64))]))
globals().update({{item.name: item for items in made for item in items}})
"""
# As murr's public harness has it: rows of 10 floats, ids as strings.
DOCS = f"""{_HEAD}
doc = Entity("doc", join_key="doc_id", dtype=String)
docs = FeatureView("docs", entities=[doc], ttl=timedelta(days=7), schema=[Field(f"f{{i}}", Float32) for i in range(10)])
harness = FeatureService("harness", features=[docs])
"""
WRITE = f"""{_HEAD}
user = Entity("user", join_key="user_id")
left = FeatureView("left", entities=[user], schema=[Field(f"left_{{i}}", Float32) for i in range(25)])
"""
# 5,000 features in 300 views of 10 entities, in 40 services: a large registry.
LARGE = f"""{_HEAD}
entities = [Entity(f"entity{{i}}", join_key=f"entity{{i}}_id") for i in range(10)]
views = [FeatureView(f"view{{i}}", entities=[entities[i % 10]], ttl=timedelta(days=7), owner=f"team{{i % 12}}",
                     description=f"Of things of kind {{i}}, day by day.", tags={{"domain": f"d{{i % 20}}"}},
                     source=ParquetSource(f"data/view{{i}}.parquet", event_timestamp="event_timestamp"),
                     schema=[Field(f"f{{j}}", Float32, description=f"Number {{j}} of kind {{i}}.")
                             for j in range(16 + (i % 3 > 0))])
         for i in range(300)]
services = [FeatureService(f"service{{i}}", tags={{"model": f"model{{i % 9}}"}}, features=[
    view[["f0", "f1", "f2", "f3"]].rename({{f"f{{j}}": f"{{view.name}}_{{j}}" for j in range(4)}})
    for view in views[i * 7:i * 7 + 20]]) for i in range(40)]
globals().update({{item.name: item for item in (*views, *services)}})
"""
# To be formatted with how many features.
BATCH = f"""{_HEAD}
entity = Entity("entity", join_key="entity_id")
batch = FeatureView("batch", entities=[entity], schema=[Field(f"f{{{{i}}}}", Float32) for i in range({{features}})],
    source=ParquetSource("source.parquet", event_timestamp="event_timestamp", created_timestamp="created"))
"""
MATERIALIZE = BATCH.format(features=10)

JOIN = f"""{MATERIALIZE}
training = FeatureService("training", features=[batch])
"""
# 4 views of 25 features, each with a source of its own.
JOIN_WIDE = f"""{_HEAD}
entity = Entity("entity", join_key="entity_id")
views = [FeatureView(f"view{{i}}", entities=[entity], schema=[Field(f"f{{j}}", Float32) for j in range(25)],
                     source=ParquetSource(f"view{{i}}.parquet", event_timestamp="event_timestamp",
                                          created_timestamp="created"))
         for i in range(4)]
globals().update({{view.name: view for view in views}})
training = FeatureService("training", features=[
    view.project().rename({{field.name: f"{{view.name}}_{{field.name}}" for field in view.fields}}) for view in views])
"""
WINDOWS = f"""{_HEAD}
entity = Entity("entity", join_key="entity_id")
spending = FeatureView("spending", entities=[entity],
    source=ParquetSource("events.parquet", event_timestamp="at",
                         schema=[Field("entity_id", Int64), Field("amount", Float64)]),
    aggregations=[Aggregation("amount", "sum", windows=[timedelta(hours=h) for h in (1, 6, 24, 72, 168, 720)])])
training = FeatureService("training", features=[spending])
"""


def project(folder: Path, name: str, definitions: str, url: str, more: str = "") -> FeatureStore:
    """A project that is applied; `more` is added to its feature_store.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text(f"project: {name}\nonline_store:\n  url: {url}\n{more}")
    (folder / "features.py").write_text(definitions)
    store = FeatureStore(folder)
    store.apply()
    return store


def fill(store: FeatureStore) -> None:
    """Push `STORED` random rows of every view."""
    for view in store.definitions.feature_views.values():
        names = [field.name for field in view.fields]
        store.push(view.name, table(view.entities[0].join_key, np.arange(STORED), names))


def table(join_key: str, ids: NDArray[np.int64], names: Sequence[str], at: datetime | None = None) -> pa.Table:
    """Random rows of now, or of the given time."""
    values = np.random.default_rng(0).random((len(names), len(ids)), np.float32)
    times = pa.array([at or datetime.now(UTC) - timedelta(minutes=1)] * len(ids), pa.timestamp("us", "UTC"))
    columns = {name: pa.array(column) for name, column in zip(names, values, strict=True)}
    return pa.table({join_key: ids, "event_timestamp": times} | columns)
