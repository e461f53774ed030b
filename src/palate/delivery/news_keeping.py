"""The articles that the news server holds, made durable by many callers in one commit, and items of the catalog with it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from html import escape, unescape
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from palate import catalog, database, identities, source_links
from palate.database import reading, writing
from palate.delivery.news_reading import Article, ReadingProcess
from palate.domain import Item, to_milliseconds
from palate.errors import DatabaseError, NotDurable, Overloaded, ProcessDied
from palate.news import TEXT_LIMIT, Document
from palate.source_links import Linking
from palate.sources.article_page import host
from palate.text.embedding import PACKED, leads, packed

log = logging.getLogger(__name__)

MAX_WAITING = 64 * 1024 * 1024
"""Bytes of pages that may wait; who comes then is asked to come again."""
BATCH, BATCH_BYTES = 32, 4 * 1024 * 1024  # pages that are read at one time
COMMIT = 256
"""Changes in one transaction."""
AHEAD = timedelta(days=1)
"""An article dated later than this from now has a wrong date: it would make all others expire."""
MAX_ADDRESS, MAX_SOURCE = 2000, 200
_OWN = 1000  # bytes that a waiting change takes beside its page

NEW, DONE, NOT_AN_ARTICLE, UNKNOWN = 201, 204, 400, 404


class Kept(NamedTuple):
    """A document under the key by which stories know it."""

    key: int
    document: Document
    """Its time is always known."""
    time: int
    """That time, milliseconds since 1970."""
    vector: bytes
    """Of its beginning, as `embedding` packs it."""
    expires: int
    """Milliseconds since 1970, on the clock of the documents."""


@dataclass(frozen=True, eq=False)
class Change:
    """What is asked of one name."""

    name: str
    body: bytes | None = None
    """The page to put; None to take it away."""
    seconds: int = 0
    """For how long the page is held."""
    expired: Kept | None = None
    """Take it away only while it is still this one."""
    future: Future[int] = field(default_factory=Future)
    """The status to answer with, once that is durable."""

    @property
    def weight(self) -> int:
        return len(self.body or b"") + _OWN


class _Read(NamedTuple):
    change: Change
    article: Article | None
    """None where something is taken away."""


def load(engine: sa.Engine) -> dict[str, Kept]:
    """All documents by their names, but for those whose items were deleted by other ways."""
    table, items = database.news_documents, database.items
    deleted = sa.exists().where(items.c.id == table.c.name, items.c.state == "deleted")
    with reading(engine) as connection:
        rows = connection.execute(sa.select(table).where(~deleted).order_by(table.c.key))
        decoded = ((row, _DECODER.decode(row.document)) for row in rows)
        found = {row.name: Kept(row.key, one, _time(one), row.vector, row.expires) for row, one in decoded}
        return found | _read_anew(connection, {name: one for name, one in found.items() if len(one.vector) != PACKED})


def deleted(engine: sa.Engine, since: datetime) -> list[int]:
    """Keys of the documents whose items were deleted by other ways at this time or later."""
    table, items = database.news_documents, database.items
    query = sa.select(table.c.key).join(items, items.c.id == table.c.name)
    with reading(engine) as connection:
        query = query.where(items.c.state == "deleted", items.c.updated >= to_milliseconds(since))
        return list(connection.scalars(query))


def _read_anew(connection: sa.Connection, old: Mapping[str, Kept]) -> dict[str, Kept]:
    """Those that an older version has kept, from the texts of their items."""
    items, texts = database.items, dict[str, str]()
    for chunk in identities.chunks(sorted(old)):
        for row in connection.execute(sa.select(items.c.id, items.c.text).where(items.c.id.in_(chunk))):
            texts[row.id] = unescape(row.text or "")[:TEXT_LIMIT]
    made = packed(leads((one.document.title, texts.get(name, "")) for name, one in old.items()))
    return {name: one._replace(vector=vector) for (name, one), vector in zip(old.items(), made, strict=True)}


_DECODER = msgspec.msgpack.Decoder(Document)


class Keeping:
    """Takes changes in order: one thread has pages understood, another makes all that waits durable in one transaction.

    `changed` is called after each commit with the documents by their keys, None for those that are gone; it must not raise.
    """

    def __init__(
        self,
        engine: sa.Engine,
        process: ReadingProcess,
        known: Mapping[str, Kept],
        changed: Callable[[Mapping[int, Kept | None]], object],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._engine = engine
        self._process = process
        self._known = dict(known)
        self._newest = max((kept.time for kept in known.values()), default=None)
        self._changed = changed
        self._clock = clock
        self._waiting: deque[Change] = deque()
        self._read: deque[_Read] = deque()
        self._weight = 0
        self._closed = self._all_read = False
        self._moved = threading.Condition()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._run_reading, self._run_writing)]
        for thread in self._threads:
            thread.start()

    def submit(self, change: Change) -> Future[int]:
        """Hand over a change; its future gives the status, or raises NotDurable or ProcessDied.

        Raises Overloaded at once when too much waits, NotDurable after `close`.
        """
        with self._moved:
            if self._closed:
                raise NotDurable("The server is stopping.")
            if change.body is not None and self._weight + change.weight > MAX_WAITING:
                raise Overloaded("Too many articles wait to be read: try again in a second.")
            change.future.set_running_or_notify_cancel()  # whoever goes away can't give it up any more
            self._waiting.append(change)
            self._weight += change.weight
            self._moved.notify_all()
        return change.future

    def close(self) -> None:
        """Do what waits, then stop."""
        with self._moved:
            self._closed = True
            self._moved.notify_all()
        for thread in self._threads:
            thread.join()

    def _run_reading(self) -> None:
        try:
            while batch := self._take_waiting():
                self._hand_over(self._understood(batch))
        finally:
            with self._moved:
                self._closed = self._all_read = True
                left = [change for change in self._waiting if not change.future.done()]
                self._moved.notify_all()
            for change in left:
                change.future.set_exception(NotDurable("Nothing is read any more: start the server again."))

    def _take_waiting(self) -> list[Change]:
        """At least one, once there is one; none when closed and drained."""
        batch, weight = list[Change](), 0
        with self._moved:
            self._moved.wait_for(lambda: self._waiting or self._closed)
            while self._waiting and len(batch) < BATCH and weight < BATCH_BYTES:
                batch.append(self._waiting.popleft())
                weight += batch[-1].weight
        return batch

    def _understood(self, batch: Sequence[Change]) -> list[_Read]:
        pages = [(change.name, change.body) for change in batch if change.body is not None]
        try:
            found = iter(self._process.understand(pages) if pages else ())
        except ProcessDied:
            log.exception("Pages of %s were not read.", ", ".join(name for name, _ in pages))
            return self._understood_each(batch)
        return [_Read(change, None if change.body is None else next(found)) for change in batch]

    def _understood_each(self, batch: Sequence[Change]) -> list[_Read]:
        """One of the pages is the end of whoever reads it: find out which, and keep the others."""
        found = []
        for change in batch:
            try:
                article = None if change.body is None else self._process.understand([(change.name, change.body)])[0]
            except ProcessDied as error:
                self._lighten([change])
                change.future.set_exception(error)
            else:
                found.append(_Read(change, article))
        return found

    def _hand_over(self, found: Sequence[_Read]) -> None:
        with self._moved:
            self._read.extend(found)
            self._moved.notify_all()

    def _lighten(self, changes: Iterable[Change]) -> None:
        with self._moved:
            self._weight -= sum(change.weight for change in changes)

    def _run_writing(self) -> None:
        while batch := self._take_read():
            try:
                statuses = self._commit(batch)
            except Exception as error:
                if not isinstance(error, DatabaseError):
                    log.exception("Articles could not be kept by a mistake of ours.")
                self._lighten(one.change for one in batch)
                for one in batch:
                    one.change.future.set_exception(error)
            else:
                self._lighten(one.change for one in batch)
                for one, status in zip(batch, statuses, strict=True):
                    one.change.future.set_result(status)

    def _take_read(self) -> list[_Read]:
        """All that is read up to a name that comes again: the changes of one name take effect one after the other."""
        batch: dict[str, _Read] = {}
        with self._moved:
            self._moved.wait_for(lambda: self._read or self._all_read)
            while self._read and len(batch) < COMMIT and self._read[0].change.name not in batch:
                one = self._read.popleft()
                batch[one.change.name] = one
        return list(batch.values())

    def _commit(self, batch: Sequence[_Read]) -> list[int]:
        now = self._clock()
        put = {one.change.name: self._dated(one, now) for one in batch if one.article and one.article.is_news}
        gone = {name: self._known[name] for name in (one.change.name for one in batch if self._takes_away(one))}
        with writing(self._engine) as connection:
            _withdraw(connection, gone, now)
            kept = _store(connection, put, now)
        statuses = [self._status(one) for one in batch]
        for name in gone:
            del self._known[name]
        self._known |= kept
        times = [one.time for one in kept.values()]
        self._newest = max([*times, *([] if self._newest is None else [self._newest])], default=None)
        self._changed({one.key: None for one in gone.values()} | {one.key: one for one in kept.values()})
        return statuses

    def _takes_away(self, one: _Read) -> bool:
        known = self._known.get(one.change.name)
        if known is None or (one.article is not None and (one.article.is_news or one.article.document is None)):
            return False
        return one.change.expired is None or one.change.expired == known

    def _dated(self, one: _Read, now: datetime) -> tuple[Article, int]:
        """The article with a time, and when it expires. Without a time, or with an impossible one, it is as new as the newest."""
        assert one.article is not None, "what is put has been read"
        document, latest = _document(one.article), to_milliseconds(now + AHEAD) / 1000
        if document.published is None or not 0 <= document.published <= latest:
            newest = to_milliseconds(now) if self._newest is None else self._newest
            document = msgspec.structs.replace(document, published=newest / 1000)
        dated = msgspec.structs.replace(one.article, document=document)
        return dated, _time(document) + 1000 * one.change.seconds

    def _status(self, one: _Read) -> int:
        known = one.change.name in self._known
        if one.article is None:
            return DONE if known else UNKNOWN
        if one.article.document is None:
            return NOT_AN_ARTICLE
        return DONE if known or not one.article.is_news else NEW


def _time(document: Document) -> int:
    """Milliseconds since 1970 of a document that is kept."""
    assert document.published is not None, "documents that are kept have a time"
    return round(1000 * document.published)


def _withdraw(connection: sa.Connection, gone: Mapping[str, Kept], now: datetime) -> None:
    table = database.news_documents
    for chunk in identities.chunks(sorted(kept.key for kept in gone.values())):
        connection.execute(sa.delete(table).where(table.c.key.in_(chunk)))
    catalog.withdraw(connection, gone, now)


def _store(connection: sa.Connection, put: Mapping[str, tuple[Article, int]], now: datetime) -> dict[str, Kept]:
    """The articles as documents of ours and as items of the catalog, each known by its name alone."""
    if not put:
        return {}
    items = [_item(name, article) for name, (article, _) in put.items()]
    stored = catalog.upsert(connection, items, now, canonical=[None] * len(items))
    changed = [one.key for one in stored if one.outcome != "new"]
    vectors, catalogued = database.item_vectors, database.items
    for chunk in identities.chunks(sorted(changed)):
        connection.execute(sa.delete(vectors).where(vectors.c.item.in_(chunk)))
    update = sa.update(catalogued).where(catalogued.c.key == sa.bindparam("of"))
    categories = [
        {"of": one.key, "told": _document(article).category}
        for one, (article, _) in zip(stored, put.values(), strict=True)
    ]
    connection.execute(update.values(category=sa.bindparam("told"), updated=to_milliseconds(now)), categories)
    new = [item for item, one in zip(items, stored, strict=True) if one.outcome == "new"]
    source_links.add(connection, [_linking(item, put) for item in new], now)
    return _store_documents(connection, put)


def _linking(item: Item, put: Mapping[str, tuple[Article, int]]) -> Linking:
    """What its text links to, by which sources are weighed; the text that is kept has no links any more."""
    hosts = _document(put[item.id][0]).links
    return Linking(item.published, item.url, source_links.of_hosts(hosts, source_links.site(item.url)))


def _store_documents(connection: sa.Connection, put: Mapping[str, tuple[Article, int]]) -> dict[str, Kept]:
    rows = [
        {
            "name": name,
            "expires": expires,
            "document": msgspec.msgpack.encode(_document(article)),
            "vector": article.vector,
        }
        for name, (article, expires) in sorted(put.items())
    ]
    keys = {row.name: row.key for row in connection.execute(_insert(), rows)}
    return {
        name: Kept(keys[name], _document(article), _time(_document(article)), article.vector, expires)
        for name, (article, expires) in put.items()
    }


@cache
def _insert() -> sa.Executable:
    """To build it takes as long as to run it."""
    table = database.news_documents
    insert = sqlite.insert(table)
    replaced = {name: insert.excluded[name] for name in ("expires", "document", "vector")}
    changed = insert.on_conflict_do_update(index_elements=["name"], set_=replaced)
    return changed.returning(table.c.name, table.c.key)


def _document(article: Article) -> Document:
    assert article.document is not None, "only news are kept"
    return article.document


def _item(name: str, article: Article) -> Item:
    document, url = _document(article), article.url or ""
    fits = host(url) is not None and len(url) <= MAX_ADDRESS and url.isprintable() and " " not in url.strip()
    source = "".join(letter for letter in document.source if letter.isprintable())[:MAX_SOURCE]
    return Item(
        id=name,
        title=document.title,
        text=escape(article.text, quote=False),
        url=url.strip() if fits else None,
        source=source or None,
        published=datetime.fromtimestamp(document.published or 0, UTC),
        language=document.language,
        kind="article",
    )
