"""The served log holds exactly what was served, whatever the sink does."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import threading
import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.arrow.served_log import About, log_files, read_log, statuses_of
from feature_store.errors import DataError, NotFoundError, RequestError
from feature_store.monitoring import ParquetSink, ServedLog, served_log
from feature_store.monitoring.served_log import _Pace, share_of
from tests.monitoring.served_worlds import NOW, expected_rows, make_project, some_request
from tests.online.clients import CLIENTS
from tests.raw_redis import raw_client

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from feature_store import FeatureStore


class Kept:
    """A sink that keeps its batches. Each write waits for `gate`, then raises `fault` if it is set."""

    def __init__(self, most_rows: int = 10_000, most_seconds: float = 0.0) -> None:
        self.most_rows, self.most_seconds = most_rows, most_seconds
        self.batches: list[pa.RecordBatch] = []
        self.fault: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        assert self.gate.wait(60)
        if self.fault is not None:
            raise self.fault
        self.batches += batches

    def close(self, wait_s: float) -> None:
        pass

    def rows(self) -> list[dict[str, Any]]:
        return [row for batch in self.batches for row in batch.to_pylist()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, redis_process: Any) -> Iterator[FeatureStore]:

    with raw_client(redis_process.url) as client:
        client.flushall()
    store = make_project(tmp_path_factory.mktemp("served"), redis_process.url)
    yield store
    store.close()


@pytest.fixture(params=list(CLIENTS))
def make_client(request: pytest.FixtureRequest, world: FeatureStore) -> Iterator[Any]:
    opened = []

    def make(*observers: Any) -> Any:
        functions: Any = world.definitions.on_demand_feature_views
        made = CLIENTS[request.param](world.online_url, "shop", transforms=functions, observers=observers)
        opened.append(made)
        return made

    yield make
    for client in opened:
        client.close()


ROWS = {"user_id": 1, "movie_id": ["m1", "m2"], "now_year": 2020}


def assert_same(row: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        assert row[name] == value or repr(row[name]) == repr(value), name  # NaN is NaN


def test_what_is_logged_is_what_was_served(make_client: Any) -> None:
    """Every kind of column, in requests of every form, with and without a deadline, with many requests in a batch."""
    chance, sink = random.Random(5), Kept()
    expected = []
    with ServedLog(sink, 1.0) as log:
        client = make_client(log)
        for i in range(300):
            rows = some_request(chance)
            now = NOW + timedelta(minutes=chance.randrange(600))
            late = {"deadline_ms": chance.choice([0.0, 5000.0])} if chance.random() < 0.2 else {}
            fields = {"position": [7] * len(rows["device"]), "variant": chance.choice(["a", None])}
            response = client.get_online_features(
                "ranking", rows, now=now, request_id=f"r{i}", log_fields=fields, **late
            )
            if chance.random() < 0.5:  # it makes no difference whether the caller or the log decodes first
                response.to_dict()
            for row in expected_rows(response, rows):
                about = {"request_id": f"r{i}", "served_at": now, "served_by": "ranking", "served_version": 1}
                expected.append(row | about | {"served_plan": None, "position": 7, "variant": fields["variant"]})
        assert log.flush(60)
        assert (log.counts.sampled, log.counts.written, log.counts.failed) == (300, 300, 0)
    found = sink.rows()
    assert len(found) == len(expected)
    for row, wanted in zip(found, expected, strict=True):
        assert_same(row, wanted)
    about = About.of(sink.batches[0].schema, "")
    assert (about.project, about.service, about.version, about.plan) == ("shop", "ranking", 1, None)
    assert about.keys == {"user_id": "Int64", "movie_id": "String"}
    assert about.request == {"now_year": "Int32", "device": "String"}
    assert list(about.features)[:2] == ["visits", "spent"]


def test_a_parquet_folder_is_read_back(make_client: Any, tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path / "log")
    expected: Counter[str] = Counter()
    with ServedLog(sink, 1.0) as log:
        client = make_client(log)
        for i, now in enumerate([NOW, NOW + timedelta(days=1), NOW + timedelta(days=1, seconds=5)]):
            client.get_online_features("ranking", ROWS, now=now, request_id=f"r{i}")
            client.get_online_features("numbers", {"user_id": [1, 2, 3]}, now=now)
            expected.update(ranking=2, numbers=3)
    folders = sorted(str(file.path.parent.relative_to(tmp_path / "log")) for file in log_files(tmp_path / "log"))
    assert folders == [
        f"service={service}/date=2026-01-{day}" for service in ("numbers", "ranking") for day in ("10", "11")
    ]
    for service, count in expected.items():
        files = log_files(tmp_path / "log", service)
        table = read_log(files)
        assert len(table) == count
        statuses = statuses_of(table, list(files[0].about.features))
        packed = table["served_status"].to_pylist()
        assert [bytes(row) for row in zip(*(codes.tolist() for codes in statuses.values()), strict=True)] == packed
    assert [path.name for path in tmp_path.rglob(".*")] == []
    assert read_log(log_files(tmp_path / "log", "ranking"))["request_id"].to_pylist() == [
        "r0",
        "r0",
        "r1",
        "r1",
        "r2",
        "r2",
    ]
    with pytest.raises(NotFoundError, match="of service nothing"):
        log_files(tmp_path / "log", "nothing")
    with pytest.raises(DataError, match="a log of what was served"):
        pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
        log_files(tmp_path / "other.parquet")


def test_files_are_rotated_by_rows(make_client: Any, tmp_path: Path) -> None:
    with ServedLog(ParquetSink(tmp_path, rows=10, seconds=3600), 1.0) as log:
        client = make_client(log)
        for _ in range(10):
            client.get_online_features("ranking", ROWS, now=NOW)
            assert log.flush(60)
    assert len(log_files(tmp_path)) == 10, "each flush writes"
    assert {len(read_log([file])) for file in log_files(tmp_path)} == {2}


def test_the_same_ids_are_chosen_everywhere(make_client: Any) -> None:
    sinks = Kept(), Kept()
    logs = [ServedLog(sink, 0.3, by="request_id") for sink in sinks]
    client = make_client(*logs)
    ids = [f"request {i}" for i in range(400)]
    for request_id in ids:
        client.get_online_features("numbers", {"user_id": 1}, now=NOW, request_id=request_id)
    client.get_online_features("numbers", {"user_id": 1}, now=NOW)
    for log in logs:
        log.close()
    chosen = [[row["request_id"] for row in sink.rows()] for sink in sinks]
    assert chosen[0] == chosen[1] == [one for one in ids if share_of(one) < 0.3]
    assert 80 < len(chosen[0]) < 160
    assert logs[0].counts.without_id == 1
    digest = hashlib.blake2b(b"request 0", digest_size=8).hexdigest()
    assert share_of("request 0") == int(digest, 16) / 2**64


def test_a_random_share(make_client: Any) -> None:
    sink = Kept()
    with ServedLog(sink, 0.25) as log:
        client = make_client(log)
        for _ in range(400):
            client.get_online_features("numbers", {"user_id": 1}, now=NOW)
    assert 50 < log.counts.sampled == len(sink.rows()) < 160
    assert log.counts.sampled == log.counts.written


def test_a_slow_sink_drops_and_nobody_waits(make_client: Any) -> None:
    sink = Kept(most_rows=1)
    sink.gate.clear()
    with ServedLog(sink, 1.0, queue=5) as log:
        client = make_client(log)
        client.get_online_features("numbers", {"user_id": 1}, now=NOW)
        while log._queue:  # until the log's thread has taken the record, and waits at the gate
            time.sleep(0.01)
        for _ in range(20):
            assert client.get_online_features("numbers", {"user_id": 1}, now=NOW).names == ["visits", "spent"]
        assert log.counts.sampled == 21 and log.counts.dropped == 16, "one is at the gate, and four wait"
        assert not log.flush(0.05)
        sink.gate.set()
        assert log.flush(60)
        assert (log.counts.written, log.counts.dropped) == (5, 16)
    client.get_online_features("numbers", {"user_id": 1}, now=NOW)
    assert log.counts.dropped == 17, "after its end"


def test_the_queue_is_bounded_in_bytes_too(make_client: Any) -> None:
    sink = Kept()
    with ServedLog(sink, 1.0, queue_bytes=1) as log:
        make_client(log).get_online_features("numbers", {"user_id": 1}, now=NOW)
        assert log.counts.dropped == 1


def test_a_failing_sink_is_told_once_an_outage(make_client: Any, caplog: pytest.LogCaptureFixture) -> None:
    sink = Kept()
    with caplog.at_level(logging.ERROR, "feature_store.served_log"), ServedLog(sink, 1.0) as log:
        client = make_client(log)
        for fault in (OSError("disk full"), OSError("disk full"), None, OSError("again")):
            sink.fault = fault
            client.get_online_features("numbers", {"user_id": 1}, now=NOW)
            assert log.flush(60)
        assert (log.counts.written, log.counts.failed) == (1, 3)
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["disk full", "again"]


def test_a_full_disk_leaves_no_half_of_a_file(make_client: Any, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    with ServedLog(ParquetSink(tmp_path / "log"), 1.0) as log:
        make_client(log).get_online_features("numbers", {"user_id": 1}, now=NOW)
    assert log.counts.failed == 1


def test_one_bad_request_costs_no_other(make_client: Any, caplog: pytest.LogCaptureFixture) -> None:
    sink = Kept()
    bad: list[dict[str, Any]] = [{"position": [1]}, {"visits": 1}, {"served_at": 1}, {"position": object()}]
    with caplog.at_level(logging.ERROR, "feature_store.served_log"), ServedLog(sink, 1.0) as log:
        client = make_client(log)
        for fields in (*bad, {"position": [1, 2]}, None):
            client.get_online_features("ranking", ROWS, now=NOW, log_fields=fields)
        assert log.flush(60)
        assert (log.counts.written, log.counts.failed) == (2, len(bad))
    assert [row.get("position") for row in sink.rows()] == [1, 2, None, None]
    assert len(caplog.records) == 1


def test_a_forked_child_logs_for_itself(world: FeatureStore, tmp_path: Path) -> None:
    from feature_store.online import OnlineClient

    log = ServedLog(ParquetSink(tmp_path, seconds=3600), 1.0)
    client = OnlineClient(world.online_url, "shop", observers=[log])
    client.get_online_features("numbers", {"user_id": 1}, now=NOW, request_id="parent")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the test forks with threads on purpose
        child = os.fork()
    if child == 0:
        client.get_online_features("numbers", {"user_id": 1}, now=NOW, request_id="child")
        log.close()
        os._exit(0 if log.counts.written == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    log.close()
    client.close()
    assert sorted(read_log(log_files(tmp_path))["request_id"].to_pylist()) == ["child", "parent"]


def test_the_thread_rests_for_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, used = 100.0, 5.0
    monkeypatch.setattr("feature_store.monitoring.served_log.time.monotonic", lambda: clock)
    monkeypatch.setattr("feature_store.monitoring.served_log.time.thread_time", lambda: used)
    pace = _Pace(0.25)
    clock, used = 101.0, 6.0  # one second passes: all of it work
    assert pace.rest_s() == 3.0
    clock, used = 111.0, 7.0  # ten seconds pass: one of work, nine of waiting
    assert pace.rest_s() == 0.0


@pytest.mark.parametrize("wrong", [{"rate": 1.5}, {"by": "luck"}, {"queue": 0}, {"share": 0.0}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        ServedLog(Kept(), **wrong)


# -- log fields of any type -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ([1, "n/a"], ["1", "n/a"]),
        ([1, 2.5], [1.0, 2.5]),
        ([2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),
        ([True, 7], ["true", "7"]),
        ([None, "x", None], [None, "x", None]),
        ([1, None, "x", [1.5]], ["1", None, "x", "1.5"]),
        ([{"a": 1}, "x"], ['{"a":1}', "x"]),
        ([b"x", "y"], [b"x", b"y"]),
    ],
)
def test_a_field_of_several_types_leaves_the_log_readable(
    make_client: Any, tmp_path: Path, given: list[Any], read: list[Any]
) -> None:
    """Each process writes files of its own, in which the field has the type of that process's values."""
    for i, value in enumerate(given):
        with ServedLog(ParquetSink(tmp_path / "log"), 1.0) as log:
            fields = {"note": value} if not isinstance(value, list) else {"note": value * 2}
            make_client(log).get_online_features("ranking", ROWS, now=NOW, request_id=f"r{i}", log_fields=fields)
            assert log.flush(60)
            assert log.counts.failed == 0
    table = read_log(log_files(tmp_path / "log", "ranking"))
    found = dict(zip(table["request_id"].to_pylist(), table["note"].to_pylist(), strict=True))
    assert found == {f"r{i}": value for i, value in enumerate(read)}


def test_records_that_wait_are_of_few_schemas(make_client: Any) -> None:
    sink = Kept()
    with ServedLog(sink, 1.0) as log:
        client = make_client(log)
        for i in range(300):
            client.get_online_features("ranking", ROWS, now=NOW, log_fields={f"made up {i}": 1})
            if i % 100 == 99:
                assert log.flush(60)
            assert len(log._pending) <= served_log._MOST_PENDING
        assert log.flush(60)
        assert log.counts.written == 300
