"""Posts at times of a person's choice, the day's stories, and mailings: what the bot sends unasked, and the menu of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, time

import sqlalchemy as sa

from palate import chats, mailings, outbox
from palate.chats import Chat
from palate.database import reading, writing
from palate.delivery.bot_acts import posts
from palate.delivery.bot_lists import stories_text
from palate.delivery.bot_talk import (
    Desk,
    Reply,
    Rows,
    Talk,
    answer,
    changed_menu,
    in_rows,
    is_answered,
    is_owner,
    reply,
    text_call,
)
from palate.delivery.bot_timetable import latest, minute, named_zone, quiet_until, read_times
from palate.domain import to_milliseconds
from palate.outbox import Draft, Urgency, Waiting

ON = "✅ "
COUNTS = (1, 3, 5, 10)
DIGESTS: tuple[int | None, ...] = (None, 8 * 60, 20 * 60)
QUIET: tuple[tuple[int, int] | None, ...] = (None, (22 * 60, 8 * 60), (23 * 60, 7 * 60))
MOST_TIMES = 24
NO_DIGEST = 24 * 60
"""Stands in a button for none."""
ZONES = (
    "UTC", "Europe/London", "Europe/Berlin", "Europe/Kyiv", "Europe/Moscow", "Asia/Tbilisi", "Asia/Yekaterinburg",
    "Asia/Almaty", "Asia/Novosibirsk", "Asia/Vladivostok", "Asia/Kolkata", "Asia/Shanghai", "Asia/Tokyo",
    "Australia/Sydney", "America/Sao_Paulo", "America/New_York", "America/Chicago", "America/Los_Angeles",
)  # fmt: skip
PAGE = 500
"""Chats that a mailing is put into the outbox for at a time."""


# what is due


def scheduled(desk: Desk) -> list[Chat]:
    """Chats that want something unasked."""
    with reading(desk.serving.engine) as connection:
        return chats.scheduled(connection)


def deliver(desk: Desk, chat: Chat, now: datetime) -> tuple[Waiting, ...]:
    """Send a chat what is due: the best posts that the person has not seen, the day's stories; once, and not in quiet hours."""
    due, digest = latest(chat, chat.deliveries, now), latest(chat, [chat.digest] if chat.digest else [], now)
    if due is None and digest is None:
        return ()
    due, digest = (due, digest) if quiet_until(chat, now) is None else (None, None)
    told = _digest(Talk(desk, chat, now, f"digest.{chat.chat}.{to_milliseconds(digest)}")) if digest else []
    with writing(desk.serving.engine) as connection:
        drafts = [*(_due_posts(connection, desk, chat, now, due) if due else []), *told]
        chats.change(connection, chat.chat, delivered=to_milliseconds(now))
        return tuple(outbox.put(connection, drafts, now))


def _due_posts(connection: sa.Connection, desk: Desk, chat: Chat, now: datetime, due: datetime) -> list[Draft]:
    """The posts of one delivery, unless it was made before."""
    talk = Talk(desk, chat, now, f"delivery.{chat.chat}.{to_milliseconds(due)}")
    if is_answered(connection, talk.cause):
        return []
    return posts(connection, talk, chat.posts, urgency=Urgency.DELIVERY)


def _digest(talk: Talk) -> list[Draft]:
    text = stories_text(talk, "digest")
    return [replace(answer(talk, text_call(text)), urgency=Urgency.DELIVERY)] if text is not None else []


# the menu


def schedule(talk: Talk, words: Sequence[str] = ()) -> Reply:
    """The menu, after what the words say: times of day, a time zone, or off."""
    changed = _said(talk, words)
    if changed is None:
        return reply(talk, answer(talk, text_call(talk.say("schedule_puzzled"))))
    return reply(talk, answer(talk, text_call(*_menu(changed))))


def _said(talk: Talk, words: Sequence[str]) -> Talk | None:
    zones = [word for word in words if named_zone(word) is not None]
    rest = [word for word in words if word not in zones]
    times = [] if rest == ["off"] else read_times(rest)
    if times is None or len(zones) > 1 or len(times) > MOST_TIMES:
        return None
    talk = _change(talk, time_zone=zones[0]) if zones else talk
    return _change(talk, deliveries=[minute(at) for at in times]) if rest else talk


def toggle_time(talk: Talk, at: int) -> Reply:
    """Deliver at this minute of the day, or no more."""
    now = [minute(one) for one in talk.chat.deliveries]
    wanted = [one for one in now if one != at] if at in now else sorted([*now, at])[:MOST_TIMES]
    return _changed(talk, deliveries=wanted)


def choose_count(talk: Talk, count: int) -> Reply:
    """Posts of one delivery."""
    return _changed(talk, posts=min(count, max(COUNTS)))


def choose_digest(talk: Talk, at: int) -> Reply:
    """The minute of the day at which the day's stories come."""
    return _changed(talk, digest=None if at >= NO_DIGEST else at)


def choose_quiet(talk: Talk, place: int) -> Reply:
    """The hours in which nothing comes unasked."""
    start, end = QUIET[place % len(QUIET)] or (None, None)
    return _changed(talk, quiet_from=start, quiet_to=end)


def choose_zone(talk: Talk, place: int) -> Reply:
    """The time zone of a place in the list."""
    return _changed(talk, time_zone=ZONES[place % len(ZONES)])


def zones(talk: Talk, _key: int) -> Reply:
    """The list of time zones."""
    buttons = [
        talk.button((ON if name == (talk.chat.time_zone or "UTC") else "") + name.replace("_", " "), "z", place)
        for place, name in enumerate(ZONES)
    ]
    return reply(talk, changed_menu(talk, talk.say("zones"), in_rows(buttons, 2)))


def _changed(talk: Talk, **values: object) -> Reply:
    return reply(talk, changed_menu(talk, *_menu(_change(talk, **values))), notice=talk.say("done"))


def _change(talk: Talk, **values: object) -> Talk:
    with writing(talk.serving.engine) as connection:
        # What was due before the change isn't due by it.
        chats.change(connection, talk.chat.chat, delivered=to_milliseconds(talk.now), **values)
        found = chats.get(connection, talk.chat.chat)
    assert found is not None, "the chat was met before anything was asked in it"
    return replace(talk, chat=found)


def _menu(talk: Talk) -> tuple[str, Rows]:
    chat = talk.chat
    at = {minute(one) for one in chat.deliveries}
    hours = [_choice(talk, f"{hour}:00", "d", hour * 60, hour * 60 in at) for hour in range(24)]
    counts = [_choice(talk, talk.say("posts", count=count), "m", count, count == chat.posts) for count in COUNTS]
    digest = None if chat.digest is None else minute(chat.digest)
    digests = [
        _choice(talk, "☰ " + (_clock(one) if one is not None else "–"), "g", one or NO_DIGEST, one == digest)
        for one in DIGESTS
    ]
    quiet = None if chat.quiet is None else (minute(chat.quiet[0]), minute(chat.quiet[1]))
    quiets = [
        _choice(talk, "🌙 " + (f"{_clock(one[0])}–{_clock(one[1])}" if one else "–"), "q", place, one == quiet)
        for place, one in enumerate(QUIET)
    ]
    place = [talk.button("🕒 " + (chat.time_zone or "UTC"), "a", 0)]
    times = ", ".join(f"{one:%H:%M}" for one in chat.deliveries) or "–"
    return talk.say("schedule", times=times), [*in_rows(hours, 6), counts, digests, quiets, place]


def _choice(talk: Talk, text: str, verb: str, key: int, is_on: bool) -> dict[str, str]:
    return talk.button((ON if is_on else "") + text, verb, key)


def _clock(at: int) -> str:
    return f"{time(at // 60, at % 60):%H:%M}"


# the owner's


def figures(talk: Talk) -> Reply:
    """How the bot does, for its owner."""
    if not is_owner(talk):
        return reply(talk, answer(talk, text_call(talk.say("unknown"))))
    with reading(talk.serving.engine) as connection:
        known, sent, depth = chats.counted(connection), outbox.counts(connection), outbox.depth(connection)
    lines = [f"chats {name}: {count}" for name, count in sorted(known.items())]
    lines += [f"messages {name}: {count}" for name, count in sorted(sent.items())]
    return reply(talk, answer(talk, text_call("\n".join([*lines, f"messages waiting: {depth}"]))))


def mail(talk: Talk, text: str) -> Reply:
    """Show the owner what they are about to send to everybody, and ask."""
    if not is_owner(talk):
        return reply(talk, answer(talk, text_call(talk.say("unknown"))))
    if not text.strip():
        return reply(talk, answer(talk, text_call(talk.say("mail_empty"))))
    with writing(talk.serving.engine) as connection:
        key = mailings.draft(connection, talk.chat.chat, text, talk.now)
        number = chats.counted(connection).get("active", 0)
    yes = talk.button(talk.say("mail_yes", count=number), "y", key)
    no = talk.button(talk.say("mail_no"), "v", key)
    return reply(talk, answer(talk, text_call(text, [[yes], [no]])))


def confirm_mail(talk: Talk, key: int) -> Reply:
    """Send a mailing to everybody."""
    return _decide(talk, key, "mail_confirmed", is_sent=True)


def cancel_mail(talk: Talk, key: int) -> Reply:
    """Don't."""
    return _decide(talk, key, "mail_cancelled", is_sent=False)


def _decide(talk: Talk, key: int, words: str, *, is_sent: bool) -> Reply:
    if not is_owner(talk):
        return Reply((), talk.say("forged"))
    with writing(talk.serving.engine) as connection:
        done = mailings.decide(connection, key, talk.chat.chat, "confirmed" if is_sent else "cancelled")
    return reply(talk, changed_menu(talk, talk.say(words), []), notice=talk.say(words)) if done else Reply()


def mail_some(desk: Desk, now: datetime) -> tuple[Waiting, ...]:
    """Put the mailings that are on their way into the outbox for the next chats; nothing is left when it returns none."""
    with writing(desk.serving.engine) as connection:
        for mailing in mailings.on_their_way(connection):
            to = chats.active(connection, mailing.sent_to, PAGE)
            found = [chats.get(connection, chat) for chat in to]
            drafts = [
                Draft(
                    chat.chat,
                    f"mail.{mailing.key}.{chat.chat}",
                    Urgency.MAILING,
                    (text_call(mailing.text),),
                    due=quiet_until(chat, now),
                )
                for chat in found
                if chat is not None
            ]
            mailings.advance(connection, mailing.key, to[-1] if to else None)
            if drafts:
                return tuple(outbox.put(connection, drafts, now))
    return ()
