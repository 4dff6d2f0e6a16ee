"""Files of every kind pass the conformance suite of sources when they are objects of a store, or on a web server."""

from __future__ import annotations

import functools
import http.server
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from obstore.store import S3Store

from feature_store.arrow import objects
from feature_store.arrow.file_versions import file_versions, unchanged
from feature_store.arrow.objects import range_of
from feature_store.arrow.sources.files import CSV, PARQUET, source_files
from feature_store.arrow.sources.opening import open_source, source_exists
from feature_store.arrow.sources.source import OfflineSource
from feature_store.arrow.time_range import TimeRange
from feature_store.definitions import CsvSource, DeltaSource, ParquetSource
from feature_store.errors import DataError, DefinitionError
from feature_store.testing.sources import OfflineSourceSuite, SourceOnEngineSuite
from tests.arrow.sources.test_arrow import StoredArrow
from tests.arrow.sources.test_avro import StoredAvro
from tests.arrow.sources.test_csv_source import StoredCsv
from tests.arrow.sources.test_hive import StoredFolders
from tests.arrow.sources.test_json_lines import StoredJsonLines
from tests.arrow.sources.test_parquet import StoredParquet
from tests.object_server import CREDENTIAL, ObjectServer, object_server


def plain(url: str) -> str:
    """A URL whose name has no characters that deltalake takes for escapes."""
    return url.replace("day=1 %3A", "tables")


class StoredDeltaObjects:
    """A Delta table whose log and files are objects."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.source = DeltaSource(f"{url}/rows", event_timestamp="at", created_timestamp="made")

    def append(self, rows: pa.Table) -> None:
        write_deltalake(self.source.path, rows, mode="append", storage_options={"allow_http": "true"})


KINDS = [StoredParquet, StoredArrow, StoredAvro, StoredCsv, StoredFolders, StoredJsonLines]


@pytest.fixture(scope="session")
def object_process() -> Iterator[ObjectServer]:
    with object_server() as server:
        server.bucket("lake")
        yield server


@pytest.fixture
def server(object_process: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> ObjectServer:
    for name, value in object_process.environment.items():
        monkeypatch.setenv(name, value)
    return object_process


@pytest.fixture
def url(server: ObjectServer) -> str:
    """A folder of its own. Its name has characters that other parts of a URL would have to encode."""
    return f"s3://lake/day=1 %3A/{uuid.uuid4().hex}"


def put(url: str, data: bytes) -> None:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    obstore.put(S3Store(bucket, client_options={"allow_http": True}), key, data)


def parquet(rows: pa.Table, folder: Path, **options: Any) -> bytes:
    path = folder / f"{uuid.uuid4().hex}.parquet"
    pq.write_table(rows, path, **options)
    return path.read_bytes()


START_US = 1_767_225_600_000_000  # 2026-01-01


def events(count: int, first: int = 0) -> pa.Table:
    """Rows of which each is a second after the one before, and takes 216 bytes."""
    numbers = np.arange(first, first + count)
    at = pa.array(START_US + numbers * 1_000_000, pa.timestamp("us", "UTC"))
    return pa.table({"user_id": numbers, "at": at, "text": [os.urandom(200)] * count})


class StoredObjects:
    """The files of another kind of stored rows, as objects."""

    def __init__(self, local: Any, url: str) -> None:
        self._local, self._url = local, url
        self.folder = local.folder
        self.source = local.source.model_copy(update={"path": f"{url}/{local.source.path}"})
        self._known: set[Path] = set()

    def append(self, rows: pa.Table) -> None:
        self._local.append(rows)
        files = {path for path in self.folder.rglob("*") if path.is_file()}
        for path in sorted(files - self._known):
            put(f"{self._url}/{path.relative_to(self.folder)}", path.read_bytes())
        self._known = files


@pytest.fixture
def stored(tmp_path: Path, url: str, request: pytest.FixtureRequest) -> StoredObjects:
    return StoredObjects(getattr(request, "param", StoredParquet)(tmp_path), url)


class TestDeltaObjects(OfflineSourceSuite):
    @pytest.fixture
    def stored(self, tmp_path: Path, url: str) -> StoredDeltaObjects:
        return StoredDeltaObjects(tmp_path, plain(url))


class TestDeltaObjectsOnLocalEngine(SourceOnEngineSuite):
    @pytest.fixture
    def stored(self, tmp_path: Path, url: str) -> StoredDeltaObjects:
        return StoredDeltaObjects(tmp_path, plain(url))


def test_only_what_was_added_to_a_delta_table_is_read_again(url: str, tmp_path: Path, read_bytes: list[int]) -> None:
    table = StoredDeltaObjects(tmp_path, plain(url))
    table.append(events(5_000))
    known = opened(table.source).unread(b"").document
    table.append(events(10, 5_000))
    read_bytes.clear()
    (piece,) = opened(table.source).unread(known).pieces
    assert [value for batch in piece.batches(["user_id"]) for value in batch["user_id"].to_pylist()] == list(
        range(5_000, 5_010)
    )
    assert sum(read_bytes) < 20_000


def test_a_data_file_of_a_delta_table_that_is_lost_is_an_error(url: str, tmp_path: Path, server: ObjectServer) -> None:
    table = StoredDeltaObjects(tmp_path, plain(url))
    table.append(events(10))
    (path,) = (server.data / plain(url).removeprefix("s3://") / "rows").glob("*.parquet")
    path.unlink()
    with pytest.raises(DataError, match="of version 0 is missing"):
        list(opened(table.source).batches(["user_id"]))


def test_a_delta_table_that_is_not_there_or_refused_is_an_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="cannot be read at a URL with a %"):
        opened(DeltaSource(f"{url}/rows", event_timestamp="at"))
    source = DeltaSource(f"{plain(url)}/rows", event_timestamp="at")
    assert not source_exists(source, Path())
    with pytest.raises(DataError, match="there is no Delta table in s3://"):
        opened(source)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-horse-battery")
    with pytest.raises(DataError) as caught:
        opened(source)
    assert "wrong-horse" not in str(caught.value)
    with pytest.raises(DataError, match="the store refuses access"):
        source_exists(source, Path())


@pytest.mark.parametrize("stored", KINDS, indirect=True, ids=lambda kind: kind.__name__)
class TestObjects(OfflineSourceSuite):
    pass


class TestObjectsOnLocalEngine(SourceOnEngineSuite):
    pass


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of bytes that requests ask for."""
    sizes: list[int] = []
    read = objects.range_of

    def counted(url: str, begin: int, end: int, etag: str = "") -> memoryview:
        sizes.append(end - begin)
        return read(url, begin, end, etag)

    monkeypatch.setattr("feature_store.arrow.object_file.range_of", counted)
    return sizes


def opened(source: Any) -> OfflineSource:
    return open_source(source, Path("/nowhere"))


def test_only_row_groups_and_columns_that_are_wanted_are_requested(
    url: str, tmp_path: Path, read_bytes: list[int]
) -> None:
    data = parquet(events(40_000), tmp_path, row_group_size=4_000, compression="none", use_dictionary=False)
    put(f"{url}/a.parquet", data)
    rows = opened(ParquetSource(url, event_timestamp="at"))
    read_bytes.clear()
    within = TimeRange("at", START_US, START_US + 1_000_000)
    assert sum(map(len, rows.batches(["user_id"], within))) == 1
    assert sum(read_bytes) < 4_000 * 8 * 3  # one row group of ten, two columns of three
    read_bytes.clear()
    assert sum(map(len, rows.batches(["user_id", "text"]))) == 40_000
    assert max(read_bytes) <= 8 << 20
    assert sum(read_bytes) <= len(data) * 1.01


@pytest.mark.parametrize("pattern", ["*/b*.parquet", "**/b*.parquet", "x/b?.parquet", "**", "x/[ab]1.parquet", "x"])
def test_a_pattern_finds_what_it_finds_on_a_disk(url: str, tmp_path: Path, pattern: str) -> None:
    names = [
        "b0.parquet",
        "x/b1.parquet",
        "x/a1.parquet",
        "x/y/b2.parquet",
        "x/_b3.parquet",
        ".z/b4.parquet",
        "x/b5.txt",
    ]
    for name in names:
        put(f"{url}/{name}", b"-")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"-")
    wanted = [str(Path(str(path)).relative_to(tmp_path)) for path in source_files(pattern, tmp_path, PARQUET)]
    found: list[Any] = list(source_files(f"{url}/{pattern}", tmp_path, PARQUET))
    assert [file.path.removeprefix(f"{url}/") for file in found] == wanted


@pytest.mark.parametrize(
    ("mark", "kind"),
    [("_delta_log/0.json", "Delta Lake"), (".hoodie/x", "Hudi"), ("metadata/1.metadata.json", "Iceberg")],
)
def test_the_files_of_a_table_are_refused(url: str, mark: str, kind: str) -> None:
    put(f"{url}/t/day=1/a.parquet", b"-")
    put(f"{url}/t/{mark}", b"-")
    with pytest.raises(DataError, match=f"t/ is a {kind} table"):
        opened(ParquetSource(url, event_timestamp="at"))


@pytest.mark.parametrize("begun", [False, True])
def test_an_object_that_changes_while_it_is_read_is_an_error(url: str, tmp_path: Path, begun: bool) -> None:
    options = {"row_group_size": 10_000, "compression": "none", "use_dictionary": False}
    put(f"{url}/a.parquet", parquet(events(40_000), tmp_path, **options))
    rows = opened(ParquetSource(url, event_timestamp="at"))
    (piece,) = rows.pieces(["text"], None, most_bytes=1 << 40)
    batches = rows.batches(["text"])
    if begun:
        next(batches)
    put(f"{url}/a.parquet", parquet(events(40_000, 1), tmp_path, **options))
    for read in (batches, piece.batches(["text"])):
        with pytest.raises(DataError, match=r"a\.parquet was changed while it was read, so nothing of it is recorded"):
            list(read)
    assert sum(map(len, opened(ParquetSource(url, event_timestamp="at")).batches(["text"]))) == 40_000


def test_an_object_that_is_removed_is_an_error(url: str, tmp_path: Path, server: ObjectServer) -> None:
    put(f"{url}/a.csv", b"user_id,at\n1,2026-01-01\n")
    rows = opened(CsvSource(f"{url}/a.csv", event_timestamp="at"))
    (server.data / url.removeprefix("s3://") / "a.csv").unlink()
    with pytest.raises(DataError, match=r"a\.csv was removed while it was read"):
        list(rows.batches(["user_id"]))


def test_a_new_object_is_read_and_old_ones_are_not(url: str, tmp_path: Path, read_bytes: list[int]) -> None:
    put(f"{url}/a.parquet", parquet(events(5_000), tmp_path))
    source = ParquetSource(url, event_timestamp="at")
    known = opened(source).unread(b"").document
    put(f"{url}/b.parquet", parquet(events(10, 5_000), tmp_path))
    rows = opened(source)
    read_bytes.clear()
    unread = rows.unread(known)
    found = [
        value
        for piece in unread.pieces
        for batch in piece.batches(["user_id"])
        for value in batch["user_id"].to_pylist()
    ]
    assert found == list(range(5_000, 5_010))
    assert sum(read_bytes) < 20_000
    assert rows.unread(unread.document).pieces == ()


class TestErrors:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(objects, "MOST_RETRIES", 1)
        monkeypatch.setattr(objects, "REQUEST_TIMEOUT_S", 1)

    def _error(self, path: str) -> str:
        source = ParquetSource(path, event_timestamp="at")
        for read in (opened, lambda source: source_exists(source, Path())):
            with pytest.raises(DataError) as caught:
                read(source)
        assert CREDENTIAL not in str(caught.value)
        assert "Debug" not in str(caught.value)
        return str(caught.value)

    def test_a_missing_bucket_is_named(self, server: ObjectServer) -> None:
        assert "there is no bucket nowhere" in self._error("s3://nowhere/a")

    def test_a_wrong_secret_is_an_error_that_shows_no_secret(
        self, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-horse-battery")
        for path in ("s3://lake/", "s3://lake/a.parquet"):
            error = self._error(path)
            assert "the store refuses access" in error
            assert "AWS_" in error
            assert "wrong-horse" not in error

    def test_a_server_that_is_down_or_slow_is_an_error(
        self, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        assert "the store cannot be read: error sending request" in self._error("s3://lake/a")
        silent = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)  # accepts, never answers
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.server_port}")
        assert "the store cannot be read" in self._error("s3://lake/a")
        silent.server_close()

    def test_a_folder_without_files_is_missing(self, url: str) -> None:
        with pytest.raises(DataError, match="expected Parquet files under"):
            opened(ParquetSource(f"{url}/nothing", event_timestamp="at"))
        assert not source_exists(ParquetSource(f"{url}/nothing", event_timestamp="at"), Path())


@pytest.mark.parametrize(
    "path",
    [
        "s3://user:secret-word@bucket/a",
        "https://user:secret-word@host/a.csv",
        "https://host/a.csv?X-Amz-Signature=secret-word",
        "abfss://container:secret-word@account.dfs.core.windows.net/a",
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_shown(path: str) -> None:
    with pytest.raises(DefinitionError, match="may hold a secret") as caught:
        ParquetSource(path, event_timestamp="at")
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize("path", ["ftp://host/a", "file:///a", "s3:/bucket/a", "s3://"])
def test_other_urls_are_refused(path: str) -> None:
    with pytest.raises(DefinitionError, match="path"):
        ParquetSource(path, event_timestamp="at")


@pytest.mark.parametrize("path", ["gs://b/a*.csv", "az://c/a", "abfss://c@account.dfs.core.windows.net/a", "S3://b/a"])
def test_urls_of_other_stores_are_taken(path: str) -> None:
    assert CsvSource(path, event_timestamp="at").path == path


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """A web server that serves ranges, without entity tags."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        data = Path(self.translate_path(self.path)).read_bytes()
        begin, _, end = asked.removeprefix("bytes=").partition("-")
        part = data[int(begin) : int(end) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {begin}-{int(begin) + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(_Ranges, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_of_a_web_server_is_read(web: str, tmp_path: Path) -> None:
    pq.write_table(events(1000), tmp_path / "a b.parquet")
    rows = opened(ParquetSource(f"{web}/a%20b.parquet", event_timestamp="at"))
    assert [value for batch in rows.batches(["user_id"]) for value in batch["user_id"].to_pylist()] == list(range(1000))
    os.utime(tmp_path / "a b.parquet", (0, 0))
    with pytest.raises(DataError, match="was changed while it was read"):
        list(rows.batches(["user_id"]))
    with pytest.raises(DataError, match="a web server does not list its files"):
        source_files(f"{web}/", tmp_path, CSV)


def test_a_version_that_a_store_does_not_compare_is_checked_after_the_read(url: str) -> None:
    put(f"{url}/a", b"one")
    (version,) = file_versions([f"{url}/a"])
    untagged = version._replace(etag="")
    with pytest.raises(DataError, match="a was changed"), unchanged("here", [untagged]):
        assert bytes(range_of(version.path, 0, 3)) == b"one"
