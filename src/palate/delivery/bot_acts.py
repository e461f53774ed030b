"""What the bot does with posts: the next one, a vote, a hidden channel, a shared link. Each act runs in a thread of its own.

An act may come twice, when a crash kept Telegram from learning that it was done: votes carry the id of what caused them, and
answers their cause, so that neither counts twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Literal

import msgspec
import sqlalchemy as sa

from palate import catalog, database, feed, outbox, people, staging, user_index
from palate.catalog import StoredItem
from palate.database import writing
from palate.delivery.bot_callbacks import Pressed, Shared
from palate.delivery.bot_cards import Post, copy_calls, link_call, post_buttons, post_of
from palate.delivery.bot_talk import (
    Reply,
    Talk,
    answer,
    change,
    changed_buttons,
    note,
    person_key,
    text_call,
)
from palate.delivery.bot_timetable import zone
from palate.delivery.surfaces import shown_since, varied
from palate.domain import Event, Feed, FeedRequest
from palate.errors import DatabaseError
from palate.feed_params import FeedParams
from palate.outbox import Call, Draft, Urgency
from palate.people import Identity

log = logging.getLogger(__name__)

SURFACE = "bot"
FOREVER = timedelta(days=36_500) / timedelta(minutes=1)
ENDLESS = 1_000_000
"""Posts of a day without a ration."""
VERBS = {"l": "like", "d": "dislike", "h": "hide", "u": "retract:hide"}
"""What the buttons under a post mean as events."""


def next_post(talk: Talk) -> Reply:
    """The next post, at a person's asking."""
    with writing(talk.serving.engine) as connection:
        drafts = _next(connection, talk, _identity(connection, talk), 0)
        return Reply(tuple(outbox.put(connection, drafts, talk.now)))


def posts(
    connection: sa.Connection, talk: Talk, count: int, number: int = 0, urgency: Urgency = Urgency.ANSWER
) -> list[Draft]:
    """The best `count` posts that the person has not seen, fewer where their day's ration ends; they count as shown."""
    return _posts(connection, talk, _identity(connection, talk), count, number, urgency)


def _posts(
    connection: sa.Connection, talk: Talk, me: Identity, count: int, number: int, urgency: Urgency
) -> list[Draft]:
    left = _left_today(connection, talk, me)
    if left <= 0:
        return []
    served = _serve(connection, talk, me, min(count, left))
    drafts: list[Draft] = []
    for ranked in served.items:
        for calls in _calls(connection, talk, me, post_of(ranked, served.request)):
            drafts.append(Draft(talk.chat.chat, f"{talk.cause}:{number + len(drafts)}", urgency, calls))
    return drafts


def _next(connection: sa.Connection, talk: Talk, me: Identity, number: int) -> list[Draft]:
    drafts = _posts(connection, talk, me, 1, number, Urgency.ANSWER)
    if drafts:
        return drafts
    over = _left_today(connection, talk, me) <= 0
    text = talk.say("rationed", count=me.choices.daily_ration) if over else talk.say("nothing")
    return [answer(talk, text_call(text), number=number)]


def _identity(connection: sa.Connection, talk: Talk) -> Identity:
    """Who the person is; somebody from now on."""
    found = people.identify(connection, talk.user)
    if found is None:
        person_key(connection, talk)
        found = people.identify(connection, talk.user)
    assert found is not None, "the row has just been written"
    return found


def _serve(connection: sa.Connection, talk: Talk, me: Identity, limit: int) -> Feed:
    window = talk.window(me.choices)
    request = FeedRequest(user=talk.user, limit=limit, now=talk.now, surface=SURFACE, window=window)
    request, by = varied(talk.serving, request, connection)
    rng, append = feed.generator(request), partial(note, connection, talk)
    surface = by.surfaces.get(SURFACE)
    return feed.serve(talk.serving.live, request, _never_twice(by.feed), rng, append, connection, surface)


def _never_twice(params: FeedParams) -> FeedParams:
    """A chat keeps what was sent: nothing has to come back."""
    return msgspec.structs.replace(params, bring_back_minutes=FOREVER)


def _calls(connection: sa.Connection, talk: Talk, me: Identity, post: Post) -> list[tuple[Call, ...]]:
    """Messages that show a post, each with what is sent instead when it is refused."""
    by_link = link_call(talk, post, me.key)
    if talk.desk.params.staging_channel is None or not post.item.id.startswith(staging.PREFIX):
        return [(by_link,)]
    staged = staging.messages(connection, post.item.id)
    if not staged:
        staging.want(connection, post.item.id, talk.now)
        return [(by_link,)]
    copies = copy_calls(talk, post, me.key, staged)
    return [(copies[0], by_link)] if len(copies) == 1 else [(copies[0],), (copies[1], by_link)]


def _left_today(connection: sa.Connection, talk: Talk, me: Identity) -> int:
    if me.choices.daily_ration is None:
        return ENDLESS
    midnight = talk.now.astimezone(zone(talk.chat.time_zone)).replace(hour=0, minute=0, second=0, microsecond=0)
    return me.choices.daily_ration - shown_since(connection, me.key, midnight)


# votes


def vote(talk: Talk, pressed: Pressed) -> Reply:
    """A vote on a post, or its channel hidden: it counts, and the first one on a post brings the next.

    The vote, the next post and that it was shown are one transaction, in which the choice of the post sees the vote.
    """
    type = VERBS[pressed.verb]
    with writing(talk.serving.engine) as connection:
        stored = catalog.get_many(connection, [pressed.key]).get(pressed.key)
        me = _identity(connection, talk)
        before = _standing(connection, me.keys, pressed.key, talk.cause)
        if stored is None or stored.state != "live":
            return Reply((), talk.say("gone"))
        if type in before or (type == "retract:hide" and "hide" not in before):
            return Reply((), talk.say("counted"))
        if type.endswith("hide"):
            if stored.source_key is None:
                return Reply((), talk.say("sourceless"))
            choice: Literal["hidden"] | None = "hidden" if type == "hide" else None
            people.choose_source(connection, me.key, stored.source_key, choice, talk.now)
        event = Event(
            user=talk.user, item=stored.item.id, type=type, id=talk.cause, request=pressed.request, surface=SURFACE
        )
        note(connection, talk, [event])
        drafts = _next_if_any(connection, talk, me) if not before and type != "retract:hide" else []
        drafts.append(_judged(talk, me, pressed, stored, before, type))
        return Reply(tuple(outbox.put(connection, drafts, talk.now)), _notice(talk, type, before, stored))


def _next_if_any(connection: sa.Connection, talk: Talk, me: Identity) -> list[Draft]:
    """The next post; none by a mistake of ours, for which no vote is to be lost."""
    try:
        return _next(connection, talk, me, 0)
    except (sa.exc.SQLAlchemyError, DatabaseError):
        raise
    except Exception:
        log.exception("A vote counts, but the next post could not be found.")
        return []


_TYPES = ("like", "dislike", "hide", *(f"retract:{name}" for name in ("like", "dislike", "hide")), "retract")
_TOLD = (
    sa.select(database.events.c.type)
    .where(
        database.events.c.item == sa.bindparam("one"),
        database.events.c.type.in_(_TYPES),
        database.events.c.id.is_(None) | (database.events.c.id != sa.bindparam("cause")),
    )
    .order_by(database.events.c.seq)
)


def _standing(connection: sa.Connection, users: Sequence[int], item: int, cause: str) -> frozenset[str]:
    """What these users have said of an item so far: the newest of like and dislike, and hide; without what `cause` brought."""
    on: set[str] = set()
    theirs = _TOLD.where(user_index.of_users(connection, users))
    for type in connection.scalars(theirs, {"one": item, "cause": cause}):
        on = _after(on, type)
    return frozenset(on)


def _after(on: Iterable[str], type: str) -> set[str]:
    if type == "retract":
        return set()
    if type.startswith("retract:"):
        return set(on) - {type.removeprefix("retract:")}
    return (set(on) - ({"like", "dislike"} if type != "hide" else set())) | {type}


def _judged(talk: Talk, me: Identity, pressed: Pressed, stored: StoredItem, before: frozenset[str], type: str) -> Draft:
    """The pressed message as it is now; away, where the person wants what they dislike to be."""
    if type == "dislike" and talk.chat.delete_disliked:
        return change(talk, Call("deleteMessage", {}))
    post = Post(stored.key, stored.item, stored.source_title, pressed.request)
    standing = _after(before, type)
    return changed_buttons(talk, post_buttons(talk, post, me.key, standing, "hide" in standing))


def _notice(talk: Talk, type: str, before: frozenset[str], stored: StoredItem) -> str:
    if type.endswith("hide"):
        name = (stored.source_title or stored.item.source or "")[:100]
        return talk.say("hidden" if type == "hide" else "shown", name=name)
    return talk.say("changed" if before & {"like", "dislike"} else f"{type}d")


# beginnings


def start(talk: Talk, is_new: bool, shared: Shared | None, menu: Call) -> Reply:
    """The beginning: two messages for somebody new (the second is `menu`), and a post; the one that a friend shared, if any."""
    drafts = [answer(talk, text_call(talk.say("welcome"))), answer(talk, menu, number=1)] if is_new else []
    with writing(talk.serving.engine) as connection:
        me, number = _identity(connection, talk), len(drafts)
        calls = _shared_post(connection, talk, me, shared) if shared is not None else []
        drafts += [answer(talk, *each, number=number + place) for place, each in enumerate(calls)]
        if not calls:
            drafts += _next(connection, talk, me, number)
        return Reply(tuple(outbox.put(connection, drafts, talk.now)))


def _shared_post(connection: sa.Connection, talk: Talk, me: Identity, shared: Shared) -> list[tuple[Call, ...]]:
    """The post behind a shared link, which counts as shown, and as a share of who sent it; nothing when it is gone."""
    stored = catalog.get_many(connection, [shared.item]).get(shared.item)
    if stored is None or stored.state != "live":
        return []
    sharer = _name_of(connection, shared.sharer)
    happened = [Event(user=talk.user, item=stored.item.id, type="shown", surface=SURFACE)]
    if sharer is not None and shared.sharer not in me.keys:
        share = Event(
            user=sharer,
            item=stored.item.id,
            type="share",
            id=f"share.{shared.item}.{shared.sharer}.{talk.chat.chat}",
            surface=SURFACE,
        )
        happened.append(share)
    note(connection, talk, happened)
    return _calls(connection, talk, me, Post(stored.key, stored.item, stored.source_title, why="why_shared"))


def _name_of(connection: sa.Connection, key: int) -> str | None:
    users = database.users
    name: str | None = connection.scalar(sa.select(users.c.id).where(users.c.key == key))
    return name
