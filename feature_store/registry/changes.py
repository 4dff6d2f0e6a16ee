"""The changes of an apply: of attributes, of a service's columns, of definitions, and the plan of all of them.

Each change of a definition has an effect:

safe         takes effect at once; nothing that is stored or served is lost
rewrites     the row layout changes: a new generation is filled beside the old one, then served at once
destructive  stored values are deleted, or columns of a service are removed, changed or moved: apply asks first
refused      stored rows cannot be carried over, or the source lacks columns that the view reads
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

Action = Literal["create", "update", "delete"]
Effect = Literal["safe", "rewrites", "destructive", "refused"]
_SIGNS = {"create": "+", "update": "~", "delete": "-"}


@dataclass(frozen=True)
class AttributeChange:
    """The change of one attribute: its path, and its values before and after (None: it had or has none)."""

    path: str
    before: Any
    after: Any
    sign: str = field(default="~", init=False, repr=False)

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.path, self.before)} -> {_shown(self.path, self.after)}"


@dataclass(frozen=True)
class ColumnChange:
    """A column that is added, removed, moved, or reads another feature or type. `before` and `after` are JSON types."""

    path: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    @property
    def sign(self) -> str:
        """`+` for an added column, `-` for a removed one, else `~`."""
        return "+" if self.before is None else "-" if self.after is None else "~"

    @property
    def breaks_readers(self) -> bool:
        """Whether clients that read the column get other values, or none."""
        return self.before is not None

    def __str__(self) -> str:
        name = self.path.rpartition(".")[2]
        if self.before is None or self.after is None:
            about = self.before or self.after or {}
            served = "" if about["feature"].endswith(f":{name}") else f" as {name}"
            return f"{about['feature']}{served} (column {about['column']})"
        parts = [
            f"{part} {self.before[part]} -> {self.after[part]}"
            for part in ("feature", "dtype", "column")
            if self.before[part] != self.after[part]
        ]
        return f"{name}: {', '.join(parts)}"


@dataclass(frozen=True)
class DefinitionChange:
    """The change of one definition, and its effect on stored data and readers.

    Attributes:
        action: `create`, `update` or `delete`.
        kind: the class of the definition.
        name: its name.
        effect: `safe`, `rewrites`, `destructive` or `refused`, as the module describes.
        reason: why it has that effect.
        details: the attributes, or columns of a service, that change.
        hint: how to avoid the effect; may be empty.
    """

    action: Action
    kind: str
    name: str
    effect: Effect
    reason: str
    details: tuple[AttributeChange | ColumnChange, ...] = ()
    hint: str = ""

    def to_document(self) -> dict[str, Any]:
        """The change as JSON types."""
        details = [{"path": one.path, "before": one.before, "after": one.after} for one in self.details]
        return asdict(self) | {"details": details}


@dataclass(frozen=True)
class ChangePlan:
    """All changes of an apply.

    Attributes:
        changes: one for each definition that changes.
        rewritten: the row groups that get a new generation.
        notes: other things to know before applying, in sentences.
        unfinished: a version that is not served yet because its apply was stopped; None: there is none.
        buckets: the number of buckets before and after, if it changes.
    """

    changes: tuple[DefinitionChange, ...]
    rewritten: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unfinished: int | None = None
    buckets: tuple[int, int] | None = None

    @property
    def is_empty(self) -> bool:
        """True if apply has nothing to do."""
        return not self.changes and self.unfinished is None and self.buckets is None

    @property
    def refused(self) -> list[DefinitionChange]:
        """The changes that cannot be applied."""
        return [change for change in self.changes if change.effect == "refused"]

    @property
    def destructive(self) -> list[DefinitionChange]:
        """The changes that delete stored values, or columns that clients read."""
        return [change for change in self.changes if change.effect == "destructive"]

    def to_document(self) -> dict[str, Any]:
        """The plan as JSON types."""
        return {
            "changes": [change.to_document() for change in self.changes],
            "rewritten_row_groups": list(self.rewritten),
            "notes": list(self.notes),
            "unfinished_version": self.unfinished,
            "buckets": list(self.buckets) if self.buckets is not None else None,
        }

    def remarks(self) -> list[str]:
        """Everything to know besides the changes, in sentences."""
        if self.buckets is not None:
            before, after = self.buckets
            moves = (
                f"The number of buckets changes from {before} to {after}: apply copies all rows, and fills the stream "
                "views from their histories and topics, before readers switch."
            )
            return [moves, *replace(self, buckets=None).remarks()]
        if self.unfinished is None:
            return list(self.notes)
        stopped = f"The apply of version {self.unfinished} was stopped before it was served; apply finishes it."
        if self.changes:
            stopped = f"The apply of version {self.unfinished} was stopped; this apply replaces it."
        return [stopped, *self.notes]

    def __str__(self) -> str:
        if self.is_empty:
            return "\n".join(["No changes: the registry has these definitions.", *self.remarks()])
        lines = []
        for change in self.changes:
            what = f"{_SIGNS[change.action]} {change.action} {change.kind} {change.name}"
            lines.append(f"{what}  ({change.effect}: {change.reason})")
            lines += [f"    {detail.sign} {detail}" for detail in change.details]
            lines += [f"    {change.hint}"] if change.hint else []
        return "\n".join([*lines, "", *self.remarks(), self.summary()])

    def summary(self) -> str:
        """One line of counts."""
        actions = {action: sum(change.action == action for change in self.changes) for action in _SIGNS}
        rewrites = sum(change.effect == "rewrites" for change in self.changes)
        return (
            f"Plan: {actions['create']} to create, {actions['update']} to change, {actions['delete']} to delete; "
            f"{rewrites} rewrite data, {len(self.destructive)} destructive, {len(self.refused)} refused."
        )


def _shown(path: str, value: Any) -> str:
    if path in ("ttl", "freshness") and isinstance(value, int):
        return str(timedelta(microseconds=value))
    if isinstance(value, dict) and "dtype" in value:
        return str(value["dtype"])
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    return "none" if value is None else str(value)
