"""Tables of Telegram: the accounts that listen, the channels they are in, and what the bot has to send.

They lie in the same database as those of `database`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, SmallInteger, Table, Text

from palate.database import Json, Key, metadata

bot_chats = Table(  # who talks with the bot, and what they chose there
    "bot_chats",
    metadata,
    Column("chat", BigInteger, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),  # active, blocked
    Column("language", Text, nullable=False),  # of the bot's own texts
    Column("delete_disliked", SmallInteger, nullable=False),
    Column("time_zone", Text),  # None: not said yet
    Column("deliveries", Json, nullable=False),  # minutes of the person's day at which posts are sent unasked
    Column("posts", SmallInteger, nullable=False),  # of one delivery
    Column("digest", SmallInteger),  # minute of the person's day; None: no digest
    Column("quiet_from", SmallInteger),  # minutes of the person's day between which nothing is sent unasked
    Column("quiet_to", SmallInteger),
    Column("delivered", BigInteger, nullable=False),  # up to when what was due has been sent
    Column("created", BigInteger, nullable=False),
)

bot_outbox = Table(  # what the bot has to send, and for some days what it has sent
    "bot_outbox",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("cause", Text, nullable=False, unique=True),  # of one cause nothing is sent twice
    Column("chat", BigInteger, nullable=False),
    Column("urgency", SmallInteger, nullable=False),
    Column("calls", Json, nullable=False),  # of the Bot API: each is made when the one before it was refused
    Column("state", Text, nullable=False),  # waiting, sent, failed, dropped
    Column("tries", Integer, nullable=False),
    Column("due", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    Index("bot_outbox_state", "state", "changed"),
    Index("bot_outbox_chat", "chat"),
    sqlite_autoincrement=True,
)

bot_counts = Table(  # what became of what the bot sent, since the installation began
    "bot_counts",
    metadata,
    Column("result", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

bot_staged = Table(  # posts that lie in the staging channel, from which the bot may copy, or that ought to
    "bot_staged",
    metadata,
    Column("item", Text, primary_key=True),  # its id
    Column("state", Text, nullable=False),  # wanted, staged, refused
    Column("messages", Json, nullable=False),  # their ids in the staging channel
    Column("time", BigInteger, nullable=False),
)

bot_mailings = Table(  # messages of the owner to everybody
    "bot_mailings",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("author", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    Column("state", Text, nullable=False),  # draft, confirmed, cancelled
    Column("created", BigInteger, nullable=False),
    Column("sent_to", BigInteger, nullable=False),  # chats up to this one have it in the outbox
    sqlite_autoincrement=True,
)

accounts = Table(  # of Telegram, that listen
    "accounts",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True),
    Column("phone", Text),
    Column("api_id", BigInteger),  # under which it was logged in
    Column("session", LargeBinary),  # encrypted; None: not logged in
    Column("state", Text, nullable=False),  # new, active, paused, frozen, banned, logged_out, removed
    Column("created", BigInteger, nullable=False),
    Column("logged_in", BigInteger),
    Column("premium", SmallInteger, nullable=False),
    Column("channel_limit", Integer),  # as Telegram says; None: not asked yet
    Column("other_channels", Integer, nullable=False),  # it is in that are none of ours
    Column("flood_until", BigInteger),
    Column("error", Text),
    sqlite_autoincrement=True,
)

channels = Table(  # the pool of Telegram's channels
    "channels",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("username", Text, unique=True),  # in lower case
    Column("invite", Text, unique=True),  # the hash of an invite link
    Column("telegram_id", BigInteger, unique=True),
    Column("title", Text),
    Column("category", Text),
    Column("state", Text, nullable=False),  # candidate, wanted, requested, joined, failed, left, paused
    Column("urgent", SmallInteger, nullable=False),  # 1: was listened to by an account that was lost
    Column("source", BigInteger),  # key of the source of its posts; None before it was joined
    Column("created", BigInteger, nullable=False),
    Column("next_try", BigInteger),
    Column("failures", Integer, nullable=False),  # in a row
    Column("error", Text),
    Index("channels_state", "state"),
    sqlite_autoincrement=True,
)

channel_mentions = Table(  # which source named a channel of the pool, and how often
    "channel_mentions",
    metadata,
    Column("channel", BigInteger, primary_key=True),
    Column("source", BigInteger, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("last", BigInteger, nullable=False),
)

memberships = Table(  # what an account knows of a channel, whether it is in it or not
    "memberships",
    metadata,
    Column("channel", BigInteger, primary_key=True),
    Column("account", BigInteger, primary_key=True),
    Column("access_hash", BigInteger),  # good for this account only
    Column("joined", BigInteger),  # None: not in it
    Column("muted", SmallInteger, nullable=False),
    Column("pts", BigInteger),  # up to where its updates have been seen
    Column("last_sweep", BigInteger),
    Index("memberships_account", "account"),
)

join_attempts = Table(  # the log by which limits are kept
    "join_attempts",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("time", BigInteger, nullable=False),
    Column("account", BigInteger, nullable=False),
    Column("channel", BigInteger, nullable=False),
    Column("resolves", SmallInteger, nullable=False),  # 1: a name had to be looked up
    Column("pause", Float, nullable=False),  # seconds before the account's next, drawn beforehand
    Column("outcome", Text),  # None: begun, and we died before we knew
    Column("ended", BigInteger),
    Column("wait", Float),  # seconds that Telegram asked for
    Column("error", Text),
    Index("join_attempts_account", "account", "time"),
    sqlite_autoincrement=True,
)
