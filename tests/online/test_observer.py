"""What both clients tell their observers."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from feature_store.definitions import FeatureService
from feature_store.errors import NotFoundError, StoreConnectionError
from feature_store.online import OnlineStore
from feature_store.online.observer import REFERENCES, Observed, Observer
from tests.online.clients import CLIENTS
from tests.online.worlds import NOW_US, numbers, plan_of, profile, write
from tests.servers import redis_server

service = FeatureService("service", features=[numbers, profile[["age"]]])
ROWS = {"movie_id": [1, 2, 2], "user_id": 1}


class Noted(Observer):
    def __init__(self) -> None:
        self.requests: list[Observed] = []
        self.reconnects = 0
        self.versions: list[int] = []

    def request(self, request: Observed) -> None:
        self.requests.append(request)

    def reconnected(self) -> None:
        self.reconnects += 1

    def plan_read(self, version: int) -> None:
        self.versions.append(version)


class Failing(Observer):
    def request(self, request: Observed) -> None:
        raise ValueError("an observer's own fault")

    reconnected = plan_read = shadowed = request  # type: ignore[assignment]


@pytest.fixture(params=list(CLIENTS))
def kind(request: pytest.FixtureRequest) -> Any:
    return CLIENTS[request.param]


def fill(url: str, version: int = 1) -> None:
    store = OnlineStore(url, "test")
    before = store.published()
    store.publish(plan_of(service, version=version, previous=before.plan if before else None), over=before)
    write(store, numbers, [{"movie_id": i, "event_ts": NOW_US, "a": 1.0, "b": 1.0, "c": 1} for i in (1, 2)])
    write(store, profile, [{"user_id": 1, "event_ts": NOW_US, "age": 30}])
    store.close()


def test_a_request_is_told_with_its_answer(kind: Any, redis_url: str) -> None:
    fill(redis_url)
    noted = Noted()
    client = kind(redis_url, "test", observers=[noted])
    before = time.time_ns()
    fields = {"position": [0, 1, 2]}
    response = client.get_online_features("service", ROWS, now=NOW_US, request_id="r1", log_fields=fields)
    after = time.time_ns()
    (told,) = noted.requests
    assert (told.service, told.entity_rows, told.request_id, told.log_fields) == ("service", ROWS, "r1", fields)
    assert told.response is response and told.error is None
    assert before <= told.started_ns <= told.started_ns + told.seconds * 1e9 <= after + 1e6
    assert response.traffic.keys == 3
    assert response.traffic.received > response.traffic.sent > 0
    assert noted.versions == [1]
    client.close()


def test_bytes_are_those_of_the_wire_whether_rows_are_there_or_not(kind: Any, redis_url: str) -> None:
    fill(redis_url)
    client = kind(redis_url, "test")
    whole = client.get_online_features("service", ROWS, now=NOW_US).traffic
    lacking = client.get_online_features("service", {**ROWS, "movie_id": [1, 7, 7]}, now=NOW_US).traffic
    row = client.plan().groups[0]
    in_time = client.get_online_features("service", ROWS, now=NOW_US, deadline_ms=5000).traffic
    assert whole.sent == lacking.sent
    assert whole.received > lacking.received > whole.received - 200, row
    assert in_time.keys == whole.keys and in_time.received > whole.received, "an epoch with each part"
    client.close()


def test_failures_and_references_are_told_too(kind: Any, redis_url: str) -> None:
    fill(redis_url)
    noted = Noted()
    client = kind(redis_url, "test", observers=[noted])
    with pytest.raises(NotFoundError):
        client.get_online_features("nothing", ROWS)
    client.get_online_features(["numbers:a"], ROWS, now=NOW_US)
    failed, by_reference = noted.requests
    assert failed.response is None and isinstance(failed.error, NotFoundError)
    assert by_reference.service == REFERENCES
    client.close()


def test_a_server_that_restarts_and_one_that_is_gone(kind: Any) -> None:
    noted = Noted()
    with redis_server() as server:
        fill(server.url)
        client = kind(server.url, "test", observers=[noted])
        client.get_online_features("service", ROWS, now=NOW_US)
        server.stop()
        server.start()
        fill(server.url, version=2)
        client.get_online_features("service", ROWS, now=NOW_US)
        assert noted.reconnects == 1
        assert noted.versions == [1, 2]
        server.stop()
        with pytest.raises(StoreConnectionError):
            client.get_online_features("service", ROWS, now=NOW_US)
        assert isinstance(noted.requests[-1].error, StoreConnectionError)
        client.close()
        server.start()


def test_what_observers_raise_is_logged_once_and_harms_nobody(
    kind: Any, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(redis_url)
    noted = Noted()
    client = kind(redis_url, "test", observers=[Failing(), noted])
    with caplog.at_level(logging.ERROR, "feature_store.observers"):
        for _ in range(3):
            client.get_online_features("service", ROWS, now=NOW_US).to_numpy()
    assert len(noted.requests) == 3
    (record,) = caplog.records
    assert "Failing" in record.getMessage()
    client.close()
