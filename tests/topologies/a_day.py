"""A day of a project through its commands, from `init` to `teardown`, on any Redis.

Each step runs a command as a user does, checks what it must say, and keeps what it said. Data and times are the same for
every day of a session, so that the days of two topologies can be compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import sys
import time
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka.admin import AdminClient

from feature_store import FeatureStore
from feature_store.cli import main
from feature_store.online import AsyncOnlineClient, OnlineClient
from feature_store.ui.app import create_app
from tests.streaming.running import streaming
from tests.streaming.streaming_worlds import FAST, Click, make_topic, send, some_clicks, value_of, windows_of
from tests.ui.ui_worlds import Visitor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

USERS, PRODUCTS, PARTITIONS = 300, 200, 3
PUSHED = 250  # a user whose row comes from a file, with other values than those of the source
# On the hour, and two hours old: nothing expires and no window ends while the tests run.
NOW = datetime.fromtimestamp(time.time() // 3600 * 3600, UTC) - timedelta(hours=2)
NOW_US = int(NOW.timestamp()) * 1_000_000
HISTORY_ENDS = NOW - timedelta(hours=12)
_STREAM = """

from feature_store import Aggregation, Float64, KafkaSource, StreamFeatureView, String

hour, week = timedelta(hours=1), timedelta(days=7)
clicks = KafkaSource("clicks", topic="clicks", event_timestamp="ts",
    schema=[Field("user_id", Int64), Field("shop", String), Field("price", Float64)],
    history=ParquetSource("data/clicks.parquet", event_timestamp="ts"))
by_user = StreamFeatureView("by_user", entities=[user], source=clicks, aggregations=[
    Aggregation("price", "count", windows=[hour, week]), Aggregation("price", "sum", windows=[hour, week])])
ranking = FeatureService("ranking", features=[product_stats, user_stats, basket, by_user])
"""
# A field more in the row group of users: its rows get another layout, and a new generation.
_FIELD, _ONE_MORE = 'Field("mean_basket", Float32)', 'Field("mean_basket", Float32), Field("visits", Int32, default=7)'
_CLICK_COUNT = 3_000
_WINDOWS = [f"price_{function}_{window}" for function in ("count", "sum") for window in ("1h", "7d")]
# Each page, and a word of what the project has on it.
_PAGES = {
    "/": "shop",
    "/catalogue": "user_stats",
    "/feature/user_stats/orders_30d": "orders_30d",
    "/view/product_stats": "price",
    "/view/by_user": "clicks",
    "/service/ranking": "share_of_basket",
    "/entity/user": "user_id",
    "/lineage": "products.parquet",
    "/prune?service=ranking&n_user=1&n_product=50": "orders_30d",
    "/lookup?" + urlencode({"of": "view:user_stats", "user_id": PUSHED}): "orders_30d",
    "/lookup?" + urlencode({"of": "view:by_user", "user_id": 0}): "price_sum_7d",
}


def clicks() -> list[Click]:
    """The clicks of the week before `NOW`. Sums of their prices are exact in any order."""
    made = some_clicks(_CLICK_COUNT, users=USERS, seed=1, start_us=NOW_US - 6 * 86_400_000_000, seconds=6 * 86_400)
    return [click | {"price": round(click["price"])} for click in made if click["ts"] * 1000 < NOW_US]


def make_project(folder: Path, online_store: str, bootstrap: str) -> None:
    """The project of `feature-store init`, with a stream view, data of fixed times and `online_store` as its Redis."""
    said = command("init", str(folder))
    assert said.code == 0, said.error
    config = (
        f"project: shop\nonline_store: {online_store}\nkafka: {json.dumps({'bootstrap.servers': bootstrap, **FAST})}\n"
    )
    (folder / "feature_store.yaml").write_text(config)
    features = folder / "features.py"
    text = re.sub(r"\nranking = .*\n", "", features.read_text())
    features.write_text(text + _STREAM)
    _write_data(folder)


def _write_data(folder: Path) -> None:
    users, products = np.arange(USERS), np.arange(PRODUCTS)
    hidden = np.ma.MaskedArray(users / 4, mask=users % 10 == 0)
    _write(folder / "data/users.parquet", len(users), user_id=users, orders_30d=(users % 17).astype("i4"))
    table = pq.read_table(folder / "data/users.parquet")
    table = table.append_column("mean_basket", pa.array(hidden.astype("f4").tolist(), pa.float32()))
    pq.write_table(table.append_column("visits", pa.array((users % 5).astype("i4"))), folder / "data/users.parquet")
    prices, seen = (products + 0.5).astype("f4"), (products * 3).astype("i4")
    _write(folder / "data/products.parquet", len(products), product_id=products, price=prices, clicks_7d=seen)
    labels = {"user_id": users[:100], "product_id": products[100:], "basket_price": np.full(100, 40, "f4")}
    _write(folder / "labels.parquet", 100, at=NOW, **labels)
    made = clicks()
    columns: dict[str, Any] = {name: [click[name] for click in made] for name in ("user_id", "shop", "price")}
    columns["ts"] = pa.array([click["ts"] * 1000 for click in made], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table(columns), folder / "data/clicks.parquet")


def _write(path: Path, count: int, at: datetime = NOW - timedelta(hours=20), **columns: Any) -> None:
    times = pa.array([at] * count, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"event_timestamp": times, **columns}), path)


class _Output(io.TextIOWrapper):
    """What a command prints, as text or as bytes."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def text(self) -> str:
        self.seek(0)
        return self.read()


@dataclass(frozen=True)
class Said:
    """What a command ended with."""

    code: int
    out: str
    error: str


def command(*arguments: str) -> Said:
    """Run `feature-store` in this process."""
    out, error, given = _Output(), _Output(), sys.argv
    sys.argv = ["feature-store", *arguments]
    code: Any = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            main()
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.argv = given
    return Said(code if isinstance(code, int) else 0, out.text(), error.text())


def remove_topics(bootstrap: str) -> None:
    """Delete the topics of a day, so that the next one makes its own."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topics = [name for name in admin.list_topics(timeout=10).topics if not name.startswith("__")]
    for deleted in admin.delete_topics(topics).values() if topics else ():
        deleted.result(10)


@dataclass
class Day:
    """A day of the project in `folder`.

    Attributes:
        seen: what each step said, without times and addresses.
    """

    folder: Path
    url: str
    bootstrap: str
    seen: dict[str, Any] = field(default_factory=dict)

    def pass_by(self) -> dict[str, Any]:
        """All steps of the day. Returns `seen`."""
        self.morning()
        self.stream()
        self.read()
        self.watch()
        self.prune()
        self.browse()
        self.change()
        self.backfill()
        self.go_back()
        self.evening()
        return self.seen

    def ask(self, *arguments: str, code: int = 0, keep: str = "") -> Any:
        """What a command prints as JSON; it is kept under the name `keep`."""
        said = command(*arguments, "--repo", str(self.folder), "--json")
        assert said.code == code, (arguments, said)
        document = json.loads(said.out)
        if keep:
            self.seen[keep] = _comparable(document)
        return document

    def served(self, keep: str) -> dict[str, list[Any]]:
        """The features of some users, as `get` prints them; kept under the name `keep`."""
        users, products = ",".join(map(str, range(100))), ",".join(map(str, range(100, 200)))
        asked = (f"user_id={users}", f"product_id={products}", "basket_price=40", "--now", NOW.isoformat())
        found = self.ask("get", "ranking", *asked)
        self.seen[keep] = found["features"]
        values: dict[str, list[Any]] = found["features"]
        return values

    # -- the steps ------------------------------------------------------------------------------------------------------

    def morning(self) -> None:
        """Definitions are applied, views are filled from their sources and from a file."""
        assert self.ask("plan", "--exit-code", code=3, keep="plan")
        assert self.ask("apply", keep="apply")["version"] == 1
        assert command("plan", "--exit-code", "--repo", str(self.folder)).code == 0
        self.ask("materialize", "--end", NOW.isoformat(), keep="materialize")
        pushed = "user_id,event_timestamp,orders_30d,mean_basket\n" + f"{PUSHED},{NOW.isoformat()},99,2.5\n"
        (self.folder / "pushed.csv").write_text(pushed)
        self.ask("push", "user_stats", str(self.folder / "pushed.csv"), keep="push")
        found = self.ask("get", "user_stats:orders_30d", "user_stats:mean_basket", f"user_id={PUSHED}")
        assert found["features"] == {"orders_30d": [99], "mean_basket": [2.5]}

    def stream(self) -> None:
        """Events become windows."""
        make_topic(self.bootstrap, "clicks", PARTITIONS)
        send(self.bootstrap, "clicks", map(value_of, clicks()), PARTITIONS)
        with streaming(self.folder, "--until-caught-up", "--workers", "2") as running:
            said = running.wait()
        assert said["views"]["by_user"]["merged"] == len(clicks())
        assert said["lag"] == said["restarts"] == 0

    def read(self) -> None:
        """The command, both clients and the training set have the same values."""
        found = self.served("get")
        assert (found["orders_30d"][20], found["mean_basket"][11], found["mean_basket"][10]) == (3, 2.75, None)
        assert found["clicks_7d"] == [3 * product for product in range(100, 200)]
        self.check_windows(found)
        request = {"user_id": list(range(100)), "product_id": list(range(100, 200)), "basket_price": 40.0}
        functions = self.folder / "features.py"
        with OnlineClient(self.url, "shop", definitions=functions) as client:
            read = client.get_online_features("ranking", request, now=NOW).to_dict()

        async def read_async() -> dict[str, list[Any]]:
            async with AsyncOnlineClient(self.url, "shop", definitions=functions) as client:
                return (await client.get_online_features("ranking", request, now=NOW)).to_dict()

        assert read == asyncio.run(read_async()) == found
        out = self.folder / "train.parquet"
        labels = ("--entities", str(self.folder / "labels.parquet"), "--out", str(out))
        self.ask("training-set", "--service", "ranking", *labels)
        trained = pq.read_table(out).to_pydict()
        for name, column in found.items():
            np.testing.assert_allclose(_floats(trained[name]), _floats(column), rtol=1e-6, err_msg=name)

    def check_windows(self, found: Mapping[str, Sequence[Any]]) -> None:
        """Compare windows with clicks that are counted one by one."""
        wanted = windows_of(clicks(), NOW_US)["by_user"]
        for name in _WINDOWS:
            right = [wanted.get(user, {}).get(name, 0) for user in range(100)]
            np.testing.assert_allclose(_floats(found[name]), _floats(right), rtol=1e-9, err_msg=name)

    def watch(self) -> None:
        """The commands that look at the state of the project."""
        findings = self.ask("doctor")
        assert not [one for one in findings if one["state"] == "failed"], findings
        self.seen["doctor"] = sorted({(one["check"], one["state"]) for one in findings})
        self.ask("freshness", keep="freshness")
        groups = self.ask("size")["groups"]
        self.seen["size"] = {group["name"]: group["stored_entities"] for group in groups}
        assert self.seen["size"] | {"by_user": 0} == {"product": PRODUCTS, "user": USERS, "by_user": 0}
        assert all(group["stored_bytes"] > group["stored_entities"] * group["key_bytes"] for group in groups)
        self.ask(
            "skew",
            "--service",
            "ranking",
            "user_id=1,2,3",
            "product_id=4",
            "basket_price=40",
            "--at",
            NOW.isoformat(),
            keep="skew",
        )
        self.ask("score", keep="score")

    def browse(self) -> None:
        """The commands that read the registry, and every page of the UI."""
        self.ask("search", "basket", keep="search")
        self.ask("lineage", "user_stats", keep="lineage")
        self.ask("consumers", "user_stats:orders_30d", keep="consumers")
        for kind in ("views", "streams", "services", "features", "versions"):
            self.ask("list", kind, keep=f"list {kind}")
        self.ask("describe", "by_user", keep="describe")
        self.ask("history", "user_stats", keep="history")
        server = command("server", "status", "--repo", str(self.folder))
        assert server.code == 1 and "embedded" in server.error, "the project has a Redis of its own"
        with (
            FeatureStore(self.folder) as store,
            contextlib.closing(Visitor(create_app(store), seconds=60)) as visitor,
        ):
            for path, word in _PAGES.items():
                assert word in visitor.page(path), path
            values = re.sub(r"<[^>]+>", " ", visitor.page(f"/lookup?of=view:user_stats&user_id={PUSHED}"))
            assert re.search(r"orders_30d\s+.*?99", values, re.DOTALL), values

    def prune(self) -> None:
        """A feature goes and comes back."""
        before = self.served("before pruning")
        worth = dict.fromkeys(before, 1.0) | {"clicks_7d": 0.0}
        rows = "".join(f"{name},{importance}\n" for name, importance in worth.items())
        (self.folder / "importance.csv").write_text(f"feature,importance\n{rows}")
        service, request = ("--service", "ranking"), ("--request", "user=1,product=50")
        self.ask("prune", "import", str(self.folder / "importance.csv"), *service)
        self.ask("prune", "show", *service, *request, keep="prune show")
        with warnings.catch_warnings():  # numpy's, since the function divides by the request's field, which is 0 here
            warnings.simplefilter("ignore", RuntimeWarning)
            self.ask("prune", "show", *service, *request, "--timed")
        plan = self.ask("prune", "plan", *service, *request, "--max-features", str(len(before) - 1))
        assert plan["dropped"] == ["clicks_7d"]
        self.seen["prune plan"] = _comparable({key: plan[key] for key in ("kept", "before", "after")})
        self.ask("prune", "curve", plan["plan"], "--out", str(self.folder / "curve.svg"))
        self.ask("prune", "apply", plan["plan"], "--stage", "drop", "--unverified", keep="prune apply")
        pruned = self.served("pruned")
        assert pruned == {name: column for name, column in before.items() if name != "clicks_7d"}
        self.ask("prune", "rollback", *service, keep="prune rollback")
        assert self.served("pruned no more") == before

    def change(self) -> None:
        """A field more changes the layout of rows: they are written again from their source."""
        features = self.folder / "features.py"
        features.write_text(features.read_text().replace(_FIELD, _ONE_MORE))
        self.ask("plan", keep="plan of a change")
        self.ask("apply", "--yes", keep="apply of a change")
        found = self.served("changed")
        assert found["visits"] == [user % 5 for user in range(100)]
        self.ask("materialize", "--end", NOW.isoformat(), keep="materialize of a change")
        self.ask("diff", "1", keep="diff")
        self.served("changed and materialized")

    def backfill(self) -> None:
        """Windows are filled again, from the history and then from Kafka."""
        filled = self.ask("backfill", "by_user", "--until", HISTORY_ENDS.isoformat())
        late = sum(click["ts"] >= HISTORY_ENDS.timestamp() * 1000 for click in clicks())
        assert filled["stream_events"] == late and filled["history_rows"] > 0, filled
        self.check_windows(self.served("filled from history"))

    def go_back(self) -> None:
        """The first version is served again."""
        self.ask("rollback", "1", "--yes", keep="rollback")
        self.check_windows(self.served("rolled back"))
        self.ask("doctor")

    def evening(self) -> None:
        """One user, and then everything, is deleted."""
        self.ask("delete", "user", "user_id=1", "--yes", keep="delete")
        found = self.ask(
            "get", "user_stats:orders_30d", "by_user:price_count_7d", "user_id=1,2", "--now", NOW.isoformat()
        )
        self.seen["deleted"] = found
        self.ask("teardown", "--yes", keep="teardown")


def _floats(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    return np.array([np.nan if value is None else value for value in values], float)


# What differs between two days that say the same: times that were measured, places, and random names.
_OWN = re.compile(r".*(_at|_keys|_ms|_us|_ns|seconds|_s|url|folder|author|age|plan)$")


def _comparable(document: Any) -> Any:
    """A document without what belongs to one day only."""
    if isinstance(document, dict):
        return {name: _comparable(value) for name, value in document.items() if not _OWN.fullmatch(name)}
    return [_comparable(one) for one in document] if isinstance(document, list) else document
