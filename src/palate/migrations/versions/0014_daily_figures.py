"""What was counted of each day of incoming data."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "daily_figures",
        sa.Column("origin", sa.Text(), primary_key=True),
        sa.Column("day", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("subject", sa.Text(), primary_key=True),
        sa.Column("count", sa.Float(53), nullable=False),
        sa.Column("out_of", sa.Float(53)),
        sqlite_with_rowid=False,
    )
