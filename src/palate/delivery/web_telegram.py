"""Telegram as its owner sees it: accounts, channels, the plan of joins; and in the demo the chats of people with the bot."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from starlette.responses import Response

from palate import accounts, alerts, channels, chats, database, identities, joins, memberships, user_index
from palate.database import reading
from palate.delivery import web_chat
from palate.delivery.context import Play
from palate.delivery.refusals import Refusal
from palate.delivery.web_page import Visit, draw, needs_owner, see_other
from palate.memberships import Attempt

ATTEMPTS, PLANNED, CANDIDATES, LIKED = 8, 6, 4, 4
"""Rows that are shown of each."""
LOOKED_BACK = timedelta(days=8)
VISITOR = 1
"""Chat that is shown at first: the visitor's own."""

_OUTCOMES = {
    "joined": "joined",
    "already_in": "was in it already",
    "requested": "asked its owner to be let in",
    "wait": "has to wait",
    "gone": "there is no such channel",
    None: "under way",
}


@dataclass(frozen=True)
class AccountRow:
    """An account in words."""

    name: str
    state: str
    channels: int
    limit: int
    says: str
    rests: bool


@dataclass(frozen=True)
class JoinRow:
    """A join that was tried, or is planned."""

    time: str
    account: str
    channel: str
    says: str
    is_good: bool | None
    """None: neither good nor bad."""


@dataclass(frozen=True)
class Taste:
    """What one person's votes have said."""

    likes: int
    dislikes: int
    liked: tuple[tuple[str, int], ...]
    """Channels, with how often."""
    disliked: tuple[tuple[str, int], ...]


def telegram(visit: Visit) -> Response:
    """The page."""
    needs_owner(visit)
    person = _person(visit)
    play = visit.serving.play
    view = web_chat.look(play, person) if play is not None and web_chat.is_there(play) else None
    return draw(visit, "telegram.html", here="/telegram", chat=view, **_hub(visit), **_learned(visit, person))


def chat(visit: Visit) -> Response:
    """The chat alone, for who watches it."""
    needs_owner(visit)
    return draw(visit, "_chat.html", chat=web_chat.look(_play_of(visit), _person(visit)))


def hub(visit: Visit) -> Response:
    """What stands beside the chat, for who watches it."""
    needs_owner(visit)
    return draw(visit, "_telegram_hub.html", **_hub(visit), **_learned(visit, _person(visit)))


def say(visit: Visit) -> Response:
    """Somebody of the demo writes to the bot, or presses a button."""
    needs_owner(visit)
    play, person = _play_of(visit), _person(visit)
    if text := visit.given("text", web_chat.LONGEST):
        web_chat.say(play, person, text)
    elif data := visit.given("data", 64):
        web_chat.tap(play, person, _number(visit.given("message")), data)
    if visit.partial:
        return draw(visit, "_chat.html", chat=web_chat.look(play, person))
    return see_other(visit, f"/telegram?person={person}#chat")


def _play_of(visit: Visit) -> Play:
    if visit.serving.play is None:
        raise Refusal(404, "not_found", "Chats can be watched in the demo only: `palate demo --telegram`.")
    return visit.serving.play


def _person(visit: Visit) -> int:
    return _number(visit.given("person") or visit.query.get("person", str(VISITOR)))


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Refusal(400, "invalid_request", "That is no number of a chat or a message.")
    return int(text)


# What is known of accounts and channels


def _hub(visit: Visit) -> dict[str, Any]:
    serving = visit.serving
    now = serving.play.clock() if serving.play is not None else visit.now
    with reading(serving.engine) as connection:
        pool = {one.key: one.name for one in channels.list_channels(connection)}
        owned = {one.key: one.name for one in accounts.list_accounts(connection)}
        tried = memberships.list_attempts(connection, now - LOOKED_BACK)[-ATTEMPTS:]
        planned = joins.plan(connection, serving.params.joining, now, PLANNED)
        return {
            "played": f"{now:%-d %B, %H:%M} UTC" if serving.play is not None else None,
            "speed": serving.play.speed
            if serving.play is not None and visit.now - now > timedelta(minutes=5)
            else None,
            "accounts": _accounts(visit, connection, now),
            "counts": channels.count(connection),
            "posts": _posts(connection),
            "votes": _votes(connection),
            "tried": [_tried(one, owned, pool) for one in reversed(tried)],
            "planned": [
                JoinRow(
                    f"{one.time:%H:%M}" if one.time > now else "now", one.account, one.channel.name, one.reason, None
                )
                for one in planned
            ],
            "candidates": [
                (one.channel.name, one.mentions, one.sources) for one in channels.candidates(connection, CANDIDATES)
            ],
            "alerts": [one.text for one in alerts.list_alerts(connection)],
        }


def _accounts(visit: Visit, connection: sa.Connection, now: datetime) -> list[AccountRow]:
    params = visit.serving.params.joining
    joined, why = memberships.count_joined(connection), joins.why_idle(connection, params, now)
    rows = []
    for one in accounts.list_accounts(connection):
        limit = one.channel_limit or (params.limit_premium if one.premium else params.limit)
        says = one.error or why.get(one.name) or ""
        rests = one.flood_until is not None and one.flood_until > now
        rows.append(AccountRow(one.name, one.state.replace("_", " "), joined.get(one.key, 0), limit, says, rests))
    return rows


def _tried(one: Attempt, owned: dict[int, str], pool: dict[int, str]) -> JoinRow:
    says = _OUTCOMES.get(one.outcome, (one.outcome or "").replace("_", " "))
    if one.wait is not None:
        says = f"Telegram asks to wait {one.wait:.0f} s"
    is_good = {"joined": True, "already_in": True, None: None, "requested": None}.get(one.outcome, False)
    return JoinRow(f"{one.time:%H:%M}", owned.get(one.account, "?"), pool.get(one.channel, "?"), says, is_good)


def _posts(connection: sa.Connection) -> int:
    items = database.items
    query = sa.select(sa.func.count()).where(items.c.state == "live", items.c.id.like("tg:%"))
    return int(connection.scalar(query) or 0)


def _votes(connection: sa.Connection) -> int:
    """Votes in the bot that the log holds unsealed."""
    events = database.events
    query = sa.select(sa.func.count()).where(events.c.surface == "bot", events.c.type.in_(("like", "dislike")))
    return int(connection.scalar(query) or 0)


# What was learned of somebody


def _learned(visit: Visit, person: int) -> dict[str, Any]:
    if visit.serving.play is None:
        return {"taste": None, "person": None}
    with reading(visit.serving.engine) as connection:
        return {"taste": _taste(connection, chats.user_id(person)), "person": person}


def _taste(connection: sa.Connection, user: str) -> Taste:
    events, items, sources = database.events, database.items, database.sources
    theirs = user_index.of_users(connection, identities.user_keys(connection, [user], None).values())
    query = (
        sa.select(events.c.type, sources.c.title, sa.func.count())
        .join(items, items.c.key == events.c.item)
        .outerjoin(sources, sources.c.key == items.c.source)
        .where(theirs, events.c.type.in_(("like", "dislike")))
        .group_by(events.c.type, sources.c.title)
    )
    votes: dict[str, Counter[str]] = {"like": Counter(), "dislike": Counter()}
    for type, title, number in connection.execute(query):
        votes[type][title or "?"] += number
    likes, dislikes = votes["like"], votes["dislike"]
    return Taste(likes.total(), dislikes.total(), tuple(likes.most_common(LIKED)), tuple(dislikes.most_common(LIKED)))
