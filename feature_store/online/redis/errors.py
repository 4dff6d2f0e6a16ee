"""The one mapping from error replies of Redis to this library's errors.

A reply such as `-OOM command not allowed when used memory > 'maxmemory'.` starts with a code. Each code that needs an
action of its own has a row in the table below. The message is written here and does not repeat Redis's text, which can
hold keys and values ("unknown command 'X', with args beginning with: …").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from feature_store import errors

if TYPE_CHECKING:
    from feature_store.errors import StoreReplyError


class _Row(NamedTuple):
    kind: type[StoreReplyError]
    problem: str
    hint: str


_CLUSTER_HINT = "give the URL of the Cluster, which names some of its nodes: redis+cluster://host:port,host:port"
_PASSWORD_HINT = "check the user and the password of the online store's URL (`online_store.url`)"
_ROWS: dict[str, _Row] = {
    "READONLY": _Row(
        errors.ReadOnlyReplicaError,
        "this Redis is a read-only replica",
        "use the master's URL. After a failover a DNS name or a Sentinel leads to the new master; the connection was "
        "closed, so that the next one is made anew",
    ),
    "MOVED": _Row(
        errors.WrongNodeError, "this Redis is a node of a Cluster, and another node holds the keys", _CLUSTER_HINT
    ),
    "ASK": _Row(
        errors.WrongNodeError, "this Redis is a node of a Cluster that moves the keys to another node", _CLUSTER_HINT
    ),
    "CROSSSLOT": _Row(
        errors.CrossSlotError,
        "this Redis is a node of a Cluster, and one command names keys of several hash slots",
        _CLUSTER_HINT,
    ),
    "CLUSTERDOWN": _Row(errors.ClusterDownError, "the Redis Cluster is down", "look at `CLUSTER INFO`"),
    "TRYAGAIN": _Row(
        errors.ClusterDownError, "the Redis Cluster moves the keys between nodes", "try again when it has finished"
    ),
    "LOADING": _Row(
        errors.LoadingError,
        "Redis is loading its data from disk",
        "it answers when it has finished: try again; `INFO persistence` shows how long that takes",
    ),
    "MASTERDOWN": _Row(
        errors.MasterDownError,
        "this Redis is a replica that has lost its master",
        "use the master's URL, or set `replica-serve-stale-data yes` to read old values",
    ),
    "NOAUTH": _Row(errors.AuthenticationError, "Redis wants a password", _PASSWORD_HINT),
    "WRONGPASS": _Row(errors.AuthenticationError, "Redis does not accept the user or the password", _PASSWORD_HINT),
    "NOPERM": _Row(
        errors.PermissionDeniedError,
        "the ACL of the Redis user does not allow this",
        "grant it with ACL SETUSER; `ACL LOG` on the server shows what was refused",
    ),
    "BUSY": _Row(
        errors.BusyScriptError,
        "a script that runs too long blocks Redis",
        "end it with SCRIPT KILL; this library's scripts run about 1 ms",
    ),
    "UNKILLABLE": _Row(
        errors.BusyScriptError, "a script that has written and runs too long blocks Redis", "wait, or restart Redis"
    ),
    "OOM": _Row(
        errors.StoreFullError,
        "Redis has reached its memory limit and refuses writes",
        "raise `maxmemory`, or store less (prune features, `expire_keys: true`)",
    ),
    "NOSCRIPT": _Row(
        errors.ScriptMissingError,
        "Redis does not have this library's script",
        "run it again: the script is loaded anew",
    ),
    "MISCONF": _Row(
        errors.NotPersistingError,
        "Redis refuses writes because it cannot save to disk",
        "look at Redis's log: is the disk full, or the folder not writable?",
    ),
    "NOREPLICAS": _Row(
        errors.TooFewReplicasError,
        "Redis refuses writes because too few replicas are connected",
        "look at `INFO replication` and `min-replicas-to-write`",
    ),
    "DENIED": _Row(
        errors.AuthenticationError,
        "Redis runs in protected mode and refuses connections from other machines",
        "set a password or `bind` on the server",
    ),
}
# Errors without a code of their own, by the start of their text.
_TEXTS = {
    "invalid password": "WRONGPASS",
    "AUTH <password> called without any password": "WRONGPASS",
    "Client sent AUTH, but no password is set": "WRONGPASS",
    "The user executing the script can't": "NOPERM",  # Redis 7
    "ACL failure in script": "NOPERM",  # Valkey
}
# redis-py removes the code from the text of the errors that it has classes for.
_REDIS_PY = {
    "AskError": "ASK",
    "AuthenticationError": "WRONGPASS",
    "BusyLoadingError": "LOADING",
    "ClusterCrossSlotError": "CROSSSLOT",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "MovedError": "MOVED",
    "NoPermissionError": "NOPERM",
    "NoScriptError": "NOSCRIPT",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "TryAgainError": "TRYAGAIN",
}
_CODE = re.compile(r"[A-Z][A-Z0-9]*\b")
# Before Redis 7 an error inside a script comes as `ERR Error running script (call to f_…): @user_script:12: -OOM …`.
_INSIDE_SCRIPT = re.compile(r"-([A-Z]+) ")
_COMMAND = re.compile(r"'([a-zA-Z|]{1,40})' command")
# The places where Redis's texts begin to quote arguments, which can be keys and values.
_QUOTED = re.compile(r"""(with args beginning with| near |['"`]).*""", re.DOTALL)
_SHOWN_CHARACTERS = 120


def is_reply_error(error: Exception) -> bool:
    """Whether an error of redis-py is an error reply of the server, which `reply_error` maps."""
    return type(error).__name__ in _REDIS_PY or any(kind.__name__ == "ResponseError" for kind in type(error).__mro__)


def code_of(reply: Exception) -> str:
    """The code of an error reply of Redis: `MOVED`, `OOM`, …"""
    return _code(type(reply).__name__, str(reply))


def is_connection_refused(reply: Exception) -> bool:
    """Whether an error reply to the first command, a PING, refuses the connection, as at `maxclients`.

    Another reply, such as NOPERM or LOADING, shows that the server takes commands on the connection.
    """
    return code_of(reply) in ("ERR", "DENIED")


def reply_error(where: str, reply: Exception) -> StoreReplyError:
    """This library's error for an error reply of Redis.

    Args:
        where: the server or the attempted action, such as `Redis at redis://cache:6379`.
        reply: the error of hiredis or redis-py.
    """
    text = str(reply)
    code = _code(type(reply).__name__, text)
    row = _ROWS.get(code)
    if row is None:
        kind, problem, hint = errors.StoreReplyError, f"Redis answered with an error: {_safe(text)}", ""
    else:
        kind, hint = row.kind, row.hint
        problem = f"{row.problem} ({code}{_detail(code, text)})"
    error = kind(where, problem=problem, hint=hint)
    error.code = code
    if isinstance(error, errors.WrongNodeError):
        error.target = text.split()[-1]
    return error


def _code(kind: str, text: str) -> str:
    if kind in _REDIS_PY:
        return _REDIS_PY[kind]
    for start, code in _TEXTS.items():
        if text.removeprefix("ERR ").startswith(start):
            return code
    found = _CODE.match(text)
    code = found[0] if found else "ERR"
    if code == "ERR" and "script" in text:
        inside = _INSIDE_SCRIPT.search(text)
        return inside[1] if inside else code
    return code


def _detail(code: str, text: str) -> str:
    """The part of the text that helps and holds no key: the node that has the keys, or the refused command."""
    if code in ("MOVED", "ASK"):
        return f" to {text.split()[-1]}"
    command = _COMMAND.search(text) if code == "NOPERM" else None
    return f" {command[1].upper()}" if command else ""


def _safe(text: str) -> str:
    return _QUOTED.sub("…", text.partition("\n")[0])[:_SHOWN_CHARACTERS]
