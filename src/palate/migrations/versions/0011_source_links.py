"""How often the texts of a site's items link to another site, by day."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "source_links",
        sa.Column("day", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("origin", sa.Text(), primary_key=True),
        sa.Column("target", sa.Text(), primary_key=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sqlite_with_rowid=False,
    )
