"""The definitions that a training set is made by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from feature_store.definitions.definition_set import DefinitionSet
from feature_store.definitions.dtypes import from_microseconds, given_microseconds
from feature_store.definitions.pruned import refuse_unbound
from feature_store.online.conversation import PublishedPlan
from feature_store.online.offered import Offered
from feature_store.online.service import CompiledService
from feature_store.registry.compile import compile_plan

if TYPE_CHECKING:
    from feature_store.online.offered import Transform
    from feature_store.project.context import Project
    from feature_store.registry.store import Version

PruneAsOf = datetime | Literal["never"] | None


class Basis(NamedTuple):
    """The definitions that a training set is made by.

    Attributes:
        project: the project's name.
        version: the newest version of the definitions.
        definitions: its definitions, with the prunings to make the training set by.
        transforms: the folder's on-demand functions by view name.
    """

    project: str
    version: Version
    definitions: DefinitionSet
    transforms: Mapping[str, Transform]

    def service(self, service: str | Sequence[str]) -> CompiledService:
        """A service as clients compile it.

        Raises:
            NotFoundError, RequestError: there is no such service, or feature.
            TransformError: an on-demand function is missing or differs from the applied one.
        """
        plan = compile_plan(self.definitions, project=self.project, version=self.version.version)
        return PublishedPlan(plan, b"", Offered(self.transforms)).service(service)


def basis_of(project: Project, prune_as_of: PruneAsOf = None) -> Basis:
    """The newest definitions of a project, pruned as they were at a time.

    Args:
        project: the project.
        prune_as_of: the time; "never": not pruned; None: pruned as now.

    Raises:
        NotFoundError: nothing is applied.
        ConflictError: a service has changed since it was pruned as it was at that time.
        RequestError: it is no time.
    """
    newest = project.newest()
    # The folder's files are imported only when there is a function to take from them.
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
