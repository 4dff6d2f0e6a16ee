"""The parts of a project that a FeatureStore shows, and its life: opened on use, closed at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from feature_store.definitions.definition_set import DefinitionSet
from feature_store.online.client import OnlineClient
from feature_store.online.store import OnlineStore
from feature_store.project.config import Config, load_config
from feature_store.project.context import Project
from feature_store.registry.store import Registry


class ProjectParts:
    """The parts of a project, each opened when it is first used. A context manager that closes them.

    Args:
        repo: the folder of feature_store.yaml, or the Project that was made of it.

    Attributes:
        context: the project as the library's functions take it.

    Raises:
        ConfigError: feature_store.yaml is missing or wrong.
    """

    def __init__(self, repo: str | Path | Project = ".") -> None:
        self.context = repo if isinstance(repo, Project) else Project(load_config(Path(repo)))

    def __repr__(self) -> str:
        config = self.config
        return f"{type(self).__name__}({str(config.folder)!r}, project={config.project!r}, engine={config.engine!r})"

    @property
    def config(self) -> Config:
        """What feature_store.yaml says."""
        return self.context.config

    @property
    def project(self) -> str:
        """The project's name."""
        return self.context.name

    @property
    def definitions(self) -> DefinitionSet:
        """The definitions in the folder, applied or not. `plan`, `apply` and `reload` read the files again.

        Raises:
            DefinitionError: they cannot be imported, or are wrong.
        """
        return self.context.definitions

    def reload(self) -> None:
        """Read the folder's definitions again when they are next used."""
        self.context.reload()

    @property
    def registry(self) -> Registry:
        """The project's registry.

        Raises:
            RegistryError: its database cannot be opened.
        """
        return self.context.registry

    @property
    def online_url(self) -> str:
        """Where the online store is. Starts the embedded server when no URL is configured.

        Raises:
            EmbeddedServerError: the embedded server cannot be started.
        """
        return self.context.online_url

    @property
    def online(self) -> OnlineStore:
        """The project's part of the online store."""
        return self.context.online

    @property
    def client(self) -> OnlineClient:
        """A client with the on-demand functions of the folder's definitions."""
        return self.context.client

    def close(self) -> None:
        """Close connections. The embedded server stops when nobody else uses it. The next use opens parts again."""
        self.context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
