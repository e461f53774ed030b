"""When feedback of Gorse's surface was received, so that it can be dropped with the days of the log.

The table is what the log says: it is made anew, and follows the log from its beginning.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.drop_table("gorse_feedback")
    op.create_table(
        "gorse_feedback",
        sa.Column("user", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("item", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("type", sa.Text(), primary_key=True),
        sa.Column("value", sa.Float(53)),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("features", sa.Text()),
        sqlite_with_rowid=False,
    )
    op.create_index("gorse_feedback_item", "gorse_feedback", ["item"])
    op.execute("DELETE FROM meta WHERE name = 'gorse_feedback'")
