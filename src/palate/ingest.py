"""The loop that reads sources: due → fetch → full text → clean → store → remember how it went → understand → join stories.

Each source is read by a thread of its own, so that a slow one keeps nobody waiting, and a broken one breaks nothing but itself.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa

from palate import (
    catalog,
    counters,
    identities,
    labels,
    own_categories,
    previews,
    source_links,
    story_window,
    subscriptions,
    understandings,
)
from palate.accounts import TelegramParams
from palate.catalog import Stored, StoredItem
from palate.database import reading, writing
from palate.domain import Fetched, Item, to_milliseconds
from palate.errors import DatabaseError, FetchFailed, InvalidInput, InvalidItem, NoPreview, SourceError
from palate.own_categories import Kept, OwnModel
from palate.previews import PREVIEW
from palate.sources import robots
from palate.sources.fetching import Fetcher, FetchParams
from palate.story_window import StoryParams, StoryWindow
from palate.subscriptions import Source
from palate.text import embedding, understanding
from palate.text.cleaning import canonical_url, clean, to_plain
from palate.text.extraction import article, is_stub
from palate.understandings import Versions

log = logging.getLogger(__name__)

BATCH = 500
"""Items stored in one transaction."""
_TRIES = 3  # to read the page of an article
_LONGEST_TROUBLE = 60.0  # seconds between two attempts while the database can't be used

STORIES = StoryParams()
"""How stories are joined where nothing else is said."""
STORIES_WINDOW = timedelta(days=STORIES.window_days)
_PAUSE = 0.2  # seconds between two batches of items that wait to be understood

TELEGRAM = TelegramParams()
"""How Telegram is read where nothing else is said."""

Reader = Callable[[Source, Fetcher], Fetched]


class IngestParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often sources are read, and how much at once."""

    poll_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 5.0
    """Seconds between two looks at which sources are due."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 6
    """Sources that are read at one time."""
    interval: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = 3600
    """Seconds between the first two readings of a source; then it depends on how often the source has news."""
    shortest_interval: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = 600
    """Seconds between two readings of a source that always has news."""
    longest_interval: Annotated[int, msgspec.Meta(ge=60, le=604_800)] = 86_400
    """Seconds between two readings of a source that hardly ever has news."""
    full_text: bool = True
    """Whether the page of an article is read when a feed gives no more than its beginning. A site's robots.txt is obeyed, and a
    source's own option `full_text` can turn it off too."""
    pages: Annotated[int, msgspec.Meta(ge=0, le=500)] = 30
    """Pages of articles that are read at most in one reading of a source; the rest follows with the next."""


@dataclass(frozen=True)
class Report:
    """What a pass over the sources did."""

    sources: int = 0
    """That were read, well or not."""
    failed: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """Number of items by what became of them: new, updated, unchanged, merged, withdrawn."""

    def __add__(self, other: Report) -> Report:
        return Report(
            sources=self.sources + other.sources,
            failed=self.failed + other.failed,
            outcomes=Counter(self.outcomes) + Counter(other.outcomes),
        )

    def __str__(self) -> str:
        items = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        return f"{self.sources} sources read, {self.failed} failed; items: {items or 'none'}"


@dataclass(frozen=True)
class _Tools:
    """What every reading uses, for as long as the loop runs: hosts that were just asked, and rules of sites, are remembered."""

    engine: sa.Engine
    params: IngestParams
    fetcher: Fetcher
    readers: Mapping[str, Reader]
    telegram: TelegramParams
    own: OwnModel | None = None
    """The model of classes that this installation learned."""
    robots: robots.RobotsCache = field(default_factory=robots.RobotsCache)


def _read_feed(source: Source, fetcher: Fetcher) -> Fetched:
    from palate.sources import syndication

    return syndication.read(source.address, source.state, fetcher)


def _read_folder(source: Source, _fetcher: Fetcher) -> Fetched:
    from palate.sources import articles

    return articles.fetch(Path(source.address), source.state)


def _read_preview(source: Source, fetcher: Fetcher) -> Fetched:
    from palate.sources import telegram_preview

    return telegram_preview.read(source.address, source.state, fetcher)


READERS: Mapping[str, Reader] = {"feed": _read_feed, "folder": _read_folder, PREVIEW: _read_preview}
"""How a source of each kind is read."""


def run_once(
    engine: sa.Engine,
    params: IngestParams,
    fetch_params: FetchParams,
    now: datetime,
    readers: Mapping[str, Reader] = READERS,
    stories: StoryParams = STORIES,
    data: Path | None = None,
    telegram: TelegramParams = TELEGRAM,
) -> Report:
    """Read every source that is due at `now`, understand what is new, and join it to its stories.

    `data`: the folder that may hold a model of classes of this installation's own. Raises DatabaseError; what fails with a source
    is remembered with it.
    """
    own = own_categories.look(data, Kept()).model if data else None
    tools = _Tools(engine, params, Fetcher(fetch_params, lambda: now), readers, telegram, own)
    with reading(engine) as connection:
        waiting = subscriptions.due(connection, now, 1_000_000)[::-1]
    report, started = Report(), dict[Future[Fetched], Source]()
    while waiting or started:
        while waiting and len(started) < params.workers:
            _start(tools, started, waiting.pop(), now)
        wait(started, return_when=FIRST_COMPLETED)
        report += _settle_finished(tools, started, now)
    recent = timedelta(days=stories.window_days)
    while understand_some(engine, now, own=own, recent=recent) == BATCH:
        pass
    story_window.opened(engine, stories, now)
    return report


def follow(
    engine: sa.Engine,
    params: IngestParams,
    fetch_params: FetchParams,
    stop: threading.Event,
    clock: Callable[[], datetime],
    readers: Mapping[str, Reader] = READERS,
    stories: StoryParams = STORIES,
    data: Path | None = None,
    telegram: TelegramParams = TELEGRAM,
) -> None:
    """Read sources when they are due, understand what is new whoever stored it, and join it to its stories, until `stop`.

    While the database can't be used it waits, ever longer up to a minute. `data`: the folder that may hold a model of classes of
    this installation's own; a new one is taken up with the next round, and tells the items of the stories' window anew.
    """
    tools = _Tools(engine, params, Fetcher(fetch_params, clock), readers, telegram)
    started, trouble = dict[Future[Fetched], Source](), 0.0
    behind, window, kept = True, None, Kept()
    while not stop.is_set():
        kept, before = own_categories.look(data, kept) if data else kept, kept
        behind = behind or kept is not before
        tools = replace(tools, own=kept.model)
        try:
            _start_due(tools, started, clock())
            _settle_finished(tools, started, clock())
            behind = _understand_new(tools, stories, clock(), behind)
            window = _join_stories(engine, window, stories, clock())
            trouble = 0.0
        except DatabaseError as error:
            trouble = min(max(2 * trouble, 1.0), _LONGEST_TROUBLE)
            log.warning("%s Trying again in %.0f s.", error, trouble)
            stop.wait(trouble)
        _rest(started, stop, _PAUSE if behind else params.poll_seconds)


def store_items(
    engine: sa.Engine,
    items: Sequence[Item],
    now: datetime,
    *,
    revive: bool = True,
    understand: bool = True,
    keep_text: bool = True,
    own: OwnModel | None = None,
) -> list[Stored]:
    """Clean and store items from anywhere, and say of each in its order what became of it.

    All ids are checked before anything is stored: raises InvalidItem with the place of a bad one. A transaction has at most 500
    items; NotDurable can leave the earlier ones stored, and giving all again is safe. With `revive` items that were deleted come
    back: a caller who stores one again means it, a feed that repeats one doesn't. Without `understand` that is left to the loop.
    Without `keep_text` an item is understood first, and then stored without title, text, author and media. `own`: the model of
    classes that this installation learned.
    """
    for index, item in enumerate(items):
        _check_ids(item, index)
    cleaned = [clean(item, now) for item in items]
    canonical = _canonical(cleaned)
    stored: list[Stored] = []
    for start in range(0, len(items), BATCH):
        part = slice(start, start + BATCH)
        if not keep_text:
            stored += _store_without_texts(engine, cleaned[part], canonical[part], now, revive, own)
            continue
        stored += _store_texts(engine, cleaned[part], canonical[part], now, revive)
        if understand:
            understand_some(engine, now, {one.key for one in stored[part] if one.outcome != "unchanged"}, own=own)
    return stored


def _store_texts(
    engine: sa.Engine, items: Sequence[Item], canonical: Sequence[str | None], now: datetime, revive: bool
) -> list[Stored]:
    with writing(engine) as connection:
        stored = catalog.upsert(connection, items, now, canonical=canonical, revive=revive)
        changed = {one.key for one in stored if one.outcome != "unchanged"}
        said = {one.key for one, item in zip(stored, items, strict=True) if item.language}
        understandings.drop(connection, changed, now, said)
        _count_links(connection, items, stored, now)
    return stored


def _store_without_texts(
    engine: sa.Engine,
    items: Sequence[Item],
    canonical: Sequence[str | None],
    now: datetime,
    revive: bool,
    own: OwnModel | None,
) -> list[Stored]:
    """One that was merged into another item leaves that one's understanding as it is."""
    texts = [(item.title or "", to_plain(item.text or "")) for item in items]
    found = understanding.understand(texts, [item.language for item in items], own.weights if own else None)
    bare = [msgspec.structs.replace(item, title=None, text=None, author=None, media=()) for item in items]
    with writing(engine) as connection:
        stored = catalog.upsert(connection, bare, now, canonical=canonical, revive=revive)
        left = understandings.known(connection, [one.key for one in stored if one.outcome == "merged"])
        left -= {one.key for one in stored if one.outcome != "merged"}
        found = labels.corrected(connection, [one.key for one in stored], found)
        told = {one.key: of for one, of in zip(stored, found, strict=True) if one.key not in left}
        understandings.keep(connection, told, _versions(own), now)
        _count_links(connection, items, stored, now)
    return stored


def _count_links(connection: sa.Connection, items: Sequence[Item], stored: Sequence[Stored], now: datetime) -> None:
    new = (item for item, one in zip(items, stored, strict=True) if one.outcome == "new")
    source_links.record(connection, new, now)


def understand_some(
    engine: sa.Engine,
    now: datetime,
    keys: Collection[int] | None = None,
    since: int = 0,
    own: OwnModel | None = None,
    recent: timedelta = STORIES_WINDOW,
) -> int:
    """Find out language, category and vector of at most 500 items: of `keys`, or (None) of any that were left without.

    `since`: only of items that changed at this time or later, milliseconds since 1970. `own`: the model of classes that this
    installation learned; what another one said of items that came within `recent` is found out anew. Returns how many. Apart from
    storing, so that the database isn't kept from others while words are counted.
    """
    versions = _versions(own)
    with reading(engine) as connection:
        unread = understandings.unread(connection, versions, BATCH, keys, since, to_milliseconds(now - recent))
    if unread:
        texts = [(one.title or "", to_plain(one.text or "")) for one in unread]
        found = understanding.understand(texts, [one.language for one in unread], own.weights if own else None)
        with writing(engine) as connection:
            found = labels.corrected(connection, [one.key for one in unread], found)
            understandings.put(connection, unread, found, versions, now)
    return len(unread)


def _versions(own: OwnModel | None) -> Versions:
    return Versions(understanding.VERSION, embedding.VERSION, own.version if own else "")


def _check_ids(item: Item, index: int) -> None:
    try:
        identities.check_id(item.id, "an item's id")
        if item.source is not None:
            identities.check_id(item.source, "a source's id")
    except InvalidInput as error:
        raise InvalidItem(error.reason, index) from None


def _canonical(items: Sequence[Item]) -> list[str | None]:
    """Each item's canonical address; None where one source gives several items of different titles with one address.

    So do podcasts whose items all link to their home page, and lists of changes on one page: there the address names the source,
    not the item.
    """
    addresses = [canonical_url(item.url) if item.url else None for item in items]
    titles: dict[tuple[str | None, str], dict[str, set[str | None]]] = {}
    for item, address in zip(items, addresses, strict=True):
        if address is not None and item.source is not None:
            titles.setdefault((item.source, address), {}).setdefault(item.id, set()).add(item.title)
    shared = {place for place, by_id in titles.items() if len(by_id) > 1 and len(set().union(*by_id.values())) > 1}
    return [
        None if address is not None and (item.source, address) in shared else address
        for item, address in zip(items, addresses, strict=True)
    ]


# One source


def _start_due(tools: _Tools, started: dict[Future[Fetched], Source], now: datetime) -> None:
    if len(started) >= tools.params.workers:
        return
    busy = {source.key for source in started.values()}
    with reading(tools.engine) as connection:
        due = subscriptions.due(connection, now, tools.params.workers + len(busy))
    for source in [source for source in due if source.key not in busy][: tools.params.workers - len(busy)]:
        _start(tools, started, source, now)


def _start(tools: _Tools, started: dict[Future[Fetched], Source], source: Source, now: datetime) -> None:
    started[_in_background(_read, tools, source, now)] = source


def _in_background(work: Callable[..., Fetched], *arguments: Any) -> Future[Fetched]:
    """The result to come of work in a thread that doesn't keep the program from ending, as a pool's threads would."""
    future: Future[Fetched] = Future()

    def run() -> None:
        try:
            future.set_result(work(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="reading", daemon=True).start()
    return future


def _understand_new(tools: _Tools, stories: StoryParams, now: datetime, behind: bool) -> bool:
    """Understand at most 500 items; `behind` says whether any that ever came may be left, the result whether some are."""
    since = 0 if behind else to_milliseconds(now - story_window.OVERLAP)
    recent = timedelta(days=stories.window_days)
    return understand_some(tools.engine, now, since=since, own=tools.own, recent=recent) == BATCH


def _join_stories(engine: sa.Engine, window: StoryWindow | None, params: StoryParams, now: datetime) -> StoryWindow:
    """The stories with what has changed; of all that the window holds at first."""
    return story_window.opened(engine, params, now) if window is None else story_window.followed(engine, window, now)


def _rest(started: Mapping[Future[Fetched], Source], stop: threading.Event, seconds: float) -> None:
    """Until a reading has ended or it is time to look again; a `stop` is noticed within a second."""
    if started:
        wait(started, timeout=min(seconds, 1.0), return_when=FIRST_COMPLETED)
    else:
        stop.wait(seconds)


def _read(tools: _Tools, source: Source, now: datetime) -> Fetched:
    """What the source gives, cleaned and with full texts. Runs in the source's own thread and writes nothing."""
    if source.kind == PREVIEW and not tools.telegram.preview:
        raise NoPreview(previews.WHY_OFF)
    fetched = tools.readers[source.kind](source, tools.fetcher)
    items = [_of_source(clean(item, now), source) for item in fetched.items]
    if tools.params.full_text and source.options.get("full_text", True) and items and source.kind != PREVIEW:
        items, unread = _with_full_texts(tools, source, items, now)
        fetched = replace(fetched, state=_with_unread(fetched.state, unread))
    return replace(fetched, items=tuple(items))


def _of_source(item: Item, source: Source) -> Item:
    """The item with what its source says of all its items; repeats and labels beyond the bounds go when it is stored."""
    labels = (*item.labels, *source.options.get("labels", ()))
    return msgspec.structs.replace(item, source=item.source or source.id, labels=labels)


def _settle_finished(tools: _Tools, started: dict[Future[Fetched], Source], now: datetime) -> Report:
    report = Report()
    for future in [future for future in started if future.done()]:
        source = started.pop(future)
        try:
            report += _settle(tools, source, future.result(), now)
        except DatabaseError:
            raise  # it isn't the source's fault: the source stays due
        except Exception as error:
            report += _fail(tools.engine, source, error, now)
    return report


def _settle(tools: _Tools, source: Source, fetched: Fetched, now: datetime) -> Report:
    """Store what a reading gave, and then how it went: should we die in between, it is only read again."""
    keep_text = source.kind != PREVIEW or tools.telegram.keep_text
    stored = store_items(tools.engine, fetched.items, now, revive=False, keep_text=keep_text, own=tools.own)
    outcomes = Counter(one.outcome for one in stored)
    news = outcomes["new"] + outcomes["updated"] > 0
    interval = _next_interval(tools.params, source, news)
    state = fetched.state | {"interval": interval}
    wait_for = _asked_pause(source, fetched, interval)
    with writing(tools.engine) as connection:
        withdrawn = catalog.withdraw(connection, fetched.deleted, now)
        counters.put(connection, fetched.counters, now)
        if source.kind == PREVIEW:
            new = {one.id for one in stored if one.outcome == "new"}
            previews.record_mentions(connection, source.key, [item for item in fetched.items if item.id in new], now)
        fetched = replace(fetched, items=(), state=state)
        subscriptions.record_success(connection, source.key, fetched, now, now + timedelta(seconds=wait_for))
        if source.kind == PREVIEW:
            previews.watch_drift(connection, now)
    report = Report(sources=1, outcomes=+Counter(outcomes | Counter({"withdrawn": withdrawn})))
    log.info("read %s: %s; next in %.0f min", source.id, dict(report.outcomes) or "no items", wait_for / 60)
    return report


def _fail(engine: sa.Engine, source: Source, error: Exception, now: datetime) -> Report:
    if isinstance(error, SourceError):
        reason = str(error)
        log.warning("could not read %s: %s", source.id, reason)
    else:
        reason = f"Palate could not read what it gives ({type(error).__name__}: {error})."
        log.error("could not read %s", source.id, exc_info=error)
    with writing(engine) as connection:
        subscriptions.record_failure(
            connection,
            source.key,
            reason,
            now,
            retry_after=error.retry_after if isinstance(error, SourceError) else None,
            gone=isinstance(error, FetchFailed) and error.status == 410,
        )
    return Report(sources=1, failed=1)


def _next_interval(params: IngestParams, source: Source, news: bool) -> float:
    """Seconds: half of the last interval when there was news, one and a half times when there was none, within bounds."""
    last: float | None = source.state.get("interval")
    if last is None:
        return params.interval
    return min(max(last * (0.5 if news else 1.5), params.shortest_interval), params.longest_interval)


def _asked_pause(source: Source, fetched: Fetched, interval: float) -> float:
    """Seconds until the next reading: a feed may ask for more, a folder that wasn't read to its end for less."""
    asked: float | None = fetched.state.get("every")
    if asked is None:
        return interval
    return asked if source.kind == "folder" else max(interval, asked)


# Full texts


def _with_full_texts(
    tools: _Tools, source: Source, items: Sequence[Item], now: datetime
) -> tuple[list[Item], dict[str, int]]:
    """The items with the text of their page where the feed gave only its beginning; and the ids of those whose page is still to
    be read, with the times that failed.

    A page is read once: when its item is new or has a new title, or when it could not be read before.
    """
    with reading(tools.engine) as connection:
        known = catalog.already_stored(connection, items, _canonical(items))
    tried: dict[str, int] = source.state.get("unread", {})
    complete, unread, left = [], dict[str, int](), tools.params.pages
    for item in items:
        stored = known.get(item.id)
        if not is_stub(item):
            complete.append(item)
        elif stored is not None and item.id not in tried and _says_the_same(item, stored.item):
            complete.append(_keep_full_text(item, stored))
        elif left == 0:
            complete.append(item)
            unread[item.id] = tried.get(item.id, 0)
        else:
            left -= 1
            full, later = _try_full_text(tools, item, now)
            complete.append(full)
            if later and tried.get(item.id, 0) < _TRIES - 1:
                unread[item.id] = tried.get(item.id, 0) + 1
    return complete, unread


def _with_unread(state: dict[str, Any], unread: dict[str, int]) -> dict[str, Any]:
    """The state, such that the next reading gets all items again when some still need their page."""
    if not unread:
        return state
    return {name: value for name, value in state.items() if name not in ("etag", "last_modified")} | {"unread": unread}


def _try_full_text(tools: _Tools, item: Item, now: datetime) -> tuple[Item, bool]:
    """The item with its full text, or as it is; and whether another time may give more."""
    try:
        return _full_text(tools, item, now), False
    except FetchFailed as error:
        return item, error.status is None or error.status == 429 or error.status >= 500
    except Exception as error:  # the beginning and the link are better than nothing
        log.info("no full text of %s: %s", item.url, error)
        return item, False


def _says_the_same(item: Item, stored: Item) -> bool:
    return stored.id != item.id or item.title is None or item.title == stored.title


def _keep_full_text(item: Item, stored: StoredItem) -> Item:
    """Without its own text when a full one is stored: what is None replaces nothing."""
    return item if is_stub(stored.item) else msgspec.structs.replace(item, text=None)


def _full_text(tools: _Tools, item: Item, now: datetime) -> Item:
    """The item with the text of its page; as it is when the site's robots.txt forbids that, or the page says no more."""
    from palate.sources.decoding import decode

    assert item.url is not None, "an item without an address is no stub"
    if not robots.allowed(item.url, tools.fetcher, tools.robots):
        return item
    page = tools.fetcher.get(item.url, accept="text/html, application/xhtml+xml;q=0.9")
    if "html" not in (page.content_type or "html"):
        return item
    text = article(decode(page.body, page.content_type), page.address)
    if text is None or len(to_plain(text)) <= len(to_plain(item.text or "")):
        return item
    return msgspec.structs.replace(item, text=clean(msgspec.structs.replace(item, text=text), now).text)


# Lists of feeds


def import_opml(connection: sa.Connection, body: bytes, now: datetime) -> list[Source]:
    """Subscribe to every feed of an OPML file. Feeds whose address can't be one are left out. Raises NotAFeed."""
    from palate.sources import opml

    added = []
    for feed in opml.read(body):
        options = {"labels": list(feed.labels)} if feed.labels else {}
        try:
            added.append(subscriptions.add(connection, "feed", feed.address, now, title=feed.title, options=options))
        except InvalidInput as error:
            log.warning("left out a feed of the list: %s", error)
    return added


def export_opml(connection: sa.Connection) -> bytes:
    """All feeds as an OPML file."""
    from palate.sources import opml

    return opml.write(
        opml.Subscription(feed.address, feed.title, tuple(feed.options.get("labels", ())))
        for feed in subscriptions.list_sources(connection)
        if feed.kind == "feed"
    )
