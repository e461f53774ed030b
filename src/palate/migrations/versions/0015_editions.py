"""Editions: the best of what came lately, as it was told every few hours."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "editions",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("released", sa.BigInteger(), primary_key=True),
        sa.Column("items", sa.LargeBinary(), nullable=False),
        sa.Column("rates", sa.LargeBinary(), nullable=False),
        sa.Column("lower", sa.LargeBinary(), nullable=False),
    )
