"""What applying changed definitions would do: the diff, and for each change whether it is safe.

safe         takes effect at once; nothing that is stored or served is lost
rewrites     the row layout changes: a new generation is filled beside the old one, then served at once
destructive  stored values are deleted, or columns of a service are taken away, changed or moved: apply asks first
refused      stored rows could not be carried over, or the source does not hold what the view takes
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Literal

from feature_store.definitions.definition_set import KINDS, DefinitionSet
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.graph import graph_of
from feature_store.definitions.pruned import pruned
from feature_store.registry.compile import (
    row_group_views,
    segment_plan,
    tiles_plan,
)
from feature_store.registry.service_diff import ColumnChange, column_changes, columns_of, second_version

Action = Literal["create", "update", "delete"]
Effect = Literal["safe", "rewrites", "destructive", "refused"]
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
    sign: str = field(default="~", init=False, repr=False)

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.path, self.before)} -> {_shown(self.path, self.after)}"


@dataclass(frozen=True)
class Change:
    """What happens to one definition, and what that means for stored data and for readers.

    Attributes:
        action: `create`, `update` or `delete`.
        kind: the class of the definition.
        name: its name.
        effect: see the module.
        reason: why it has that effect.
        details: the attributes, or the columns of a service, that change.
        hint: how to have the change without the effect; may be empty.
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
    """All the changes of an apply.

    Attributes:
        changes: of each definition.
        rewritten: the row groups that get a new generation.
        notes: what else to know before applying, in sentences.
        unfinished: the version that was applied and is not served yet, because its apply was stopped; or None.
    """

    changes: tuple[Change, ...]
    rewritten: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unfinished: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether apply has nothing to do."""
        return not self.changes and self.unfinished is None

    @property
    def refused(self) -> list[Change]:
        """The changes that cannot be applied."""
        return [change for change in self.changes if change.effect == "refused"]

    @property
    def destructive(self) -> list[Change]:
        """The changes that delete stored values or take something from readers."""
        return [change for change in self.changes if change.effect == "destructive"]

    def to_document(self) -> dict[str, Any]:
        """The plan as JSON types."""
        return {
            "changes": [change.to_document() for change in self.changes],
            "rewritten_row_groups": list(self.rewritten),
            "notes": list(self.notes),
            "unfinished_version": self.unfinished,
        }

    def remarks(self) -> list[str]:
        """What there is to say besides the changes, in sentences."""
        if self.unfinished is None:
            return list(self.notes)
        stopped = f"The apply of version {self.unfinished} was stopped before it was served; apply finishes it."
        if self.changes:
            stopped = f"The apply of version {self.unfinished} was stopped; this apply takes its place."
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


def plan_changes(
    old: DefinitionSet | None, new: DefinitionSet, readers: Mapping[str, Sequence[str]] | None = None
) -> ChangePlan:
    """The difference between what is applied (None: nothing) and new definitions.

    Args:
        old: what is applied.
        new: what is to be applied.
        readers: who is known to read each service, such as `model ranker-7`.
    """
    before = old.document if old is not None else {kind: {} for kind in KINDS}
    after = new.document
    rewritten = _rewritten_groups(old, new)
    changes = []
    for kind, model in KINDS.items():
        for name in sorted(before[kind].keys() | after[kind].keys()):
            was, becomes = before[kind].get(name), after[kind].get(name)
            if kind == "feature_services":
                changes += _service_changes(name, was, becomes, old, new, (readers or {}).get(name, ()))
                continue
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


def _rewritten_groups(old: DefinitionSet | None, new: DefinitionSet) -> set[str]:
    """The row groups that exist in both and differ in layout: those to which `compile_plan` gives a new generation."""
    if old is None:
        return set()
    before, after = row_group_views(pruned(old)), row_group_views(pruned(new))
    return {name for name in before.keys() & after.keys() if _differ(before[name], after[name])}


def _differ(before: Sequence[FeatureView], after: Sequence[FeatureView]) -> bool:
    """Whether the views of a row group have another layout."""
    keys = [[(entity.join_key, str(entity.dtype)) for entity in views[0].entities] for views in (before, after)]
    if keys[0] != keys[1] or len(before) != len(after):
        return True
    return any(was is not now and _layout(was) != _layout(now) for was, now in zip(before, after, strict=True))


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
    return "safe", "computed when asked for" + _told_to_servers(action, details)


# What of an on-demand view changes neither the function nor what it takes and returns.
_ABOUT = {"function", "digest", "description", "owner", "tags"}


def _told_to_servers(action: Action, details: tuple[AttributeChange, ...]) -> str:
    """What the change of an on-demand view asks of model servers that run its function; see docs/on-demand.md."""
    paths = {detail.path.split(".")[0] for detail in details}
    if action != "update" or not paths - _ABOUT:
        return "; servers with the old code serve on until the new is deployed" if "digest" in paths else ""
    return "; servers with the old code cannot answer: give the changed view a new name"


def _service_changes(
    name: str,
    was: dict[str, Any] | None,
    becomes: dict[str, Any] | None,
    old: DefinitionSet | None,
    new: DefinitionSet,
    readers: Sequence[str],
) -> list[Change]:
    """The change of a service, if there is one: a column's type may change though its definition stays."""
    kind = "FeatureService"
    if old is None or was is None:
        return [Change("create", kind, name, "safe", "can be asked for at once")] if becomes is not None else []
    known = _known_readers(old.feature_services[name].tags.get("model"), readers)
    if becomes is None:
        reason = f"can be asked for no more{known}"
        hint = "Delete it when nobody asks for it: feature_store_client_request_seconds counts requests by service."
        return [Change("delete", kind, name, "destructive", reason, hint=hint)]
    if was == becomes and _reads_the_same_views(name, old, new):
        return []
    service = new.feature_services[name]
    columns = column_changes(columns_of(old, name), columns_of(new, name))
    others = [change for change in _differences("", was, becomes) if not change.path.startswith("features")]
    if not columns and not others:
        return []
    details: tuple[AttributeChange | ColumnChange, ...] = (*columns, *others)
    if any(column.breaks_readers for column in columns):
        reason = f"columns that clients read are taken away, changed or moved{known}"
        hint = (
            f"Without it: keep {name}, add {second_version(service, f'{name}_v2')}, move readers, then delete {name}."
        )
        return [Change("update", kind, name, "destructive", reason, details, hint)]
    reason = "described anew"
    if columns:
        reason = f"columns are added with the next request; a model that takes the whole matrix gets them too{known}"
    return [Change("update", kind, name, "safe", reason, details)]


def _reads_the_same_views(service: str, old: DefinitionSet, new: DefinitionSet) -> bool:
    """Whether a service that did not change reads views that did not change. What did not change is one object in both
    sets: see `DefinitionSet.from_document`."""
    before, after = graph_of(old).views, graph_of(new).views
    return all(before[one.view] is after[one.view] for one in new.feature_services[service].features)


def _known_readers(tag: str | None, readers: Sequence[str]) -> str:
    """Who is known to read a service: the model of its tag, as in the lineage, and those that the caller names."""
    known = list(dict.fromkeys([*([f"model {tag}"] if tag else []), *readers]))
    return f"; known readers: {', '.join(known)}" if known else ""


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
    if action == "delete":
        return "destructive", f"its values are deleted from the rows of {group}"
    if group in rewritten and changes_layout:
        return _judge_rewritten(view, group, action, old)
    if action == "create":
        return "safe", "nothing is stored of it yet; materialize or push fills it"
    paths = {part for detail in details for part in (detail.path.split(".")[0], detail.path.split(".")[-1])}
    if all(detail.path.startswith("source.schema") for detail in details if detail.path.startswith("source")):
        paths -= {"source"}  # the columns of events decide what is taken, not which rows are read
    reasons = {
        "ttl": "the ttl counts at read",
        "freshness": "watched from now on",
        "on_breach": "from the next materialize on",
        "min": "expected of what is written from the next materialize on",
        "max": "expected of what is written from the next materialize on",
        "allowed": "expected of what is written from the next materialize on",
        "max_null_rate": "expected of what is written from the next materialize on",
        "default": "served where there is no value",
        "source": "all rows are read anew by the next materialize",
        "sql": "all rows are selected anew by the next materialize",
        "aggregations": "all rows are computed anew by the next materialize",
    }
    told = dict.fromkeys(reason for path, reason in reasons.items() if path in paths)
    return "safe", "; ".join(told) or "stored rows stay as they are"


def _judge_rewritten(view: FeatureView, group: str, action: Action, old: DefinitionSet | None) -> tuple[Effect, str]:
    generation = f"new generation of the rows of {group}"
    if view.source is None:
        if action == "create":
            return "rewrites", f"{generation}: copied, then served at once; push fills this view"
        kept = {(field.name, field.dtype) for field in view.fields}
        before = old.feature_views[view.name].fields if old is not None else ()
        lost = [field.name for field in before if (field.name, field.dtype) not in kept]
        if lost:
            return "destructive", f"pushed values of {', '.join(lost)} are deleted, and no source has them"
        return "rewrites", f"{generation}: copied, then served at once"
    over = "over what its other views were materialized for" if action == "create" else "from the source"
    reason = f"{generation}: copied, this view filled {over}, then served at once"
    types = (
        {field.name: field.dtype for field in old.feature_views[view.name].fields} if action != "create" and old else {}
    )
    retyped = [field.name for field in view.fields if types.get(field.name, field.dtype) != field.dtype]
    if retyped:
        reason += f"; values of {', '.join(retyped)} that were pushed and are newer than the source's are lost"
    return "rewrites", reason


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
        return "destructive", "its tiles are deleted"
    before, after = (tiles_plan(found.stream_feature_views[name], 1) for found in (old, new))
    if before.layout != after.layout:
        return "rewrites", "new generation of its tiles: filled from the history and the topic, then served at once"
    return "safe", "stored tiles stay as they are"


def _layout(view: FeatureView) -> tuple[object, ...]:
    return segment_plan(view).layout


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
