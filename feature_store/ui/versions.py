"""The versions that added, changed or removed each feature."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from feature_store.registry.store import Registry, Version

# Parts of a view's document that do not change its features. Fields are compared one by one.
_OF_THE_VIEW = ("name", "schema", "description", "owner", "tags")
_VIEW_KINDS = ("feature_views", "stream_feature_views", "on_demand_feature_views")
_Feature = tuple[str, str]


@dataclass(frozen=True)
class FeatureChange:
    """A change of a feature by a version.

    Attributes:
        version, applied_at, author: those of the version.
        what: `added`, `removed`, or the changed properties, such as `dtype, view's ttl`.
    """

    version: int
    applied_at: datetime
    author: str
    what: str


class FeatureHistory:
    """The changes of all features. Each version is read once.

    Args:
        registry: holds the versions.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._read, self._digest = 0, ""
        self._before: dict[_Feature, dict[str, Any]] = {}
        self._changes: dict[_Feature, list[FeatureChange]] = defaultdict(list)

    def up_to(self, newest: Version) -> dict[_Feature, list[FeatureChange]]:
        """The changes of each `(view, feature)` up to a version, the oldest first.

        Raises:
            RegistryError: the registry cannot be read.
        """
        with self._lock:
            is_known = newest.version == self._read and newest.digest == self._digest
            if newest.version <= self._read and not is_known:  # the project was torn down and applied again
                self._forget()
            for number in range(self._read + 1, newest.version + 1):
                version = self._registry.version(number)
                self._take(version)
                self._read, self._digest = number, version.digest
            return {feature: list(changes) for feature, changes in self._changes.items()}

    def _forget(self) -> None:
        self._read, self._digest = 0, ""
        self._before.clear()
        self._changes.clear()

    def _take(self, version: Version) -> None:
        now = dict(_features(version.document))
        for feature in {**self._before, **now}:
            what = _difference(self._before.get(feature), now.get(feature))
            if what:
                self._changes[feature].append(FeatureChange(version.version, version.applied_at, version.author, what))
        self._before = now


def _features(document: dict[str, Any]) -> Iterator[tuple[_Feature, dict[str, Any]]]:
    for kind in _VIEW_KINDS:
        for name, view in document.get(kind, {}).items():
            around = {f"view's {key}": value for key, value in view.items() if key not in _OF_THE_VIEW}
            for field in view["schema"]:
                yield (name, field["name"]), {**around, **field}


def _difference(before: dict[str, Any] | None, now: dict[str, Any] | None) -> str:
    if before is None:
        return "added"
    if now is None:
        return "removed"
    if before == now:
        return ""
    return ", ".join(sorted(key for key in {**before, **now} if before.get(key) != now.get(key)))
