"""The versions of a project's definitions: plan, apply, roll back, prune."""

from __future__ import annotations

from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.pruning import Pruning
from feature_store.project import applying
from feature_store.project.applying import Applied
from feature_store.project.parts import ProjectParts
from feature_store.registry.changes import ChangePlan


class ProjectVersions(ProjectParts):
    """A project whose definitions can be planned, applied, rolled back and pruned."""

    def applied(self) -> DefinitionSet:
        """The definitions that are applied.

        Raises:
            NotFoundError: nothing is applied yet.
        """
        return self.context.applied()

    def models(self) -> dict[str, list[str]]:
        """The models of each service whose importances the registry keeps."""
        return applying.models(self.context)

    def plan(self, *, check_sources: bool = True) -> ChangePlan:
        """The changes that `apply` would make. It changes nothing, and creates no registry.

        Args:
            check_sources: compare the schemas of sources with what changed views take, and compile their SQL.

        Raises:
            DefinitionError: the definitions in the folder are wrong.
            ConflictError: a service has changed that a prune plan is applied to.
            RegistryError: the registry cannot be read.
        """
        return applying.plan(self.context, check_sources=check_sources)

    def apply(
        self, *, author: str | None = None, allow_destructive: bool = False, check_sources: bool = True
    ) -> Applied:
        """Make the folder's definitions a new version of the registry, and serve it.

        Views whose row layout changes are filled in a new generation before any reader sees it. An apply that fails
        leaves the served version unchanged. The next apply finishes one that was killed.

        Args:
            author: who applies; None: FEATURE_STORE_AUTHOR, else user@host.
            allow_destructive: allow changes that delete stored values, or remove or change columns of services.
            check_sources: see `plan`. A source that does not fit is refused before anything is committed.

        Raises:
            RefusedError: a change cannot be carried out on stored data, or a source lacks what its view takes, or a
                change is destructive and not allowed. The error names the change.
            ConflictError: another process applied in the meantime, or another registry's plan is published.
            DefinitionError: the definitions in the folder are wrong.
            RegistryError: the registry cannot be read or written.
            OnlineStoreError: Redis cannot be reached, or refuses to write. The next apply finishes this one.
        """
        return applying.apply(
            self.context, author=author, allow_destructive=allow_destructive, check_sources=check_sources
        )

    def plan_rollback(self, version: int, *, check_sources: bool = True) -> ChangePlan:
        """The changes that `rollback` would make.

        Raises:
            NotFoundError, RefusedError, DefinitionError, RegistryError: as `rollback`.
        """
        return applying.plan_rollback(self.context, version, check_sources=check_sources)

    def rollback(
        self, version: int, *, author: str | None = None, allow_destructive: bool = False, check_sources: bool = True
    ) -> Applied:
        """Make the definitions and prunings of an earlier version a new version, and serve it, as `apply` does.

        The folder's files stay as they are, and the next `apply` serves them again.

        Args:
            version: the number of the earlier version.
            author, allow_destructive, check_sources: as `apply`.

        Raises:
            NotFoundError: there is no such version.
            RefusedError: as `apply`; or the folder lacks the code of an on-demand function of that version.
            ConflictError, DefinitionError, RegistryError, OnlineStoreError: as `apply`.
        """
        return applying.rollback(
            self.context,
            version,
            author=author,
            allow_destructive=allow_destructive,
            check_sources=check_sources,
        )

    def prune(self, service: str, pruning: Pruning | None, *, author: str | None = None) -> Applied:
        """Apply a pruning to a service as a new version, and serve it. None removes the current pruning.

        Rows that no reader needs any more are deleted. Features that are stored again are filled before readers see
        them, as by `apply`.

        Raises:
            NotFoundError: nothing is applied, or there is no such service, or the service has no pruning to remove.
            ConflictError: the service has changed since the pruning was made, or another process applied meanwhile.
            RegistryError, OnlineStoreError: as `apply`.
        """
        return applying.prune(self.context, service, pruning, author=author)
