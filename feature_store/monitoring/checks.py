"""The judgements of `feature-store doctor`: plain data of a project's parts in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, NamedTuple

from feature_store._formatting import counted, shown_age, shown_duration
from feature_store.errors import FencesLostError
from feature_store.monitoring.freshness import FreshnessReport
from feature_store.registry.serving_plan import ServingPlan

State = Literal["ok", "warning", "failed"]
# The first with PEXPIREAT … GT, by which the expiry of a row never moves back. Every Valkey reports this or more.
_LEAST_REDIS = (7, 0)
# The share of maxmemory from which Redis soon refuses writes or evicts keys.
_MEMORY_HEADROOM = 0.9
# Without maxmemory the machine is the limit, and a snapshot needs more memory for the pages that change meanwhile.
_MACHINE_HEADROOM = 0.75
# A round trip on one machine or within a zone takes less. More takes half of a 10 ms budget.
_SLOW_PING_US = 5000
# NTP keeps clocks within milliseconds of each other. Beyond this, one clock is not synchronised.
_CLOCKS_APART_US = 5_000_000
_CLIENTS_HEADROOM = 0.9
# A worker merges this many messages in well under a second. More mean that workers fall behind.
_MUCH_LAG = 10_000


class Finding(NamedTuple):
    """The result of a check, and what to do about it."""

    check: str
    state: State
    about: str
    hint: str = ""


def of_server(info: Mapping[str, Any], where: str, ping_us: float) -> Iterator[Finding]:
    """Check Redis itself: version, role, round trip and refused connections.

    Args:
        info: the answer to INFO.
        where: the URL, without a password.
        ping_us: the round trip in microseconds.
    """
    name = f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info['redis_version']}"
    about = f"{name} at {where}, round trip {ping_us:.0f} µs"
    version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if version < _LEAST_REDIS:
        yield Finding("online store", "failed", about, "Redis 7.0 or later, or Valkey, is required: upgrade it")
    elif info.get("role") == "slave":
        hint = "writes need the primary: point online_store.url at it, or name the Sentinels"
        yield Finding("online store", "failed", f"{about}, a replica", hint)
    elif ping_us > _SLOW_PING_US:
        hint = "each request takes at least this long: move the model server and Redis closer together"
        yield Finding("online store", "warning", about, hint)
    else:
        yield Finding("online store", "ok", about)
    clients, most = info.get("connected_clients", 0), info.get("maxclients", 0)
    if info.get("rejected_connections", 0):
        about = f"{info['rejected_connections']:,} connections were refused since Redis started"
        yield Finding(
            "clients", "warning", about, "raise maxclients, or create fewer clients: one per process is enough"
        )
    elif most and clients > most * _CLIENTS_HEADROOM:
        hint = "raise maxclients, or create fewer clients: one per process is enough"
        yield Finding("clients", "warning", f"{clients:,} of at most {most:,}", hint)


def of_memory(info: Mapping[str, Any], *, expire_keys: bool) -> Iterator[Finding]:
    """Check whether Redis may evict rows, and how much memory is left.

    Args:
        info: Redis's answer to INFO.
        expire_keys: whether the project's keys expire, which makes them volatile.
    """
    used, limit, policy = info["used_memory"], info.get("maxmemory", 0), info.get("maxmemory_policy", "")
    machine = info.get("total_system_memory", 0)
    whole = f"{limit / 1e6:,.0f} MB" if limit else f"the machine's {machine / 1e6:,.0f} MB"
    about = f"{used / 1e6:,.1f} MB used of {whole}, {policy}"
    if policy.startswith("allkeys") or (policy.startswith("volatile") and expire_keys):
        hint = "Redis may evict any row when memory is short: set maxmemory-policy noeviction"
        yield Finding("memory", "failed", about, hint)
    elif limit and used > limit * _MEMORY_HEADROOM:
        yield Finding("memory", "warning", about, "raise maxmemory, or store less: see `feature-store prune`")
    elif not limit and machine and used > machine * _MACHINE_HEADROOM:
        hint = "set maxmemory, so that Redis refuses writes before the kernel kills it; store less, or add memory"
        yield Finding("memory", "warning", about, hint)
    else:
        yield Finding("memory", "ok", about)
    if info.get("evicted_keys", 0):
        about = f"{info['evicted_keys']:,} keys were evicted for lack of memory since Redis started"
        hint = "rows are missing: add memory, then materialize and backfill again"
        yield Finding("memory", "failed", about, hint)


def of_clock(ahead_us: int) -> Iterator[Finding]:
    """Check whether this machine's clock and Redis's agree.

    Args:
        ahead_us: by how many microseconds this machine's clock is ahead.
    """
    if abs(ahead_us) > _CLOCKS_APART_US:
        side = "ahead of" if ahead_us > 0 else "behind"
        about = f"this machine's clock is {shown_age(abs(ahead_us) / 1e6)} {side} Redis's"
        hint = "requests use one for ttls, jobs use the other for interval ends: synchronise both (NTP)"
        yield Finding("clock", "warning", about, hint)


def of_persistence(info: Mapping[str, Any], append_only: str | None, save: str | None) -> Iterator[Finding]:
    """Check whether stored rows survive a restart.

    Args:
        info: the answer to INFO.
        append_only, save: the settings; None where CONFIG GET is not allowed.
    """
    written = {"rdb_last_bgsave_status": "snapshot", "aof_last_write_status": "write of the append-only file"}
    for name, what in written.items():
        if info.get(name, "ok") != "ok":
            hint = "a restart loses all writes since; the server's log says why (often a full disk)"
            yield Finding("persistence", "failed", f"the last {what} failed", hint)
    if append_only is None and save is None:
        yield Finding("persistence", "ok", "not known: the server does not allow CONFIG GET")
    elif append_only == "yes" or save:
        yield Finding("persistence", "ok", "append-only file" if append_only == "yes" else f"snapshots: {save}")
    else:
        hint = "a restart loses all rows and the plan: set appendonly yes, or plan to apply and materialize again"
        yield Finding("persistence", "warning", "none", hint)


def of_plan(published: ServingPlan, target: ServingPlan | None) -> Iterator[Finding]:
    """Check whether the published plan is that of the registry's newest version.

    Args:
        published: the plan in Redis.
        target: the plan of the newest version; None: nothing is applied.
    """
    about, finish = f"version {published.version} is served", "an apply did not finish: run `feature-store apply`"
    if target is None or target.version != published.version:
        served = f"{about}, the registry's newest is {target.version if target else 'none'}"
        yield Finding("serving plan", "failed", served, finish)
        return
    differing = _differences(published, target)
    if differing:
        hint = "the registry or Redis was written by another tool: run `feature-store apply`"
        served = f"{about}, but differs from the registry: {', '.join(differing)}"
        yield Finding("serving plan", "failed", served, hint)
    elif published.filling:
        yield Finding(
            "serving plan", "warning", f"{about}, the next one is being filled", "if no apply is running, run it again"
        )
    else:
        yield Finding("serving plan", "ok", f"{about}, as in the registry")
    for tiles in published.filling_tiles:
        hint = f"if no backfill is running, run `feature-store backfill {tiles.view}` again: it resumes"
        yield Finding("serving plan", "warning", f"{tiles.view} is being filled again", hint)
    if published.retired or published.retired_tiles:
        retired = [group.name for group in published.retired] + [tiles.view for tiles in published.retired_tiles]
        hint = "a killed apply left them: run `feature-store apply`"
        yield Finding("serving plan", "warning", f"old rows are not deleted yet: {', '.join(retired)}", hint)


def _differences(published: ServingPlan, target: ServingPlan) -> list[str]:
    """The differences of two plans of one version, in words."""
    differing = []
    if [group.layout for group in published.groups] != [group.layout for group in target.groups]:
        differing.append("row layouts")
    if [tiles.layout for tiles in published.tiles] != [tiles.layout for tiles in target.tiles]:
        differing.append("windows")
    if published.transforms != target.transforms:
        digests = {one.name: one.digest for one in target.transforms}
        changed = [one.name for one in published.transforms if digests.get(one.name) != one.digest]
        differing.append(f"code of {', '.join(changed)}" if changed else "on-demand views")
    if published.services != target.services:
        differing.append("services")
    if published.buckets != target.buckets:
        differing.append(f"buckets ({published.buckets}, configured {target.buckets})")
    if not differing and published.registry != target.registry:
        differing.append("the registry's id, which plans of earlier releases lack")
    settled = replace(published, filling=(), filling_tiles=(), retired=(), retired_tiles=())
    if not differing and settled != replace(target, filling_tiles=()):
        differing.append("ttls or settings")
    return differing


def of_rows(statistics: Mapping[str, Mapping[str, int]], streams: Sequence[str]) -> Iterator[Finding]:
    """Check whether each row group and stream view has rows.

    Args:
        statistics: see `OnlineStore.statistics`.
        streams: the names that are stream views.
    """
    for name, held in statistics.items():
        about = f"{name}: {counted(held['rows'], 'row')} of {held['row_bytes']:,} bytes, {held['bytes'] / 1e6:.1f} MB"
        if held["rows"]:
            yield Finding("rows", "ok", about)
        else:
            command = "backfill` or `feature-store stream" if name in streams else "materialize"
            yield Finding("rows", "warning", about, f"nothing to serve: run `feature-store {command}`")


def of_freshness(report: FreshnessReport) -> Iterator[Finding]:
    """Check whether views are fresher than they declare, and than their ttl."""
    for view in report.breached:
        age = "nothing is stored" if view.age_s is None else f"{shown_age(view.age_s)} old"
        declared_age = "" if view.limit_s is None else f", declared {shown_age(view.limit_s)}"
        ttl = f", ttl {shown_age(view.ttl_s or 0)}" if view.is_expired else ""
        yield Finding("freshness", "failed", f"{view.view}: {age}{declared_age}{ttl}", view.hint)
    if report.breached:
        return
    declared = [view for view in report.views if view.limit_s is not None]
    about = f"{len(declared)} of {len(report.views)} views declare a freshness, and all are fresh"
    yield Finding("freshness", "ok", about if declared else "no view declares a freshness")


def of_values(view: str, ttl: timedelta | None, rows: int, expired: int, missing: int) -> Finding:
    """Check whether requests get a view's values or its defaults, from a sample of entities.

    Args:
        view: the view's name.
        ttl: the view's ttl; None: values never expire.
        rows: the number of sampled entities.
        expired: the number whose value is older than the ttl.
        missing: the number without a value, though other views of the entity have a row.
    """
    shares = [f"{count / rows:.0%} {word}" for count, word in ((expired, "expired"), (missing, "missing")) if count]
    about = f"{view}: of {counted(rows, 'sampled entity')} {' and '.join(shares) or 'all have values'}"
    if expired and ttl is not None:
        about += f"; requests get defaults for values older than the ttl, {shown_duration(ttl)}"
    if not shares:
        return Finding("freshness", "ok", about)
    hint = f"is what writes {view} running? See `feature-store freshness`"
    if expired > missing:
        hint += "; a longer ttl serves older values"
    state: Literal["warning", "failed"] = "failed" if expired + missing == rows else "warning"
    return Finding("freshness", state if expired or missing == rows else "ok", about, hint)


def of_topics(topics: Mapping[str, Sequence[str]], partitions: Mapping[str, Sequence[int]]) -> Iterator[Finding]:
    """Check whether Kafka has the topics that stream views read.

    Args:
        topics: the views that read each topic.
        partitions: the partitions of the topics that exist.
    """
    for topic, views in topics.items():
        if topic in partitions:
            about = f"topic {topic}: {counted(len(partitions[topic]), 'partition')}, read by {', '.join(views)}"
            yield Finding("kafka", "ok", about)
        else:
            hint = "create the topic, or correct the source's topic and apply"
            yield Finding("kafka", "failed", f"topic {topic} does not exist; {', '.join(views)} needs it", hint)


def of_fences(lost: Mapping[str, FencesLostError | None], unmarked: Sequence[str]) -> Iterator[Finding]:
    """Check whether the fences of stream views belong to their tiles.

    Args:
        lost: by view, the error if they do not; None if they do.
        unmarked: views whose fences an earlier release wrote without a mark, so that this is not known.
    """
    for view, error in lost.items():
        if error is not None:
            yield Finding("fences", "failed", f"{view}: {error.reason}", error.hint)
    if unmarked:
        hint = "run `feature-store apply`: it writes the marks, so that lost fences are noticed"
        yield Finding("fences", "warning", f"no marks in the fences of {', '.join(unmarked)}", hint)
    elif not any(lost.values()):
        yield Finding("fences", "ok", f"{counted(len(lost), 'stream view')} can resume")


def of_lag(view: str, behind: int, lost: int) -> Finding:
    """Check how far a stream view is behind its topic.

    Args:
        view: the view's name.
        behind: messages in Kafka that are not merged yet.
        lost: messages that Kafka deleted before they were merged.
    """
    about = f"{view}: {counted(behind, 'message')} behind"
    if lost:
        hint = f"`feature-store backfill {view}` fills it from the history; raise the topic's retention"
        return Finding("stream", "failed", f"{about}, {lost:,} were deleted before they were merged", hint)
    if behind > _MUCH_LAG:
        hint = "is `feature-store stream` running? If so, add workers, and partitions to the topic"
        return Finding("stream", "warning", about, hint)
    return Finding("stream", "ok", about)
