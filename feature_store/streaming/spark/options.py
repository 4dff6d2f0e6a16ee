"""Translates Kafka settings from librdkafka's names to options of Spark's Kafka source, which uses the Java client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feature_store.engines.spark.settings import KAFKA_PREFIX
from feature_store.errors import ConfigError

# Settings with the same name in both clients. Other settings of `kafka:` concern librdkafka's queues and groups, or
# security.
_ALIKE = (
    "bootstrap.servers",
    "client.id",
    "client.rack",
    "isolation.level",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "sasl.mechanism",
    "security.protocol",
)
_RENAMED = {
    "metadata.broker.list": "bootstrap.servers",
    "sasl.mechanisms": "sasl.mechanism",
    "ssl.ca.pem": "ssl.truststore.certificates",
    "ssl.certificate.pem": "ssl.keystore.certificate.chain",
    "ssl.key.pem": "ssl.keystore.key",
    "ssl.key.password": "ssl.key.password",
}
# Settings that name a file for librdkafka. The Java client takes the file's text.
_FILES = {
    "ssl.ca.location": "ssl.truststore.certificates",
    "ssl.certificate.location": "ssl.keystore.certificate.chain",
    "ssl.key.location": "ssl.keystore.key",
}
_LOGIN = ("sasl.username", "sasl.password")
_MODULES = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}


def source_options(kafka: Mapping[str, Any], spark: Mapping[str, Any]) -> dict[str, str]:
    """The options of Spark's source `kafka`.

    Args:
        kafka: the settings under `kafka:` in feature_store.yaml.
        spark: the settings under `spark:` in feature_store.yaml.

    Raises:
        ConfigError: a security setting has no known counterpart in the Java client, or a file cannot be read.
    """
    own = {name: str(value) for name, value in spark.items() if name.startswith(KAFKA_PREFIX)}
    # As librdkafka's default: messages of uncommitted transactions are not read.
    found = {"isolation.level": "read_committed"}
    for name, value in kafka.items():
        found |= _translated(name, value, own)
    if "sasl.username" in kafka and f"{KAFKA_PREFIX}sasl.jaas.config" not in own:
        found["sasl.jaas.config"] = _jaas(kafka, found.get("sasl.mechanism", ""))
    for store in ("truststore", "keystore"):
        if any(name.startswith(f"ssl.{store}.") for name in found):
            found[f"ssl.{store}.type"] = "PEM"
    return {KAFKA_PREFIX + name: value for name, value in found.items()} | own


def _translated(name: str, value: Any, own: Mapping[str, str]) -> dict[str, str]:
    if name in _ALIKE:
        return {name: str(value)}
    if name in _RENAMED:
        return {_RENAMED[name]: str(value)}
    if name in _FILES:
        return {_FILES[name]: _text(name, Path(str(value)))}
    is_secured = name.startswith(("ssl.", "sasl.", "enable.ssl"))
    family = "sasl." if name.startswith("sasl.") else "ssl."
    if is_secured and name not in _LOGIN and not any(known.startswith(KAFKA_PREFIX + family) for known in own):
        hint = f"say the same in Java's words in `spark:`, as `{KAFKA_PREFIX}ssl.…` or `{KAFKA_PREFIX}sasl.…`"
        raise ConfigError(
            f"feature_store.yaml: kafka.{name}",
            expected="a setting that Spark's Kafka client has, too",
            got=name,
            hint=hint,
        )
    return {}


def _jaas(kafka: Mapping[str, Any], mechanism: str) -> str:
    module = _MODULES.get(mechanism)
    if module is None:
        hint = f"set `{KAFKA_PREFIX}sasl.jaas.config` in `spark:`"
        expected = f"one of {', '.join(_MODULES)}, with a name and a password"
        raise ConfigError("feature_store.yaml: kafka.sasl.mechanism", expected=expected, got=mechanism, hint=hint)
    name, password = (_quoted(str(kafka.get(key, ""))) for key in _LOGIN)
    return f"{module} required username={name} password={password};"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _text(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        got = str(error)
        raise ConfigError(f"feature_store.yaml: kafka.{name}", expected="a PEM file to read", got=got) from error
