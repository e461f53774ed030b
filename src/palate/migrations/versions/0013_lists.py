"""Precomputed lists."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "lists",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("person", sa.BigInteger(), primary_key=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("snapshot", sa.Text(), nullable=False),
        sa.Column("items", sa.LargeBinary(), nullable=False),
        sa.Column("scores", sa.LargeBinary(), nullable=False),
    )
    op.create_index("lists_person", "lists", ["person"])
