"""A project as one value: its configuration, folders, registry, online store and engines.

`Project` opens each part when it is first used. `ProjectRef` says where the parts are in plain data that pickles, for
worker processes and Spark's tasks, which open their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.loading import load_definitions
from feature_store.definitions.names import given_name
from feature_store.errors import ConfigError, NotFoundError
from feature_store.online.client import OnlineClient
from feature_store.online.store import OnlineStore
from feature_store.project.config import FILE_NAME, Config
from feature_store.registry.identity import refuse_other_registry
from feature_store.registry.serving_plan import ServingPlan
from feature_store.registry.store import Registry, Version

if TYPE_CHECKING:
    from feature_store.engines.local.engine import LocalEngine
    from feature_store.engines.spark.engine import SparkEngine

Job = Literal["materialize", "backfill", "training", "spark"]

# Folders below the state folder for the files of running jobs. A killed job leaves its files.
JOBS: tuple[Job, ...] = ("materialize", "backfill", "training", "spark")
# A worker's call may wait behind calls of other workers, and behind a Redis that is loading its data.
_STREAM_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ProjectFolders:
    """Where a project's files are.

    Attributes:
        source: the folder of feature_store.yaml. The paths of sources are relative to it.
        state: the folder of what the library itself keeps: `.feature_store`.
    """

    source: Path
    state: Path

    def work(self, job: Job) -> Path:
        """Where the jobs of a kind keep files while they run."""
        return self.state / job

    @property
    def quarantine(self) -> Path:
        """Where rows go that do not fit their view, for people to look at. No job removes them."""
        return self.state / "quarantine"


@dataclass(frozen=True)
class ProjectRef:
    """Where a project's parts are, as plain data for another process.

    Attributes:
        name: the project's name.
        online_url: the online store, with its password.
        registry_url: the registry, with its password.
        kafka: the Kafka client's settings.
        dead_letters: the topic of messages that cannot be merged; `{topic}` stands for the topic they came from.
        timeout_s: seconds to wait for the online store.
    """

    name: str
    online_url: str = field(repr=False)
    registry_url: str = field(repr=False)
    kafka: Mapping[str, str | int | float | bool] = field(default_factory=dict, repr=False)
    dead_letters: str = "{topic}.dead-letter"
    timeout_s: float = _STREAM_TIMEOUT_S

    def open_online(self) -> OnlineStore:
        """The online store, on connections that the caller closes."""
        return OnlineStore(self.online_url, self.name, timeout_s=self.timeout_s)

    def open_registry(self) -> Registry:
        """The registry, on connections that the caller closes.

        Raises:
            RegistryError: its database cannot be opened.
        """
        return Registry(self.registry_url, self.name)


class InProject(Protocol):
    """Anything that belongs to a project, such as a FeatureStore."""

    @property
    def context(self) -> Project:
        """The project."""
        ...


@dataclass(frozen=True)
class Project:
    """A project. Every part is opened when it is first used, and closed by `close`.

    Attributes:
        config: what feature_store.yaml says.
        open_online: opens the online store, given its URL and the project's name.
    """

    config: Config
    open_online: Callable[[str, str], OnlineStore] = field(default=OnlineStore, repr=False)
    _exit: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The project's name."""
        return self.config.project

    @property
    def folders(self) -> ProjectFolders:
        """Where the project's files are."""
        return ProjectFolders(self.config.folder, self.config.state_folder)

    @cached_property
    def definitions(self) -> DefinitionSet:
        """The definitions in the folder, applied or not, as they were when they were first read.

        Raises:
            DefinitionError: they cannot be imported, or are wrong.
        """
        return load_definitions(self.config.folder, self.config.definitions)

    def reload(self) -> None:
        """Forget the folder's definitions, so that the next use reads the files again."""
        self.__dict__.pop("definitions", None)

    @cached_property
    def registry(self) -> Registry:
        """The registry.

        Raises:
            RegistryError: its database cannot be opened.
        """
        registry = Registry(self.config.registry_url, self.name)
        self._exit.callback(registry.close)
        return registry

    @property
    def has_open_registry(self) -> bool:
        """Whether the registry was used. Opening a SQLite registry makes its file."""
        return "registry" in self.__dict__

    @cached_property
    def online_url(self) -> str:
        """Where the online store is. Starts the embedded server when no URL is configured.

        Raises:
            EmbeddedServerError: the embedded server cannot be started.
        """
        if self.config.online_url is not None:
            return self.config.online_url
        from feature_store.online.redis.embedded import EmbeddedServer

        server = EmbeddedServer(self.config.folder)
        url = server.ensure()
        self._exit.callback(server.release)
        return url

    @cached_property
    def online(self) -> OnlineStore:
        """The project's part of the online store."""
        store = self.open_online(self.online_url, self.name)
        self._exit.callback(store.close)
        return store

    @property
    def buckets(self) -> int:
        """How many hash tags the keys are spread over: what feature_store.yaml says, else what suits the topology."""
        return self.config.online_store.buckets or self.online.default_buckets()

    @cached_property
    def client(self) -> OnlineClient:
        """A client with the on-demand functions of the folder's definitions."""
        timeout_s = self.config.online_store.timeout_ms / 1000
        client = OnlineClient(
            self.online_url,
            self.name,
            timeout_s=timeout_s,
            transforms=self.definitions.on_demand_feature_views,
            cache=self.config.online_store.cache,
        )
        self._exit.callback(client.close)
        return client

    @property
    def ref(self) -> ProjectRef:
        """Where the parts are, for another process.

        Raises:
            ConfigError: feature_store.yaml does not say where Kafka is.
        """
        return ProjectRef(
            self.name, self.online_url, self.config.registry_url, self.kafka(), self.config.streaming.dead_letters
        )

    def kafka(self) -> dict[str, str | int | float | bool]:
        """The Kafka client's settings.

        Raises:
            ConfigError: feature_store.yaml does not say where Kafka is.
        """
        if "bootstrap.servers" not in self.config.kafka:
            problem, hint = "bootstrap.servers is missing", f"set kafka.bootstrap.servers in {FILE_NAME}"
            raise ConfigError(f"{FILE_NAME}: kafka", problem=problem, hint=hint)
        return dict(self.config.kafka)

    def newest(self) -> Version:
        """The newest version of the definitions.

        Raises:
            NotFoundError: nothing is applied yet.
        """
        newest = self.registry.latest()
        if newest is None:
            raise NotFoundError(
                f"project {self.name}", expected="applied definitions", hint="run `feature-store apply`"
            )
        return newest

    def applied(self) -> DefinitionSet:
        """The newest version's definitions.

        Raises:
            NotFoundError: nothing is applied yet.
        """
        return self.newest().definitions()

    def served(self) -> tuple[Version, ServingPlan]:
        """The version that is served, and its plan. While an apply is unfinished, the newest version is not served yet.

        Raises:
            NotFoundError: nothing is applied yet.
            NotPublishedError: no plan is published.
            ConflictError: another registry published the plan.
        """
        self.newest()
        plan = self.online.require_published().plan
        refuse_other_registry(plan, self.registry)
        return self.registry.version(plan.version), plan

    def engine_name(self, given: str | None = None) -> str:
        """The name of an engine; None: the configured one.

        Raises:
            RequestError: it is no text.
        """
        return self.config.engine if given is None else given_name(given, "engine") or self.config.engine

    def engine(self, given: str | None = None) -> LocalEngine | SparkEngine:
        """An engine; None: the configured one.

        Raises:
            NotFoundError: there is no such engine.
            MissingDependencyError: the engine's extra is not installed.
            EngineError: Spark cannot be started.
        """
        name = self.engine_name(given)
        if name == "local":
            from feature_store.engines.local.engine import LocalEngine

            return LocalEngine(self.config.local.memory_limit)
        if name == "spark":
            return self._spark
        raise NotFoundError("engine", expected="local or spark", got=repr(name))

    @cached_property
    def _spark(self) -> SparkEngine:
        from feature_store.engines.spark.engine import SparkEngine
        from feature_store.engines.spark.settings import session_settings

        engine = SparkEngine(session_settings(self.config.spark), self.folders.work("spark"))
        self._exit.callback(engine.close)
        return engine

    def close(self) -> None:
        """Close connections. The embedded server stops when nobody else uses it. The next use opens parts again."""
        self._exit.close()
        for name in ("registry", "online_url", "online", "client", "_spark"):
            self.__dict__.pop(name, None)
