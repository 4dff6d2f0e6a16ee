"""What became of one definition, or of one feature, from version to version."""

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
    """What a version changed of a thing: by whom, when (UTC), how, and what that meant for stored data."""

    version: Version
    change: DefinitionChange

    def to_document(self) -> dict[str, Any]:
        """As JSON types."""
        about = {"version": self.version.version, "author": self.version.author}
        return about | {"applied_at": self.version.applied_at.isoformat()} | asdict(self.change)


def history_of(versions: Sequence[Version], name: str) -> list[PastChange]:
    """The changes of a definition, with the prunings of a service, or of a feature `view:feature`; the newest first.

    Args:
        versions: all that there are, the oldest first.
        name: of what; empty where no version has it.

    Raises:
        RegistryError: this release cannot read a version.
    """
    view, _, feature = name.partition(":")
    found = []
    before: Version | None = None
    for version in versions:
        # Most versions change other things: what is the same as it was is not read at all.
        if before is None or _part(before, view) != _part(version, view):
            plan = plan_changes(None if before is None else before.definitions(), version.definitions())
            changes: Iterable[DefinitionChange] = (change for change in plan.changes if change.name == view)
            if feature:
                changes = _of_feature(changes, feature, before, version)
            found += [PastChange(version, change) for change in changes]
        before = version
    return found[::-1]


def names_in(versions: Iterable[Version]) -> Iterator[str]:
    """The names of all that versions define or defined, features included."""
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
    """What is of a feature in the changes of its view; others of the view are left out."""
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
        if (found := next((field for field in schema if field["name"] == feature), None)) is not None:
            return found
    return None
