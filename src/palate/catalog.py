"""The items: one for each canonical address whatever source it came by, updated when edited, gone when deleted.

An item is a *stub* while only events name it, *live* when it may be served, *hidden* when its source was removed, *withdrawn*
when its source took it back, *deleted* when somebody asked for that: of the last two only id and address remain, to know them.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from palate import database, gorse_tables, identities, item_drafts
from palate.domain import Also, Item, Media, from_milliseconds, to_milliseconds
from palate.item_drafts import CONTENT, Draft, Known, Outcome
from palate.lately import Lately

State = Literal["stub", "live", "hidden", "withdrawn", "deleted"]

_NO_SOURCE = 0  # stands in `item_origins` for an item that a caller gave without a source
_TURN = 7073618  # the advisory lock of PostgreSQL by which writers of the catalog take turns
_CONTENT_ITSELF = tuple(name for name in (*CONTENT, "category", "story", "leads") if name not in ("source", "kind"))


@dataclass(frozen=True)
class Stored:
    """What became of one item that was given.

    `merged`: it is known already under another id, the `id` and `key` given here; what that one lacked was filled in.
    """

    id: str
    key: int
    outcome: Outcome


@dataclass(frozen=True)
class StoredItem:
    """An item as it is stored; its `source` is the source's id."""

    key: int
    item: Item
    received: datetime
    """When its content first came."""
    updated: datetime
    """When anything of it last changed."""
    state: State
    story: int | None
    source_key: int | None
    source_title: str | None

    @cached_property
    def version(self) -> tuple[int, State, str | None]:
        """What changes with it: time of the last change in milliseconds since 1970, state, and title of the source."""
        return to_milliseconds(self.updated), self.state, self.source_title


class Change(NamedTuple):
    """What serving needs of an item that changed. Times in milliseconds since 1970; `source` is a source's key."""

    key: int
    state: State
    source: int | None
    published: int | None
    received: int
    language: str | None
    labels: tuple[str, ...]
    category: str | None = None
    story: int | None = None
    """Key of the story's first item; None for an item that is alone."""
    leads: int | None = None
    """1 for the item that is its story's headline."""
    kind: str = "post"


def upsert(
    connection: sa.Connection,
    items: Sequence[Item],
    now: datetime,
    *,
    canonical: Sequence[str | None] | None = None,
    revive: bool = True,
) -> list[Stored]:
    """Store items, and say of each in its order what became of it. Items are taken as they are: `text.cleaning` comes before.

    `canonical` has each item's canonical address, None for an item that no address tells from others; without it `Item.url`
    counts. The same id again is an edit: what is given replaces what was there, what is None or empty leaves it, `kind`
    `post` (the default) too. Another id with a known address is merged: it fills what was missing. `revive` says whether
    deleted items come back. A source id that is not known becomes a source of kind `api`.
    """
    if not items:
        return []
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_TURN)))  # until the commit
    addresses = [item.url for item in items] if canonical is None else canonical
    time = to_milliseconds(now)
    sources = _source_keys(connection, {item.source for item in items if item.source is not None}, time)
    known = item_drafts.read(connection, items, addresses)
    placed = [
        item_drafts.place(known, item, address, sources.get(item.source or ""), time, revive)
        for item, address in zip(items, addresses, strict=True)
    ]
    item_drafts.write(connection, known.drafts, time)
    _record_origins(connection, known, items, sources, [draft for draft, _ in placed])
    return [Stored(id=draft.id, key=draft.key, outcome=outcome) for draft, outcome in placed]


def admit(connection: sa.Connection, ids: Iterable[str], now: datetime) -> int:
    """Let items that only events name be served as they are, known by their id alone. Returns how many there were."""
    table, time = database.items, to_milliseconds(now)
    stubs: list[int] = []
    for chunk in identities.chunks(sorted(set(ids))):
        stubs += connection.scalars(sa.select(table.c.key).where(table.c.id.in_(chunk), table.c.state == "stub"))
    if stubs:
        change = sa.update(table).where(table.c.key == sa.bindparam("of"), table.c.state == "stub")
        values = change.values(state="live", received=time, updated=time)
        connection.execute(values, [{"of": key} for key in sorted(stubs)])  # sorted: see identities.item_keys
    return len(stubs)


def get(connection: sa.Connection, id: str) -> StoredItem | None:
    """The item that an id names, its own or one that was merged; None when it is unknown, deleted or a mere stub."""
    key = _key_of(connection, id)
    return None if key is None else get_many(connection, [key]).get(key)


def page(connection: sa.Connection, after: int, limit: int, search: str = "") -> list[StoredItem]:
    """Live and hidden items with a key beyond `after`, in the order of their keys; `search`: with this in their title."""
    query = _SELECT.where(database.items.c.key > after).order_by(database.items.c.key).limit(limit)
    if search:
        query = query.where(database.items.c.title.icontains(search, autoescape=True))
    return [_stored_item(row) for row in connection.execute(query)]


def stubs(connection: sa.Connection, ids: Iterable[str]) -> set[str]:
    """Those of these ids that nothing but events names."""
    table, found = database.items, set[str]()
    for chunk in identities.chunks(sorted(set(ids))):
        found.update(connection.scalars(sa.select(table.c.id).where(table.c.id.in_(chunk), table.c.state == "stub")))
    return found


def get_many(connection: sa.Connection, keys: Iterable[int]) -> dict[int, StoredItem]:
    """Items by their keys; those that are deleted, stubs or not there are left out."""
    rows: Iterator[Any] = map(_Row._make, _of_keys(connection, _ITEMS, set(keys)))
    return {row.key: _stored_item(row) for row in rows}


Cards = Lately[int, "StoredItem"]
"""Items by their keys, as they were when they were asked for lately."""


def remembered(connection: sa.Connection, keys: Collection[int], cards: Cards) -> dict[int, StoredItem]:
    """What `get_many` gives, of which only those are read that were changed since they were asked for, or never were."""
    known, found = cards.find(keys), dict[int, StoredItem]()
    for key, *version in _of_keys(connection, _VERSIONS, known):
        if known[key].version == tuple(version):
            found[key] = known[key]
    if len(found) < len(keys):
        read = get_many(connection, [key for key in keys if key not in found])
        cards.add(read)
        found |= read
    return found


def _of_keys(connection: sa.Connection, about: _About, keys: Collection[int]) -> list[tuple[Any, ...]]:
    """What is asked about these items, as the driver gives it."""
    if connection.dialect.name == "postgresql":
        return database.driver_rows(connection, about.postgresql, {"keys": list(keys)})
    return database.driver_rows(connection, about.sqlite, {"keys": msgspec.json.encode(list(keys)).decode()})


def others(connection: sa.Connection, keys: Iterable[int]) -> dict[int, Also]:
    """Live items by their keys, as little of each as names it."""
    found: dict[int, Also] = {}
    for chunk in identities.chunks(sorted(set(keys))):
        rows = connection.execute(_SELECT_NAMES.where(database.items.c.key.in_(chunk)))
        found |= {row.key: Also(row.id, row.url, row.source_title) for row in rows}
    return found


def already_stored(
    connection: sa.Connection, items: Sequence[Item], canonical: Sequence[str | None]
) -> dict[str, StoredItem]:
    """Which of these items the catalog has, by their id: under that id, or another with the same canonical address."""
    known = item_drafts.read(connection, items, canonical)
    drafts = {item.id: item_drafts.find(known, item, address) for item, address in zip(items, canonical, strict=True)}
    stored = get_many(connection, (draft.key for draft in drafts.values() if draft))
    return {id: stored[draft.key] for id, draft in drafts.items() if draft and draft.key in stored}


def alias(connection: sa.Connection, names: Mapping[str, str]) -> None:
    """Let other ids (the keys) name items too (the values, their ids), such as the further messages of an album."""
    items, rows = database.items, list[dict[str, Any]]()
    of = {other: id for other, id in names.items() if other != id}
    for chunk in identities.chunks(sorted(set(of.values()))):
        query = sa.select(items.c.id, items.c.key, items.c.source).where(items.c.id.in_(chunk))
        found = {row.id: row for row in connection.execute(query)}
        named = [(other, found[id]) for other, id in sorted(of.items()) if id in found]
        rows += [{"source": row.source or _NO_SOURCE, "guid": other, "item": row.key} for other, row in named]
    if rows:
        connection.execute(identities.insert_new(connection, database.item_origins).on_conflict_do_nothing(), rows)


def aliases(connection: sa.Connection, ids: Iterable[str]) -> dict[str, list[str]]:
    """By item id all ids under which sources gave the item, its own among them; ids that are no item's are left out."""
    items, origins, found = database.items, database.item_origins, dict[str, list[str]]()
    for chunk in identities.chunks(sorted(set(ids))):
        query = sa.select(items.c.id, origins.c.guid).join(origins, origins.c.item == items.c.key)
        for row in connection.execute(query.where(items.c.id.in_(chunk)).order_by(origins.c.guid)):
            found.setdefault(row.id, []).append(row.guid)
    return found


def unknown(connection: sa.Connection, ids: Iterable[str]) -> set[str]:
    """Of these ids those under which no source has given an item."""
    origins, left = database.item_origins, set(ids)
    for chunk in identities.chunks(sorted(left)):
        left.difference_update(connection.scalars(sa.select(origins.c.guid).where(origins.c.guid.in_(chunk))))
    return left


def amend(connection: sa.Connection, item: Item, hidden: bool, now: datetime) -> None:
    """Make title, time and labels of a stored item exactly what is given, None and empty included, and hide or show it."""
    table = database.items
    values = {
        name: value
        for name, value in item_drafts.columns(item, None).items()
        if name in ("title", "published", "labels")
    }
    values |= {"state": "hidden" if hidden else "live"}
    known = (table.c.id == item.id) & table.c.state.in_(("live", "hidden"))
    row = connection.execute(sa.select(*(table.c[name] for name in values)).where(known)).one_or_none()
    if row is not None and row._asdict() != values:
        connection.execute(sa.update(table).where(known).values(**values, updated=to_milliseconds(now)))


def delete(connection: sa.Connection, id: str, now: datetime) -> bool:
    """Take an item's content away for good; False when there is none. Sources that give it again don't bring it back."""
    key = _key_of(connection, id)
    if key is None:
        return False
    return _wipe(connection, [key], "deleted", now) > 0


def withdraw(connection: sa.Connection, ids: Iterable[str], now: datetime) -> int:
    """Take the content of items away that their source took back, until a source gives them again. Returns how many.

    Ids that were merged into another item are left alone: that one has another origin.
    """
    table, keys = database.items, list[int]()
    for chunk in identities.chunks(sorted(set(ids))):
        named = table.c.id.in_(chunk) & table.c.state.in_(("live", "hidden"))
        keys += connection.scalars(sa.select(table.c.key).where(named))
    return _wipe(connection, sorted(keys), "withdrawn", now)


_FOUND_OUT = (database.understandings, database.item_vectors, database.item_counters, gorse_tables.items)


def _wipe(connection: sa.Connection, keys: Sequence[int], state: State, now: datetime) -> int:
    table, wiped = database.items, 0
    values: dict[str, Any] = dict.fromkeys(_CONTENT_ITSELF) | {"media": [], "labels": []}
    values |= {"state": state, "updated": to_milliseconds(now)}
    for chunk in identities.chunks(keys):
        wiped += connection.execute(sa.update(table).where(table.c.key.in_(chunk)).values(**values)).rowcount
        for found_out in _FOUND_OUT:
            connection.execute(sa.delete(found_out).where(found_out.c.item.in_(chunk)))
        if state == "deleted":
            _forget_labels(connection, chunk)
    return wiped


def _forget_labels(connection: sa.Connection, keys: Sequence[int]) -> None:
    """What somebody wanted gone isn't kept as an example either."""
    for pairs in (database.label_answers, database.agreed_labels):
        connection.execute(sa.delete(pairs).where(pairs.c.item.in_(keys) | pairs.c.other.in_(keys)))
    texts = database.labelled_items
    connection.execute(sa.delete(texts).where(texts.c.item.in_(keys)))


def recent_ids(connection: sa.Connection, source: int, since: datetime) -> list[str]:
    """Ids of the live items of a source (its key) that were published since then, in their order."""
    items = database.items.c
    of_source = (items.source == source) & (items.state == "live") & (items.published >= to_milliseconds(since))
    return list(connection.scalars(sa.select(items.id).where(of_source).order_by(items.published, items.key)))


def changed_since(connection: sa.Connection, milliseconds: int) -> list[Change]:
    """Every item with a change at this time or later, in the order of their keys; mere stubs are left out.

    `updated` is set before the commit: ask again for the last minute, and take repeats as they come.
    """
    table = database.items
    columns = [table.c[name] for name in Change._fields]
    labels = Change._fields.index("labels")
    query = sa.select(*columns).where(table.c.updated >= milliseconds, table.c.state != "stub").order_by(table.c.key)
    rows = connection.execute(query)
    return [Change._make((*row[:labels], tuple(row[labels]), *row[labels + 1 :])) for row in rows]


def stream(connection: sa.Connection, batch: int = 1000) -> Iterator[list[Item]]:
    """Every live item, in the order of the keys, in lists of at most `batch`; memory stays bounded."""
    table, last = database.items, 0
    while rows := connection.execute(
        _SELECT.where(table.c.key > last, table.c.state == "live").order_by(table.c.key).limit(batch)
    ).all():
        last = rows[-1].key
        yield [_item(row) for row in rows]


_SELECT = (
    sa.select(
        database.items,
        database.sources.c.id.label("source_id"),
        database.sources.c.title.label("source_title"),
    )
    .select_from(database.items.outerjoin(database.sources, database.items.c.source == database.sources.c.key))
    .where(database.items.c.state.in_((sa.literal_column("'live'"), sa.literal_column("'hidden'"))))
)


class _About(NamedTuple):
    """A question about the items whose keys are given as one parameter, as each database understands it."""

    sqlite: sa.Select[Any]
    postgresql: sa.Select[Any]


def _about(statement: sa.Select[Any]) -> _About:
    listed = sa.select(sa.column("value", sa.BigInteger)).select_from(
        sa.func.json_each(sa.bindparam("keys", type_=sa.Text))
    )
    array = sa.bindparam("keys", type_=postgresql.ARRAY(sa.BigInteger))
    key = database.items.c.key
    return _About(statement.where(key.in_(listed)), statement.where(key == sa.any_(array)))


_ITEMS = _about(_SELECT)
_Row = namedtuple("_Row", [column.name for column in _SELECT.selected_columns])  # type: ignore[misc]
"""Of what `_ITEMS` asks."""
_VERSIONS = _about(
    sa.select(
        database.items.c.key, database.items.c.updated, database.items.c.state, database.sources.c.title
    ).select_from(database.items.outerjoin(database.sources, database.items.c.source == database.sources.c.key))
)

_SELECT_NAMES = (
    sa.select(
        database.items.c.key,
        database.items.c.id,
        database.items.c.url,
        sa.func.coalesce(database.sources.c.title, database.sources.c.id).label("source_title"),
    )
    .select_from(database.items.outerjoin(database.sources, database.items.c.source == database.sources.c.key))
    .where(database.items.c.state == "live")
)


def _stored_item(row: Any) -> StoredItem:
    return StoredItem(
        key=row.key,
        item=_item(row),
        received=from_milliseconds(row.received),
        updated=from_milliseconds(row.updated),
        state=row.state,
        story=row.story,
        source_key=row.source,
        source_title=row.source_title,
    )


def _item(row: Any) -> Item:
    return Item(
        id=row.id,
        title=row.title,
        text=row.text,
        url=row.url,
        source=row.source_id,
        author=row.author,
        published=None if row.published is None else from_milliseconds(row.published),
        language=row.language,
        kind=row.kind,
        duration=row.duration,
        media=msgspec.convert(database.plain_json(row.media), tuple[Media, ...]),
        labels=tuple(database.plain_json(row.labels)),
        license=row.license,
    )


def _key_of(connection: sa.Connection, id: str) -> int | None:
    """Key of the item with this id; of the one it was merged into when nothing but a stub has it. None for neither."""
    table, origins = database.items, database.item_origins
    row = connection.execute(sa.select(table.c.key, table.c.state).where(table.c.id == id)).one_or_none()
    if row is not None and row.state != "stub":
        return None if row.state in ("withdrawn", "deleted") else int(row.key)
    merged = connection.scalar(sa.select(sa.func.min(origins.c.item)).where(origins.c.guid == id))
    return merged if merged is not None else row and row.key


def _record_origins(
    connection: sa.Connection,
    known: Known,
    items: Sequence[Item],
    sources: Mapping[str, int],
    drafts: Sequence[Draft],
) -> None:
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for item, draft in zip(items, drafts, strict=True):
        source = sources.get(item.source or "", _NO_SOURCE)
        if (source, item.id) not in known.origins:
            rows[source, item.id] = {"source": source, "guid": item.id, "item": draft.key}
    if rows:
        insert = identities.insert_new(connection, database.item_origins).on_conflict_do_nothing()
        connection.execute(insert, [rows[origin] for origin in sorted(rows)])


def _source_keys(connection: sa.Connection, ids: Iterable[str], time: int) -> dict[str, int]:
    """Key of each source id; unknown ones become sources of kind `api`, which are never fetched."""
    table, wanted = database.sources, sorted(set(ids))
    found = _find_sources(connection, wanted)
    missing = [id for id in wanted if id not in found]
    if missing:
        fresh = {"kind": "api", "options": {}, "state": {}, "status": "active", "created": time, "failures": 0}
        insert = identities.insert_new(connection, table).on_conflict_do_nothing()
        connection.execute(insert, [{"id": id, "address": id, **fresh} for id in missing])
        found |= _find_sources(connection, missing)
    return found


def _find_sources(connection: sa.Connection, ids: Sequence[str]) -> dict[str, int]:
    table, found = database.sources, dict[str, int]()
    for chunk in identities.chunks(ids):
        query = sa.select(table.c.id, table.c.key).where(table.c.id.in_(chunk))
        found.update({row.id: row.key for row in connection.execute(query)})
    return found
