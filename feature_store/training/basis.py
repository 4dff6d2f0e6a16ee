"""The definitions that a training set is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.dtypes import from_microseconds, given_microseconds
from feature_store.definitions.pruned import refuse_unbound
from feature_store.online.offered import Offered
from feature_store.online.published_plan import PublishedPlan
from feature_store.online.service import CompiledService
from feature_store.registry.compile import compile_plan

if TYPE_CHECKING:
    from feature_store.online.offered import Transform
    from feature_store.project.context import Project
    from feature_store.registry.store import Version

PruneAsOf = datetime | Literal["never"] | None


class Basis(NamedTuple):
    """The definitions that a training set is made from.

    Attributes:
        project: the project's name.
        version: the newest applied version.
        definitions: the definitions of this version, with the prunings that apply to the training set.
        transforms: the on-demand functions of the project folder, by view name.
    """

    project: str
    version: Version
    definitions: DefinitionSet
    transforms: Mapping[str, Transform]

    def service(self, service: str | Sequence[str]) -> CompiledService:
        """A service, compiled as clients compile it.

        Args:
            service: the name of a service, or feature references.

        Raises:
            NotFoundError: there is no such service or view.
            RequestError: a feature reference is malformed, or names a feature that its view does not have.
            TransformError: an on-demand function is missing in the project folder, or differs from the applied one.
        """
        plan = compile_plan(self.definitions, project=self.project, version=self.version.version)
        return PublishedPlan(plan, b"", Offered(self.transforms)).service(service)


def basis_of(project: Project, prune_as_of: PruneAsOf = None) -> Basis:
    """The newest definitions of a project, with the prunings of a given time.

    Args:
        project: the project.
        prune_as_of: the time. "never": no pruning. None: the current prunings.

    Raises:
        NotFoundError: no version is applied.
        ConflictError: a service that was pruned at that time has changed since, or no longer exists.
        RequestError: `prune_as_of` is not a time.
    """
    newest = project.newest()
    # Import the folder's files only if the definitions have on-demand functions.
    has_functions = bool(newest.document["on_demand_feature_views"])
    transforms = project.definitions.on_demand_feature_views if has_functions else {}
    return Basis(project.name, newest, _pruned_as_of(project, newest, prune_as_of), transforms)


def _pruned_as_of(project: Project, newest: Version, time: PruneAsOf) -> DefinitionSet:
    definitions = newest.definitions()
    if time is None:
        return definitions
    if isinstance(time, str) and time == "never":
        return definitions.with_prunings([])
    then = project.registry.version_at(from_microseconds(given_microseconds(time, "prune_as_of")))
    pruned = definitions.with_prunings(then.definitions().prunings.values() if then is not None else [])
    for pruning in pruned.prunings.values():
        refuse_unbound(pruned, pruning)
    return pruned
