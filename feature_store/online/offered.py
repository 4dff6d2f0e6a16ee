"""The on-demand functions that a process offers: the only functions that a client calls.

A serving plan comes from Redis, so it is data. It names each function by its view and the digest of its code, and never
says where to find it. The functions come from the caller: as on-demand views, or as files and modules with definitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from feature_store.errors import ConfigError, TransformError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from feature_store.definitions.on_demand import OnDemandFeatureView
    from feature_store.registry.serving_plan import TransformPlan

    Transform = Callable[..., dict[str, np.ndarray[Any, Any]]]
    # By view name, or views alone.
    Transforms = Mapping[str, Transform] | Iterable[OnDemandFeatureView]
    Place = str | Path | ModuleType
    Definitions = Place | Sequence[Place]

_PASS = 'pass definitions="features.py" (a file, a folder or a module with the definitions), or transforms=[view]'


class Chosen(NamedTuple):
    """A function that the plan accepts, and its digest, one of those in the plan."""

    function: Transform
    digest: str


class Offered:
    """The functions that a process offers.

    Args:
        transforms: on-demand views, or functions by view name. Several views of one name are versions of one function.
        definitions: Python files, folders or modules whose on-demand views are offered too.

    Raises:
        ConfigError: an element of `transforms` or `definitions` has another type, or a path does not exist.
        DefinitionError: a file cannot be imported, or a function cannot be served.
    """

    def __init__(self, transforms: Transforms | None = None, definitions: Definitions | None = None) -> None:
        self._functions: dict[str, list[Transform]] = {}
        for name, function in _by_name(transforms):
            self._functions.setdefault(name, []).append(function)
        for view in _views_in(definitions):
            self._functions.setdefault(view.name, []).append(view)

    def choose(self, plan: TransformPlan) -> Chosen:
        """The offered function of a view whose digest the plan lists; of several, the newest.

        Raises:
            TransformError: no function is offered for the view, or none with a digest of the plan.
        """
        from feature_store.definitions.on_demand import has_digest

        offered = self._functions.get(plan.name, [])
        where = f"on-demand view {plan.name}"
        if not offered:
            raise TransformError(where, problem="this process offers no function for it", hint=_PASS)
        for digest in (plan.digest, *plan.earlier):
            for function in offered:
                if has_digest(function, digest, plan.nulls):
                    return Chosen(function, digest)
        raise TransformError(
            where,
            problem=f"the function that this process offers is not one that was applied (digest {plan.digest})",
            hint="apply the changed definitions, then deploy the code; changed inputs or outputs need a new view name",
        )


def _by_name(transforms: Transforms | None) -> list[tuple[str, Transform]]:
    if transforms is None:
        return []
    from feature_store.definitions.on_demand import OnDemandFeatureView, refuse_unservable

    if isinstance(transforms, Mapping):
        pairs = [(name, function) for name, function in transforms.items()]
    else:
        views: list[Any] = list(transforms)
        pairs = [(getattr(view, "name", ""), view) for view in views]
        if not all(isinstance(view, OnDemandFeatureView) for view in views):
            raise ConfigError("transforms", expected="on-demand views, or {view name: function}", got=_types(views))
    for name, function in pairs:
        if not callable(function):
            where = f"transforms[{name!r}]"
            raise ConfigError(where, expected="a function or an on-demand view", got=_types([function]))
        if not isinstance(function, OnDemandFeatureView):
            refuse_unservable(function)
    return pairs


def _views_in(definitions: Definitions | None) -> list[OnDemandFeatureView]:
    if definitions is None:
        return []
    places = list(definitions) if isinstance(definitions, (list, tuple)) else [definitions]
    return [view for place in places for view in _views_of(place)]


def _views_of(place: Any) -> list[OnDemandFeatureView]:
    from feature_store.definitions.loading import load_definitions
    from feature_store.definitions.on_demand import OnDemandFeatureView

    if isinstance(place, ModuleType):
        return [value for value in vars(place).values() if isinstance(value, OnDemandFeatureView)]
    if not isinstance(place, (str, Path)):
        raise ConfigError("definitions", expected="a file, a folder or a module", got=_types([place]))
    path = Path(place).absolute()
    if path.is_dir():
        return list(load_definitions(path).on_demand_feature_views.values())
    if path.is_file():
        return list(load_definitions(path.parent, path.name).on_demand_feature_views.values())
    raise ConfigError("definitions", problem=f"there is no file or folder {path}")


def _types(values: list[Any]) -> str:
    return ", ".join(dict.fromkeys(type(value).__name__ for value in values)) or "nothing"
