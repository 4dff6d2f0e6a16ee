"""The command doctor: checks all that serving needs, and says what to do about what is wrong."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import typer
from rich.markup import escape

from feature_store.cli.options import AsJson, Repo
from feature_store.cli.output import console, counted, print_json
from feature_store.errors import EmbeddedServerError, FeatureStoreError, StoreConnectionError, StoreTimeoutError
from feature_store.store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SIGNS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failed": "[red]✗[/]"}
# Redis at this share of maxmemory soon refuses writes, or drops keys.
_MEMORY_HEADROOM = 0.9
# On one machine or within a zone a round trip takes less; more is half of a 10 ms budget gone.
_SLOW_PING_US = 5000


class Finding(NamedTuple):
    """What one check found."""

    check: str
    state: Literal["ok", "warning", "failed"]
    about: str
    hint: str = ""


def doctor(repo: Repo = Path(), as_json: AsJson = False) -> None:
    """Check configuration, definitions, registry, Redis and data. Exit code 1 when something is broken."""
    with FeatureStore(repo) as store:
        findings = list(diagnose(store))
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        out = console()
        for finding in findings:
            out.print(f"{_SIGNS[finding.state]} {finding.check:<13}{escape(finding.about)}", soft_wrap=True)
            if finding.hint:
                out.print(f"  {'':<13}→ {escape(finding.hint)}", soft_wrap=True)
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(1)


def diagnose(store: FeatureStore) -> Iterator[Finding]:
    """Check after check. One that fails does not keep the others from being made, unless Redis cannot be reached: then
    the rest, which needs it, would say the same."""
    yield Finding("library", "ok", f"feature-store {version('feature-store')}, Python {platform.python_version()}")
    checks: dict[str, Callable[[FeatureStore], Iterator[Finding]]] = {
        "definitions": _definitions,
        "registry": _registry,
        "sources": _sources,
        "online store": _online_store,
        "memory": _memory,
        "persistence": _persistence,
        "serving plan": _serving_plan,
        "rows": _rows,
    }
    for name, check in checks.items():
        try:
            yield from check(store)
        except FeatureStoreError as error:
            yield Finding(name, "failed", error.reason, error.hint)
            if isinstance(error, (StoreConnectionError, StoreTimeoutError, EmbeddedServerError)):
                return


def _definitions(store: FeatureStore) -> Iterator[Finding]:
    found = store.definitions
    counts = {
        "view": len(found.feature_views),
        "stream view": len(found.stream_feature_views),
        "on-demand view": len(found.on_demand_feature_views),
        "service": len(found.feature_services),
    }
    defined = ", ".join(counted(count, thing) for thing, count in counts.items() if count) or "nothing"
    yield Finding("definitions", "ok", f"{defined} in {store.config.folder}")


def _registry(store: FeatureStore) -> Iterator[Finding]:
    newest = store.registry.latest()
    if newest is None:
        yield Finding("registry", "warning", "nothing is applied yet", "run `feature-store apply`")
        return
    about = f"version {newest.version}, applied {newest.applied_at:%Y-%m-%d %H:%M} UTC by {newest.author}"
    changes = store.plan()
    if changes.is_empty:
        yield Finding("registry", "ok", about)
    else:
        yield Finding(
            "registry", "warning", f"{about}; the files differ: {changes.summary()}", "see `feature-store plan`"
        )


def _sources(store: FeatureStore) -> Iterator[Finding]:
    from feature_store.engines.sources import parquet_rows

    views = [view for view in store.definitions.feature_views.values() if view.source is not None]
    for view in views:
        assert view.source is not None
        try:
            rows = parquet_rows(view.source, view, store.config.folder)
        except FeatureStoreError as error:
            yield Finding("sources", "failed", f"{view.name}: {error.reason}", error.hint)
        else:
            yield Finding("sources", "ok", f"{view.name}: {counted(rows.total or 0, 'row')} in {view.source.path}")


def _online_store(store: FeatureStore) -> Iterator[Finding]:
    info, ping = store.online.info(), store.online.ping_us()
    name = f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info['redis_version']}"
    about = f"{name} at {store.online.shown_url}, round trip {ping:.0f} µs"
    if ping > _SLOW_PING_US:
        yield Finding(
            "online store", "warning", about, "a request cannot be faster: bring model server and Redis closer"
        )
    else:
        yield Finding("online store", "ok", about)


def _memory(store: FeatureStore) -> Iterator[Finding]:
    info = store.online.info()
    used, limit, policy = info["used_memory"], info.get("maxmemory", 0), info.get("maxmemory_policy", "")
    about = f"{used / 1e6:.1f} MB used of {f'{limit / 1e6:.0f} MB' if limit else 'what the machine has'}, {policy}"
    if policy.startswith("allkeys"):
        hint = "Redis may drop any row when memory is short: set maxmemory-policy noeviction"
        yield Finding("memory", "warning", about, hint)
    elif limit and used > limit * _MEMORY_HEADROOM:
        yield Finding("memory", "warning", about, "raise maxmemory, or serve less")
    else:
        yield Finding("memory", "ok", about)


def _persistence(store: FeatureStore) -> Iterator[Finding]:
    append_only, save = store.online.config("appendonly"), store.online.config("save")
    if append_only is None and save is None:
        yield Finding("persistence", "ok", "the server does not tell")
    elif append_only == "yes" or save:
        yield Finding("persistence", "ok", "append-only file" if append_only == "yes" else f"snapshots: {save}")
    else:
        hint = "a restart loses all rows and the plan; set appendonly yes, or be ready to apply and materialize again"
        yield Finding("persistence", "warning", "none", hint)


def _serving_plan(store: FeatureStore) -> Iterator[Finding]:
    plan, newest = store.online.require_published().plan, store.registry.latest()
    about = f"version {plan.version} is served"
    if newest is None or newest.version != plan.version:
        told = f"{about}, the registry's newest is {newest.version if newest else 'none'}"
        yield Finding("serving plan", "failed", told, "an apply did not finish: run `feature-store apply`")
    elif plan.filling:
        yield Finding("serving plan", "warning", f"{about}, a next one is being filled", "if not, run apply again")
    else:
        yield Finding("serving plan", "ok", about)


def _rows(store: FeatureStore) -> Iterator[Finding]:
    published = store.online.published()
    if published is None:
        return
    streams = {tiles.view for tiles in published.plan.tiles}
    for name, found in store.online.statistics().items():
        about = (
            f"{name}: {counted(found['rows'], 'row')} of {found['row_bytes']:,} bytes, {found['bytes'] / 1e6:.1f} MB"
        )
        if found["rows"]:
            yield Finding("rows", "ok", about)
        else:
            command = "backfill` or `feature-store stream" if name in streams else "materialize"
            yield Finding("rows", "warning", about, f"nothing to serve: run `feature-store {command}`")
