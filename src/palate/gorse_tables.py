"""Tables of Gorse's surface: what its callers gave, and what holds of the log in its terms.

They lie in the same database as those of `database`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Table, Text

from palate.database import Key, metadata

items = Table(  # items as a caller of Gorse's surface gave them: see `gorse_records`
    "gorse_items",
    metadata,
    Column("item", BigInteger, primary_key=True, autoincrement=False),
    Column("record", Text, nullable=False),  # JSON
    Column("stored", Text, nullable=False),  # what the catalog made of it; when that differs, the record is out of date
)

users = Table(  # the same of users
    "gorse_users",
    metadata,
    Column("user", BigInteger, primary_key=True, autoincrement=False),
    Column("record", Text, nullable=False),
    Column("stored", Text, nullable=False),
)

feedback = Table(  # what holds of the log in Gorse's terms, up to the seq in `meta`: see `gorse_feedback`
    "gorse_feedback",
    metadata,
    Column("user", BigInteger, primary_key=True, autoincrement=False),
    Column("item", BigInteger, primary_key=True, autoincrement=False),
    Column("type", Text, primary_key=True),
    Column("value", Float(53)),  # the newest; None: none was ever given
    Column("time", BigInteger, nullable=False),  # of the first event that holds
    Column("updated", BigInteger, nullable=False),  # of the last
    Column("received", BigInteger, nullable=False),  # when that came
    Column("features", Text),
    Index("gorse_feedback_item", "item"),
    sqlite_with_rowid=False,
)

write_backs = Table(  # what is logged of a recommendation when its delay is over
    "gorse_write_backs",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("due", BigInteger, nullable=False),
    Column("user", BigInteger, nullable=False),
    Column("events", Text, nullable=False),  # JSON
    Index("gorse_write_backs_due", "due"),
    sqlite_autoincrement=True,
)
