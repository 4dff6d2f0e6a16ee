"""Derived columns have one meaning: from messages, and from the history on every engine."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from feature_store.definitions import (
    Aggregation,
    Entity,
    Field,
    Float64,
    Int64,
    KafkaSource,
    ParquetSource,
    StreamFeatureView,
    String,
    Timestamp,
)
from feature_store.definitions.dtypes import from_microseconds
from feature_store.streaming.decoder import decoder_of
from feature_store.testing.formats import messages_of
from tests.engines.offline_worlds import NOW_US, write_files
from tests.engines.test_join import World

HOUR = timedelta(hours=1)
DERIVE = {
    "spend": "price * quantity",
    "units": "cast(code as Int64) + 1",
    "hour": "hour(ts)",
    "kind": "case when spend >= 100 then 'large' when spend is null then 'none' else lower(trim(label)) end",
    "is_fresh": "ts < seen and not label like '%old%'",
    "day": "date_trunc('day', seen)",
}
SOURCE = KafkaSource(
    "orders",
    topic="orders",
    event_timestamp="ts",
    timestamp_unit="us",
    schema=[
        Field("user_id", Int64),
        Field("price", Float64),
        Field("quantity", Int64),
        Field("code", String),
        Field("label", String),
        Field("seen", Timestamp),
    ],
    derive=DERIVE,
    history=ParquetSource("orders", event_timestamp="at"),
)
VIEW = StreamFeatureView(
    "orders",
    entities=[Entity("user", join_key="user_id")],
    source=SOURCE,
    aggregations=[
        *(Aggregation(name, "last", windows=[HOUR]) for name in ("spend", "units", "hour", "is_fresh", "day")),
        *(
            Aggregation("user_id", "count", windows=[HOUR], filter=f"kind == '{kind}'", name=kind)
            for kind in ("large", "none", "new")
        ),
    ],
)
PRICES, QUANTITIES = [None, 0.5, 250.0, float("inf")], [None, 0, -1, 2**62]
CODES, LABELS = [None, "7", "x", "9223372036854775807"], [None, " New ", "old", "NEW"]


def orders() -> list[dict[str, Any]]:
    """An order of each user: every combination of values that differ in meaning."""
    found: list[dict[str, Any]] = []
    for price in PRICES:
        for quantity in QUANTITIES:
            for i, (code, label) in enumerate(zip(CODES, LABELS, strict=True)):
                seen = None if i == 0 else NOW_US + (i - 2) * 86_400_000_000
                about = {"price": price, "quantity": quantity, "code": code, "label": label, "seen": seen}
                found.append({"user_id": len(found), "ts": NOW_US - 1_000_000 * (len(found) + 1)} | about)
    return found


def of_messages() -> dict[int, dict[str, Any]]:
    """The derived columns of the orders that are events, by user."""
    given = [order for order in orders() if order["price"] != float("inf")]  # JSON has no infinity
    events = decoder_of(SOURCE).decode(messages_of([json.dumps(order).encode() for order in given]))
    columns = {
        name: [None if null else value for value, null in zip(values.tolist(), nulls, strict=True)]
        for name, (values, nulls) in events.columns.items()
    }
    assert {rejection.where for rejection in events.rejected.values()} == {"units"}
    assert len(events) + len(events.rejected) == len(given)
    return {columns["user_id"][i]: {name: columns[name][i] for name in DERIVE} for i in range(len(events))}


def test_derived_columns_are_the_same_from_messages_and_history(engine: Any, tmp_path: Path) -> None:
    found = orders()
    times = pa.timestamp("us", "UTC")
    kinds = {"price": pa.float64(), "quantity": pa.int64(), "code": pa.string(), "label": pa.string(), "seen": times}
    table = {name: pa.array([order[name] for order in found], kind) for name, kind in kinds.items()}
    table |= {"user_id": pa.array([order["user_id"] for order in found])}
    write_files(tmp_path / "orders", pa.table(table | {"at": pa.array([order["ts"] for order in found], times)}), 2)
    world = World(engine, tmp_path)
    users = range(len(found))
    labels = pa.table({"user_id": pa.array(users), "at": pa.array([NOW_US] * len(found), times)})
    rows = world.table(labels, VIEW).to_pylist()
    wanted = of_messages()
    from_infinity = range(len(found) * 3 // 4, len(found))
    # The codes "x" and 2**63 - 1 have no units: their events are set aside.
    assert world.quarantines["orders"].rows == len(found) // 2
    assert sorted(wanted) == [user for user in users if user % 4 < 2 and user not in from_infinity]
    for user, row in zip(users, rows, strict=True):
        got = {name.removeprefix("orders "): value for name, value in row.items()}
        if user in from_infinity:
            assert got["spend_last_1h"] in (None, float("inf"), float("-inf"))
            continue
        right = wanted.get(user, dict.fromkeys(DERIVE))
        for name in ("spend", "units", "hour", "is_fresh", "day"):
            assert as_stored(got[f"{name}_last_1h"]) == right[name], (name, user)
        for kind in ("large", "none", "new"):
            assert got[f"{kind}_1h"] == (right["kind"] == kind), (kind, user)


def as_stored(value: Any) -> Any:
    epoch = from_microseconds(0)
    return (value - epoch) // timedelta(microseconds=1) if isinstance(value, datetime) else value
