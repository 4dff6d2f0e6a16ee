"""Feature services: the features that one model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field as Attribute, field_validator, model_validator

from feature_store.definitions.definition import Definition
from feature_store.definitions.feature_view import Projectable, Projection
from feature_store.errors import DefinitionError


class FeatureService(Definition):
    """The features of one model, in the order of its columns.

    Args:
        name: the service's name.
        features: views, of which all features are taken, and projections of views.
        description, owner, tags: for the people who browse the registry.

    Raises:
        DefinitionError: there is no feature, or two are served under one name.

    Example:
        >>> from feature_store import Entity, FeatureService, FeatureView, Field, Float32
        >>> fields = [Field("age", Float32), Field("spend", Float32)]
        >>> stats = FeatureView("stats", entities=[Entity("user")], schema=fields)
        >>> FeatureService("ranking", features=[stats[["spend"]]]).name
        'ranking'
    """

    features: tuple[Projection, ...] = Attribute(min_length=1)

    def __init__(self, name: str, *, features: Sequence[Projectable | Projection], **about: Any) -> None:
        super().__init__(name=name, features=features, **about)

    @field_validator("features", mode="before")
    @classmethod
    def _views_mean_all_their_features(cls, features: Any) -> Any:
        if not isinstance(features, (list, tuple)):
            return features
        return [item.project() if isinstance(item, Projectable) else item for item in features]

    @model_validator(mode="after")
    def _names_are_unique(self) -> FeatureService:
        seen: dict[str, str] = {}
        for projection in self.features:
            for feature, served in projection.columns:
                if served in seen:
                    raise DefinitionError(
                        "features",
                        problem=f"{seen[served]} and {projection.view}:{feature} are both served as {served!r}",
                        hint=f'rename one: {projection.view}[["{feature}"]].rename({{"{feature}": "…"}})',
                    )
                seen[served] = f"{projection.view}:{feature}"
        return self
