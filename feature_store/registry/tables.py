"""The registry's tables, as the newest migration leaves them (`migrations/versions`)."""

from __future__ import annotations

import sqlalchemy as sa

from feature_store.registry.columns import LongText, Microseconds, Number, ShortText, WholeNumber

METADATA = sa.MetaData()

# `since` is the migration that makes a table. An older database that cannot be migrated is read without the table.
VERSIONS = sa.Table(
    "fs_versions",
    METADATA,
    sa.Column("project", ShortText(64), primary_key=True),
    # The primary key with the project: if two applies run at once, only one gets the number.
    sa.Column("version", Number(), primary_key=True, autoincrement=False),
    sa.Column("author", ShortText(255), nullable=False),
    sa.Column("applied_at", Microseconds(), nullable=False),
    sa.Column("digest", ShortText(64), nullable=False),
    sa.Column("definitions", LongText(), nullable=False),
    info={"since": "0001"},
)
IDS = sa.Table(
    "fs_registry",
    METADATA,
    sa.Column("project", ShortText(64), primary_key=True),
    sa.Column("id", ShortText(32), nullable=False),
    info={"since": "0002"},
)
# Versions that are not fully served, and why. A version without a row here is or was served.
ROLLOUTS = sa.Table(
    "fs_rollouts",
    METADATA,
    sa.Column("project", ShortText(64), primary_key=True),
    sa.Column("version", Number(), primary_key=True, autoincrement=False),
    sa.Column("state", ShortText(16), nullable=False),
    sa.Column("reason", LongText(), nullable=False),
    info={"since": "0002"},
)
INTERVALS = sa.Table(
    "fs_intervals",
    METADATA,
    sa.Column("project", ShortText(64), primary_key=True),
    sa.Column("view", ShortText(64), primary_key=True),
    sa.Column("generation", Number(), primary_key=True, autoincrement=False),
    sa.Column("start_us", WholeNumber(), primary_key=True, autoincrement=False),
    sa.Column("end_us", WholeNumber(), nullable=False),
    info={"since": "0001"},
)
# The last run of each view that has a schedule, and the lease of the process that runs it.
RUNS = sa.Table(
    "fs_runs",
    METADATA,
    sa.Column("project", ShortText(64), primary_key=True),
    sa.Column("view", ShortText(64), primary_key=True),
    sa.Column("due_us", Microseconds(), nullable=False),
    sa.Column("state", ShortText(16), nullable=False),
    sa.Column("started_us", Microseconds(), nullable=False),
    sa.Column("ended_us", Microseconds(), nullable=False),
    sa.Column("problem", LongText(), nullable=False),
    sa.Column("holder", ShortText(255), nullable=False),
    sa.Column("lease_us", Microseconds(), nullable=False),
    info={"since": "0003"},
)
PRUNING = sa.Table(
    "fs_pruning",
    METADATA,
    sa.Column("project", ShortText(64), primary_key=True),
    sa.Column("kind", ShortText(16), primary_key=True),
    sa.Column("id", ShortText(64), primary_key=True),
    sa.Column("service", ShortText(64), nullable=False),
    sa.Column("author", ShortText(255), nullable=False),
    sa.Column("made_at", Microseconds(), nullable=False),
    sa.Column("document", LongText(), nullable=False),
    info={"since": "0001"},
)
REPORTS = sa.Table(
    "fs_reports",
    METADATA,
    sa.Column("project", ShortText(64), primary_key=True),
    sa.Column("kind", ShortText(16), primary_key=True),
    sa.Column("service", ShortText(64), primary_key=True),
    sa.Column("author", ShortText(255), nullable=False),
    sa.Column("made_at", Microseconds(), nullable=False),
    sa.Column("document", LongText(), nullable=False),
    info={"since": "0001"},
)
