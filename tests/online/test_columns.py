"""One class for each kind of column serves one request, joined answers, Arrow, matrices and training sets."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.arrow.served_log import SERVED_STATUS, record_batch
from feature_store.definitions import Int64
from feature_store.online import OnlineResponse, Status
from feature_store.online.answer import RequestAnswer
from feature_store.online.column import ServedColumn
from feature_store.online.column_compiler import ColumnCompiler
from feature_store.online.decode import row_event_times, row_status
from feature_store.online.joined_answers import JoinedAnswers
from feature_store.online.observer import Observed, Observers
from feature_store.online.offered import Offered
from feature_store.online.redis.endpoint import Endpoint
from feature_store.online.redis.pool import Pool
from feature_store.online.service import CompiledService
from feature_store.registry.serving_plan import ColumnPlan
from feature_store.training.finish import ServedColumns
from tests.online.clients import CLIENTS, NEAR, counted
from tests.online.slow_forms import python_column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from feature_store.online.answer import Answer, Statuses
    from feature_store.online.column import JoinedRows
    from feature_store.registry.serving_plan import ServicePlan

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOW_US = int(NOW.timestamp() * 1_000_000)
PROJECT = """
from datetime import timedelta
import numpy as np
from feature_store import *

user, item = Entity("user"), Entity("item", dtype=String)
stats = FeatureView("stats", entities=[user], ttl=timedelta(days=2),
    source=ParquetSource("stats.parquet", event_timestamp="at"),
    schema=[Field("x", Float32), Field("y", Float32, default=7.0), Field("tags", Array(String), default=["none"])])
prices = FeatureView("prices", entities=[item], source=ParquetSource("prices.parquet", event_timestamp="at"),
    schema=[Field("price", Float64), Field("pair", Array(Int32, 2))])
asked = RequestSource("asked", [Field("device", String, default="tv")])

@on_demand_feature_view(sources=[stats, prices], schema=[Field("ratio", Float32)])
def strict(inputs):
    return {"ratio": inputs["x"] / inputs["price"]}

@on_demand_feature_view(sources=[stats, asked], schema=[Field("either", Float32), Field("label", String)], nulls="shown")
def lenient(inputs, nulls):
    return {"either": np.where(nulls["x"], inputs["y"], inputs["x"]), "label": inputs["device"]}

everything = FeatureService("everything", features=[stats, prices, strict, lenient])
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "feature_store.yaml").write_text("project: shop\n")
    (folder / "features.py").write_text(PROJECT)
    at = pa.array([NOW, NOW, NOW - timedelta(days=3)], pa.timestamp("us", "UTC"))
    users = {
        "user": [1, 2, 3],
        "x": pa.array([10.0, None, 30.0], pa.float32()),
        "y": pa.array([1.0, 2.0, 3.0], pa.float32()),
    }
    pq.write_table(pa.table({**users, "tags": [["a", "b"], None, []], "at": at}), folder / "stats.parquet")
    pairs = pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2))
    pq.write_table(
        pa.table({"item": ["i", "j", "k"], "price": [2.0, None, 4.0], "pair": pairs, "at": at}),
        folder / "prices.parquet",
    )
    with FeatureStore(folder) as opened:
        opened.apply()
        opened.materialize(end=NOW + timedelta(days=1))
        yield opened


# -- one answer, and many joined --------------------------------------------------------------------------------------


def some_rows(chance: random.Random) -> dict[str, Any]:
    """Keys with and without rows, repeated or not. All rows have one user, or each has its own."""
    count = chance.randrange(4)
    items = [chance.choice("ijkl") for _ in range(count)]
    users = chance.randrange(1, 5) if chance.random() < 0.5 else [chance.randrange(1, 5) for _ in items]
    return {"user": users, "item": items, "device": [chance.choice(["tv", None]) for _ in items]}


@pytest.mark.parametrize("client_kind", [*CLIENTS, *NEAR])
def test_answers_that_are_joined_say_what_each_said(store: FeatureStore, client_kind: str) -> None:
    chance = random.Random(3)
    client = (CLIENTS | NEAR)[client_kind](store.online_url, "shop", definitions=store.config.folder, timeout_s=20.0)
    try:
        for _ in range(20):
            responses: list[OnlineResponse] = []
            for _ in range(chance.randrange(1, 6)):
                late = {"deadline_ms": chance.choice([0.0, 20_000.0])} if chance.random() < 0.3 else {}
                now = NOW + timedelta(days=chance.choice([0, 1, 3]))
                responses.append(client.get_online_features("everything", some_rows(chance), now=now, **late))
            answers = JoinedAnswers([response.answer for response in responses])
            for name, column in responses[0].service.columns.items():
                expected = [value for response in responses for value in response.to_dict()[name]]
                assert python_column(column, answers) == expected, name
                statuses = [status for response in responses for status in response.status[name]]
                assert row_status(column, answers).tolist() == statuses, name
                times = row_event_times(column, answers)
                each = [row_event_times(column, response.answer) for response in responses]
                assert times is not None
                assert times.tolist() == [time for of_one in each if of_one is not None for time in of_one.tolist()], (
                    name
                )
            for response in responses:
                assert response.status_counts() == counted(response)
    finally:
        client.close()


# -- a kind of column is one class ------------------------------------------------------------------------------------


class LengthColumn(ServedColumn):
    """A fifth kind of column: the length of a stored list."""

    __slots__ = ("lists",)

    def __init__(self, lists: ServedColumn) -> None:
        super().__init__(Int64, -1, lists.group)
        self.lists = lists

    def values(self, answer: Answer) -> Any:
        return np.array([len(value or ()) for value in self.lists.values(answer)], np.int64)

    def status(self, answer: Answer) -> Statuses:
        return self.lists.status(answer)

    def event_times(self, answer: Answer) -> Any:
        return self.lists.event_times(answer)

    @property
    def needs(self) -> list[tuple[str, str]]:
        return self.lists.needs

    def from_join(self, joined: JoinedRows[Any]) -> Any:
        return pc.list_value_length(self.lists.from_join(joined)).cast(pa.int64())


class WithLengths(ColumnCompiler):
    """Compiles a service of a stored column, and of the length of a list that it does not serve itself."""

    def columns(self, service: ServicePlan) -> dict[str, ServedColumn]:
        x = self.column(ColumnPlan("x", "stats", "x"))
        return {"x": x, "tag_count": LengthColumn(self.column(ColumnPlan("tags", "stats", "tags")))}


@pytest.fixture(scope="module")
def service(store: FeatureStore) -> CompiledService:
    plan, offered = store.client.plan(), Offered()
    return CompiledService(plan, plan.service("everything"), offered, b"", WithLengths(plan, offered))


def asked_of(store: FeatureStore, service: CompiledService, rows: dict[str, Any]) -> OnlineResponse:
    endpoint = Endpoint(store.online_url, 20.0)
    pool = Pool(endpoint, Observers([]), 1)
    request = service.prepare(rows)
    pool.exchange(request.commands, endpoint.limit())
    pool.close()
    return OnlineResponse(service, RequestAnswer(request, NOW_US))


def test_a_fifth_kind_is_served_by_its_class_alone(store: FeatureStore, service: CompiledService) -> None:
    response = asked_of(store, service, {"user": [1, 2, 3, 4, 1]})
    assert response.to_dict()["tag_count"] == [2, -1, -1, -1, 2]
    assert response.status["tag_count"] == [Status.PRESENT, Status.NULL, Status.EXPIRED, Status.MISSING, Status.PRESENT]
    assert response.status_counts() == counted(response)
    assert response.event_timestamps["tag_count"] == response.event_timestamps["x"]
    assert response.to_numpy()[:, 1].tolist() == [2, -1, -1, -1, 2]
    assert response.to_arrow()["tag_count"].to_pylist() == [2, -1, -1, -1, 2]
    assert response.columns == ["x", "tag_count"]


def test_a_fifth_kind_is_logged_by_its_class_alone(store: FeatureStore, service: CompiledService) -> None:
    requests = []
    for rows in ({"user": [1, 2]}, {"user": 3}, {"user": [4, 1, 1]}):
        observed = Observed(Observers([]), str, "lengths", rows, None, None)
        observed.response = asked_of(store, service, rows)
        requests.append(observed)
    batch = record_batch(requests)
    assert batch["tag_count"].to_pylist() == [2, -1, -1, -1, 2, 2]
    assert [list(statuses)[1] for statuses in batch[SERVED_STATUS].to_pylist()] == [0, 1, 3, 2, 0, 0]


def test_a_fifth_kind_is_trained_by_its_class_alone(service: CompiledService) -> None:
    labels = pa.record_batch({"user": pa.array([1, 2, 4])})
    finish = ServedColumns(service, labels.schema, "labels")
    assert finish.wanted == {"stats": ["x", "tags"]}
    joined = [pa.array([10.0, None, None], pa.float32()), pa.array([["a", "b"], [], None], pa.list_(pa.string()))]
    finished = finish(labels, joined, 0)
    assert finished.batch["tag_count"].to_pylist() == [2, 0, -1]
