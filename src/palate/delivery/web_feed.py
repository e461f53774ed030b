"""The feed, one item, what was saved, and what people do with items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal
from urllib.parse import urlencode

import msgspec
import numpy as np
import sqlalchemy as sa
from starlette.responses import RedirectResponse, Response

from palate import catalog, events, feed, identities, people, subscriptions
from palate.database import reading, writing
from palate.delivery.refusals import Refusal, undecodable
from palate.delivery.surfaces import shown_since, varied
from palate.delivery.web_cards import VOTES, Card, CardPage, also, card, ranked_card, with_votes
from palate.delivery.web_page import Visit, draw, message, record, see_other
from palate.delivery.web_stories import choices, filter_of
from palate.domain import MAX_ID_LENGTH, Event, Feed, FeedRequest, RankedItem
from palate.errors import InvalidCursor, NotFound

PAGE = 20
"""Cards of one page."""
AGAIN = 100
"""Cards of a page that is shown once more."""
SURFACE = "web"

REPORTS = 200
"""Things that a browser may report at once."""


def feed_page(visit: Visit) -> Response:
    """The feed: the next cards for this person, or the very cards that they came from."""
    waiting = len(visit.serving.live.pool) == 0
    if waiting and not _has_sources(visit):
        return see_other(visit, "/start")
    again = _numbers(visit.query.get("again", ""))
    cards, page = _shown_again(visit, again) if again else _next_cards(visit)
    narrowed = choices(visit, "/", filter_of(visit))
    return draw(visit, "feed.html", here="/", cards=cards, page=page, waiting=waiting, narrowed=narrowed)


def more_cards(visit: Visit) -> Response:
    """The cards that follow, alone: what endless scrolling asks for."""
    cards, page = _next_cards(visit)
    return draw(visit, "_cards.html", cards=cards, page=page)


def saved(visit: Visit) -> Response:
    """What this person saved, the newest first."""
    with reading(visit.serving.engine) as connection:
        person = visit.person(connection)
    cards, page = _shown_again(visit, _saved_keys(visit, person))
    return draw(visit, "saved.html", here="/saved", cards=cards, page=page)


def _has_sources(visit: Visit) -> bool:
    with reading(visit.serving.engine) as connection:
        return bool(subscriptions.list_sources(connection))


def _next_cards(visit: Visit) -> tuple[list[Card], CardPage]:
    with reading(visit.serving.engine) as connection:
        person = visit.person(connection)
        ration = people.choices(connection, person).daily_ration if person is not None else None
        midnight = visit.now.replace(hour=0, minute=0, second=0, microsecond=0)
        left = None if ration is None else ration - shown_since(connection, person, midnight)
    if left is not None and left <= 0:
        return [], CardPage(ration=ration, ration_done=True)
    served = _serve(visit, PAGE if left is None else min(PAGE, left))
    with reading(visit.serving.engine) as connection:
        cards = with_votes(
            connection, [ranked_card(place, visit.now, visit.root) for place in served.items], visit.person(connection)
        )
    return cards, _card_page(visit, served, ration, is_last=left is not None and left <= len(cards))


def _serve(visit: Visit, limit: int) -> Feed:
    serving, chosen = visit.serving, filter_of(visit)
    request = FeedRequest(
        user=visit.user,
        limit=limit,
        now=visit.now,
        cursor=visit.query.get("cursor") or None,
        surface=SURFACE,
        log=_is_person(visit),
        language=chosen.language,
        category=chosen.category,
        explain=True,
    )

    def append(shown: Sequence[Event]) -> None:
        record(visit, shown)

    request, by = varied(serving, request)
    surface, rng = by.surfaces.get(SURFACE), np.random.default_rng()
    try:
        return feed.serve(serving.live, request, by.feed, rng, append, surface=surface)
    except InvalidCursor:  # a bookmark, or a page that lay open too long
        return feed.serve(serving.live, replace(request, cursor=None), by.feed, rng, append, surface=surface)


def _is_person(visit: Visit) -> bool:
    """Whether somebody looks at it: not a crawler (it brings no cookie), nor a browser that fetches ahead."""
    purpose = visit.request.headers.get("sec-purpose", "") + visit.request.headers.get("purpose", "")
    return visit.known and visit.request.method == "GET" and "prefetch" not in purpose


def _card_page(visit: Visit, served: Feed, ration: int | None, is_last: bool) -> CardPage:
    query = urlencode(filter_of(visit).query(cursor=served.cursor))
    goes_on = bool(served.items) and not is_last
    return CardPage(
        request=served.request,
        snapshot=served.snapshot,
        again=".".join(str(place.key) for place in served.items),
        next=f"{visit.root}/?{query}" if goes_on else None,
        next_part=f"{visit.root}/more?{query}" if goes_on else None,
        unlogged=not _is_person(visit),
        ration=ration,
        ration_done=is_last,
    )


def _saved_keys(visit: Visit, person: int | None) -> list[int]:
    """Items that the person saved, newest first; what was saved long ago is in the sealed part of the log."""
    if person is None:
        return []
    folder = visit.serving.data / "events"
    log = events.read_columns(visit.serving.engine, folder, types=("save", "retract:save", "retract"))
    mine = log.user == person
    kept: dict[int, None] = {}
    for item, type in zip(log.item[mine].tolist(), log.type[mine].tolist(), strict=True):
        kept.pop(item, None)
        if log.types[type] == "save":
            kept[item] = None
    return list(kept)[::-1][:AGAIN]


def _shown_again(visit: Visit, keys: Sequence[int]) -> tuple[list[Card], CardPage]:
    """Cards of these items in this order, without serving anything new."""
    return cards_of(visit, keys), CardPage(again=".".join(str(key) for key in keys), was_again=True)


def cards_of(visit: Visit, keys: Sequence[int]) -> list[Card]:
    """Cards of those of these items that are there, in this order, with what they are to the person."""
    serving = visit.serving
    by, _ = serving.varying.of(visit.user, visit.now)
    told = feed.explained(serving.live, visit.user, keys, visit.now, by.feed)
    with reading(serving.engine) as connection:
        stored = catalog.get_many(connection, keys)
        cards = [_card(visit, stored[key], told.get(key)) for key in keys if key in stored]
        return with_votes(connection, cards, visit.person(connection))


def _card(visit: Visit, stored: catalog.StoredItem, told: RankedItem | None) -> Card:
    shown = card(stored.item, stored.key, stored.source_title, visit.now, visit.root)
    if told is None:
        return shown
    return replace(shown, score=told.score, reasons=told.reasons, also=also(told, visit.root))


def _numbers(text: str) -> list[int]:
    keys = (int(part) for part in text.split(".")[:AGAIN] if part.isascii() and part.isdigit() and len(part) < 19)
    return list(dict.fromkeys(keys))


# What people do


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a browser saw happen: `viewed` has the seconds on the screen as its value."""

    item: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
    type: Literal["shown", "viewed", "opened", "share"]
    value: Annotated[float, msgspec.Meta(ge=0, le=86_400)] | None = None
    request: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)] | None = None
    snapshot: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)] | None = None
    position: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None


def seen(visit: Visit) -> Response:
    """Take what a browser reports: what was on its screen, and what was opened."""
    try:
        reports = msgspec.json.decode(visit.body, type=list[Report])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise undecodable(error) from None
    if len(reports) > REPORTS:
        raise Refusal(400, "too_many", f"At most {REPORTS} things can be reported at once.")
    with reading(visit.serving.engine) as connection:
        there = identities.item_keys(connection, {report.item for report in reports}, None)
    _, variant = visit.serving.varying.of(visit.user, visit.now)
    happened = [
        Event(
            user=visit.user,
            surface=SURFACE,
            variant=variant if report.type == "shown" else None,
            **msgspec.structs.asdict(report),
        )
        for report in reports
        if report.item in there  # a page that lay open while its items were deleted
    ]
    if happened and visit.known:
        record(visit, happened)
    return Response(status_code=204)


def act(visit: Visit) -> Response:
    """One press of a button under an item; then its buttons as they are now, or the page once more at that item."""
    name = visit.given("act")
    with reading(visit.serving.engine) as connection:
        stored = catalog.get(connection, visit.given("item"))
    if stored is None:
        raise NotFound("This item is no longer there.")
    if name == "share":
        link = card(stored.item, stored.key, None, visit.now, visit.root).share
        return message(visit, "Share this", link, back=_way_back(visit, stored.key), back_label="Back")
    said, undo = _do(visit, name, stored)
    if not visit.partial:
        return RedirectResponse(_way_back(visit, stored.key), 303)
    visit.serving.live.refresh(visit.now)
    [shown] = cards_of(visit, [stored.key])
    with reading(visit.serving.engine) as connection:
        hidden = _hides(connection, visit, stored)
    position = visit.given("position")
    shown = replace(shown, said=said, undo=undo, hidden=hidden, position=int(position) if position.isdigit() else None)
    page = CardPage(
        request=visit.given("request") or None, snapshot=visit.given("snapshot") or None, again=_again(visit)
    )
    return draw(visit, "_acts.html", card=shown, page=page)


def _do(visit: Visit, name: str, stored: catalog.StoredItem) -> tuple[str | None, str | None]:
    """Do what a button says. Returns what to tell the person, and the act that takes it back."""
    if name in ("hide", "unhide"):
        return _hide(visit, stored, hide=name == "hide")
    if name == "less":
        _vote(visit, stored, "dislike")
        return _less_words(stored), "undo-dislike"
    type = name.removeprefix("undo-")
    if type not in VOTES:
        raise Refusal(400, "invalid_request", "There is no such button.")
    _vote(visit, stored, f"retract:{type}" if name.startswith("undo-") else type)
    return None, None


def _vote(visit: Visit, stored: catalog.StoredItem, type: str) -> None:
    position = visit.given("position")
    event = Event(
        user=visit.user,
        item=stored.item.id,
        type=type,
        request=visit.given("request") or None,
        snapshot=visit.given("snapshot") or None,
        position=int(position) if position.isascii() and position.isdigit() else None,
        surface=SURFACE,
    )
    record(visit, [event])


def _less_words(stored: catalog.StoredItem) -> str:
    name = stored.source_title or stored.item.source
    about = [f"from {name}"] if name else []
    about += [f"about {' and '.join(stored.item.labels[:2])}"] if stored.item.labels else []
    return f"Counted as a dislike: what comes {' or '.join(about) or 'near it'} moves down, the more often you say so."


def _hide(visit: Visit, stored: catalog.StoredItem, hide: bool) -> tuple[str, str]:
    if stored.source_key is None:
        raise Refusal(400, "invalid_request", "This item has no source to hide.")
    choose_source(visit, stored.source_key, "hidden" if hide else None)
    _vote(visit, stored, "hide" if hide else "retract:hide")
    title = stored.source_title or stored.item.source
    return (f"{title} is hidden from now on.", "unhide") if hide else (f"{title} is shown again.", "hide")


def choose_source(visit: Visit, source: int, choice: Literal["hidden"] | None) -> None:
    """Hide a source (by key) from this person, or show it again."""
    with writing(visit.serving.engine) as connection:
        people.choose_source(connection, visit.make_person(connection), source, choice, visit.now)


def _hides(connection: sa.Connection, visit: Visit, stored: catalog.StoredItem) -> bool:
    person = visit.person(connection)
    if person is None or stored.source_key is None:
        return False
    return people.source_choices(connection, person).get(stored.source_key) == "hidden"


def _again(visit: Visit) -> str:
    return ".".join(str(key) for key in _numbers(visit.given("page", 20 * AGAIN)))


def _way_back(visit: Visit, key: int) -> str:
    """The page that the button was on, at its item."""
    again = _again(visit)
    return f"{visit.root}/?again={again}#i-{key}" if again else f"{visit.root}/#i-{key}"
