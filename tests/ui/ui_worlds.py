"""A small project with all kinds of objects, some with hostile texts, and a visitor of its pages."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import httpx
import pyarrow as pa

from feature_store import FeatureStore
from feature_store.project.pruner import Pruner
from feature_store.pruning.importance import FeatureImportance, Importances
from tests.online.stream_worlds import merge_events

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import ASGIApp

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{ 7 * 7 }} \u202egnp.exe \u0000 ' & ${x} </title></svg>"
)
FEATURES = f"""
from datetime import timedelta
from feature_store import *

HOSTILE = {HOSTILE!r}
user = Entity("user", join_key="user_id", description="Who buys.", owner="growth")
item = Entity("item", join_key="item_id", description=HOSTILE)
shop = Entity("shop", join_key="shop_id", dtype=String)
stats = FeatureView("stats", entities=[user], ttl=timedelta(days=30), owner="growth", tags={{"domain": "orders"}},
    source=ParquetSource("stats.parquet", event_timestamp="at", created_timestamp="made"),
    schema=[Field("orders", Int32, default=0, description="Orders so far."), Field("mean_basket", Float32),
            Field("is_new", Bool), Field("city", String), Field("vector", Array(Float32, 3)), Field("since", Timestamp)])
about = FeatureView("about", entities=[item], description=HOSTILE + "x" * 10_000, owner=HOSTILE, tags={{HOSTILE: HOSTILE, "wide": "y" * 10_000}},
    source=ParquetSource("a/" + HOSTILE.replace(chr(0), "") + "/b.parquet", event_timestamp="at"),
    schema=[Field("price", Float32, description=HOSTILE, tags={{"prune": "never"}}), Field("note", String, description="r" * 10_000)])
pushed = FeatureView("pushed", entities=[user, shop], schema=[Field("visits", Int64)])
clicks = KafkaSource("clicks", topic="clicks", event_timestamp="ts", description="Clicks as they happen.",
    history=ParquetSource("clicks.parquet", event_timestamp="ts"),
    schema=[Field("user_id", Int64), Field("price", Float64), Field("action", String)])
activity = StreamFeatureView("activity", entities=[user], source=clicks, aggregations=[
    Aggregation("price", "mean", windows=[timedelta(hours=1), timedelta(days=1)]),
    Aggregation("price", "count", windows=[timedelta(hours=1)], filter="action == 'buy'", name="bought"),
    Aggregation("price", "last_n", windows=[timedelta(hours=1)], n=3)])

@on_demand_feature_view(sources=[about[["price"]], stats[["mean_basket"]], RequestSource("basket", [Field("budget", Float32)])],
                        schema=[Field("share", Float32)])
def affordability(inputs):
    return {{"share": (inputs["price"] / inputs["budget"]).astype("float32")}}

ranking = FeatureService("ranking", description="For the ranker.", owner="growth", tags={{"model": "ranker"}},
    features=[stats[["orders", "mean_basket", "is_new"]], about[["price"]], activity, affordability])
cards = FeatureService("cards", features=[about[["price"]].rename({{"price": "shown_price"}}), stats[["city"]]])
"""
USERS = 60


def make_project(folder: Path, url: str) -> FeatureStore:
    """The project, applied, with rows, events and importances."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text(f"project: shop\nonline_store:\n  url: {url}\n")
    (folder / "features.py").write_text(FEATURES)
    store = FeatureStore(folder)
    store.apply(author=f"ada {HOSTILE}".replace("\0", ""))
    now = datetime.now(UTC)
    times = pa.array([now - timedelta(minutes=i) for i in range(USERS)], pa.timestamp("us", "UTC"))
    users = {
        "user_id": pa.array(range(USERS)),
        "at": times,
        "made": times,
        "orders": pa.array([i % 7 for i in range(USERS)], pa.int32()),
        "mean_basket": pa.array([None if i % 5 == 0 else i / 3 for i in range(USERS)], pa.float32()),
        "is_new": pa.array([i % 2 == 0 for i in range(USERS)]),
        "city": pa.array([HOSTILE if i < 3 else f"city {i % 4}" for i in range(USERS)]),
        "vector": pa.array([[i, 1.0, 2.0] for i in range(USERS)], pa.list_(pa.float32())),
        "since": times,
    }
    store.push("stats", pa.table(users))
    store.push(
        "about",
        pa.table(
            {"item_id": [1, 2], "at": times[:2], "price": pa.array([9.5, None], pa.float32()), "note": [HOSTILE, ""]}
        ),
    )
    now_us = int(now.timestamp() * 1e6)
    events = [
        {"user_id": 1, "ts": now_us - minutes * 60_000_000, "price": float(minutes), "action": action}
        for minutes, action in ((1, "buy"), (5, "look"), (50, "buy"), (600, "buy"))
    ]
    merge_events(store.online.tile_writer("activity"), events, {})
    names = [
        "orders",
        "mean_basket",
        "is_new",
        "price",
        "price_mean_1h",
        "price_mean_1d",
        "bought_1h",
        "price_last3_1h",
        "share",
    ]
    items = tuple(FeatureImportance(name, 1 / (i + 1), 0.01) for i, name in enumerate(names))
    Pruner(store).import_importances("ranking", Importances("permutation", HOSTILE, now, items))
    return store


class Tags(HTMLParser):
    """The elements of a page. It raises when they do not nest as they must."""

    VOID = frozenset({"meta", "link", "input", "br", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}>"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@dataclass
class Visitor:
    """Asks an application for pages, as a browser would."""

    app: ASGIApp
    base: str = "http://127.0.0.1:8420"
    seconds: float = 10.0  # that a page may be pending

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport) as client:
                # As a whole URL: a path that begins with two slashes would be taken for another host.
                return await client.request(method, f"{self.base}{path}", headers=headers)

        return asyncio.run(asked())

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.ask("GET", path, headers)

    def close(self) -> None:
        """Start and end the application as a server does, so that it closes what it opened."""
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> dict[str, str]:
            return next(messages)

        async def send(_message: object) -> None: ...

        asyncio.run(self.app({"type": "lifespan"}, receive, send))  # type: ignore[arg-type]

    def page(self, path: str) -> str:
        """A page with status 200, once no value on it is pending."""
        for _ in range(int(self.seconds / 0.05)):
            found = self.get(path)
            assert found.status_code == 200, found.text
            if 'http-equiv="refresh"' not in found.text:
                return found.text
            time.sleep(0.05)
        raise AssertionError(f"{path} stays pending")
