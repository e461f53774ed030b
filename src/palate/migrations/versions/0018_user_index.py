"""Whose the unsealed events are: on SQLite by sorted runs instead of an index."""

import numpy as np
import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

PART, BLOCK = 2**18, 512


def upgrade() -> None:
    op.create_table(
        "event_runs",
        sa.Column(
            "first_seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False
        ),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "event_blocks",
        sa.Column("run", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("first", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("entries", sa.LargeBinary(), nullable=False),
    )
    if op.get_bind().dialect.name == "sqlite":
        op.drop_index("events_user", "events")
        _fill(op.get_bind())


def _fill(connection: sa.Connection) -> None:
    after = 0
    while rows := connection.exec_driver_sql(
        'SELECT seq, "user" FROM events WHERE seq > ? ORDER BY seq LIMIT ?', (after, PART)
    ).fetchall():
        seq, user = np.array([tuple(row) for row in rows], np.int64).T
        first, after = int(seq[0]), int(seq[-1])
        entries = np.sort(user * 2**32 + (seq - first))
        connection.exec_driver_sql("INSERT INTO event_runs VALUES (?, ?, ?)", (first, after, len(seq)))
        blocks = [(first, int(entries[at]), entries[at : at + BLOCK].tobytes()) for at in range(0, len(seq), BLOCK)]
        connection.exec_driver_sql("INSERT INTO event_blocks VALUES (?, ?, ?)", blocks)
