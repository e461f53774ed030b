"""What the bot does with posts: the next one, a vote, a hidden channel, a shared link. Each act runs in a thread of its own.

An act may come twice, when a crash kept Telegram from learning that it was done: votes carry the id of what caused them, and
answers their cause, so that neither counts twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

import msgspec
import sqlalchemy as sa

from palate import catalog, database, feed, identities, people, staging
from palate.catalog import StoredItem
from palate.database import reading, writing
from palate.delivery.bot_callbacks import Pressed, Shared
from palate.delivery.bot_cards import Post, copy_calls, link_call, post_buttons, post_of
from palate.delivery.bot_talk import (
    Reply,
    Talk,
    answer,
    change,
    changed_buttons,
    choices_of,
    known_person,
    person_key,
    reply,
    text_call,
)
from palate.delivery.bot_timetable import zone
from palate.delivery.surfaces import record, shown_since
from palate.domain import Event, Feed, FeedRequest
from palate.feed import FeedParams
from palate.outbox import Call, Draft, Urgency
from palate.people import Choices

SURFACE = "bot"
FOREVER = timedelta(days=36_500) / timedelta(minutes=1)
ENDLESS = 1_000_000
"""Posts of a day without a ration."""
VERBS = {"l": "like", "d": "dislike", "h": "hide", "u": "retract:hide"}
"""What the buttons under a post mean as events."""


def next_post(talk: Talk) -> Reply:
    """The next post, at a person's asking."""
    drafts, shown = _next(talk, 0)
    return reply(talk, *drafts, shown=shown)


def posts(talk: Talk, count: int, number: int, urgency: Urgency = Urgency.ANSWER) -> tuple[list[Draft], list[Event]]:
    """The best `count` posts that the person has not seen, fewer where their day's ration ends; and that they were shown."""
    chosen = choices_of(talk)
    left = _left_today(talk, chosen)
    if left <= 0:
        return [], []
    served, shown = _serve(talk, min(count, left), chosen)
    drafts: list[Draft] = []
    for ranked in served.items:
        for calls in _calls(talk, post_of(ranked, served.request)):
            drafts.append(Draft(talk.chat.chat, f"{talk.cause}:{number + len(drafts)}", urgency, calls))
    return drafts, shown


def _next(talk: Talk, number: int) -> tuple[list[Draft], list[Event]]:
    drafts, shown = posts(talk, 1, number)
    if drafts:
        return drafts, shown
    ration = choices_of(talk).daily_ration
    over = ration is not None and _left_today(talk, choices_of(talk)) <= 0
    text = talk.say("rationed", count=ration) if over else talk.say("nothing")
    return [answer(talk, text_call(text), number=number)], []


def _serve(talk: Talk, limit: int, chosen: Choices) -> tuple[Feed, list[Event]]:
    shown: list[Event] = []
    request = FeedRequest(user=talk.user, limit=limit, now=talk.now, surface=SURFACE, window=talk.window(chosen))
    served = feed.serve(
        talk.serving.live, request, _never_twice(talk.serving.params.feed), feed.generator(request), shown.extend
    )
    return served, shown


def _never_twice(params: FeedParams) -> FeedParams:
    """A chat keeps what was sent: nothing has to come back."""
    return msgspec.structs.replace(params, bring_back_minutes=FOREVER)


def _calls(talk: Talk, post: Post) -> list[tuple[Call, ...]]:
    """Messages that show a post, each with what is sent instead when it is refused."""
    sharer = _sharer(talk)
    by_link = link_call(talk, post, sharer)
    if talk.desk.params.staging_channel is None or not post.item.id.startswith(staging.PREFIX):
        return [(by_link,)]
    with reading(talk.serving.engine) as connection:
        staged = staging.messages(connection, post.item.id)
    if not staged:
        with writing(talk.serving.engine) as connection:
            staging.want(connection, post.item.id, talk.now)
        return [(by_link,)]
    copies = copy_calls(talk, post, sharer, staged)
    return [(copies[0], by_link)] if len(copies) == 1 else [(copies[0],), (copies[1], by_link)]


def _sharer(talk: Talk) -> int:
    """Key of the person, for the links by which they share."""
    with reading(talk.serving.engine) as connection:
        person = known_person(connection, talk)
    return 0 if person is None else person  # deleted a moment ago


def _left_today(talk: Talk, chosen: Choices) -> int:
    if chosen.daily_ration is None:
        return ENDLESS
    midnight = talk.now.astimezone(zone(talk.chat.time_zone)).replace(hour=0, minute=0, second=0, microsecond=0)
    with reading(talk.serving.engine) as connection:
        return chosen.daily_ration - shown_since(connection, known_person(connection, talk), midnight)


# votes


def vote(talk: Talk, pressed: Pressed) -> Reply:
    """A vote on a post, or its channel hidden: it counts, and the first one on a post brings the next."""
    type = VERBS[pressed.verb]
    with reading(talk.serving.engine) as connection:
        stored = catalog.get_many(connection, [pressed.key]).get(pressed.key)
        known = known_person(connection, talk)
        users = identities.aliases(connection, known) if known is not None else []
        before = _standing(connection, users, pressed.key, talk.cause)
    if stored is None or stored.state != "live":
        return Reply((), talk.say("gone"))
    if type in before or (type == "retract:hide" and "hide" not in before):
        return Reply((), talk.say("counted"))
    if type.endswith("hide"):
        if stored.source_key is None:
            return Reply((), talk.say("sourceless"))
        _choose_source(talk, stored.source_key, type == "hide")
    event = Event(
        user=talk.user, item=stored.item.id, type=type, id=talk.cause, request=pressed.request, surface=SURFACE
    )
    record(talk.serving, [event], talk.now)
    drafts, shown = _next(talk, 0) if not before and type != "retract:hide" else ([], [])
    drafts = [*drafts, _judged(talk, pressed, stored, before, type)]
    return reply(talk, *drafts, notice=_notice(talk, type, before, stored), shown=shown)


def _standing(connection: sa.Connection, users: Sequence[int], item: int, cause: str) -> frozenset[str]:
    """What these users have said of an item so far: the newest of like and dislike, and hide; without what `cause` brought."""
    table = database.events
    types = ["like", "dislike", "hide", *(f"retract:{name}" for name in ("like", "dislike", "hide")), "retract"]
    mine = table.c.user.in_(users) & (table.c.item == item) & table.c.type.in_(types)
    mine &= table.c.id.is_(None) | (table.c.id != cause)
    on: set[str] = set()
    for type in connection.scalars(sa.select(table.c.type).where(mine).order_by(table.c.seq)):
        on = _after(on, type)
    return frozenset(on)


def _after(on: Iterable[str], type: str) -> set[str]:
    if type == "retract":
        return set()
    if type.startswith("retract:"):
        return set(on) - {type.removeprefix("retract:")}
    return (set(on) - ({"like", "dislike"} if type != "hide" else set())) | {type}


def _judged(talk: Talk, pressed: Pressed, stored: StoredItem, before: frozenset[str], type: str) -> Draft:
    """The pressed message as it is now; away, where the person wants what they dislike to be."""
    if type == "dislike" and talk.chat.delete_disliked:
        return change(talk, Call("deleteMessage", {}))
    post = Post(stored.key, stored.item, stored.source_title, pressed.request)
    standing = _after(before, type)
    return changed_buttons(talk, post_buttons(talk, post, _sharer(talk), standing, "hide" in standing))


def _notice(talk: Talk, type: str, before: frozenset[str], stored: StoredItem) -> str:
    if type.endswith("hide"):
        name = (stored.source_title or stored.item.source or "")[:100]
        return talk.say("hidden" if type == "hide" else "shown", name=name)
    return talk.say("changed" if before & {"like", "dislike"} else f"{type}d")


def _choose_source(talk: Talk, source: int, hide: bool) -> None:
    with writing(talk.serving.engine) as connection:
        person = person_key(connection, talk)
        people.choose_source(connection, person, source, "hidden" if hide else None, talk.now)


# beginnings


def start(talk: Talk, is_new: bool, shared: Shared | None, menu: Call) -> Reply:
    """The beginning: two messages for somebody new (the second is `menu`), and a post; the one that a friend shared, if any."""
    drafts = [answer(talk, text_call(talk.say("welcome"))), answer(talk, menu, number=1)] if is_new else []
    calls, shown = _shared_post(talk, shared) if shared is not None else ([], [])
    number = len(drafts)
    drafts += [answer(talk, *each, number=number + place) for place, each in enumerate(calls)]
    if not calls:
        more, shown = _next(talk, number)
        drafts += more
    return reply(talk, *drafts, shown=shown)


def _shared_post(talk: Talk, shared: Shared) -> tuple[list[tuple[Call, ...]], list[Event]]:
    """The post behind a shared link, and that it was shown; nothing when it is gone. It counts as a share of who sent it."""
    with reading(talk.serving.engine) as connection:
        stored = catalog.get_many(connection, [shared.item]).get(shared.item)
        if stored is None or stored.state != "live":
            return [], []
        sharer = _name_of(connection, shared.sharer)
        person = identities.persons(connection, [shared.sharer]).get(shared.sharer)
        is_own = person == known_person(connection, talk)
    calls = _calls(talk, Post(stored.key, stored.item, stored.source_title, why="why_shared"))
    if sharer is not None and not is_own:
        share = Event(
            user=sharer,
            item=stored.item.id,
            type="share",
            id=f"share.{shared.item}.{shared.sharer}.{talk.chat.chat}",
            surface=SURFACE,
        )
        record(talk.serving, [share], talk.now)
    return calls, [Event(user=talk.user, item=stored.item.id, type="shown", surface=SURFACE)]


def _name_of(connection: sa.Connection, key: int) -> str | None:
    users = database.users
    name: str | None = connection.scalar(sa.select(users.c.id).where(users.c.key == key))
    return name
