"""The sources of this installation: their state, and how an owner adds and removes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote

import sqlalchemy as sa
from starlette.datastructures import UploadFile
from starlette.responses import Response

from palate import accounts, alerts, channels, database, ingest, people, subscriptions
from palate.database import reading, writing
from palate.delivery.refusals import Refusal
from palate.delivery.web_cards import age
from palate.delivery.web_feed import choose_source
from palate.delivery.web_page import Visit, draw, needs_owner, see_other
from palate.errors import SourceError
from palate.sources.discovery import FoundFeed, find_feeds
from palate.sources.fetching import Fetcher
from palate.subscriptions import Source
from palate.text.cleaning import tidy_url

LONGEST_ADDRESS = 2000


def sources(visit: Visit) -> Response:
    """The list."""
    return _list(visit)


def _list(visit: Visit, notice: str | None = None, found: list[FoundFeed] | None = None, tried: str = "") -> Response:
    with reading(visit.serving.engine) as connection:
        listed = subscriptions.list_sources(connection)
        counts = _counts(connection)
        person = visit.person(connection)
        chosen = people.source_choices(connection, person) if person is not None else {}
        may_change = visit.may_change(connection)
        told = alerts.list_alerts(connection) if may_change else []
        has_channels = may_change and bool(channels.count(connection) or accounts.list_accounts(connection))
    rows = [_row(source, counts.get(source.key, 0), chosen.get(source.key) == "hidden", visit.now) for source in listed]
    rows.sort(key=lambda row: (row.error is None, row.title.casefold()))
    return draw(
        visit,
        "sources.html",
        here="/sources",
        sources=rows,
        failing=sum(row.error is not None for row in rows),
        may_change=may_change,
        channels=has_channels,
        alerts=[(alert.text, age(alert.time, visit.now)) for alert in told],
        notice=notice,
        found=found,
        tried=tried,
    )


def _counts(connection: sa.Connection) -> dict[int, int]:
    items = database.items
    query = sa.select(items.c.source, sa.func.count()).where(items.c.state == "live").group_by(items.c.source)
    return {row[0]: row[1] for row in connection.execute(query) if row[0] is not None}


@dataclass(frozen=True)
class SourceRow:
    """A source in words. None where there is nothing to say."""

    id: str
    title: str
    site: str | None
    address: str
    items: str
    read: str | None
    next: str | None
    error: str | None
    paused: bool
    pausable: bool
    hidden: bool


def _row(source: Source, items: int, hidden: bool, now: datetime) -> SourceRow:
    paused = source.status == "paused"
    return SourceRow(
        id=source.id,
        title=source.title or source.address,
        site=tidy_url(source.site) if source.site else None,
        address=source.address if source.kind == "feed" else source.kind,
        items=f"{items:,} {'item' if items == 1 else 'items'}",
        read=f"read {age(source.last_success, now)}" if source.last_success else None,
        next="paused" if paused else _next(source.next_fetch, now),
        error=source.last_error,
        paused=paused,
        pausable=source.next_fetch is not None or paused,
        hidden=hidden,
    )


def _next(time: datetime | None, now: datetime) -> str | None:
    """When it is read again, in words; None for a source that is not asked."""
    if time is None:
        return None
    left = time - now
    if left <= timedelta(0):
        return "next now"
    if left < timedelta(hours=1):
        return f"next in {max(left // timedelta(minutes=1), 1)} min"
    return f"next in {left // timedelta(hours=1)} h" if left < timedelta(days=2) else f"next in {left.days} days"


def add(visit: Visit) -> Response:
    """Add the feeds that were chosen, or look for those behind an address; ask when there are several."""
    needs_owner(visit)
    chosen = visit.all_given("feed", LONGEST_ADDRESS)
    if chosen:
        return _subscribe(visit, [FoundFeed(address, None) for address in chosen])
    tried = visit.given("address", LONGEST_ADDRESS)
    if not tried:
        raise Refusal(400, "invalid_request", "Type the address of a site or of a feed.")
    try:
        found = find_feeds(tried, Fetcher(visit.serving.params.fetch))
    except SourceError as error:
        return _list(visit, notice=str(error), tried=tried)
    return _subscribe(visit, found) if len(found) == 1 else _list(visit, found=found, tried=tried)


def _subscribe(visit: Visit, feeds: list[FoundFeed]) -> Response:
    with writing(visit.serving.engine) as connection:
        added = [subscriptions.add(connection, "feed", feed.address, visit.now, title=feed.title) for feed in feeds]
    return see_other(visit, f"/sources#s-{quote(added[0].id)}")


def change(visit: Visit) -> Response:
    """Pause, resume or remove a source for all, or hide it from this person and show it again."""
    name, id = visit.given("act"), visit.given("source")
    with reading(visit.serving.engine) as connection:
        source = subscriptions.get(connection, id)
    if name in ("hide", "show"):
        choose_source(visit, source.key, "hidden" if name == "hide" else None)
    else:
        needs_owner(visit)
        _change(visit, name, id)
    return see_other(visit, "/me" if visit.given("back") == "/me" else f"/sources#s-{quote(id)}")


def _change(visit: Visit, name: str, id: str) -> None:
    with writing(visit.serving.engine) as connection:
        if name == "pause":
            subscriptions.pause(connection, id)
        elif name == "resume":
            subscriptions.resume(connection, id, visit.now)
        elif name == "remove":
            subscriptions.remove(connection, id, visit.now)
        else:
            raise Refusal(400, "invalid_request", "There is no such button.")


def import_opml(visit: Visit) -> Response:
    """Add every feed of an OPML file."""
    needs_owner(visit)
    file = visit.form.get("file")
    if not isinstance(file, UploadFile):
        raise Refusal(400, "invalid_request", "Choose the OPML file that your feed reader exported.")
    try:
        with writing(visit.serving.engine) as connection:
            count = len(ingest.import_opml(connection, file.file.read(), visit.now))
    except SourceError as error:
        return _list(visit, notice=str(error))
    return _list(visit, notice=f"{count:,} {'feed' if count == 1 else 'feeds'} of this file will be read.")


def export_opml(visit: Visit) -> Response:
    """All feeds as an OPML file."""
    with reading(visit.serving.engine) as connection:
        body = ingest.export_opml(connection)
    headers = {"content-disposition": 'attachment; filename="palate.opml"'}
    return Response(body, media_type="text/x-opml", headers=headers)
