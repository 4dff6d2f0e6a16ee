"""What the prune commands print."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson

from feature_store.cli.output import console, print_json, table
from feature_store.cli.project import show_changes
from feature_store.cli.tables import MISSING
from feature_store.project.applying import Applied
from feature_store.pruning.accounts import FeatureAccount
from feature_store.pruning.footprint import Footprint
from feature_store.pruning.importance import Importances
from feature_store.pruning.plan import PrunePlan
from feature_store.pruning.verify import Verification

ACCOUNT_COLUMNS = (
    {"feature": "left", "view": "left"}
    | dict.fromkeys(("importance", "bytes", "keys", "per kB", "in Redis", "a day"), "right")
    | {"consumers": "left", "labels": "left", "dropped by": "left"}
)
TIME_COLUMNS = dict.fromkeys(("round trip", "decode, µs"), "right")
_CANDIDATE_COLUMNS = (
    {"features": "right"} | dict.fromkeys(("full", "pruned", "difference", "at least"), "right") | {"": "left"}
)


def show_importances(importances: Importances, as_json: bool) -> None:
    """Print importances as a table, or as the JSON that `prune import` reads."""
    if as_json:
        print_json(orjson.loads(importances.to_json()))
        return
    columns = {"feature": "left", "importance": "right", "std": "right"}
    ordered = sorted(importances.features, key=lambda item: -item.importance)
    console().print(table("", columns, [[one.feature, one.importance, one.std] for one in ordered]))
    noise = "" if importances.noise is None else f"; ε: at most {importances.noise:.3g}, within the noise"
    console().print(f"{len(ordered)} importances by {importances.method} of {importances.model}{noise}", markup=False)


def account_row(one: FeatureAccount) -> list[Any]:
    """A row of the table of features: see ACCOUNT_COLUMNS and TIME_COLUMNS."""
    per = one.importance_per_byte
    return [
        one.feature,
        one.view,
        one.importance,
        f"{one.bytes:,}",
        f"{one.keys:,}",
        None if per is None else f"{per * 1000:.4g}",
        None if one.redis_bytes is None else f"{one.redis_bytes:,}",
        None if one.daily_bytes is None else f"{one.daily_bytes:,}",
        ", ".join(one.consumers) or None,
        ", ".join("ε" if label == "epsilon" else label for label in one.labels) or None,
        one.dropped_by,
        None if one.round_trip is None else f"{one.round_trip:.2%}",
        None if one.decode_ns is None else f"{one.decode_ns / 1000:.1f}",
    ]


def plan_document(plan: PrunePlan) -> dict[str, Any]:
    """A plan in short, for `--json`."""
    return {
        "plan": plan.id,
        "service": plan.service,
        "made_at": plan.made_at,
        "features": [len(plan.columns), len(plan.kept)],
        "importance": plan.importance,
        "before": asdict(plan.before),
        "after": asdict(plan.after),
        "proven": plan.proven,
        "verified": plan.is_verified,
    }


def plan_line(plan: PrunePlan) -> str:
    """A plan in one line."""
    whole, kept = plan.importance
    share = f"{kept / whole:.1%}" if whole else MISSING
    verified = "not verified" if plan.verification is None else "verified" if plan.is_verified else "did not pass"
    return (
        f"plan {plan.id}: {len(plan.kept)} of {len(plan.columns)} features, {share} of the importance, "
        f"{plan.after.bytes:,} of {plan.before.bytes:,} bytes and {plan.after.keys} of {plan.before.keys} keys "
        f"a request{'' if plan.proven else ' (not proven to be the best)'}; {verified}"
    )


def show_verification(verification: Verification, plan: PrunePlan, instead: PrunePlan | None) -> None:
    """Print the verification of each candidate, and what to apply."""
    rows = [
        [
            len(one.kept),
            f"{one.overall.full:.4f}",
            f"{one.overall.pruned:.4f}",
            f"{one.overall.difference:+.4f}",
            f"{one.overall.lower_bound:+.4f}",
            "passes" if one.passes else "does not pass",
        ]
        for one in verification.candidates
    ]
    out = console()
    out.print(table("", _CANDIDATE_COLUMNS, rows))
    out.print(
        f"{verification.metric} of {verification.later_rows:,} later rows of {verification.entities:,} entities, "
        f"margin {verification.margin:g}, confidence {verification.confidence:g}, {len(verification.seeds)} seeds"
    )
    out.print(plan_line(plan), markup=False, soft_wrap=True)
    if instead is not None:
        out.print(f"instead: {plan_line(instead)}", markup=False, soft_wrap=True)
    elif not plan.is_verified:
        out.print(verification.reason, markup=False, soft_wrap=True)


def show_footprints(before: Footprint, after: Footprint, plan: PrunePlan) -> None:
    """Print the cost of requests before and after a plan was applied, and the loss of the model."""

    def row(name: str, was: float, now: float, shown: str) -> list[str]:
        return [name, format(was, shown), format(now, shown), f"{now / was - 1:+.1%}" if was else MISSING]

    rows = [
        row("features", before.features, after.features, ",d"),
        row("keys a request", before.keys, after.keys, ",.0f"),
        row("bytes a request", before.bytes, after.bytes, ",.0f"),
        row("MB in Redis", before.redis_bytes / 1e6, after.redis_bytes / 1e6, ",.2f"),
        row("p50, ms", before.p50_ms, after.p50_ms, ".3f"),
        row("p99, ms", before.p99_ms, after.p99_ms, ".3f"),
    ]
    if plan.verification is not None:
        verified = plan.verification
        change = f"{verified['difference']:+.4f}, at least {verified['lower_bound']:+.4f}"
        rows.append([verified["metric"].upper(), f"{verified['full']:.4f}", f"{verified['pruned']:.4f}", change])
    console().print(table("", {"": "left"} | dict.fromkeys(("before", "after", "change"), "right"), rows))


def show_applied(applied: Applied, as_json: bool) -> None:
    """Print the version that was applied, and its changes."""
    if as_json:
        print_json({"version": applied.version.version, **applied.changes.to_document()})
        return
    show_changes(applied.changes)
    console().print(f"version {applied.version.version} is served")
