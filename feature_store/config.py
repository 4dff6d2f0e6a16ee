"""feature_store.yaml: what it may say, read and checked.

    project: movielens
    registry: .feature_store/registry.db          # or any SQLAlchemy URL
    online_store:
      url: redis://:${REDIS_PASSWORD}@cache:6379  # without it: the embedded server
      buckets: 1
      expire_keys: false
      timeout_ms: 1000
    engine: local                                 # or spark
    definitions: "*.py"
    spark: {spark.executor.memory: 4g}
    kafka: {bootstrap.servers: "localhost:9092"}
    streaming: {dead_letters: "{topic}.dead-letter"}

`${NAME}` and `${NAME:-default}` in values are taken from the environment, so that no secret need be in the file.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints, ValidationError

from feature_store.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

FILE_NAME = "feature_store.yaml"
STATE_FOLDER = ".feature_store"
DEFAULT_REGISTRY = f"{STATE_FOLDER}/registry.db"
MAX_BUCKETS = 16_384  # as many as Redis Cluster has slots

_VARIABLE = re.compile(r"\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
# Up to the last @, since a password may hold one: rather too much is hidden than too little.
_URL_PASSWORD = re.compile(r"(://[^:/?#@\s]*):\S*@")
_QUERY_PASSWORD = re.compile(r"(?i)([?&][a-z_.]*(?:password|secret|token|key)[a-z_.]*=)[^&\s]*")
_SECRET_NAME = re.compile(r"(?i)password|passwd|secret|token|credential|jaas|private|pem$|api[._-]?key|access[._-]?key")
_HIDDEN = "***"

Options = dict[str, str | int | float | bool]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OnlineStoreConfig(_Section):
    """Where and how rows are stored.

    Attributes:
        url: `redis://`, `rediss://` or `unix://`; None: the embedded server.
        buckets: how many hash tags the keys are spread over; more than 1 is for Redis Cluster.
        expire_keys: whether Redis drops a row once every view in it has expired.
        timeout_ms: milliseconds to wait for an answer.
    """

    url: str | None = Field(default=None, min_length=1, repr=False)
    buckets: int = Field(default=1, ge=1, le=MAX_BUCKETS)
    expire_keys: bool = False
    timeout_ms: int = Field(default=1000, ge=1)


class StreamingConfig(_Section):
    """How events are streamed.

    Attributes:
        dead_letters: the topic of messages that cannot be merged; `{topic}` stands for the topic that they came from.
    """

    dead_letters: str = Field(default="{topic}.dead-letter", pattern=r"^([A-Za-z0-9._-]|\{topic\})+$")


class Config(_Section):
    """What feature_store.yaml says. Its repr and `shown()` hide secrets.

    Attributes:
        project: letters, digits and underscores, at most 64, not starting with a digit.
        registry: an SQLAlchemy URL, or the path of a SQLite file; see `registry_url`.
        online_store: where rows are served from.
        engine: what materializes and joins.
        definitions: glob of the Python files with definitions, in the file's folder.
        spark: Spark's settings, passed through; those that begin with `kafka.` are options of its source of streams.
        kafka: the Kafka client's settings, passed through.
        streaming: how events are streamed.
    """

    project: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]
    registry: str = Field(default=DEFAULT_REGISTRY, min_length=1, repr=False)
    online_store: OnlineStoreConfig = OnlineStoreConfig()
    engine: Literal["local", "spark"] = "local"
    definitions: str = Field(default="*.py", min_length=1)
    spark: Options = Field(default_factory=dict, repr=False)
    kafka: Options = Field(default_factory=dict, repr=False)
    streaming: StreamingConfig = StreamingConfig()

    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The folder that feature_store.yaml was read from."""
        return self._folder

    @property
    def state_folder(self) -> Path:
        """Where the project keeps what it makes by itself: registry, embedded server, job files."""
        return self._folder / STATE_FOLDER

    @property
    def registry_url(self) -> str:
        """The registry as an SQLAlchemy URL; a SQLite file is relative to the folder."""
        prefix = "sqlite:///"
        if "://" in self.registry and not self.registry.startswith(prefix):
            return self.registry
        path = self.registry.removeprefix(prefix)
        if path in ("", ":memory:") or path.startswith("file:"):
            return self.registry
        # SQLAlchemy would take it relative to the current folder, which need not be the same on the next call.
        return f"{prefix}{(self._folder / path).resolve()}"

    def shown(self) -> dict[str, Any]:
        """The configuration as JSON types, with passwords and other secrets hidden."""
        document: dict[str, Any] = _without_secrets(self.model_dump())
        return document


def load_config(folder: Path) -> Config:
    """Read `feature_store.yaml` of a folder.

    Raises:
        ConfigError: the file is missing, is not YAML, names a variable that is not set, or holds a key or value
            that is not allowed; it says which and where.
    """
    file = folder / FILE_NAME
    document = _interpolated(_read(file), "")
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        raise _as_config_error(error) from None
    config._folder = folder.expanduser().resolve()
    return config


def _read(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            str(file), expected="a file", got="none", hint="run `feature-store init`, or name the project's folder"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), expected="a text file in UTF-8 that can be read", got=str(error)) from error
    except yaml.YAMLError as error:
        raise ConfigError(_place(file, error), expected="YAML", got=_problem(error)) from None
    if not isinstance(document, dict):
        raise ConfigError(str(file), expected="a mapping, with at least `project: name`", got=type(document).__name__)
    return document


def _place(file: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return str(file) if mark is None else f"{file}, line {mark.line + 1}, column {mark.column + 1}"


def _problem(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or str(error).partition("\n")[0])


def _interpolated(value: Any, path: str) -> Any:
    match value:
        case str():
            return _VARIABLE.sub(lambda found: _variable(found, path), value)
        case dict():
            return {key: _interpolated(item, f"{path}.{key}" if path else f"{key}") for key, item in value.items()}
        case list():
            return [_interpolated(item, f"{path}[{i}]") for i, item in enumerate(value)]
        case _:
            return value


def _variable(found: re.Match[str], path: str) -> str:
    name, default = found[1], found[2]
    where = f"{FILE_NAME}: {path}"
    if name is None:
        raise ConfigError(where, expected="${NAME} or ${NAME:-default}", got="a ${ that begins neither")
    value = os.environ.get(name)
    if default is not None:
        return value or default
    if value is None:
        raise ConfigError(
            where,
            expected=f"the environment variable {name}",
            got="none of that name",
            hint=f"set it, or give a default: ${{{name}:-…}}",
        )
    return value


def _as_config_error(error: ValidationError) -> ConfigError:
    detail = error.errors(include_url=False)[0]
    path = [str(part) for part in detail["loc"]]
    # A setting that may be of several types is reported once for each, with the type's name at the end of the path.
    if path[0] in ("spark", "kafka") and len(path) > 2:
        path = path[:2]
    where = f"{FILE_NAME}: {'.'.join(path)}"
    if detail["type"] in ("extra_forbidden", "invalid_key"):
        return ConfigError(where, expected="a known key", got="an unknown one", hint=_nearest(path))
    if detail["type"] == "missing":
        return ConfigError(where, expected="a value", got="none")
    if path[0] in ("spark", "kafka"):
        return ConfigError(where, expected="settings: text, numbers or booleans", got=type(detail["input"]).__name__)
    return ConfigError(where, expected=_expectation(detail), got=_got(path, detail["input"]))


def _expectation(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "string_pattern_mismatch":
            return "a name of letters, digits and underscores that does not start with a digit"
        case "model_type" | "dict_type":
            return "a mapping"
        case _:
            return detail["msg"].removeprefix("Input should be ")


def _nearest(path: list[str]) -> str:
    sections: dict[str, type[BaseModel]] = {"online_store": OnlineStoreConfig, "streaming": StreamingConfig}
    model = sections[path[0]] if len(path) > 1 else Config
    known = list(model.model_fields)
    close = difflib.get_close_matches(path[-1], known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"


def _got(path: list[str], value: Any) -> str:
    if not isinstance(value, (str, int, float)):
        return type(value).__name__
    return repr(_without_secrets({path[-1]: value})[path[-1]])


def _without_secrets(value: Any) -> Any:
    match value:
        case dict():
            return dict(_hidden_items(value))
        case str():
            return _QUERY_PASSWORD.sub(rf"\1{_HIDDEN}", _URL_PASSWORD.sub(rf"\1:{_HIDDEN}@", value))
        case _:
            return value


def _hidden_items(mapping: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        yield key, _HIDDEN if value and _SECRET_NAME.search(key) else _without_secrets(value)
