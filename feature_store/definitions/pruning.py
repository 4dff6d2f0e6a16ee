"""Prunings: what prune plans take from services.

A pruning is bound to its service by the digest of all that the service's features mean. It works in stages:

    shadow   nothing changes; clients compare what the pruned service would answer
    mask     the features are not served any more; they are still computed and stored
    drop     what no service needs any more is not computed and not stored either
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field as Attribute, model_validator

from feature_store.definitions.definition import Model, Name, refuse_repeats
from feature_store.errors import DefinitionError

Stage = Literal["shadow", "mask", "drop"]
Answer = Literal["error", "default"]


class PrunedFeature(Model):
    """A feature that is dropped: the name it was served by, where it came from, and what stands in for it.

    Attributes:
        name: as served.
        view, feature: where it came from.
        dtype: as `str(DType)`.
        default: the field's, as `DType.to_json`.
    """

    name: Name
    view: Name
    feature: Name
    dtype: str
    default: Any = None


class Pruning(Model):
    """What a prune plan takes from a service.

    Args:
        service: its name.
        plan: the plan's id.
        stage: how far it goes.
        bound_to: `service_digest` of the service that the plan was made for.
        columns: the names that the service served without it, in order.
        dropped: the features that go.
        read_order: the views that a request with a deadline reads first.
        answer: what a client gets that asks for one: an error that names the plan, or the default and Status.PRUNED, in
            the place that it had.

    Raises:
        DefinitionError: nothing is dropped, or nothing left, or a feature is none of the service's.
    """

    service: Name
    plan: str = Attribute(min_length=1)
    stage: Stage
    bound_to: str
    columns: tuple[Name, ...]
    dropped: tuple[PrunedFeature, ...] = Attribute(min_length=1)
    answer: Answer = "error"
    read_order: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _parts_fit(self) -> Pruning:
        names = [feature.name for feature in self.dropped]
        refuse_repeats(names, "dropped")
        for name in names:
            if name not in self.columns:
                raise DefinitionError("dropped", expected=f"a feature of {self.service}", got=repr(name))
        if not self.kept:
            raise DefinitionError("dropped", expected="a feature that stays", got=f"all of {self.service}")
        return self

    @property
    def kept(self) -> tuple[str, ...]:
        """The columns that stay, in order."""
        dropped = {feature.name for feature in self.dropped}
        return tuple(name for name in self.columns if name not in dropped)

    @property
    def not_served(self) -> frozenset[str]:
        """The columns that readers do not get: those dropped, unless the stage is `shadow`."""
        return frozenset() if self.stage == "shadow" else frozenset(feature.name for feature in self.dropped)
