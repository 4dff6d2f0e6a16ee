"""The changes of one definition, or of one feature, from version to version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from feature_store.definitions.definition_set import KINDS
from feature_store.registry.changes import Action, AttributeChange, DefinitionChange
from feature_store.registry.diff import plan_changes
from feature_store.registry.store import Version


@dataclass(frozen=True)
class PastChange:
    """A change that a version made to a definition or feature."""

    version: Version
    change: DefinitionChange

    def to_document(self) -> dict[str, Any]:
        """As JSON types."""
        about = {"version": self.version.version, "author": self.version.author}
        return about | {"applied_at": self.version.applied_at.isoformat()} | asdict(self.change)


def history_of(versions: Sequence[Version], name: str) -> list[PastChange]:
    """The changes of a definition, with the prunings of a service, or of a feature `view:feature`; the newest first.

    Args:
        versions: all versions, the oldest first.
        name: a definition, or `view:feature`. The result is empty if no version has it.

    Raises:
        RegistryError: this release cannot read a version.
    """
    view, _, feature = name.partition(":")
    past = []
    before: Version | None = None
    for version in versions:
        # Most versions change other definitions. A version in which this one is unchanged is not read.
        if before is None or _part(before, view) != _part(version, view):
            plan = plan_changes(None if before is None else before.definitions(), version.definitions())
            changes: Iterable[DefinitionChange] = (change for change in plan.changes if change.name == view)
            if feature:
                changes = _of_feature(changes, feature, before, version)
            past += [PastChange(version, change) for change in changes]
        before = version
    return past[::-1]


def names_in(versions: Iterable[Version]) -> Iterator[str]:
    """The names of all definitions and features of these versions. Names may repeat."""
    for version in versions:
        for kind in KINDS:
            for name, about in version.document.get(kind, {}).items():
                yield name
                yield from (f"{name}:{field['name']}" for field in about.get("schema", ()))


def _part(version: Version, name: str) -> list[Any]:
    return [version.document.get(kind, {}).get(name) for kind in (*KINDS, "prunings")]


def _of_feature(
    changes: Iterable[DefinitionChange], feature: str, before: Version | None, version: Version
) -> Iterator[DefinitionChange]:
    """The changes of a feature among the changes of its view."""
    for change in changes:
        if change.kind == "Pruning":
            continue
        was, becomes = _field(before, change.name, feature), _field(version, change.name, feature)
        details = tuple(
            AttributeChange(detail.path.removeprefix(f"schema.{feature}."), detail.before, detail.after)
            for detail in change.details
            if detail.path.startswith(f"schema.{feature}.")
        )
        if was != becomes:
            action: Action = "create" if was is None else "delete" if becomes is None else "update"
            yield replace(change, action=action, kind="Feature", name=f"{change.name}:{feature}", details=details)


def _field(version: Version | None, view: str, feature: str) -> Any:
    for kind in KINDS if version is not None else ():
        assert version is not None
        schema = version.document.get(kind, {}).get(view, {}).get("schema", ())
        if (declared := next((field for field in schema if field["name"] == feature), None)) is not None:
            return declared
    return None
