from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feature_store.errors import ConfigError
from feature_store.online.redis.location import Location
from feature_store.project.config import Config, load_config


def load(folder: Path, text: str) -> Config:
    (folder / "feature_store.yaml").write_text(text)
    return load_config(folder)


def test_a_project_name_is_enough(tmp_path: Path) -> None:
    config = load(tmp_path, "project: shop\n")
    assert config.folder == tmp_path
    assert config.state_folder == tmp_path / ".feature_store"
    assert config.registry_url == f"sqlite:///{tmp_path}/.feature_store/registry.db"
    assert (config.engine, config.definitions, config.spark, config.kafka) == ("local", (), {}, {})
    store = config.online_store
    assert (store.url, store.buckets, store.expire_keys, store.timeout_ms) == (None, None, False, 1000)


def test_everything_can_be_said(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        project: shop
        registry: postgresql://me@host/db
        online_store: {url: "redis://cache:6379", buckets: 16, expire_keys: true, timeout_ms: 50, cache: {movie: 64MB}}
        engine: spark
        definitions: "features/*.py"
        spark: {spark.executor.memory: 4g, spark.executor.cores: 2, spark.speculation: true}
        kafka: {bootstrap.servers: "a:9092,b:9092"}
        """,
    )
    assert config.registry_url == "postgresql://me@host/db"
    assert config.online_store.model_dump(exclude_none=True) == {
        "url": "redis://cache:6379",
        "buckets": 16,
        "expire_keys": True,
        "timeout_ms": 50,
        "cache": {"movie": "64MB"},
    }
    assert config.spark == {"spark.executor.memory": "4g", "spark.executor.cores": 2, "spark.speculation": True}
    assert config.kafka == {"bootstrap.servers": "a:9092,b:9092"}


def test_what_stands_beside_the_url_of_sentinels_becomes_a_part_of_it(tmp_path: Path) -> None:
    """Values may have any characters, and secrets are not shown."""
    config = load(
        tmp_path,
        """
        project: shop
        online_store:
          url: "redis+sentinel://a:1,b:2/main"
          password: "p?ss@word"
          sentinel_password: "s&ntinel="
          read_from: replica
          hedge: true
        """,
    )
    location = Location.of(config.online_url or "")
    assert [(one.host, one.password) for one in location.others] == [("a", "s&ntinel="), ("b", "s&ntinel=")]
    assert (location.address.password, location.service, location.read_from) == ("p?ss@word", "main", "replica")
    assert location.is_hedged
    assert "s&ntinel" not in str(config.shown())
    with pytest.raises(ConfigError, match="since hedge is set"):
        load(tmp_path, "project: shop\nonline_store: {url: 'redis+cluster://a', hedge: true}\n")
    with pytest.raises(ConfigError, match="a url, since"):
        load(tmp_path, "project: shop\nonline_store: {read_from: replica}\n")


@pytest.mark.parametrize(
    ("registry", "url"),
    [
        ("state/r.db", "sqlite:///{folder}/state/r.db"),
        ("/srv/r.db", "sqlite:////srv/r.db"),
        ("sqlite:///r.db", "sqlite:///{folder}/r.db"),
        ("sqlite:////srv/r.db", "sqlite:////srv/r.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("mysql+pymysql://u@h/d", "mysql+pymysql://u@h/d"),
    ],
)
def test_a_registry_file_is_relative_to_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: str, url: str
) -> None:
    config = load(tmp_path, f"project: shop\nregistry: '{registry}'\n")
    monkeypatch.chdir("/")
    assert config.registry_url == url.format(folder=tmp_path)


def test_variables_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "p$w${d}")
    monkeypatch.setenv("BUCKETS", "4")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    config = load(
        tmp_path,
        """
        project: ${UNSET:-shop}
        registry: ${EMPTY:-r.db}
        online_store: {url: "redis://:${SECRET}@${UNSET:-cache}:6379", buckets: "${BUCKETS}"}
        kafka: {sasl.password: "${SECRET}", client.id: "$HOME ${EMPTY}"}
        """,
    )
    assert config.project == "shop"
    assert config.registry == "r.db"
    assert config.online_store.url == "redis://:p%24w%24%7Bd%7D@cache:6379"
    assert config.online_store.buckets == 4
    assert config.kafka == {"sasl.password": "p$w${d}", "client.id": "$HOME "}


def test_a_variable_that_is_not_set_is_named_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_PASSWORD", raising=False)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, 'project: shop\nonline_store: {url: "redis://:${REDIS_PASSWORD}@cache"}\n')
    assert "online_store.url" in caught.value.where
    assert "REDIS_PASSWORD" in caught.value.problem


@pytest.mark.parametrize("value", ["${", "${}", "${1A}", "${A-b}", "a ${A"])
def test_what_begins_like_a_variable_must_be_one(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="registry"):
        load(tmp_path, f"project: shop\nregistry: '{value}'\n")


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        project: shop
        registry: postgresql://me:S3CRET@host/db?sslpassword=S3CRET
        online_store: {url: "redis://me:S3CRET/@x@cache:6379?password=S3CRET"}
        spark: {spark.hadoop.fs.s3a.secret.key: S3CRET, spark.hadoop.fs.s3a.access.key: S3CRET, spark.x: 1}
        kafka: {sasl.password: S3CRET, sasl.jaas.config: "login password=S3CRET", ssl.key.pem: S3CRET, group.id: g,
                schema.registry.url: "https://u:S3CRET@host"}
        """,
    )
    shown = config.shown()
    for text in (str(shown), repr(config), str(config), repr(config.online_store)):
        assert "S3CRET" not in text
    assert shown["registry"] == "postgresql://me:***@host/db?sslpassword=***"
    assert shown["online_store"]["url"] == "redis://me:***@cache:6379?password=***"
    assert shown["kafka"]["group.id"] == "g"
    assert shown["spark"]["spark.x"] == 1
    assert "S3CRET" in str(config.online_store.url)


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("project: shop\nregistri: x\n", "registri", "'registry'"),
        ("project: shop\nonline_store: {bucket: 2}\n", "online_store.bucket", "'buckets'"),
        ("project: shop\nzzz: 1\n", "zzz", "known keys: project, registry"),
        ("project: 9lives\n", "project", "does not start with a digit"),
        ("project: a-b\n", "project", "letters, digits and underscores"),
        (f"project: {'x' * 65}\n", "project", "64"),
        ("registry: x\n", "project", "a value"),
        ("project: shop\nengine: dask\n", "engine", "'local' or 'spark'"),
        ("project: shop\nonline_store: {buckets: 0}\n", "online_store.buckets", "1"),
        ("project: shop\nonline_store: {buckets: many}\n", "online_store.buckets", "integer"),
        ("project: shop\nonline_store: 5\n", "online_store", "a mapping, got 5"),
        ("project: shop\nkafka: {a: [1]}\n", "kafka.a", "got list"),
        ("project: shop\nkafka: {a: }\n", "kafka.a", "got NoneType"),
        ("project: shop\nkafka: text\n", "kafka", "got str"),
        ("project: [a]\n", "project", "got list"),
        ("project: shop\n1: x\n", "1", "known key"),
        ("- project\n", "feature_store.yaml", "a mapping"),
        ("", "feature_store.yaml", "a mapping"),
        ("project: shop\nkafka: {a: 1\nengine: x", "line 3", "YAML"),
        ("project: !!python/object:os.system x\n", "line 1", "YAML"),
        ("project: \x00", "feature_store.yaml", "YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, where: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert where in caught.value.where
    assert says in str(caught.value)


def test_a_wrong_value_is_not_shown_when_it_is_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "project: redis://me:S3CRET@host\n")
    assert "S3CRET" not in str(caught.value)


def test_a_missing_file_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="init"):
        load_config(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"project: \xff\xfe", None])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "feature_store.yaml"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(ConfigError):
        load_config(tmp_path)


def test_the_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(tmp_path, "project: shop\n")
    monkeypatch.chdir(tmp_path)
    config: Any = load_config(Path())
    assert config.folder == tmp_path
