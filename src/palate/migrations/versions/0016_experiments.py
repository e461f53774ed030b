"""Experiments: what is tried on whom, and what was seen of it at the end of each day."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "experiments",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("name", sa.Text(), nullable=False, unique=True),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("stopped", sa.BigInteger()),
        sa.Column("reason", sa.Text()),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "experiment_looks",
        sa.Column("experiment", sa.BigInteger(), primary_key=True),
        sa.Column("day", sa.Text(), primary_key=True),
        sa.Column("look", sa.Text(), nullable=False),
        sqlite_with_rowid=False,
    )
