"""Which model of classes an understanding is from: the shipped one, or this installation's own."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("understandings", sa.Column("model", sa.Text(), nullable=False, server_default=""))
