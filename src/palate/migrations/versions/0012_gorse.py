"""What callers of Gorse's surface gave and wait for."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "gorse_items",
        sa.Column("item", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("stored", sa.Text(), nullable=False),
    )
    op.create_table(
        "gorse_users",
        sa.Column("user", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("stored", sa.Text(), nullable=False),
    )
    op.create_table(
        "gorse_feedback",
        sa.Column("user", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("item", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("type", sa.Text(), primary_key=True),
        sa.Column("value", sa.Float(53)),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("features", sa.Text()),
        sqlite_with_rowid=False,
    )
    op.create_index("gorse_feedback_item", "gorse_feedback", ["item"])
    op.create_table(
        "gorse_write_backs",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("due", sa.BigInteger(), nullable=False),
        sa.Column("user", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("gorse_write_backs_due", "gorse_write_backs", ["due"])
