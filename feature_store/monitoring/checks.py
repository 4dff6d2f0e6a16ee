"""What to say of a project's parts, from what they tell of themselves: plain data in, findings out."""

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
# PEXPIREAT … GT, by which a row's expiry never moves back, came with it. Every Valkey calls itself that or more.
_LEAST_REDIS = (7, 0)
# Redis at this share of maxmemory soon refuses writes, or drops keys.
_MEMORY_HEADROOM = 0.9
# Without maxmemory, the machine is the limit, and a snapshot may need as much again of what changes meanwhile.
_MACHINE_HEADROOM = 0.75
# On one machine or within a zone a round trip takes less; more is half of a 10 ms budget gone.
_SLOW_PING_US = 5000
# NTP keeps clocks within milliseconds of each other; of clocks that are further apart one is not set.
_CLOCKS_APART_US = 5_000_000
_CLIENTS_HEADROOM = 0.9
# A worker merges so many messages in well under a second; more than that wait for somebody.
_MUCH_LAG = 10_000


class Finding(NamedTuple):
    """What one check found, and what to do about it."""

    check: str
    state: State
    about: str
    hint: str = ""


def of_server(info: Mapping[str, Any], where: str, ping_us: float) -> Iterator[Finding]:
    """Of Redis itself: its version, its role, whether it is near, and what it had to refuse.

    Args:
        info: its answer to INFO.
        where: its URL, without a password.
        ping_us: the round trip.
    """
    name = f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info['redis_version']}"
    about = f"{name} at {where}, round trip {ping_us:.0f} µs"
    version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if version < _LEAST_REDIS:
        yield Finding("online store", "failed", about, "needs Redis 7.0 or later, or Valkey: update it")
    elif info.get("role") == "slave":
        hint = "writes need the primary: point online_store.url at it, or name the Sentinels"
        yield Finding("online store", "failed", f"{about}, a replica", hint)
    elif ping_us > _SLOW_PING_US:
        hint = "a request cannot be faster: bring model server and Redis closer"
        yield Finding("online store", "warning", about, hint)
    else:
        yield Finding("online store", "ok", about)
    clients, most = info.get("connected_clients", 0), info.get("maxclients", 0)
    if info.get("rejected_connections", 0):
        about = f"{info['rejected_connections']:,} connections were refused since Redis started"
        yield Finding("clients", "warning", about, "raise maxclients, or make fewer clients: one per process is enough")
    elif most and clients > most * _CLIENTS_HEADROOM:
        hint = "raise maxclients, or make fewer clients: one per process is enough"
        yield Finding("clients", "warning", f"{clients:,} of at most {most:,}", hint)


def of_memory(info: Mapping[str, Any], *, expire_keys: bool) -> Iterator[Finding]:
    """Whether rows may be dropped for lack of memory, and how much is left.

    Args:
        info: Redis's answer to INFO.
        expire_keys: whether the project's keys have an expiry, which makes them volatile.
    """
    used, limit, policy = info["used_memory"], info.get("maxmemory", 0), info.get("maxmemory_policy", "")
    machine = info.get("total_system_memory", 0)
    whole = f"{limit / 1e6:,.0f} MB" if limit else f"the machine's {machine / 1e6:,.0f} MB"
    about = f"{used / 1e6:,.1f} MB used of {whole}, {policy}"
    if policy.startswith("allkeys") or (policy.startswith("volatile") and expire_keys):
        hint = "Redis may drop any row when memory is short: set maxmemory-policy noeviction"
        yield Finding("memory", "failed", about, hint)
    elif limit and used > limit * _MEMORY_HEADROOM:
        yield Finding("memory", "warning", about, "raise maxmemory, or serve less: see `feature-store prune`")
    elif not limit and machine and used > machine * _MACHINE_HEADROOM:
        hint = "set maxmemory, so that Redis refuses writes before the machine kills it; then serve less, or get more"
        yield Finding("memory", "warning", about, hint)
    else:
        yield Finding("memory", "ok", about)
    if info.get("evicted_keys", 0):
        about = f"{info['evicted_keys']:,} keys were evicted for lack of memory since Redis started"
        hint = "rows are missing: give it memory, then materialize and backfill again"
        yield Finding("memory", "failed", about, hint)


def of_clock(ahead_us: int) -> Iterator[Finding]:
    """Whether this machine's clock and Redis's agree.

    Args:
        ahead_us: how far this machine's is ahead, microseconds.
    """
    if abs(ahead_us) > _CLOCKS_APART_US:
        side = "ahead of" if ahead_us > 0 else "behind"
        about = f"this machine's clock is {shown_age(abs(ahead_us) / 1e6)} {side} Redis's"
        hint = "requests count ttls by the one, jobs end by the other: synchronise both (NTP)"
        yield Finding("clock", "warning", about, hint)


def of_persistence(info: Mapping[str, Any], append_only: str | None, save: str | None) -> Iterator[Finding]:
    """Whether a restart keeps what is stored.

    Args:
        info: Redis's answer to INFO.
        append_only, save: its settings; None where it does not tell.
    """
    written = {"rdb_last_bgsave_status": "snapshot", "aof_last_write_status": "write of the append-only file"}
    for name, what in written.items():
        if info.get(name, "ok") != "ok":
            hint = "a restart would lose what came since; the server's log says why (often a full disk)"
            yield Finding("persistence", "failed", f"the last {what} failed", hint)
    if append_only is None and save is None:
        yield Finding("persistence", "ok", "the server does not tell")
    elif append_only == "yes" or save:
        yield Finding("persistence", "ok", "append-only file" if append_only == "yes" else f"snapshots: {save}")
    else:
        hint = "a restart loses all rows and the plan; set appendonly yes, or be ready to apply and materialize again"
        yield Finding("persistence", "warning", "none", hint)


def of_plan(published: ServingPlan, target: ServingPlan | None) -> Iterator[Finding]:
    """Whether what is served is what the registry's newest version says.

    Args:
        published: the plan in Redis.
        target: that version, compiled beside the published plan; None: there is no version.
    """
    about, finish = f"version {published.version} is served", "an apply did not finish: run `feature-store apply`"
    if target is None or target.version != published.version:
        told = f"{about}, the registry's newest is {target.version if target else 'none'}"
        yield Finding("serving plan", "failed", told, finish)
        return
    differing = _differences(published, target)
    if differing:
        hint = "somebody wrote to the registry or to Redis in another way: run `feature-store apply`"
        told = f"{about}, but not as the registry has it: {', '.join(differing)}"
        yield Finding("serving plan", "failed", told, hint)
    elif published.filling:
        yield Finding("serving plan", "warning", f"{about}, a next one is being filled", "if not, run apply again")
    else:
        yield Finding("serving plan", "ok", f"{about}, as the registry has it")
    for tiles in published.filling_tiles:
        hint = f"if no backfill is under way, run `feature-store backfill {tiles.view}` again: it goes on"
        yield Finding("serving plan", "warning", f"{tiles.view} is being filled anew", hint)
    if published.retired or published.retired_tiles:
        gone = [group.name for group in published.retired] + [tiles.view for tiles in published.retired_tiles]
        hint = "an apply that was killed left them: run `feature-store apply`"
        yield Finding("serving plan", "warning", f"old rows are not deleted yet: {', '.join(gone)}", hint)


def _differences(published: ServingPlan, target: ServingPlan) -> list[str]:
    """What two plans of one version say differently, in words."""
    found = []
    if [group.layout for group in published.groups] != [group.layout for group in target.groups]:
        found.append("layouts of rows")
    if [tiles.layout for tiles in published.tiles] != [tiles.layout for tiles in target.tiles]:
        found.append("windows")
    if published.transforms != target.transforms:
        digests = {one.name: one.digest for one in target.transforms}
        changed = [one.name for one in published.transforms if digests.get(one.name) != one.digest]
        found.append(f"code of {', '.join(changed)}" if changed else "on-demand views")
    if published.services != target.services:
        found.append("services")
    if published.buckets != target.buckets:
        found.append(f"buckets ({published.buckets}, configured {target.buckets})")
    if not found and published.registry != target.registry:
        found.append("the registry's id, which plans of earlier releases lack")
    settled = replace(published, filling=(), filling_tiles=(), retired=(), retired_tiles=())
    if not found and settled != replace(target, filling_tiles=()):
        found.append("ttls or settings")
    return found


def of_rows(statistics: Mapping[str, Mapping[str, int]], streams: Sequence[str]) -> Iterator[Finding]:
    """Whether there is something to serve of each row group and stream view.

    Args:
        statistics: as of `OnlineStore.statistics`.
        streams: which of them are stream views.
    """
    for name, found in statistics.items():
        about = (
            f"{name}: {counted(found['rows'], 'row')} of {found['row_bytes']:,} bytes, {found['bytes'] / 1e6:.1f} MB"
        )
        if found["rows"]:
            yield Finding("rows", "ok", about)
        else:
            command = "backfill` or `feature-store stream" if name in streams else "materialize"
            yield Finding("rows", "warning", about, f"nothing to serve: run `feature-store {command}`")


def of_freshness(report: FreshnessReport) -> Iterator[Finding]:
    """Which views are older than they declare."""
    for view in report.breached:
        age = "nothing is stored" if view.age_s is None else f"{shown_age(view.age_s)} old"
        limit = shown_age(view.limit_s or 0)
        yield Finding("freshness", "failed", f"{view.view}: {age}, declared {limit}", view.hint)
    declared = [view for view in report.views if view.limit_s is not None]
    if not declared:
        yield Finding("freshness", "ok", "no view declares how old it may become")
    elif not report.breached:
        yield Finding("freshness", "ok", f"{len(declared)} of {len(report.views)} views declare one, and keep it")


def of_values(view: str, ttl: timedelta | None, rows: int, expired: int, missing: int) -> Finding:
    """Whether requests get what is stored of a view, or its defaults, by a sample of its entities.

    Args:
        view: its name.
        ttl: how old a value may be when it is served; None: of any age.
        rows: how many entities were asked for.
        expired: of how many the value is older than the ttl.
        missing: of how many nothing is stored, though other views of the entity have a row.
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
    """Whether Kafka has the topics that stream views read.

    Args:
        topics: the views that read each.
        partitions: of those topics that there are.
    """
    for topic, views in topics.items():
        if topic in partitions:
            about = f"topic {topic}: {counted(len(partitions[topic]), 'partition')}, read by {', '.join(views)}"
            yield Finding("kafka", "ok", about)
        else:
            hint = "create it, or correct the source's topic and apply"
            yield Finding("kafka", "failed", f"topic {topic}, which {', '.join(views)} needs, is not there", hint)


def of_fences(lost: Mapping[str, FencesLostError | None], unmarked: Sequence[str]) -> Iterator[Finding]:
    """Whether the fences of stream views are those that their tiles were merged under.

    Args:
        lost: by view, the error for fences that are not; None: they are.
        unmarked: views whose fences an earlier version of the library began, so that nobody can tell.
    """
    for view, error in lost.items():
        if error is not None:
            yield Finding("fences", "failed", f"{view}: {error.reason}", error.hint)
    if unmarked:
        hint = "run `feature-store apply`: it marks them, so that lost fences are noticed"
        yield Finding("fences", "warning", f"no marks in the fences of {', '.join(unmarked)}", hint)
    elif not any(lost.values()):
        yield Finding("fences", "ok", f"{counted(len(lost), 'stream view')} can go on where they stopped")


def of_lag(view: str, behind: int, lost: int) -> Finding:
    """How far a stream view is behind its topic.

    Args:
        view: its name.
        behind: messages that are there and not merged.
        lost: messages that Kafka deleted before they were merged.
    """
    about = f"{view}: {counted(behind, 'message')} behind"
    if lost:
        hint = f"`feature-store backfill {view}` fills it from the history; let the topic keep messages for longer"
        return Finding("stream", "failed", f"{about}, {lost:,} were deleted before they were merged", hint)
    if behind > _MUCH_LAG:
        hint = "is `feature-store stream` running? If so, give it more workers, and the topic more partitions"
        return Finding("stream", "warning", about, hint)
    return Finding("stream", "ok", about)
