"""The difference between two sets of definitions: the changes, and for each whether it is safe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feature_store.definitions.definition import Definition, on_change
from feature_store.definitions.definition_set import KINDS, DefinitionSet
from feature_store.definitions.feature_view import FeatureView
from feature_store.definitions.field import Field
from feature_store.definitions.graph import graph_of
from feature_store.definitions.pruned import pruned
from feature_store.registry.changes import Action, AttributeChange, ChangePlan, ColumnChange, DefinitionChange, Effect
from feature_store.registry.compile import (
    row_group_views,
    segment_plan,
    tiles_plan,
)
from feature_store.registry.service_diff import column_changes, columns_of, second_version

_SERVED_AGAIN = "{} are served again; those that were not stored are filled from the sources first"
_PRUNING = {
    (action, stage): reason
    for action in ("create", "update")
    for stage, reason in (
        ("shadow", "{} would be dropped; clients compare both answers"),
        ("mask", "{} are no longer served"),
        ("drop", "{} are no longer served, nor computed and stored unless another service needs them"),
    )
} | {("delete", stage): _SERVED_AGAIN for stage in ("shadow", "mask", "drop")}


def plan_changes(
    old: DefinitionSet | None, new: DefinitionSet, readers: Mapping[str, Sequence[str]] | None = None
) -> ChangePlan:
    """The changes from the applied definitions to new ones.

    Args:
        old: the applied definitions; None: nothing is applied.
        new: the definitions to apply.
        readers: known readers of each service, such as `model ranker-7`.
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
            changes.append(DefinitionChange(action, model.__name__, name, effect, reason, details))
    changes += _pruning_changes(old, new)
    return ChangePlan(tuple(changes), tuple(sorted(rewritten)))


def _pruning_changes(old: DefinitionSet | None, new: DefinitionSet) -> list[DefinitionChange]:
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
        reason = f"{pruning.plan}: {_PRUNING[action, stages[-1]].format(count)}"
        changes.append(DefinitionChange(action, "Pruning", service, effect, reason))
    return changes


def _rewritten_groups(old: DefinitionSet | None, new: DefinitionSet) -> set[str]:
    """The row groups of both that differ in layout: `compile_plan` gives them a new generation."""
    if old is None:
        return set()
    before, after = row_group_views(pruned(old)), row_group_views(pruned(new))
    return {name for name in before.keys() & after.keys() if _differ(before[name], after[name])}


def _differ(before: Sequence[FeatureView], after: Sequence[FeatureView]) -> bool:
    """Whether the layouts of a row group's views differ."""
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
    return "safe", "computed on request" + _effect_on_servers(action, details)


# Changes of other attributes of an on-demand view change what its function takes or returns.
_SAME_INTERFACE = {"function", "digest", *(name for name, declared in on_change(Definition) if declared.keeps_meaning)}


def _effect_on_servers(action: Action, details: tuple[AttributeChange, ...]) -> str:
    """What model servers that run an on-demand view's function must do; see docs/on-demand.md."""
    paths = {detail.path.split(".")[0] for detail in details}
    if action != "update" or not paths - _SAME_INTERFACE:
        return "; servers with the old code go on serving until the new code is deployed" if "digest" in paths else ""
    return "; servers with the old code cannot answer: give the changed view a new name"


def _service_changes(
    name: str,
    was: dict[str, Any] | None,
    becomes: dict[str, Any] | None,
    old: DefinitionSet | None,
    new: DefinitionSet,
    readers: Sequence[str],
) -> list[DefinitionChange]:
    """The change of a service, if any. Columns may change type though the service's definition does not change."""
    kind = "FeatureService"
    if old is None or was is None:
        created = DefinitionChange("create", kind, name, "safe", "can be requested at once")
        return [created] if becomes is not None else []
    known = _known_readers(old.feature_services[name].tags.get("model"), readers)
    if becomes is None:
        reason = f"can no longer be requested{known}"
        hint = "Delete it when nobody requests it: feature_store_client_request_seconds counts requests by service."
        return [DefinitionChange("delete", kind, name, "destructive", reason, hint=hint)]
    if was == becomes and _reads_the_same_views(name, old, new):
        return []
    service = new.feature_services[name]
    columns = column_changes(columns_of(old, name), columns_of(new, name))
    others = [change for change in _differences("", was, becomes) if not change.path.startswith("features")]
    if not columns and not others:
        return []
    details: tuple[AttributeChange | ColumnChange, ...] = (*columns, *others)
    if any(column.breaks_readers for column in columns):
        reason = f"columns that clients read are removed, changed or moved{known}"
        second = second_version(service, f"{name}_v2")
        hint = f"To avoid this: keep {name}, add {second}, move readers, then delete {name}."
        return [DefinitionChange("update", kind, name, "destructive", reason, details, hint)]
    reason = "only its description changes"
    if columns:
        reason = f"columns are added from the next request on; a model that takes the whole matrix gets them too{known}"
    return [DefinitionChange("update", kind, name, "safe", reason, details)]


def _reads_the_same_views(service: str, old: DefinitionSet, new: DefinitionSet) -> bool:
    """Whether an unchanged service reads unchanged views. An unchanged view is the same object in both sets: see
    `DefinitionSet.from_document`."""
    before, after = graph_of(old).views, graph_of(new).views
    return all(before[one.view] is after[one.view] for one in new.feature_services[service].features)


def _known_readers(tag: str | None, readers: Sequence[str]) -> str:
    """The known readers of a service, in words: the model of its tag, as in the lineage, and those of the caller."""
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
    return "safe", "no stored rows are affected"


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
        return "safe", "it is empty until materialize or push fills it"
    paths = {part for detail in details for part in (detail.path.split(".")[0], detail.path.split(".")[-1])}
    if all(detail.path.startswith("source.schema") for detail in details if detail.path.startswith("source")):
        paths -= {"source"}  # a schema of events selects columns; the same rows are read
    declared = on_change(FeatureView, Field)
    effects = dict.fromkeys(change.effect for name, change in declared if name in paths and change.effect)
    return "safe", "; ".join(effects) or "stored rows do not change"


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
    over = "for the intervals of its other views" if action == "create" else "from the source"
    reason = f"{generation}: copied, this view filled {over}, then served at once"
    types = (
        {field.name: field.dtype for field in old.feature_views[view.name].fields} if action != "create" and old else {}
    )
    retyped = [field.name for field in view.fields if types.get(field.name, field.dtype) != field.dtype]
    if retyped:
        reason += f"; pushed values of {', '.join(retyped)} that are newer than the source's are lost"
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
        return "safe", "it is empty until stream or backfill fills it"
    if action == "delete":
        return "destructive", "its tiles are deleted"
    before, after = (tiles_plan(definitions.stream_feature_views[name], 1) for definitions in (old, new))
    if before.layout != after.layout:
        return "rewrites", "new generation of its tiles: filled from the history and the topic, then served at once"
    return "safe", "stored tiles do not change"


def _layout(view: FeatureView) -> tuple[object, ...]:
    return segment_plan(view).layout


def _differences(path: str, before: Any, after: Any) -> list[AttributeChange]:
    if before == after:
        return []
    old, new = _by_name(before), _by_name(after)
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [AttributeChange(path, before, after)]
    differences = [
        difference
        for key in dict.fromkeys([*old, *new])
        for difference in _differences(f"{path}.{key}".lstrip("."), old.get(key), new.get(key))
    ]
    # Another order of the same fields is another layout.
    if isinstance(before, list) and [key for key in old if key in new] != [key for key in new if key in old]:
        differences.append(AttributeChange(path, list(old), list(new)))
    return differences


def _by_name(value: Any) -> Any:
    """Lists of named items, such as a schema's fields, as mappings, so that an added field is one change."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and item.get("name") for item in value):
        return {item["name"]: {key: part for key, part in item.items() if key != "name"} for item in value}
    return value
