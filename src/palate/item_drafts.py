"""What becomes of items that are given to the catalog: what is known of a batch is read at once, changed in memory item by item,
and written at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from palate import database, identities
from palate.domain import Item, to_milliseconds

Outcome = Literal["new", "updated", "unchanged", "merged"]

CONTENT = (
    "source",
    "url",
    "title",
    "text",
    "author",
    "published",
    "language",
    "kind",
    "duration",
    "media",
    "labels",
    "license",
)
_WRITTEN = (*CONTENT, "canonical_url", "state", "received", "updated")


@dataclass(eq=False)
class Draft:
    """A row of `items` as it will be. `before` is as it was, None when there was none; `key` is 0 until it is inserted."""

    id: str
    key: int
    values: dict[str, Any]
    before: dict[str, Any] | None


@dataclass
class Known:
    """What the catalog knows of the ids and addresses of a batch, and what the batch has added so far."""

    drafts: list[Draft] = field(default_factory=list)
    by_id: dict[str, Draft] = field(default_factory=dict)
    by_key: dict[int, Draft] = field(default_factory=dict)
    by_address: dict[str, Draft] = field(default_factory=dict)
    merged: dict[str, Draft] = field(default_factory=dict)
    """The item that an id which isn't its own was merged into."""
    origins: set[tuple[int, str]] = field(default_factory=set)

    def add(self, draft: Draft) -> None:
        self.drafts.append(draft)
        self.by_id[draft.id] = draft
        if draft.values["canonical_url"] is not None:
            self.by_address[draft.values["canonical_url"]] = draft
        if draft.key:
            self.by_key[draft.key] = draft


def read(connection: sa.Connection, items: Sequence[Item], addresses: Sequence[str | None]) -> Known:
    """What the catalog knows of these items and of their canonical addresses."""
    known, origins, table = Known(), database.item_origins, database.items
    merged: dict[str, int] = {}
    ids = sorted({item.id for item in items})
    for chunk in identities.chunks(ids):
        for row in connection.execute(sa.select(origins).where(origins.c.guid.in_(chunk))):
            known.origins.add((row.source, row.guid))
            merged[row.guid] = row.item
    _read_drafts(connection, known, table.c.id, ids)
    _read_drafts(connection, known, table.c.key, sorted(set(merged.values()) - known.by_key.keys()))
    _read_drafts(
        connection, known, table.c.canonical_url, sorted({url for url in addresses if url} - known.by_address.keys())
    )
    known.merged = {id: known.by_key[key] for id, key in merged.items() if known.by_key[key].id != id}
    return known


_SELECT_DRAFT = sa.select(database.items.c.key, database.items.c.id, *(database.items.c[name] for name in _WRITTEN))


def _read_drafts(connection: sa.Connection, known: Known, column: sa.Column[Any], values: Sequence[Any]) -> None:
    for chunk in identities.chunks(values):
        for key, id, *content in connection.execute(_SELECT_DRAFT.where(column.in_(chunk))):
            if key not in known.by_key:
                before = dict(zip(_WRITTEN, content, strict=True))
                known.add(Draft(id=id, key=key, values=dict(before), before=before))


def place(
    known: Known, item: Item, address: str | None, source: int | None, time: int, revive: bool
) -> tuple[Draft, Outcome]:
    """Put an item where it belongs: into the row of its id, or of its address, or into a new one."""
    draft = find(known, item, address)
    if draft is not None and draft.id != item.id:
        known.merged[item.id] = draft
    given = columns(item, source)
    if draft is None:
        draft = Draft(id=item.id, key=0, values=given | {"canonical_url": address}, before=None)
        _publish(draft, time)
        known.add(draft)
        return draft, "new"
    if draft.values["state"] == "deleted" and not revive:
        return draft, "unchanged" if draft.id == item.id else "merged"
    before = dict(draft.values)
    if draft.id == item.id:
        _edit(known, draft, given, address)
    else:
        draft.values.update({name: value for name, value in given.items() if before[name] in (None, []) and value})
    if before["state"] == "hidden" and source is not None:
        draft.values["source"] = source  # the one that it came by is gone
    if before["state"] != "live":
        _publish(draft, time)
    return draft, _outcome(draft, item, before)


def find(known: Known, item: Item, address: str | None) -> Draft | None:
    """The row of an item's id; when that is none or a mere stub, the row of another id with its address."""
    own = known.by_id.get(item.id)
    if own is not None and own.values["state"] != "stub":
        return own
    return known.merged.get(item.id) or known.by_address.get(address or "") or own


def _edit(known: Known, draft: Draft, given: Mapping[str, Any], address: str | None) -> None:
    changed = {
        name: value for name, value in given.items() if value not in (None, []) and (name, value) != ("kind", "post")
    }
    if known.by_address.get(address or "", draft) is not draft:
        changed.pop("url", None)  # it is another item's: two rows can't have one address
    elif address is not None:
        changed["canonical_url"] = address
        known.by_address.pop(draft.values["canonical_url"] or "", None)
        known.by_address[address] = draft
    draft.values.update(changed)


def _publish(draft: Draft, time: int) -> None:
    draft.values.update(state="live", received=time)


def _outcome(draft: Draft, item: Item, before: Mapping[str, Any]) -> Outcome:
    if draft.id != item.id:
        return "merged"
    if before["state"] in ("stub", "withdrawn", "deleted"):
        return "new"
    return "unchanged" if draft.values == before else "updated"


def columns(item: Item, source: int | None) -> dict[str, Any]:
    """What an item says for its row; `source` is the key of its source."""
    values = {name: getattr(item, name) for name in CONTENT}
    return values | {
        "source": source,
        "published": None if item.published is None else to_milliseconds(item.published),
        "media": msgspec.to_builtins(list(item.media)),
        "labels": list(item.labels),
    }


def write(connection: sa.Connection, drafts: Sequence[Draft], time: int) -> None:
    """Write what is new and what has changed; each draft has its key then. `time` is in milliseconds since 1970."""
    _release_addresses(connection, drafts)
    _insert(connection, [draft for draft in drafts if draft.before is None], time)
    _update(connection, [draft for draft in drafts if draft.before is not None], time)


def _release_addresses(connection: sa.Connection, drafts: Sequence[Draft]) -> None:
    """Take the old addresses of rows that move first, since other rows may move to them: no two may have one, even midway."""
    table = database.items
    moving = [
        draft.key
        for draft in drafts
        if draft.before and draft.before["canonical_url"] not in (None, draft.values["canonical_url"])
    ]
    for chunk in identities.chunks(sorted(moving)):
        connection.execute(sa.update(table).where(table.c.key.in_(chunk)).values(canonical_url=None))


def _insert(connection: sa.Connection, drafts: Sequence[Draft], time: int) -> None:
    if not drafts:
        return
    table = database.items
    insert = identities.insert_new(connection, table)
    # An event may have made a stub of the same id in the meantime.
    insert = insert.on_conflict_do_update(
        index_elements=["id"], set_={name: insert.excluded[name] for name in _WRITTEN}, where=table.c.state == "stub"
    )
    rows = [{"id": draft.id, **draft.values, "updated": time} for draft in sorted(drafts, key=lambda draft: draft.id)]
    keys = {row.id: row.key for row in connection.execute(insert.returning(table.c.id, table.c.key), rows)}
    for draft in drafts:
        draft.key = keys[draft.id]


def _update(connection: sa.Connection, drafts: Sequence[Draft], time: int) -> None:
    changed = sorted((draft for draft in drafts if draft.values != draft.before), key=lambda draft: draft.key)
    if changed:
        table = database.items
        update = sa.update(table).where(table.c.key == sa.bindparam("of"))
        update = update.values({name: sa.bindparam(name) for name in _WRITTEN})
        connection.execute(update, [draft.values | {"of": draft.key, "updated": time} for draft in changed])
