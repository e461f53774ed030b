"""How much of items was taken in, of sealed days too."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("item_counts", sa.Column("taken", sa.Float(53), nullable=False, server_default="0"))
