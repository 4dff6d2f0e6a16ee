"""What applying changed definitions would do: the diff, and for each change whether it is safe.

safe      takes effect at once; stored rows stay as they are
rewrites  the row layout changes: a new generation is filled beside the old one, then served at once
refused   stored rows could not be carried over
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from feature_store.definitions.definition_set import KINDS
from feature_store.registry.compile import (
    compile_plan,
    layout_of,
    segment_layout,
    segment_plan,
    tiles_layout_of,
)

if TYPE_CHECKING:
    from feature_store.definitions.definition_set import DefinitionSet
    from feature_store.definitions.feature_view import FeatureView

Action = Literal["create", "update", "delete"]
Effect = Literal["safe", "rewrites", "refused"]
_SERVED_AGAIN = "{} are served again; what was not stored is filled from the sources first"
_PRUNING = {
    (action, stage): reason
    for action in ("create", "update")
    for stage, reason in (
        ("shadow", "{} would be dropped; clients compare"),
        ("mask", "{} are not served any more"),
        ("drop", "{} are not served any more, nor computed and stored where no service needs them"),
    )
} | {("delete", stage): _SERVED_AGAIN for stage in ("shadow", "mask", "drop")}
_SIGNS = {"create": "+", "update": "~", "delete": "-"}


@dataclass(frozen=True)
class AttributeChange:
    """One attribute that changes: its path, and the values (None where there is none)."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.path, self.before)} -> {_shown(self.path, self.after)}"


@dataclass(frozen=True)
class Change:
    """What happens to one definition, and what that means for stored data."""

    action: Action
    kind: str
    name: str
    effect: Effect
    reason: str
    details: tuple[AttributeChange, ...] = ()


@dataclass(frozen=True)
class ChangePlan:
    """All the changes of an apply. `rewritten` names the row groups that get a new generation."""

    changes: tuple[Change, ...]
    rewritten: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return not self.changes

    @property
    def refused(self) -> list[Change]:
        """The changes that cannot be applied."""
        return [change for change in self.changes if change.effect == "refused"]

    def to_document(self) -> dict[str, Any]:
        """The plan as JSON types."""
        return {"changes": [asdict(change) for change in self.changes], "rewritten_row_groups": list(self.rewritten)}

    def __str__(self) -> str:
        if self.is_empty:
            return "No changes: the registry has these definitions."
        lines = []
        for change in self.changes:
            what = f"{_SIGNS[change.action]} {change.action} {change.kind} {change.name}"
            lines.append(f"{what}  ({change.effect}: {change.reason})")
            lines += [f"    ~ {detail}" for detail in change.details]
        return "\n".join([*lines, "", self.summary()])

    def summary(self) -> str:
        """One line of counts."""
        actions = {action: sum(change.action == action for change in self.changes) for action in _SIGNS}
        rewrites = sum(change.effect == "rewrites" for change in self.changes)
        return (
            f"Plan: {actions['create']} to create, {actions['update']} to change, {actions['delete']} to delete; "
            f"{rewrites} rewrite data, {len(self.refused)} refused."
        )


def plan_changes(old: DefinitionSet | None, new: DefinitionSet) -> ChangePlan:
    """The difference between what is applied (None: nothing) and new definitions."""
    before = _as_json(old) if old is not None else {kind: {} for kind in KINDS}
    after = _as_json(new)
    rewritten = _rewritten_groups(old, new)
    changes = []
    for kind, model in KINDS.items():
        for name in sorted(before[kind].keys() | after[kind].keys()):
            was, becomes = before[kind].get(name), after[kind].get(name)
            if was == becomes:
                continue
            details = tuple(_differences("", was, becomes)) if was is not None and becomes is not None else ()
            action: Action = "create" if was is None else "delete" if becomes is None else "update"
            effect, reason = _judge(kind, name, action, details, old, new, rewritten)
            changes.append(Change(action, model.__name__, name, effect, reason, details))
    changes += _pruning_changes(old, new)
    return ChangePlan(tuple(changes), tuple(sorted(rewritten)))


def _pruning_changes(old: DefinitionSet | None, new: DefinitionSet) -> list[Change]:
    before = old.prunings if old is not None else {}
    changes = []
    for service in sorted(before.keys() | new.prunings.keys()):
        was, becomes = before.get(service), new.prunings.get(service)
        if was == becomes:
            continue
        action: Action = "create" if was is None else "delete" if becomes is None else "update"
        stages = [pruning.stage for pruning in (was, becomes) if pruning is not None]
        effect: Effect = "rewrites" if "drop" in stages else "safe"
        pruning = becomes or was
        assert pruning is not None
        count = f"{len(pruning.dropped)} of {len(pruning.columns)} features"
        changes.append(
            Change(action, "Pruning", service, effect, f"{pruning.plan}: {_PRUNING[action, stages[-1]].format(count)}")
        )
    return changes


def _as_json(definitions: DefinitionSet) -> dict[str, Any]:
    # Tuples become lists: what comes from the registry and what was just defined have the same types.
    document: dict[str, Any] = json.loads(json.dumps(definitions.to_document()))
    return document


def _rewritten_groups(old: DefinitionSet | None, new: DefinitionSet) -> set[str]:
    """The row groups that exist in both and differ in layout: those to which `compile_plan` gives a new generation."""
    if old is None:
        return set()
    layouts = {group.name: layout_of(group) for group in compile_plan(old, project="p", version=1).groups}
    groups = compile_plan(new, project="p", version=1).groups
    return {group.name for group in groups if group.name in layouts and layouts[group.name] != layout_of(group)}


def _judge(
    kind: str,
    name: str,
    action: Action,
    details: tuple[AttributeChange, ...],
    old: DefinitionSet | None,
    new: DefinitionSet,
    rewritten: set[str],
) -> tuple[Effect, str]:
    if kind == "entities":
        return _judge_entity(name, action, details, old)
    if kind == "feature_views":
        return _judge_view(name, action, details, old, new, rewritten)
    if kind == "stream_feature_views":
        return _judge_stream_view(name, action, details, old, new)
    if kind == "on_demand_feature_views":
        code = any(detail.path == "digest" for detail in details)
        return "safe", "computed when asked for" + ("; model servers need the new code" if code else "")
    served = {"create": "can be asked for at once", "delete": "can be asked for no more"}
    return "safe", served.get(action, "what is served changes with the next request")


def _judge_entity(
    name: str, action: Action, details: tuple[AttributeChange, ...], old: DefinitionSet | None
) -> tuple[Effect, str]:
    views = old.stored_views if old is not None else []
    stored = [view.name for view in views if any(entity.name == name for entity in view.entities)]
    if stored and action == "update" and any(detail.path in ("dtype", "join_key") for detail in details):
        return (
            "refused",
            f"rows of {', '.join(stored)} are stored under its key; define another entity, or tear down first",
        )
    return "safe", "a description of keys"


def _judge_view(
    name: str,
    action: Action,
    details: tuple[AttributeChange, ...],
    old: DefinitionSet | None,
    new: DefinitionSet,
    rewritten: set[str],
) -> tuple[Effect, str]:
    if any(detail.path.startswith("entities") for detail in details):
        return "refused", "its rows are stored under other keys; give the view another name"
    view = new.feature_views.get(name) or (old.feature_views[name] if old else None)
    assert view is not None
    group = "+".join(entity.name for entity in view.entities)
    changes_layout = action != "update" or old is None or _layout(old.feature_views[name]) != _layout(view)
    if group in rewritten and changes_layout:
        return "rewrites", f"new generation of the rows of {group}: copied, filled from the source, then served at once"
    if action == "create":
        return "safe", "nothing is stored of it yet; materialize or push fills it"
    if action == "delete":
        return "safe", f"the rows of {group} are deleted"
    paths = {part for detail in details for part in (detail.path.split(".")[0], detail.path.split(".")[-1])}
    reasons = {
        "ttl": "the ttl counts at read",
        "freshness": "watched from now on",
        "on_breach": "from the next materialize on",
        "min": "expected of what is written from the next materialize on",
        "max": "expected of what is written from the next materialize on",
        "allowed": "expected of what is written from the next materialize on",
        "max_null_rate": "expected of what is written from the next materialize on",
        "default": "served where there is no value",
        "path": "read by the next materialize",
        "sql": "selected by the next materialize",
        "aggregations": "computed by the next materialize",
    }
    told = dict.fromkeys(reason for path, reason in reasons.items() if path in paths)
    return "safe", "; ".join(told) or "stored rows stay as they are"


def _judge_stream_view(
    name: str,
    action: Action,
    details: tuple[AttributeChange, ...],
    old: DefinitionSet | None,
    new: DefinitionSet,
) -> tuple[Effect, str]:
    if any(detail.path.startswith("entities") for detail in details):
        return "refused", "its tiles are stored under other keys; give the view another name"
    if action == "create" or old is None:
        return "safe", "nothing is stored of it yet; stream and backfill fill it"
    if action == "delete":
        return "safe", "its tiles are deleted"
    before, after = (
        next(
            tiles
            for tiles in compile_plan(definitions.with_prunings([]), project="p", version=1).tiles
            if tiles.view == name
        )
        for definitions in (old, new)
    )
    if tiles_layout_of(before) != tiles_layout_of(after):
        return "rewrites", "new generation of its tiles: filled from the history and the topic, then served at once"
    return "safe", "stored tiles stay as they are"


def _layout(view: FeatureView) -> tuple[object, ...]:
    return segment_layout(segment_plan(view))


def _differences(path: str, before: Any, after: Any) -> list[AttributeChange]:
    if before == after:
        return []
    old, new = _by_name(before), _by_name(after)
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [AttributeChange(path, before, after)]
    found = [
        difference
        for key in dict.fromkeys([*old, *new])
        for difference in _differences(f"{path}.{key}".lstrip("."), old.get(key), new.get(key))
    ]
    # The same fields in another order are another layout.
    if isinstance(before, list) and [key for key in old if key in new] != [key for key in new if key in old]:
        found.append(AttributeChange(path, list(old), list(new)))
    return found


def _by_name(value: Any) -> Any:
    """Lists of named things (a schema's fields) compare by name, so that one more field is one change."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and item.get("name") for item in value):
        return {item["name"]: {key: part for key, part in item.items() if key != "name"} for item in value}
    return value


def _shown(path: str, value: Any) -> str:
    if path in ("ttl", "freshness") and isinstance(value, int):
        return str(timedelta(microseconds=value))
    if isinstance(value, dict) and "dtype" in value:
        return str(value["dtype"])
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    return "none" if value is None else str(value)
