"""The sources of this installation: which there are, when each is read next, and what became of the last reading.

A removed source keeps its row, so that its items keep their origin and come back when it is added again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import httpx
import sqlalchemy as sa

from palate import database, identities
from palate.domain import Fetched, from_milliseconds, to_milliseconds
from palate.errors import InvalidInput, NotFound

FETCHED = ("feed", "folder", "telegram_preview")
"""Kinds that are read when due: a feed by its address, a folder of article files by its absolute path, the public page
of a channel of Telegram by https://t.me/NAME."""
PUSHED = ("api", "archive", "sample")
"""Kinds that others put items into; their id is their address."""
HEARD = ("telegram",)
"""Kinds that accounts listen to: a channel by its link, https://t.me/NAME, or by its number, tg:NUMBER."""
Status = Literal["active", "paused", "removed"]

MAX_ADDRESS = 2000
FIRST_PAUSE = timedelta(minutes=15)
LONGEST_PAUSE = timedelta(days=1)
_MAX_ERROR = 500
_MAX_SLUG = 60
_CHANNEL = re.compile(r"https://t\.me/[a-z0-9_]{1,64}|tg:[0-9]{1,18}")


@dataclass(frozen=True)
class Source:
    """A source as it is stored."""

    key: int
    id: str
    kind: str
    address: str
    title: str | None
    site: str | None
    language: str | None
    options: dict[str, Any]
    """The owner's choices: `full_text` false keeps to what the feed itself gives; `labels` (the folders of an OPML file,
    the topics of a starter feed) are added to those of each item."""
    state: dict[str, Any]
    """What the next reading needs."""
    status: Status
    created: datetime
    next_fetch: datetime | None
    """None for a source that is pushed, not read."""
    last_fetch: datetime | None
    last_success: datetime | None
    last_error: str | None
    """None when the last reading went well."""
    failures: int
    """In a row."""


def add(
    connection: sa.Connection,
    kind: str,
    address: str,
    now: datetime,
    *,
    title: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Source:
    """Add a source, to be read at once. One that is there already is given back as it is; a removed one comes back with its
    items. Raises InvalidInput for what is no kind or no address."""
    address = _check_address(kind, address)
    row = {
        "kind": kind,
        "address": address,
        "title": title,
        "options": dict(options or {}),
        "state": {},
        "status": "active",
        "created": to_milliseconds(now),
        "next_fetch": to_milliseconds(now) if kind in FETCHED else None,
        "failures": 0,
    }
    insert = identities.insert_new(connection, database.sources).on_conflict_do_nothing()
    for id in _names(kind, address):
        connection.execute(insert.values(id=id, **row))
        found = _select(connection, database.sources.c.kind == kind, database.sources.c.address == address)
        if found:
            return _revived(connection, found[0], now) if found[0].status == "removed" else found[0]
    raise InvalidInput(f"another source is called {address[:100]!r} already: choose another name")


def list_sources(connection: sa.Connection) -> list[Source]:
    """Every source but the removed ones, in the order in which they were added."""
    return _select(connection, database.sources.c.status != "removed")


def get(connection: sa.Connection, id: str) -> Source:
    """A source by its id. Raises NotFound when it isn't there or was removed."""
    found = _select(connection, database.sources.c.id == id, database.sources.c.status != "removed")
    if not found:
        raise NotFound(f"There is no source {id[:200]!r}: look at the list of sources for its id.")
    return found[0]


def of_key(connection: sa.Connection, key: int) -> Source:
    """A source by its key, also a removed one."""
    found = _select(connection, database.sources.c.key == key)
    assert found, "sources are never deleted from the table"
    return found[0]


def pause(connection: sa.Connection, id: str) -> None:
    """Read a source no more until it is resumed; its items stay. Raises NotFound."""
    _change(connection, get(connection, id).key, status="paused")


def resume(connection: sa.Connection, id: str, now: datetime) -> None:
    """Read a source again, at once. Raises NotFound."""
    source = get(connection, id)
    next_fetch = to_milliseconds(now) if source.kind in FETCHED else None
    _change(connection, source.key, status="active", next_fetch=next_fetch, failures=0, last_error=None)


def remove(connection: sa.Connection, id: str, now: datetime) -> None:
    """Read a source no more and serve its items no more, but for those that another source gave too. Raises NotFound."""
    key = get(connection, id).key
    _change(connection, key, status="removed", state={}, next_fetch=None, last_error=None, failures=0)
    _hide_items(connection, key, now)


def rename(connection: sa.Connection, key: int, address: str, title: str) -> None:
    """A source has another name, and another address unless a source of its kind has that."""
    [source] = _select(connection, database.sources.c.key == key)
    taken = _select(connection, database.sources.c.kind == source.kind, database.sources.c.address == address)
    _change(connection, key, title=title, **({} if taken else {"address": address}))


def note_heard(connection: sa.Connection, key: int, now: datetime, error: str | None = None) -> None:
    """Remember that a source that is listened to was there at `now`, or why it isn't any more."""
    time = to_milliseconds(now)
    if error is None:
        _change(connection, key, last_fetch=time, last_success=time, last_error=None, failures=0)
    else:
        _change(connection, key, last_fetch=time, last_error=error[:_MAX_ERROR])


def due(connection: sa.Connection, now: datetime, limit: int) -> list[Source]:
    """At most `limit` active sources whose time has come, those that wait longest first.

    One that was last read in the future is due too: the clock was ahead then, and so is the time for which it was put off.
    """
    table, time = database.sources, to_milliseconds(now)
    return _select(
        connection,
        table.c.status == "active",
        table.c.next_fetch.is_not(None),
        (table.c.next_fetch <= time) | (table.c.last_fetch > time),
        order=(table.c.next_fetch, table.c.key),
        limit=limit,
    )


def record_success(connection: sa.Connection, key: int, fetched: Fetched, now: datetime, next_fetch: datetime) -> None:
    """Remember what a reading said of the source itself. A title that it was added with stays."""
    found = _select(connection, database.sources.c.key == key)
    assert found, "sources are never deleted from the table"
    _change(
        connection,
        key,
        state=fetched.state,
        title=found[0].title or fetched.title,
        site=fetched.site or found[0].site,
        language=fetched.language or found[0].language,
        last_fetch=to_milliseconds(now),
        last_success=to_milliseconds(now),
        last_error=None,
        failures=0,
        next_fetch=to_milliseconds(next_fetch),
    )
    if found[0].status == "removed":  # while it was being read
        _hide_items(connection, key, now)


def record_failure(
    connection: sa.Connection,
    key: int,
    reason: str,
    now: datetime,
    *,
    retry_after: float | None = None,
    gone: bool = False,
) -> None:
    """Remember why a reading failed, and wait: 15 minutes, doubled with each failure in a row up to a day.

    `retry_after` (seconds) makes it longer. A source that is `gone` for good is paused.
    """
    found = _select(connection, database.sources.c.key == key)
    assert found, "sources are never deleted from the table"
    failures = found[0].failures + 1
    wait = min(FIRST_PAUSE * 2 ** min(failures - 1, 10), LONGEST_PAUSE)
    wait = max(wait, min(timedelta(seconds=retry_after or 0), LONGEST_PAUSE))
    _change(
        connection,
        key,
        status="paused" if gone and found[0].status == "active" else found[0].status,
        last_fetch=to_milliseconds(now),
        last_error=reason[:_MAX_ERROR],
        failures=failures,
        next_fetch=to_milliseconds(now + wait),
    )


def _check_address(kind: str, address: str) -> str:
    address = address.strip()
    if kind in PUSHED:
        return identities.check_id(address, "a source's id")
    if kind not in (*FETCHED, *HEARD):
        kinds = ", ".join((*FETCHED, *HEARD, *PUSHED))
        raise InvalidInput(f"a source's kind must be one of {kinds}, not {kind[:40]!r}")
    if not 0 < len(address) <= MAX_ADDRESS or not address.isprintable():
        raise InvalidInput(f"a source's address must have 1 to {MAX_ADDRESS} printable characters")
    if kind == "folder" and not Path(address).is_absolute():
        raise InvalidInput("the address of a folder must be its whole path, from the root")
    if kind in HEARD and not _CHANNEL.fullmatch(address):
        raise InvalidInput("the address of a channel must be https://t.me/ and its name, or tg: and its number")
    if kind == "feed" and not _is_web_address(address):
        raise InvalidInput(f"{address[:100]!r} is no web address: it must begin with http:// or https://")
    if kind == "telegram_preview":
        return _channel_address(address)
    return address.partition("#")[0] if kind == "feed" else address


def _channel_address(address: str) -> str:
    found = re.fullmatch(r"https://t\.me/(?:s/)?([A-Za-z][A-Za-z0-9_]{2,63})/?", address)
    if not found:
        raise InvalidInput("the address of a channel's public page must be https://t.me/ and its name")
    return f"https://t.me/{found[1].lower()}"


def _is_web_address(address: str) -> bool:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host)


def _names(kind: str, address: str) -> list[str]:
    """Ids to try, the most readable first."""
    if kind in PUSHED:
        return [address]
    whole = re.sub(r"^https?://(?:www\.)?", "", address.lower())
    slug = re.sub(r"[^\w.]+", "-", whole).strip("-._")[:_MAX_SLUG] or kind
    digest = hashlib.blake2b(address.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return [slug, f"{slug}-{digest}", f"{kind}-{slug}-{digest}"]


def _revived(connection: sa.Connection, source: Source, now: datetime) -> Source:
    next_fetch = to_milliseconds(now) if source.kind in FETCHED else None
    _change(connection, source.key, status="active", next_fetch=next_fetch)
    items = database.items
    hidden = sa.update(items).where(items.c.source == source.key, items.c.state == "hidden")
    connection.execute(hidden.values(state="live", updated=to_milliseconds(now)))
    return get(connection, source.id)


def _hide_items(connection: sa.Connection, key: int, now: datetime) -> None:
    """Give a removed source's items to another source that gave them too; hide the rest."""
    items, origins, sources = database.items, database.item_origins, database.sources
    other = (
        sa.select(sa.func.min(origins.c.source))
        .join(sources, sources.c.key == origins.c.source)
        .where(origins.c.item == items.c.key, origins.c.source != key, sources.c.status != "removed")
        .scalar_subquery()
    )
    own = sa.update(items).where(items.c.source == key, items.c.state == "live")
    time = to_milliseconds(now)
    connection.execute(own.where(other.is_not(None)).values(source=other, updated=time))
    connection.execute(own.values(state="hidden", updated=time))


def _change(connection: sa.Connection, key: int, **values: Any) -> None:
    connection.execute(sa.update(database.sources).where(database.sources.c.key == key).values(**values))


def _select(
    connection: sa.Connection,
    *conditions: sa.ColumnElement[bool],
    order: Sequence[sa.Column[Any]] = (database.sources.c.key,),
    limit: int | None = None,
) -> list[Source]:
    query = sa.select(database.sources).where(*conditions).order_by(*order).limit(limit)
    return [_source(row) for row in connection.execute(query)]


def _source(row: sa.Row[Any]) -> Source:
    times = {name: _time(getattr(row, name)) for name in ("created", "next_fetch", "last_fetch", "last_success")}
    return Source(**(dict(row._mapping) | times))


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else from_milliseconds(milliseconds)
