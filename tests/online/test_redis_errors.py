"""Errors of Redis: each has a class of its own, says what to do, and repeats no key and no value."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
import redis
from hypothesis import given, strategies as st

from feature_store import errors
from feature_store.online.redis.errors import is_reply_error, reply_error

REPLIES = {
    "READONLY You can't write against a read only replica.": errors.ReadOnlyReplicaError,
    "READONLY You can't write against a read only replica. script: 5ef1, on @user_script:12.": errors.ReadOnlyReplicaError,
    "ERR Error running script (call to f_5ef1): @user_script:9: -READONLY You can't write against a read only replica.": errors.ReadOnlyReplicaError,
    "MOVED 6580 127.0.0.1:7001": errors.WrongNodeError,
    "ASK 6580 127.0.0.1:7001": errors.WrongNodeError,
    "CROSSSLOT Keys in request don't hash to the same slot": errors.CrossSlotError,
    "CLUSTERDOWN Hash slot not served": errors.ClusterDownError,
    "TRYAGAIN Multiple keys request during rehashing of slot": errors.ClusterDownError,
    "LOADING Redis is loading the dataset in memory": errors.LoadingError,
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": errors.MasterDownError,
    "NOAUTH Authentication required.": errors.AuthenticationError,
    "WRONGPASS invalid username-password pair or user is disabled.": errors.AuthenticationError,
    "ERR AUTH <password> called without any password configured for the default user. Are you sure?": errors.AuthenticationError,
    "NOPERM User reader has no permissions to run the 'mget' command": errors.PermissionDeniedError,
    "NOPERM No permissions to access a key": errors.PermissionDeniedError,
    "The user executing the script can't run this command or subcommand script: 1a": errors.PermissionDeniedError,
    "ERR ACL failure in script: User a has no permissions to run the 'time' command": errors.PermissionDeniedError,
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": errors.BusyScriptError,
    "UNKILLABLE Sorry the script already executed write commands": errors.BusyScriptError,
    "OOM command not allowed when used memory > 'maxmemory'.": errors.StoreFullError,
    "OOM command not allowed when used memory > 'maxmemory'. script: 5ef1, on @user_script:3.": errors.StoreFullError,
    "NOSCRIPT No matching script. Please use EVAL.": errors.ScriptMissingError,
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.": errors.NotPersistingError,
    "NOREPLICAS Not enough good replicas to write.": errors.TooFewReplicasError,
    "DENIED Redis is running in protected mode": errors.AuthenticationError,
    "WRONGTYPE Operation against a key holding the wrong kind of value": errors.StoreReplyError,
    "ERR syntax error": errors.StoreReplyError,
}


def as_redis_py(text: str) -> Exception:
    from redis._parsers import _RESP2Parser

    made: Exception = _RESP2Parser.parse_error(text)
    return made


@pytest.mark.parametrize("text", list(REPLIES))
@pytest.mark.parametrize("made", [hiredis.ReplyError, as_redis_py], ids=["hiredis", "redis-py"])
def test_every_refusal_is_a_class_with_a_hint(made: Any, text: str) -> None:
    reply = made(text)
    assert made is hiredis.ReplyError or is_reply_error(reply)
    error = reply_error("Redis at redis://cache:6379", reply)
    assert type(error) is REPLIES[text]
    assert str(error).startswith("Redis at redis://cache:6379: ") and error.problem
    assert error.hint or type(error) is errors.StoreReplyError
    assert type(error).__doc__


def test_what_leads_to_the_wrong_server_says_so() -> None:
    def is_wrong(code: str) -> bool:
        return reply_error("", hiredis.ReplyError(f"{code} …")).is_wrong_server

    assert all(map(is_wrong, ["READONLY", "MOVED", "ASK", "MASTERDOWN", "CLUSTERDOWN"]))
    assert not any(map(is_wrong, ["OOM", "LOADING", "BUSY", "NOPERM", "NOSCRIPT", "ERR"]))


def test_what_helps_is_shown() -> None:
    assert "MOVED to 127.0.0.1:7001" in str(reply_error("", hiredis.ReplyError("MOVED 6580 127.0.0.1:7001")))
    refused = hiredis.ReplyError("NOPERM User reader has no permissions to run the 'mget' command")
    assert "NOPERM MGET" in str(reply_error("", refused))


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4, max_size=30).map(lambda text: f"{text}~")
)
def test_no_key_and_no_value_is_repeated(secret: str) -> None:
    for text in (
        f"ERR unknown command 'NOPE', with args beginning with: '{secret}' 'x' ",
        f"ERR unknown command `NOPE`, with args beginning with: `{secret}`, ",
        f"ERR value near '{secret}' is not an integer",
        f'ERR Error running script: "{secret}"',
        f"NOPERM User reader has no permissions to access the '{secret}' key",
        f"OOM command not allowed: '{secret}'",
    ):
        for made in (hiredis.ReplyError, as_redis_py):
            assert secret not in str(reply_error("", made(text)))


def test_errors_of_connections_are_no_replies() -> None:
    assert not is_reply_error(redis.ConnectionError("refused"))
    assert not is_reply_error(redis.TimeoutError("too late"))
