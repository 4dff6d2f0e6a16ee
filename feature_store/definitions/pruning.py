"""Prunings: the features that a prune plan drops from a service.

A pruning is bound to its service by a digest of the meaning of the service's features. It has stages:

    shadow   nothing changes; clients compare the answers of the pruned service
    mask     the features are no longer served, but still computed and stored
    drop     features that no service needs are no longer computed and stored
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field as Attribute, model_validator

from feature_store.definitions.definition import Model, Name, refuse_repeats
from feature_store.errors import DefinitionError

Stage = Literal["shadow", "mask", "drop"]
Answer = Literal["error", "default"]


class PrunedFeature(Model):
    """A dropped feature.

    Attributes:
        name: its served name.
        view, feature: its feature reference.
        dtype: its type, as `str(DType)`.
        default: the field's default, as of `DType.to_json`; a request for the feature may be answered with it.
    """

    name: Name
    view: Name
    feature: Name
    dtype: str
    default: Any = None


class Pruning(Model):
    """The features that a prune plan drops from a service.

    Args:
        service: the service's name.
        plan: the plan's id.
        stage: `shadow`, `mask` or `drop`.
        bound_to: `service_digest` of the service that the plan was made for.
        columns: the names of the service's columns before pruning, in order.
        dropped: the dropped features.
        read_order: the views in the order in which a request with a deadline reads them.
        answer: for a request of a dropped feature: `error`, which names the plan, or `default`, which serves the
            default with Status.PRUNED in the feature's old place.

    Raises:
        DefinitionError: no feature is dropped, none is left, or one does not belong to the service.
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
            raise DefinitionError("dropped", problem=f"no feature of {self.service} would be left")
        return self

    @property
    def kept(self) -> tuple[str, ...]:
        """The columns that stay, in order."""
        dropped = {feature.name for feature in self.dropped}
        return tuple(name for name in self.columns if name not in dropped)

    @property
    def not_served(self) -> frozenset[str]:
        """The columns that clients do not get: the dropped ones, none in the stage `shadow`."""
        return frozenset() if self.stage == "shadow" else frozenset(feature.name for feature in self.dropped)
