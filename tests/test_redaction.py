from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
import redis
import sqlalchemy as sa
from hypothesis import given, strategies as st

from feature_store._private_files import private_file, private_folder
from feature_store._redaction import hide, redacted, with_quoted_password, without_secrets
from feature_store.errors import ConfigError, FeatureStoreError
from feature_store.project.config import Config, load_config

if TYPE_CHECKING:
    from pathlib import Path

PASSWORDS = st.text(st.sampled_from("aB3/#?@%:&=+ ü$![]"), min_size=1, max_size=12)


def load(folder: Path, text: str) -> Config:
    (folder / "feature_store.yaml").write_text(textwrap.dedent(text))
    return load_config(folder)


@given(password=PASSWORDS, user=st.sampled_from(["", "me"]))
def test_any_password_from_the_environment_reaches_the_drivers(
    tmp_path_factory: pytest.TempPathFactory, password: str, user: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PW", password)
        config = load(
            folder,
            f"""
            project: shop
            registry: postgresql://someone:${{PW}}@db:5432/features
            online_store: {{url: "redis://{user}:${{PW}}@cache:6379/1"}}
            """,
        )
    assert config.online_url is not None
    found = redis.ConnectionPool.from_url(config.online_url).connection_kwargs
    assert (found["password"], found["host"], found["port"], found["db"]) == (password, "cache", 6379, 1)
    assert found.get("username") == (user or None)
    assert sa.make_url(config.registry_url).password == password
    shown = str(config.shown())
    assert "${PW}" in shown or "***" in shown
    assert config.shown()["online_store"]["url"] == f"redis://{user}:***@cache:6379/1"


@given(password=PASSWORDS)
def test_a_password_may_stand_beside_the_url(tmp_path_factory: pytest.TempPathFactory, password: str) -> None:
    folder = tmp_path_factory.mktemp("beside")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PW", password)
        config = load(
            folder,
            """
            project: shop
            online_store: {url: "redis://cache:6379", username: me, password: "${PW}"}
            """,
        )
    assert config.online_url is not None
    found = redis.ConnectionPool.from_url(config.online_url).connection_kwargs
    assert (found["username"], found["password"], found["host"]) == ("me", password, "cache")
    assert config.shown()["online_store"]["password"] == "***"


@pytest.mark.parametrize(
    "section", ["{password: x}", '{url: "redis://a:b@c", password: x}', '{url: "redis://c", username: x}']
)
def test_a_password_is_given_once(tmp_path: Path, section: str) -> None:
    with pytest.raises(ConfigError, match=r"online_store: expected a (url|password)"):
        load(tmp_path, f"project: shop\nonline_store: {section}\n")


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("redis://:a/b@cache:6379/1", "a/b"),
        ("redis://:a#b@cache:6379/1", "a#b"),
        ("redis://:a?b@cache:6379/1", "a?b"),
        ("redis://:a@b@cache:6379/1", "a@b"),
        ("redis://:12/3@cache:6379/1", "12/3"),
        ("redis://me:1#2@cache:6379/1", "1#2"),
        ("redis://me:a%zz@cache:6379/1", "a%zz"),
        ("redis://me:a%2Fb@cache:6379/1", "a/b"),
        ("redis://:p@ss/w#o?r@cache:6379/1", "p@ss/w#o?r"),
    ],
)
def test_a_password_with_any_character_is_read_from_a_url(url: str, password: str) -> None:
    found = redis.ConnectionPool.from_url(with_quoted_password(url)).connection_kwargs
    assert (found["password"], found["host"], found["port"], found["db"]) == (password, "cache", 6379, 1)
    assert password not in without_secrets(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache:6379/0?client_name=a@b",
        "redis://[::1]:6379/0",
        "unix:///srv/a@b/redis.sock?db=1",
        "rediss://me:secret@cache:6380/2",
        "sqlite:////srv/a@b.db",
        "plain text @ all",
    ],
)
def test_other_urls_are_left_as_they_are(url: str) -> None:
    assert with_quoted_password(url) == url


def test_what_came_from_the_environment_is_shown_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "HOST", "GROUP", "SIZE", "DATABASE"):
        monkeypatch.setenv(name, f"value-of-{name}")
    monkeypatch.setenv("URL", "redis://me:value-of-URL@value-of-URL-host:1")
    config = load(
        tmp_path,
        """
        project: shop
        registry: ${DATABASE}
        online_store: {url: "${URL}"}
        kafka: {bootstrap.servers: "${HOST}:9092", group.id: "${GROUP:-nothing}", sasl.password: "${GROUP}"}
        spark: {spark.executor.memory: "${SIZE}", spark.hadoop.x: "${SIZE}"}
        """,
    )
    assert "value-of" not in str(config.shown())
    assert config.shown()["online_store"]["url"] == "${URL}"
    assert config.shown()["kafka"] == {
        "bootstrap.servers": "${HOST}:9092",
        "group.id": "${GROUP}",
        "sasl.password": "***",
    }
    assert config.shown()["spark"] == {"spark.executor.memory": "${SIZE}", "spark.hadoop.x": "***"}
    error = FeatureStoreError("Redis at value-of-URL-host:1", got="value-of-HOST, value-of-DATABASE and value-of-URL")
    assert "value-of" not in str(error)
    assert "value-of" not in error.where + error.got + error.reason


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("project: shop\nonline_store: {timeout_ms: '${PW}'}", "online_store.timeout_ms"),
        ("project: shop\nonline_store: {buckets: '${PW}'}", "online_store.buckets"),
        ("project: shop\nengine: '${PW}'", "engine"),
        ("project: '${PW}'", "project"),
        ("project: shop\nstreaming: {dead_letters: '${PW}!'}", "streaming.dead_letters"),
        ("project: shop\nkafka: '${PW}'", "kafka"),
        ("project: shop\nonline_store: {password: *S3CRET}", "line 2"),
    ],
)
def test_no_error_of_the_file_shows_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, where: str
) -> None:
    monkeypatch.setenv("PW", "S3CRET-9")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert where in caught.value.where
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "is_shown"),
    [
        ("kafka: {bootstrap.servers: 'value:9'}", True),
        ("kafka: {security.protocol: value}", True),
        ("kafka: {session.timeout.ms: '7001'}", True),
        ("kafka: {session.timeout.ms: 7001}", True),
        ("kafka: {enable.auto.commit: false}", True),
        ("kafka: {ssl.keystore.key: value}", False),
        ("kafka: {sasl.oauthbearer.config: value}", False),
        ("kafka: {sasl.password: 7001}", False),
        ("spark: {spark.master: value}", True),
        ("spark: {spark.executor.memory: 7001m}", True),
        ("spark: {spark.x: 7001}", True),
        ("spark: {spark.hadoop.fs.azure.account.key.a: value}", False),
        ("spark: {spark.hadoop.fs.azure.sas.a: value}", False),
        ("spark: {spark.driver.extraJavaOptions: -Dpw=value}", False),
        ("spark: {spark.redis.auth: 7001}", False),
    ],
)
def test_settings_of_drivers_are_hidden_unless_they_are_harmless(tmp_path: Path, setting: str, is_shown: bool) -> None:
    shown = str(load(tmp_path, f"project: shop\n{setting}\n").shown()[setting.partition(":")[0]])
    assert any(text in shown for text in ("value", "7001", "False")) == is_shown


def test_a_text_that_is_hidden_is_hidden_in_its_other_spellings() -> None:
    hide("p/w with#signs", "${PW}")
    assert redacted("at redis://:p%2Fw%20with%23signs@cache and p/w with#signs") == "at redis://:${PW}@cache and ${PW}"


def test_what_a_project_keeps_is_private(tmp_path: Path) -> None:
    """This includes files that an earlier release left readable, and holds under any umask."""
    state = tmp_path / ".feature_store"
    state.mkdir(mode=0o755)
    (state / "old.db").write_text("")
    (state / "old.db").chmod(0o644)
    before = os.umask(0)
    try:
        folder = private_folder(state / "a" / "b")
        files = [private_file(folder / "new"), private_file(state / "old.db")]
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (state, state / "a", folder)} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700, "pytest's own"


PROJECT = """
import os, sys
os.umask(0)
from datetime import UTC, datetime
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
folder = Path(sys.argv[1])
(folder / "feature_store.yaml").write_text("project: shop\\n")
(folder / "features.py").write_text('''
from feature_store import *
user = Entity("user", join_key="user_id")
v = FeatureView("v", entities=[user], schema=[Field("x", Float32, max=9.0)],
                source=ParquetSource("rows.parquet", event_timestamp="at"))
s = FeatureService("s", features=[v])
''')
at = pa.array([datetime.now(UTC)] * 2, pa.timestamp("us", "UTC"))
pq.write_table(pa.table({"user_id": pa.array([1, None]), "at": at, "x": pa.array([1.0, 2.0], pa.float32())}),
               folder / "rows.parquet")
from feature_store import FeatureStore
with FeatureStore(folder) as store:
    store.apply()
    assert store.materialize()[0].quarantined == 1
    store.get_historical_features(pa.table({"user_id": [1], "event_timestamp": at[:1]}), "s")
    open_to_others = [str(path) for path in (folder / ".feature_store").rglob("*") if path.lstat().st_mode & 0o077
                      and not path.is_symlink()]
    print(open_to_others)
"""


def test_a_project_leaves_nothing_that_others_can_read(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROJECT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert stat.S_IMODE((tmp_path / ".feature_store").stat().st_mode) == 0o700
