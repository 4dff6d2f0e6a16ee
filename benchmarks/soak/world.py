"""The project of the soak, whose values say themselves what they must be, and what its processes share."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pathlib import Path

USERS = 6_000
TOPIC, PARTITIONS = "clicks", 4
PROJECT = "soak"
TTL_S = 4
# Of an outage, until everybody is connected again and has the plan.
OUTAGE_S = 40.0
_DEFINITIONS = """
from datetime import timedelta
from feature_store import *
user = Entity("user", join_key="user_id")
profile = FeatureView("profile", entities=[user], source=ParquetSource("profile", event_timestamp="at"), schema=[
    {fields}])
brief = FeatureView("brief", entities=[user], ttl=timedelta(seconds={ttl}),
    schema=[Field("stamp", Int64), Field("double", Int64)])
clicks = KafkaSource("clicks", topic="{topic}", event_timestamp="ts",
    schema=[Field("user_id", Int64), Field("price", Int64)])
activity = StreamFeatureView("activity", entities=[user], source=clicks, aggregations=[
    Aggregation("price", "count", windows=[timedelta(days=7)]),
    Aggregation("price", "sum", windows=[timedelta(days=7)])])
ranking = FeatureService("ranking", features=[profile, brief, activity])
"""
# Layouts that the definitions change between: a field comes and goes, another moves and changes its width.
LAYOUTS = (
    'Field("version", Int64), Field("a", Int64), Field("name", String)',
    'Field("extra", Float64), Field("version", Int64), Field("a", Int64), Field("name", String)',
    'Field("name", String), Field("half", Float32), Field("a", Int64), Field("version", Int64)',
)
ALWAYS = ("version", "stamp", "double", "price_count_7d", "price_sum_7d")


def write_project(folder: Path, url: str, bootstrap: str) -> None:
    """The files of the project, in the first layout."""
    (folder / "profile").mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(
        f"project: {PROJECT}\nonline_store: {{url: '{url}'}}\nkafka: {{bootstrap.servers: '{bootstrap}'}}\n"
    )
    write_definitions(folder, 0)


def write_definitions(folder: Path, layout: int) -> None:
    """Definitions with one of LAYOUTS."""
    text = _DEFINITIONS.format(fields=LAYOUTS[layout], ttl=TTL_S, topic=TOPIC)
    unfinished = folder / "features.unfinished"
    unfinished.write_text(text)
    unfinished.rename(folder / "features.py")


def write_version(folder: Path, version: int) -> None:
    """A file with one more version of all users' rows, that happened just now."""
    users = np.arange(USERS)
    columns: dict[str, Any] = {"user_id": users, "at": pa.array([datetime.now(UTC)] * USERS, pa.timestamp("us", "UTC"))}
    for name in ("version", "a", "name", "extra", "half"):
        columns[name] = [profile_value(name, user, version) for user in users.tolist()]
    columns["half"] = pa.array(columns["half"], pa.float32())
    unfinished = folder / "profile" / f".{version:06d}"
    pq.write_table(pa.table(columns), unfinished)
    unfinished.rename(folder / "profile" / f"{version:06d}.parquet")


def profile_value(name: str, user: int, version: int) -> Any:
    """What a feature of a version of a user's row is."""
    match name:
        case "version":
            return version
        case "a":
            return user * 1_000_003 + version
        case "name":
            return f"user {user} of {version}"
        case "extra":
            return user + version / 1024
        case _:
            return (user % 64) / 2 + version % 1024


def price(user: int) -> int:
    """Of each click of a user."""
    return user % 7 + 1


class Shared:
    """Numbers that all processes see, in a file: what was written, so far, and whether Redis is away."""

    def __init__(self, folder: Path) -> None:
        path = folder / "shared.bin"
        if not path.exists():
            np.zeros(USERS + 2, np.int64).tofile(path)
        self._all = np.memmap(path, np.int64, "r+")
        # By user, clicks that were handed to Kafka; counted before each is.
        self.clicks = self._all[2:]

    @property
    def version(self) -> int:
        """Readers that begin now see this version of every user's row, or a later one."""
        return int(self._all[0])

    @version.setter
    def version(self, version: int) -> None:
        self._all[0] = version

    def begin_outage(self) -> None:
        """Redis is away, or soon will be."""
        self._all[1] = time.time_ns()

    @property
    def is_outage(self) -> bool:
        """Whether requests may fail."""
        return (time.time_ns() - int(self._all[1])) / 1e9 < OUTAGE_S
