"""feature_store.yaml: its keys, read and checked.

    project: movielens
    registry: .feature_store/registry.db          # or any SQLAlchemy URL
    online_store:
      url: redis://:${REDIS_PASSWORD}@cache:6379  # without it: the embedded server; redis+cluster://…, redis+sentinel://…
      buckets: 1
      expire_keys: false
      timeout_ms: 1000
    engine: local                                 # or spark
    definitions: features.py                      # or a folder, a glob, a module, a package, or a list of these
    local: {memory_limit: 512MB}                  # DuckDB's; it spills the rest to disk
    spark: {spark.executor.memory: 4g}
    kafka: {bootstrap.servers: "localhost:9092"}
    streaming: {dead_letters: "{topic}.dead-letter"}
    connections: {warehouse: "${WAREHOUSE_URL}"}     # databases, by the names that each SqlSource uses

`${NAME}` and `${NAME:-default}` in values come from the environment, so that no secret need be in the file. Variables
before the host of a URL (`redis://:${PASSWORD}@host`) are percent-encoded, so a password may hold any character: set it
as it is. Values from the environment are never shown.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from feature_store._private_files import STATE_FOLDER
from feature_store._redaction import has_user, with_quoted_password, with_user
from feature_store.errors import ConfigError
from feature_store.project.config_secrets import hide_secrets, shown
from feature_store.project.config_variables import VARIABLE, interpolated

FILE_NAME = "feature_store.yaml"
DEFAULT_REGISTRY = f"{STATE_FOLDER}/registry.db"
MAX_BUCKETS = 16_384  # as many as Redis Cluster has slots

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]i?B)", re.IGNORECASE)
_UNITS = {f"{unit}B": 1000**power for power, unit in enumerate("KMGT", 1)}
_UNITS |= {f"{unit}IB": 1024**power for power, unit in enumerate("KMGT", 1)}
_LEAST_MEMORY = 64_000_000  # DuckDB cannot sort with less

Options = dict[str, str | int | float | bool]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OnlineStoreConfig(_Section):
    """Where and how rows are stored.

    Attributes:
        url: `redis://`, `rediss://` or `unix://`; `redis+cluster://host:port,host:port` for a Redis Cluster;
            `redis+sentinel://host:port,host:port/service` for Sentinels; None: the embedded server.
        username: a user of the server (ACL). Alternative to a user in the URL.
        password: the password as it is, with any characters. Alternative to a password in the URL.
        sentinel_username: a user of the Sentinels, which may differ from that of the servers.
        sentinel_password: the password of that user.
        read_from: `primary`, `replica` or `nearest`: the nodes of a Cluster or of Sentinels that clients read from.
        hedge: whether a read that a server is slow to answer is sent to another server, too. It needs `read_from`.
        buckets: the number of hash tags that keys are spread over. None: 1 on one server; on a Cluster a number
            between 8 and 16 for each primary, which stays while there are 4 or more for each. See online/buckets.py.
        expire_keys: whether Redis deletes a row once every view in it has expired.
        timeout_ms: the longest time of a request to Redis, in milliseconds.
        cache: the size of the client's cache in the process, in bytes or as a text such as `64MB`, by the name of a
            row group or stream view. See `OnlineClient`.
    """

    url: str | None = Field(default=None, min_length=1, repr=False)
    username: str | None = Field(default=None, min_length=1, repr=False)
    password: str | None = Field(default=None, min_length=1, repr=False)
    sentinel_username: str | None = Field(default=None, min_length=1, repr=False)
    sentinel_password: str | None = Field(default=None, min_length=1, repr=False)
    read_from: Literal["primary", "replica", "nearest"] | None = None
    hedge: bool | None = None
    buckets: int | None = Field(default=None, ge=1, le=MAX_BUCKETS)
    expire_keys: bool = False
    timeout_ms: int = Field(default=1000, ge=1)
    cache: dict[str, int | str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_password(self) -> OnlineStoreConfig:
        if self.username is not None and self.password is None:
            raise ValueError("a password with the username")
        if self.password is not None and (self.url is None or has_user(self.url)):
            raise ValueError("a url without a user in it, since password is set")
        if self.hedge and self.read_from in (None, "primary"):
            raise ValueError("read_from: replica or nearest, since hedge is set")
        if self.url is None and (self.read_from or self.sentinel_username or self.sentinel_password):
            raise ValueError("a url, since read_from or the password of Sentinels is set")
        return self


class LocalConfig(_Section):
    """How the local engine computes.

    Attributes:
        memory_limit: the memory that DuckDB may use to sort rows, such as `512MB`, `2GB` or `1.5GiB`; at least 64 MB.
            It spills the rest to disk, into `.feature_store`. A job takes about 500 MB more.
    """

    memory_limit: str = "512MB"

    @field_validator("memory_limit")
    @classmethod
    def _is_a_size(cls, text: str) -> str:
        found = _SIZE.fullmatch(text.strip())
        if found is None or float(found[1]) * _UNITS[found[2].upper()] < _LEAST_MEMORY:
            raise ValueError("a size of at least 64MB, such as 512MB or 2GB")
        return text.strip()


class StreamingConfig(_Section):
    """How events are streamed.

    Attributes:
        dead_letters: the topic for messages that cannot be merged. `{topic}` is the topic of the message.
    """

    dead_letters: str = Field(default="{topic}.dead-letter", pattern=r"^([A-Za-z0-9._-]|\{topic\})+$")


class Config(_Section):
    """The contents of feature_store.yaml. `repr` and `shown()` hide secrets.

    Attributes:
        project: letters, digits and underscores, at most 64, not starting with a digit.
        registry: an SQLAlchemy URL, or the path of a SQLite file; see `registry_url`.
        online_store: where and how rows are stored.
        engine: the engine that materializes and joins.
        definitions: the Python files with definitions: a file, a folder, a glob such as `defs/*.py`, a module or a
            package, or a list of these, relative to the file's folder. Default: features.py, and every other Python
            file in the folder itself whose module-level code makes definitions.
        spark: settings of Spark, passed through. Settings that begin with `kafka.` are options of its Kafka source.
        kafka: settings of the Kafka client, passed through.
        streaming: how events are streamed.
        local: how the local engine computes.
        connections: the URLs of databases, by the names that SqlSource uses. The environment variable
            `FEATURE_STORE_CONNECTION_<NAME>` comes before the file.
    """

    project: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]
    registry: str = Field(default=DEFAULT_REGISTRY, min_length=1, repr=False)
    online_store: OnlineStoreConfig = OnlineStoreConfig()
    engine: Literal["local", "spark"] = "local"
    definitions: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = ()
    spark: Options = Field(default_factory=dict, repr=False)
    kafka: Options = Field(default_factory=dict, repr=False)
    streaming: StreamingConfig = StreamingConfig()
    local: LocalConfig = LocalConfig()
    connections: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")], str] = Field(
        default_factory=dict, repr=False
    )

    _folder: Path = PrivateAttr(default=Path())
    _written: dict[str, Any] = PrivateAttr(default_factory=dict)

    @field_validator("definitions", mode="before")
    @classmethod
    def _one_name_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @property
    def folder(self) -> Path:
        """The folder that feature_store.yaml was read from."""
        return self._folder

    @property
    def state_folder(self) -> Path:
        """The folder for the library's own files: registry, embedded server, job files."""
        return self._folder / STATE_FOLDER

    @property
    def online_url(self) -> str | None:
        """The online store's URL with its user and password; None: the embedded server."""
        store = self.online_store
        if store.url is None:
            return None
        url = store.url if store.password is None else with_user(store.url, store.username or "", store.password)
        options = {name: getattr(store, name) for name in ("sentinel_username", "sentinel_password", "read_from")}
        options["hedge"] = "true" if store.hedge else None
        given = urlencode({name: value for name, value in options.items() if value is not None})
        if not given:
            return url
        url = with_quoted_password(url)  # which may hold a question mark
        return f"{url}{'&' if '?' in url else '?'}{given}"

    @property
    def registry_url(self) -> str:
        """The registry as an SQLAlchemy URL. The path of a SQLite file is relative to the folder."""
        prefix = "sqlite:///"
        if "://" in self.registry and not self.registry.startswith(prefix):
            return with_quoted_password(self.registry)
        path = self.registry.removeprefix(prefix)
        if path in ("", ":memory:") or path.startswith("file:"):
            return self.registry
        # SQLAlchemy would resolve it against the current folder, which may be another one in the next call.
        return f"{prefix}{(self._folder / path).resolve()}"

    def shown(self) -> dict[str, Any]:
        """The configuration as JSON types, without secrets.

        Values from the environment are shown as in the file, `${NAME}`. Passwords are hidden, and all texts in `spark`
        and `kafka` except for settings that are known to be harmless.
        """
        values: dict[str, Any] = shown(self.model_dump(exclude_none=True), self._written, ())
        return values


def load_config(folder: Path) -> Config:
    """Read `feature_store.yaml` of a folder.

    Raises:
        ConfigError: the file is missing or not YAML, names a variable that is not set, or holds a key or value that is
            not allowed. The error names it.

    Example:
        >>> from pathlib import Path
        >>> from feature_store.project import load_config
        >>> load_config(Path(".")).project
        'shop'
    """
    file = folder / FILE_NAME
    written = read_document(file)
    document = interpolated(written, FILE_NAME)
    hide_secrets(document, written)
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        raise _as_config_error(error, written) from None
    config._written = written
    config._folder = folder.expanduser().resolve()
    return config


def read_document(file: Path) -> dict[str, Any]:
    """The mapping in a file, its variables not filled in.

    Raises:
        ConfigError: the file is missing, or is not YAML with a mapping.
    """
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            str(file), problem="the file does not exist", hint="run `feature-store init`, or name the project's folder"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), expected="a readable text file in UTF-8", got=str(error)) from error
    except yaml.YAMLError as error:
        raise ConfigError(_place(file, error), expected="YAML", got=_problem(error)) from None
    if not isinstance(document, dict):
        raise ConfigError(str(file), expected="a mapping, with at least `project: name`", got=type(document).__name__)
    return document


def _place(file: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return str(file) if mark is None else f"{file}, line {mark.line + 1}, column {mark.column + 1}"


def _problem(error: yaml.YAMLError) -> str:
    # PyYAML quotes the file's own text, such as a password that begins with `*`.
    problem = str(getattr(error, "problem", None) or str(error).partition("\n")[0])
    return re.sub(r"\s*(['\"]).*", "", problem)


def _as_config_error(error: ValidationError, written: dict[str, Any]) -> ConfigError:
    detail = error.errors(include_url=False)[0]
    path = [str(part) for part in detail["loc"]]
    # pydantic reports a setting of several allowed types once per type, with the type at the end of the path.
    if path[0] in ("spark", "kafka") and len(path) > 2:
        path = path[:2]
    where = f"{FILE_NAME}: {'.'.join(path)}"
    if detail["type"] in ("extra_forbidden", "invalid_key"):
        return ConfigError(where, problem="unknown key", hint=_nearest(path))
    if detail["type"] == "missing":
        return ConfigError(where, problem="a value is required")
    if path[0] in ("spark", "kafka"):
        return ConfigError(where, expected="settings: text, numbers or booleans", got=type(detail["input"]).__name__)
    return ConfigError(where, expected=_expectation(detail), got=_got(path, detail["input"], written))


def _expectation(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "string_pattern_mismatch":
            return "a name of letters, digits and underscores that does not start with a digit"
        case "model_type" | "dict_type":
            return "a mapping"
        case _:
            return detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")


def _nearest(path: list[str]) -> str:
    sections: dict[str, type[BaseModel]] = {
        "online_store": OnlineStoreConfig,
        "streaming": StreamingConfig,
        "local": LocalConfig,
    }
    model = sections[path[0]] if len(path) > 1 else Config
    known = list(model.model_fields)
    close = difflib.get_close_matches(path[-1], known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"


def _got(path: list[str], value: Any, written: Any) -> str:
    if not isinstance(value, (str, int, float)):
        return type(value).__name__
    for part in path:
        written = written.get(part) if isinstance(written, dict) else None
    safe = shown(value, written, tuple(path))
    return safe if safe != value and VARIABLE.search(str(written)) else repr(safe)
