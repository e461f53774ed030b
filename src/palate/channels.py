"""The pool of Telegram's channels: which there are, which are wanted, and what became of them; and which sources name them.

A channel is known by its username (in lower case, without @), by the hash of an invite link, or by Telegram's own id, the bare
positive number. Rows of one channel that was added twice become one as soon as that is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from palate import identities, telegram_tables
from palate.domain import from_milliseconds, to_milliseconds
from palate.errors import InvalidInput, NotFound

State = Literal["candidate", "wanted", "requested", "joined", "failed", "left", "paused"]
"""`candidate`: found in posts; `wanted`: to be joined; `requested`: its owner has to let us in; `failed`: `error` says why;
`left`: the owner of this installation wants it no more; `paused`: not to be joined for now, or not listened to."""

CANDIDATES = 10_000
"""Candidates that are kept; those that were named least give way."""
_TABLE = telegram_tables.channels
_COLUMNS = frozenset(_TABLE.c.keys())
_MENTIONS = telegram_tables.channel_mentions
_MEMBERS = telegram_tables.memberships
_MAX_TITLE = 200
_MAX_ERROR = 500


@dataclass(frozen=True)
class Channel:
    """A channel as it is stored. None means unknown, or nothing."""

    key: int
    username: str | None
    invite: str | None
    telegram_id: int | None
    title: str | None
    category: str | None
    """Of the list it came from; the first label of its items."""
    state: State
    urgent: bool
    """It was listened to until its account was lost: it goes before those that never were."""
    source: int | None
    """Key of the source of its posts."""
    created: datetime
    next_try: datetime | None
    """Not to be joined earlier."""
    failures: int
    """In a row."""
    error: str | None

    @property
    def name(self) -> str:
        """What people call it: its title, else its address."""
        return self.title or self.address

    @property
    def address(self) -> str:
        """Where it is: its link when it has one, else `tg:` and its id."""
        if self.username is not None:
            return f"https://t.me/{self.username}"
        return f"https://t.me/+{self.invite}" if self.invite is not None else f"tg:{self.telegram_id}"


@dataclass(frozen=True)
class Mention:
    """A channel that a post names, by at least one of these."""

    username: str | None = None
    invite: str | None = None
    telegram_id: int | None = None
    title: str | None = None


@dataclass(frozen=True)
class Candidate:
    """A channel that posts name, with how often and in how many sources."""

    channel: Channel
    mentions: int
    sources: int


def add(
    connection: sa.Connection,
    now: datetime,
    *,
    username: str | None = None,
    invite: str | None = None,
    telegram_id: int | None = None,
    title: str | None = None,
    category: str | None = None,
    state: State = "wanted",
) -> Channel:
    """Put a channel into the pool. One that is there keeps its state, but a candidate, one that was left and one that failed is
    wanted from now on when that is asked; a title and a category that it has stay."""
    assert username or invite or telegram_id, "a channel needs a name"
    username = username.lower() if username else None
    names = {"username": username, "invite": invite, "telegram_id": telegram_id}
    found = _find(connection, names)
    if found is None:
        row = {
            "title": title[:_MAX_TITLE] if title else None,
            "category": category,
            "state": state,
            "urgent": 0,
            "created": to_milliseconds(now),
            "failures": 0,
        }
        connection.execute(identities.insert_new(connection, _TABLE).on_conflict_do_nothing().values(names | row))
    else:
        _add_names(connection, found, names)
        again = state == "wanted" and found.state in ("candidate", "left", "failed")
        known = {"title": found.title or title, "category": found.category or category}
        _change(connection, found.key, **known, **(_AFRESH if again else {}))
    added = _find(connection, names)
    assert added is not None, "what was just stored is found"
    return added


def _add_names(connection: sa.Connection, found: Channel, names: dict[str, Any]) -> None:
    """What the channel is called besides, where no other channel is called so."""
    for name, value in names.items():
        if value is not None and getattr(found, name) is None and _find(connection, {name: value}) is None:
            _change(connection, found.key, **{name: value})


_AFRESH = {"state": "wanted", "error": None, "failures": 0, "next_try": None}


def find(
    connection: sa.Connection,
    *,
    username: str | None = None,
    invite: str | None = None,
    telegram_id: int | None = None,
) -> Channel | None:
    """The channel that one of these names, Telegram's id first; None when the pool has none."""
    return _find(connection, {"telegram_id": telegram_id, "username": username and username.lower(), "invite": invite})


def _find(connection: sa.Connection, names: dict[str, Any]) -> Channel | None:
    for name in ("telegram_id", "username", "invite"):
        value = names.get(name)
        found = _select(connection, _TABLE.c[name] == value) if value is not None else []
        if found:
            return found[0]
    return None


def get(connection: sa.Connection, key: int) -> Channel:
    """A channel by its key. Raises NotFound when it isn't there, such as after two became one."""
    found = _select(connection, _TABLE.c.key == key)
    if not found:
        raise NotFound(f"There is no channel {key}: `palate channels list` names all.")
    return found[0]


def list_channels(connection: sa.Connection, states: Sequence[State] | None = None) -> list[Channel]:
    """The channels in some states (None: in every state but candidate), in the order in which they were added."""
    within = _TABLE.c.state.in_(states) if states is not None else _TABLE.c.state != "candidate"
    return _select(connection, within)


def list_wanted(connection: sa.Connection, now: datetime, limit: int | None) -> list[Channel]:
    """Channels to be joined, in the order in which they should be: those whose account was lost, then those that never failed.

    Those whose next try is later than `now` come last.
    """
    later = sa.case((_TABLE.c.next_try > to_milliseconds(now), 1), else_=0)
    order = (later, _TABLE.c.urgent.desc(), _TABLE.c.failures, _TABLE.c.key)
    query = sa.select(_TABLE).where(_TABLE.c.state == "wanted").order_by(*order).limit(limit)
    return [_channel(row) for row in connection.execute(query)]


def count(connection: sa.Connection) -> dict[str, int]:
    """How many channels there are, by state."""
    query = sa.select(_TABLE.c.state, sa.func.count()).group_by(_TABLE.c.state)
    return {row[0]: row[1] for row in connection.execute(query)}


def set_state(
    connection: sa.Connection,
    key: int,
    state: State,
    *,
    error: str | None = None,
    urgent: bool = False,
    next_try: datetime | None = None,
    failures: int = 0,
) -> None:
    """What has become of a channel; whatever isn't said is as in a channel that was just added."""
    _change(
        connection,
        key,
        state=state,
        error=error[:_MAX_ERROR] if error else None,
        urgent=int(urgent),
        next_try=None if next_try is None else to_milliseconds(next_try),
        failures=failures,
    )


def set_back(connection: sa.Connection, until: datetime) -> None:
    """Put no channel off for longer than `until`, such as a clock may have done that was ahead."""
    latest = to_milliseconds(until)
    connection.execute(sa.update(_TABLE).where(_TABLE.c.next_try > latest).values(next_try=latest))


def set_source(connection: sa.Connection, key: int, source: int) -> None:
    """Remember the source of its posts, a key of `sources`."""
    _change(connection, key, source=source)


def pause(connection: sa.Connection, key: int) -> None:
    """Don't join a channel, or listen to it no more without leaving it. Raises NotFound."""
    get(connection, key)
    _change(connection, key, state="paused")


def resume(connection: sa.Connection, key: int) -> None:
    """Want a channel again, or listen to it again when an account is in it. Raises NotFound, and InvalidInput when it
    isn't paused."""
    channel = get(connection, key)
    if channel.state != "paused":
        raise InvalidInput(f"{channel.name} is not paused but {channel.state}")
    members = sa.select(_MEMBERS.c.account).where(_MEMBERS.c.channel == key, _MEMBERS.c.joined.is_not(None))
    inside = connection.execute(members).first() is not None
    set_state(connection, key, "joined" if inside else "wanted")


def identify(
    connection: sa.Connection, key: int, telegram_id: int, username: str | None = None, title: str | None = None
) -> int:
    """Remember what Telegram says a channel is. Gives its key, which is another one when the channel was in the pool twice.

    A name that another channel had is this one's now. The older row stays, with what both know.
    """
    username = username.lower() if username else None
    for other in _select(connection, _TABLE.c.key != key, _same(telegram_id, username)):
        if other.telegram_id not in (None, telegram_id):
            _change(connection, other.key, username=None)  # it was renamed, and its name was taken over
        else:
            key = _merge(connection, min(key, other.key), max(key, other.key))
    channel = get(connection, key)
    renamed = username or channel.username
    _change(connection, key, telegram_id=telegram_id, username=renamed, title=title or channel.title)
    return key


def _same(telegram_id: int, username: str | None) -> sa.ColumnElement[bool]:
    named = _TABLE.c.username == username if username is not None else sa.false()
    return sa.or_(_TABLE.c.telegram_id == telegram_id, named)


_PROGRESS: tuple[State, ...] = ("joined", "requested", "paused", "wanted", "left", "failed", "candidate")
"""Of two rows of one channel the state that comes first here counts."""


def _merge(connection: sa.Connection, key: int, twin: int) -> int:
    """One row of two: the first, with what only the second knew. Its members, mentions and attempts come along."""
    kept, gone = get(connection, key), get(connection, twin)
    for table in (_MEMBERS, _MENTIONS):
        _hand_over(connection, table, key, twin)
    attempts = telegram_tables.join_attempts
    connection.execute(sa.update(attempts).where(attempts.c.channel == twin).values(channel=key))
    connection.execute(sa.delete(_TABLE).where(_TABLE.c.key == twin))
    names = ("username", "invite", "telegram_id", "title", "category", "source")
    known = {name: getattr(kept, name) if getattr(kept, name) is not None else getattr(gone, name) for name in names}
    _change(connection, key, state=min(kept.state, gone.state, key=_PROGRESS.index), **known)
    return key


def _hand_over(connection: sa.Connection, table: sa.Table, key: int, twin: int) -> None:
    """Rows of the twin become the channel's, but for those that it has of the same account or source."""
    by = table.c.account if table is _MEMBERS else table.c.source
    has = sa.select(by).where(table.c.channel == key)
    own = list(connection.execute(has).scalars())
    connection.execute(sa.update(table).where(table.c.channel == twin, by.not_in(own)).values(channel=key))
    connection.execute(sa.delete(table).where(table.c.channel == twin))


def record_mentions(connection: sa.Connection, source: int, mentions: Sequence[Mention], now: datetime) -> None:
    """Count the channels that new posts of a source (its key) name; those that the pool lacks become candidates.

    Give every post once: who reads a post again doesn't count its mentions again.
    """
    counts: dict[int, int] = {}
    for mention in mentions:
        channel = add(
            connection,
            now,
            username=mention.username,
            invite=mention.invite,
            telegram_id=mention.telegram_id,
            title=mention.title,
            state="candidate",
        )
        if channel.source != source:
            counts[channel.key] = counts.get(channel.key, 0) + 1
    for key, number in sorted(counts.items()):
        row = {"channel": key, "source": source, "count": number, "last": to_milliseconds(now)}
        insert = identities.insert_new(connection, _MENTIONS).values(row)
        more = {"count": _MENTIONS.c.count + number, "last": row["last"]}
        connection.execute(insert.on_conflict_do_update(index_elements=["channel", "source"], set_=more))


def candidates(connection: sa.Connection, limit: int) -> list[Candidate]:
    """Channels that posts name and nobody has decided on: those that most sources name first, then those named most often."""
    sources = sa.func.count().label("sources")
    mentions = sa.func.sum(_MENTIONS.c.count).label("mentions")
    query = (
        sa.select(_TABLE, sources, mentions)
        .join(_MENTIONS, _MENTIONS.c.channel == _TABLE.c.key)
        .where(_TABLE.c.state == "candidate")
        .group_by(*_TABLE.c)
        .order_by(sources.desc(), mentions.desc(), _TABLE.c.key)
        .limit(limit)
    )
    return [Candidate(_channel(row), int(row.mentions), row.sources) for row in connection.execute(query)]


def prune_candidates(connection: sa.Connection, keep: int = CANDIDATES) -> int:
    """Forget all but the best `keep` candidates; gives how many went."""
    best = {candidate.channel.key for candidate in candidates(connection, keep)}
    listed = connection.execute(sa.select(_TABLE.c.key).where(_TABLE.c.state == "candidate")).scalars()
    gone = [key for key in listed if key not in best]
    for chunk in identities.chunks(gone):
        connection.execute(sa.delete(_MENTIONS).where(_MENTIONS.c.channel.in_(chunk)))
        connection.execute(sa.delete(_TABLE).where(_TABLE.c.key.in_(chunk)))
    return len(gone)


def _change(connection: sa.Connection, key: int, **values: Any) -> None:
    connection.execute(sa.update(_TABLE).where(_TABLE.c.key == key).values(**values))


def _select(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[Channel]:
    query = sa.select(_TABLE).where(*conditions).order_by(_TABLE.c.key)
    return [_channel(row) for row in connection.execute(query)]


def _channel(row: sa.Row[Any]) -> Channel:
    values = {name: value for name, value in row._mapping.items() if name in _COLUMNS}
    next_try = None if row.next_try is None else from_milliseconds(row.next_try)
    made = {"created": from_milliseconds(row.created), "next_try": next_try, "urgent": bool(row.urgent)}
    return Channel(**(values | made))
