"""The registry's id, and the versions whose apply has not finished or has failed.

Development versions of 0.2 made these tables without recording a schema version: hence `if_not_exists`. Later
migrations run only on databases that record their version, and do not need it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create `fs_registry` and `fs_rollouts`."""
    op.create_table(
        "fs_registry",
        sa.Column("project", sa.String(64), primary_key=True),
        sa.Column("id", sa.String(32), nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "fs_rollouts",
        sa.Column("project", sa.String(64), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        if_not_exists=True,
    )
