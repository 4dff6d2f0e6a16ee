"""The last run of each view that has a schedule, and the lease of the process that runs it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create `fs_runs`."""
    op.create_table(
        "fs_runs",
        sa.Column("project", sa.String(64), primary_key=True),
        sa.Column("view", sa.String(64), primary_key=True),
        sa.Column("due_us", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started_us", sa.BigInteger, nullable=False),
        sa.Column("ended_us", sa.BigInteger, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("lease_us", sa.BigInteger, nullable=False),
    )
