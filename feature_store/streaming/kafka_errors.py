"""The meaning of the Kafka client's errors and what to do about them, by the client's error names."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from feature_store.errors import StreamError


class Reason(NamedTuple):
    """An error of the client: its name, such as `TOPIC_AUTHORIZATION_FAILED`, and its text."""

    name: str
    text: str


_LOGIN = (
    "the broker refuses the login",
    "check sasl.username, sasl.password and sasl.mechanism under `kafka:` in feature_store.yaml",
)
_TLS = (
    "no TLS connection can be made",
    "does the broker speak TLS on this port? Check security.protocol and the ssl.* settings under `kafka:`",
)
_MEANINGS = {
    "_AUTHENTICATION": _LOGIN,
    "SASL_AUTHENTICATION_FAILED": _LOGIN,
    "UNSUPPORTED_SASL_MECHANISM": _LOGIN,
    "ILLEGAL_SASL_STATE": _LOGIN,
    "_SSL": _TLS,
    "TOPIC_AUTHORIZATION_FAILED": (
        "the user has no permission for the topic",
        "grant READ on the topics that are streamed, and WRITE on those of dead letters",
    ),
    "GROUP_AUTHORIZATION_FAILED": ("the user has no permission for the consumer group", "grant READ on the group"),
    "CLUSTER_AUTHORIZATION_FAILED": (
        "the user may write to no topic",
        "grant WRITE on the topics of dead letters",
    ),
    "_RESOLVE": ("the broker's name is not known", "check bootstrap.servers under `kafka:` in feature_store.yaml"),
    "UNKNOWN_TOPIC_OR_PART": ("there is no such topic or partition", "create it, or correct the name"),
    "_INVALID_ARG": ("a setting is wrong", "correct it under `kafka:` in feature_store.yaml"),
}
_NOT_REACHED = "is the broker running, and are bootstrap.servers and security.protocol under `kafka:` right?"
# Errors that another attempt cannot resolve.
FINAL = frozenset({"_FATAL", *_MEANINGS} - {"_RESOLVE"})


def is_telling(reason: Reason) -> bool:
    """Whether an error says more than that no broker answers."""
    return _meaning(reason) is not None


def stream_error(where: str, reason: Reason) -> StreamError:
    """This library's error for an error of the client."""
    meaning = _meaning(reason)
    if meaning is None:
        return StreamError(where, got=f"{reason.name}: {reason.text}", hint=_NOT_REACHED)
    problem, hint = meaning
    return StreamError(where, problem=f"{problem} ({reason.name}: {reason.text})", hint=hint)


def missing_topic(topic: str, settings: Mapping[str, Any]) -> StreamError:
    """The error for a topic that does not exist, with the command that creates it."""
    server = str(settings.get("bootstrap.servers", "localhost:9092")).partition(",")[0]
    is_plain = str(settings.get("security.protocol", "plaintext")).lower() == "plaintext"
    command = ["kafka-topics", "--bootstrap-server", server, "--create", "--topic", topic, "--partitions", "4"]
    command += [] if is_plain else ["--command-config", "client.properties"]
    hint = f"create it with as many partitions as workers will run at most, such as `{shlex.join(command)}`"
    return StreamError(f"topic {topic}", problem="Kafka has no topic of that name", hint=hint)


def _meaning(reason: Reason) -> tuple[str, str] | None:
    if reason.name == "_TRANSPORT" and "SSL handshake" in reason.text:
        return _TLS
    return _MEANINGS.get(reason.name)
