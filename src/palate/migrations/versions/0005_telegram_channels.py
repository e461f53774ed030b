"""Accounts of Telegram, the pool of channels, who listens to which, and the log of joins; alerts."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("key", KEY, autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("phone", sa.Text()),
        sa.Column("api_id", sa.BigInteger()),
        sa.Column("session", sa.LargeBinary()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("logged_in", sa.BigInteger()),
        sa.Column("premium", sa.SmallInteger(), nullable=False),
        sa.Column("channel_limit", sa.Integer()),
        sa.Column("other_channels", sa.Integer(), nullable=False),
        sa.Column("flood_until", sa.BigInteger()),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("key"),
        sa.UniqueConstraint("name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "channels",
        sa.Column("key", KEY, autoincrement=True, nullable=False),
        sa.Column("username", sa.Text()),
        sa.Column("invite", sa.Text()),
        sa.Column("telegram_id", sa.BigInteger()),
        sa.Column("title", sa.Text()),
        sa.Column("category", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("urgent", sa.SmallInteger(), nullable=False),
        sa.Column("source", sa.BigInteger()),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("next_try", sa.BigInteger()),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("key"),
        sa.UniqueConstraint("username"),
        sa.UniqueConstraint("invite"),
        sa.UniqueConstraint("telegram_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("channels_state", "channels", ["state"])
    op.create_table(
        "channel_mentions",
        sa.Column("channel", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("source", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("channel", "source"),
    )
    op.create_table(
        "memberships",
        sa.Column("channel", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("account", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("access_hash", sa.BigInteger()),
        sa.Column("joined", sa.BigInteger()),
        sa.Column("muted", sa.SmallInteger(), nullable=False),
        sa.Column("pts", sa.BigInteger()),
        sa.Column("last_sweep", sa.BigInteger()),
        sa.PrimaryKeyConstraint("channel", "account"),
    )
    op.create_index("memberships_account", "memberships", ["account"])
    op.create_table(
        "join_attempts",
        sa.Column("key", KEY, autoincrement=True, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("account", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.BigInteger(), nullable=False),
        sa.Column("resolves", sa.SmallInteger(), nullable=False),
        sa.Column("pause", sa.Float(), nullable=False),
        sa.Column("outcome", sa.Text()),
        sa.Column("ended", sa.BigInteger()),
        sa.Column("wait", sa.Float()),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("key"),
        sqlite_autoincrement=True,
    )
    op.create_index("join_attempts_account", "join_attempts", ["account", "time"])
    op.create_table(
        "alerts",
        sa.Column("key", KEY, autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger()),
        sa.PrimaryKeyConstraint("key"),
        sqlite_autoincrement=True,
    )
