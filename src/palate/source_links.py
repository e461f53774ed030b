"""Which sites the texts of items link to, counted as items come: by that their sources are weighed.

    new items → links between sites → counts of a day → PageRank over those of the stories' window → weights

A public channel of Telegram is a site of its own, any other site is a host.
"""

from __future__ import annotations

import html
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from palate import database, identities
from palate.database import reading
from palate.domain import EPOCH, Item
from palate.errors import InvalidInput
from palate.sources import handles
from palate.sources.article_page import host
from palate.stories.sources import SourceParams, page_rank
from palate.stories.sources import weights as weights_of

KEPT = timedelta(days=31)
"""How long a day's links are kept."""
MOST = 50_000
"""Counts that are kept; beyond that those of the fewest links go first, so that nobody can fill the table."""
MOST_OF_TEXT = 20
"""Sites that one text may link to."""
PAUSE = timedelta(minutes=10)
"""Between two looks at the links."""

_DAY = timedelta(days=1)
_SITE = re.compile(r"[\w-]+(?:\.[\w-]+)+")
_ANCHOR = re.compile(r'<a\s[^<>]*?href="([^"]*)"')
_ADDRESS = re.compile(r'https?://[^\s"<>]+')
_LONGEST = 2000  # characters of an address
_TABLE = database.source_links


def site(address: str | None) -> str | None:
    """The site of a web address, None when it has none.

    >>> site("https://www.Example.org/a"), site("https://t.me/s/Durov/5")
    ('example.org', 't.me/durov')
    """
    found = host((address or "")[:_LONGEST])
    if found is None or not _SITE.fullmatch(found):
        return None
    if found not in handles.HOSTS:
        return found
    try:
        name = handles.parse(address or "").username
    except InvalidInput:
        return found
    return f"t.me/{name}" if name else found


def linked(text: str, own: str | None) -> list[str]:
    """The sites other than its own that a text in HTML or without any markup links to; each once, at most 20, in order."""
    found = _ANCHOR.findall(text) if "<" in text else _ADDRESS.findall(text)
    sites = dict.fromkeys(site(html.unescape(address)) for address in found)
    return [one for one in sites if one is not None and one != own][:MOST_OF_TEXT]


class Linking(NamedTuple):
    """The sites that one item links to."""

    published: datetime | None
    address: str | None
    """Its own."""
    targets: Sequence[str]


def record(connection: sa.Connection, items: Iterable[Item], now: datetime) -> None:
    """Count the links of items by the days on which they were published. Give every item once."""
    add(connection, (Linking(item.published, item.url, linked(item.text or "", site(item.url))) for item in items), now)


def of_hosts(hosts: Iterable[str], own: str | None) -> list[str]:
    """The sites other than its own among hosts that were found in a text; a channel can't be told by its host."""
    sites = dict.fromkeys(site(f"https://{host}/") for host in hosts)
    return [one for one in sites if one is not None and one != own and one not in handles.HOSTS][:MOST_OF_TEXT]


def add(connection: sa.Connection, found: Iterable[Linking], now: datetime) -> None:
    """Count these links by the days on which the items were published. Give every item once."""
    counts: Counter[tuple[int, str, str]] = Counter()
    for one in found:
        own, day = site(one.address), _day(min(one.published or now, now))
        if own is not None and day >= _day(now - KEPT):
            counts.update((day, own, target) for target in one.targets)
    if not counts:
        return
    insert = identities.insert_new(connection, _TABLE)
    added = {"count": _TABLE.c.count + insert.excluded["count"]}
    rows = [
        {"day": day, "origin": origin, "target": target, "count": count}
        for (day, origin, target), count in sorted(counts.items())
    ]
    connection.execute(insert.on_conflict_do_update(index_elements=["day", "origin", "target"], set_=added), rows)
    _expire(connection, now)


def _expire(connection: sa.Connection, now: datetime) -> None:
    connection.execute(sa.delete(_TABLE).where(_TABLE.c.day < _day(now - KEPT)))
    count = connection.scalar(sa.select(sa.func.count()).select_from(_TABLE)) or 0
    if count > MOST:
        key = (_TABLE.c.day, _TABLE.c.origin, _TABLE.c.target)
        least = sa.select(*key).order_by(_TABLE.c.count, *key).limit(count - MOST * 9 // 10)  # not with every item
        connection.execute(sa.delete(_TABLE).where(sa.tuple_(*key).in_(least)))


def _day(time: datetime) -> int:
    return (time - EPOCH) // _DAY


def links(connection: sa.Connection, since: datetime) -> dict[tuple[str, str], float]:
    """How often texts of the first site linked to the second, from the day of `since` on."""
    columns = (_TABLE.c.origin, _TABLE.c.target)
    query = sa.select(*columns, sa.func.sum(_TABLE.c.count)).where(_TABLE.c.day >= _day(since)).group_by(*columns)
    return {(origin, target): float(count) for origin, target, count in connection.execute(query)}


def ranks(connection: sa.Connection, params: SourceParams, since: datetime) -> dict[str, float]:
    """The rank of each site that is known or was linked, by the links from the day of `since` on."""
    return page_rank(links(connection, since), params)


class SourceRanks:
    """The ranks of one installation, as of the last ten minutes; one for a process, shared by its threads."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._ranks: Mapping[str, float] = {}
        self._looked: datetime | None = None

    def of(self, params: SourceParams, window: timedelta, now: datetime) -> Mapping[str, float]:
        """By the links of so long before `now`. Raises DatabaseError."""
        with self._lock:
            if self._looked is None or now - self._looked > PAUSE:
                with reading(self._engine) as connection:
                    self._ranks = ranks(connection, params, now - window)
                self._looked = now
            return self._ranks


def weights(
    addresses: Iterable[str | None], ranks: Mapping[str, float], params: SourceParams
) -> dict[str | None, float]:
    """By each address the weight of its site, 0 to 1; what has no site weighs nothing."""
    sites = {address: site(address) for address in addresses}
    found = weights_of({one for one in sites.values() if one is not None}, ranks, params)
    return {address: 0.0 if own is None else found[own] for address, own in sites.items()}
