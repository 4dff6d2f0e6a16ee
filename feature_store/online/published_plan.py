"""A serving plan as a client has read it, with the services that it compiles from it."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING

from feature_store.errors import RequestError
from feature_store.online.offered import Offered
from feature_store.online.service import CompiledService
from feature_store.registry.serving_plan import ColumnPlan, ServicePlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from feature_store.registry.serving_plan import ServingPlan

# Lists of feature references that stay compiled, the ones used last. A list takes about 20 kB. A model server uses a
# few dozen lists, unless its callers choose them.
MOST_LISTS = 256


class PublishedPlan:
    """A serving plan as it was read, with the services compiled from it.

    All services requested by name stay compiled, and so do the MOST_LISTS lists of feature references used last.
    """

    def __init__(
        self, plan: ServingPlan, epoch: bytes, offered: Offered | None = None, *, is_on_one_node: bool = True
    ) -> None:
        self.plan, self.epoch, self._offered = plan, epoch, offered or Offered()
        self._is_on_one_node = is_on_one_node
        self._compiled: dict[str, CompiledService] = {}
        self._shadows: dict[str, CompiledService] = {}
        # Not a method of this object: a cycle would keep a replaced plan, and all its lists, until the next collection.
        self._of_references = lru_cache(MOST_LISTS)(
            partial(_compiled_of_references, plan, self._offered, epoch, is_on_one_node)
        )

    def __contains__(self, service: object) -> bool:
        """Whether the service of this name is compiled already."""
        return isinstance(service, str) and service in self._compiled

    def service(self, asked: str | Sequence[str]) -> CompiledService:
        """A service by its name, or a service made of feature references `view:feature`.

        Raises:
            NotFoundError: the plan has no such service or view.
            RequestError: a feature reference is malformed, or names a feature that its view does not have.
            TransformError: an on-demand function is not offered, or differs from the applied ones.
        """
        if not isinstance(asked, str):
            return self._of_references(_normalised(asked))
        compiled = self._compiled.get(asked)
        if compiled is None:
            compiled = self._compiled[asked] = self._compile(self.plan.service(asked))
        return compiled

    def knows(self, service: str) -> bool:
        """Whether the plan has a service of this name."""
        return service in self._compiled or any(one.name == service for one in self.plan.services)

    def shadow(self, compiled: CompiledService) -> CompiledService | None:
        """The service without the features that its prune plan would drop; None unless it is read in shadow."""
        if not compiled.is_shadowed:
            return None
        shadow = self._shadows.get(compiled.name)
        if shadow is None:
            service = self.plan.service(compiled.name).shadowed()
            shadow = self._shadows[compiled.name] = self._compile(service)
        return shadow

    def _compile(self, service: ServicePlan) -> CompiledService:
        return CompiledService(self.plan, service, self._offered, self.epoch, is_on_one_node=self._is_on_one_node)


def _normalised(references: Sequence[str]) -> tuple[str, ...]:
    """References as a hashable key of plain str, from any sequence of str or its subclasses, such as numpy's."""
    for i, reference in enumerate(references):
        if not isinstance(reference, str):
            raise RequestError(f"features[{i}]", expected="a feature reference, view:feature", got=repr(reference))
    return tuple(map(str, references))


def _compiled_of_references(
    plan: ServingPlan, offered: Offered, epoch: bytes, is_on_one_node: bool, references: tuple[str, ...]
) -> CompiledService:
    return CompiledService(plan, _from_references(references), offered, epoch, is_on_one_node=is_on_one_node)


def _from_references(references: tuple[str, ...]) -> ServicePlan:
    columns: dict[str, ColumnPlan] = {}
    for i, reference in enumerate(references):
        view, separator, feature = reference.partition(":")
        if not separator or not feature:
            raise RequestError(f"features[{i}]", expected="a feature reference, view:feature", got=repr(reference))
        if feature in columns:
            other = f"{columns[feature].view}:{feature}"
            hint = "define a service that renames one of them"
            raise RequestError(
                f"features[{i}]", expected="names that differ", got=f"{reference} and {other}", hint=hint
            )
        columns[feature] = ColumnPlan(feature, view, feature)
    if not columns:
        raise RequestError("features", expected="a service's name or at least one feature reference", got="none")
    return ServicePlan("", tuple(columns.values()))
