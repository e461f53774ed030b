"""What the bot sends unasked: once, at the person's time, not in quiet hours, within the ration; and mailings."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import apscheduler.schedulers.base
import pytest
import sqlalchemy as sa
from bot_world import BEGINNING, post

from palate import catalog, chats, database, mailings, outbox, people, subscriptions
from palate.database import reading, writing
from palate.delivery import bot, bot_callbacks, bot_schedule
from palate.delivery.bot_params import BotParams
from palate.delivery.bot_sending import Clock
from palate.delivery.bot_talk import Desk, Reply, Talk
from palate.delivery.bot_timetable import quiet_until
from palate.delivery.context import Serving, ServingParams, open_serving
from palate.outbox import Message

NOON = BEGINNING


@pytest.fixture
def desk(data: Path, sqlite_template: Path) -> Iterator[Desk]:
    """The bot of an installation with thirty posts."""
    data.mkdir()
    shutil.copy(sqlite_template, data / "palate.sqlite")
    with open_serving(data, None, ServingParams()) as serving:
        with writing(serving.engine) as connection:
            subscriptions.add(connection, "api", "https://t.me/cats", NOON, title="Cats")
            catalog.upsert(connection, [post(number, language="de") for number in range(30)], NOON)
        serving.live.refresh(NOON)
        yield Desk(serving, BotParams(owners=(9,)), "palate_bot")


def meet(desk: Desk, number: int, **values: object) -> None:
    """Somebody who has chosen these things, the day before."""
    with writing(desk.serving.engine) as connection:
        chats.meet(connection, number, "en", NOON - timedelta(days=1))
        if values:
            chats.change(connection, number, **values)


def talk(desk: Desk, number: int, cause: str = "test") -> Talk:
    with writing(desk.serving.engine) as connection:
        met, _ = chats.meet(connection, number, "en", NOON)
    return Talk(desk, met, NOON, cause, message=77)


def deliver(desk: Desk, now: datetime) -> list[Message]:
    """What is put into the outbox at this minute."""
    places = [place for chat in bot_schedule.scheduled(desk) for place in bot_schedule.deliver(desk, chat, now)]
    return messages(desk.serving, [place.key for place in places])


def messages(serving: Serving, keys: list[int]) -> list[Message]:
    with reading(serving.engine) as connection:
        found = [outbox.read(connection, key) for key in keys]
    return [message for message in found if message is not None]


def test_a_delivery_comes_once_and_never_with_what_was_seen(desk: Desk) -> None:
    meet(desk, 1, deliveries=[12 * 60, 13 * 60], posts=3)
    meet(desk, 2)
    assert deliver(desk, NOON - timedelta(minutes=1)) == []
    first = deliver(desk, NOON)
    assert [(one.chat, one.urgency) for one in first] == [(1, outbox.Urgency.DELIVERY)] * 3
    assert deliver(desk, NOON) == []
    assert deliver(desk, NOON + timedelta(minutes=1)) == []
    second = deliver(desk, NOON + timedelta(hours=1, minutes=5))
    texts = [one.calls[0].fields["text"].split("\n")[0] for one in (*first, *second)]
    assert len(set(texts)) == 6


def test_a_delivery_that_a_crash_left_half_done_is_not_made_twice(desk: Desk) -> None:
    meet(desk, 1, deliveries=[12 * 60])
    assert len(deliver(desk, NOON)) == 3
    with writing(desk.serving.engine) as connection:
        chats.change(connection, 1, delivered=0)  # as if it had died before it was noted
    assert deliver(desk, NOON + timedelta(minutes=1)) == []
    assert shown(desk) == 3


def test_however_the_clock_jumps_no_delivery_comes_twice_and_none_stays_away(desk: Desk) -> None:
    meet(desk, 1, deliveries=[12 * 60])
    minute, day = timedelta(minutes=1), timedelta(days=1)
    assert len(deliver(desk, NOON)) == 3
    for now in (NOON - 30 * minute, NOON, NOON + minute, NOON - 90 * minute, NOON + 2 * minute):
        assert deliver(desk, now) == []
    assert deliver(desk, NOON + 400 * day) == []  # by then all is stale
    assert deliver(desk, NOON + 5 * minute) == []
    assert len(deliver(desk, NOON + day)) == 3


def test_a_clock_that_is_set_back_does_not_stop_the_timetable(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    shift = timedelta(days=400)

    class Shifted:
        @staticmethod
        def now(tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + shift

    async def script() -> None:
        nonlocal shift
        looked = asyncio.Event()

        async def send_due(*_: object) -> None:
            looked.set()

        async def sleep(_: float) -> None:
            await asyncio.sleep(0.001)

        monkeypatch.setattr(apscheduler.schedulers.base, "datetime", Shifted)
        monkeypatch.setattr(bot, "send_due", send_due)
        sender: Any = None
        keeping = asyncio.create_task(bot._keep_times(desk, sender, Clock(lambda: Shifted.now(UTC), sleep=sleep)))
        await asyncio.sleep(0.01)
        shift = timedelta(0)
        await asyncio.wait_for(looked.wait(), 20)
        keeping.cancel()
        await asyncio.wait([keeping])

    asyncio.run(script())


def test_a_mailing_in_quiet_hours_waits_for_their_end_whatever_the_clock_said_before(desk: Desk) -> None:
    quiet = {"quiet_from": 22 * 60, "quiet_to": 8 * 60}
    meet(desk, 1, deliveries=[12 * 60], **quiet)
    night = NOON + timedelta(hours=11)
    for now in (night, night - timedelta(days=400), night + timedelta(days=1)):
        assert quiet_until(chat_of(desk), now) == now + timedelta(hours=9)
    for now in (NOON, NOON - timedelta(days=400)):
        assert quiet_until(chat_of(desk), now) is None


def chat_of(desk: Desk) -> chats.Chat:
    with reading(desk.serving.engine) as connection:
        found = chats.get(connection, 1)
    assert found is not None
    return found


def shown(desk: Desk) -> int:
    with reading(desk.serving.engine) as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(database.events)) or 0)


def test_nothing_comes_in_quiet_hours_or_beyond_the_ration(desk: Desk) -> None:
    meet(desk, 1, deliveries=[12 * 60], quiet_from=11 * 60, quiet_to=13 * 60)
    meet(desk, 2, deliveries=[12 * 60], posts=5)
    with writing(desk.serving.engine) as connection:
        person = people.upsert_user(connection, "telegram:2", {}, NOON)
        people.set_choices(connection, person.key, people.Choices(daily_ration=2))
    assert [one.chat for one in deliver(desk, NOON)] == [2, 2]


def test_the_stories_of_the_day_come_as_a_digest(desk: Desk) -> None:
    meet(desk, 1, digest=12 * 60)
    [message] = deliver(desk, NOON + timedelta(seconds=30))
    assert message.calls[0].fields["text"].startswith("<b>Your day in stories</b>\n1. ")


def test_the_menu_changes_what_is_chosen(desk: Desk) -> None:
    bot_schedule.schedule(talk(desk, 1, "a"), ["20:15", "8:30", "Europe/Berlin"])
    bot_schedule.toggle_time(talk(desk, 1, "b"), 12 * 60)
    bot_schedule.toggle_time(talk(desk, 1, "c"), 20 * 60 + 15)
    bot_schedule.choose_count(talk(desk, 1, "d"), 5)
    bot_schedule.choose_digest(talk(desk, 1, "e"), 20 * 60)
    bot_schedule.choose_quiet(talk(desk, 1, "f"), 2)
    chosen = talk(desk, 1).chat
    assert [f"{at:%H:%M}" for at in chosen.deliveries] == ["08:30", "12:00"]
    assert (chosen.time_zone, chosen.posts) == ("Europe/Berlin", 5)
    assert f"{chosen.digest:%H:%M}" == "20:00"
    assert chosen.quiet is not None
    assert f"{chosen.quiet[0]:%H}–{chosen.quiet[1]:%H}" == "23–07"
    bot_schedule.schedule(talk(desk, 1, "g"), ["off"])
    bot_schedule.choose_zone(talk(desk, 1, "h"), 4)
    bot_schedule.choose_digest(talk(desk, 1, "i"), bot_schedule.NO_DIGEST)
    assert (talk(desk, 1).chat.deliveries, talk(desk, 1).chat.digest) == ((), None)
    assert talk(desk, 1).chat.time_zone == "Europe/Moscow"


def test_the_menu_fits_and_words_that_are_no_times_are_not_guessed(desk: Desk) -> None:
    given = bot_schedule.schedule(talk(desk, 1, "a"), [])
    [message] = messages(desk.serving, [one.key for one in given.waiting])
    rows = message.calls[0].fields["reply_markup"]["inline_keyboard"]
    assert sum(map(len, rows)) <= 100
    assert all(len(button["callback_data"]) <= 64 for row in rows for button in row)
    puzzled = bot_schedule.schedule(talk(desk, 1, "b"), ["25:00"])
    [message] = messages(desk.serving, [one.key for one in puzzled.waiting])
    assert "/schedule 8:30 20:15" in message.calls[0].fields["text"]


def pressed(desk: Desk, reply: Reply, place: int) -> int:
    """The key that a button of the answer carries."""
    [message] = messages(desk.serving, [one.key for one in reply.waiting])
    data = message.calls[0].fields["reply_markup"]["inline_keyboard"][place][0]["callback_data"]
    found = bot_callbacks.read_button(desk.serving.secret, message.chat, data)
    assert found is not None
    return found.key


def test_a_mailing_goes_to_everybody_once_after_it_was_confirmed(desk: Desk) -> None:
    for number in range(1, 6):
        meet(desk, number)
    meet(desk, 3, state="blocked")
    meet(desk, 4, quiet_from=11 * 60, quiet_to=13 * 60)
    key = pressed(desk, bot_schedule.mail(talk(desk, 9, "a"), "<b>Hello</b>"), 0)
    assert bot_schedule.mail_some(desk, NOON) == ()
    bot_schedule.confirm_mail(talk(desk, 1, "b"), key)  # not the owner
    assert bot_schedule.mail_some(desk, NOON) == ()
    bot_schedule.confirm_mail(talk(desk, 9, "c"), key)
    placed = bot_schedule.mail_some(desk, NOON)
    assert [(one.chat, one.due - NOON) for one in placed] == [
        (number, timedelta(hours=number == 4)) for number in (1, 2, 4, 5, 9)
    ]
    assert bot_schedule.mail_some(desk, NOON) == ()
    bot_schedule.confirm_mail(talk(desk, 9, "d"), key)
    with reading(desk.serving.engine) as connection:
        assert mailings.on_their_way(connection) == []


def test_a_cancelled_mailing_goes_to_nobody(desk: Desk) -> None:
    meet(desk, 1)
    key = pressed(desk, bot_schedule.mail(talk(desk, 9, "a"), "Hello"), 1)
    bot_schedule.cancel_mail(talk(desk, 9, "b"), key)
    bot_schedule.confirm_mail(talk(desk, 9, "c"), key)
    assert bot_schedule.mail_some(desk, NOON) == ()


def test_only_owners_see_the_figures_and_write_to_everybody(desk: Desk) -> None:
    for act in (bot_schedule.figures, lambda one: bot_schedule.mail(one, "Hello")):
        given = act(talk(desk, 1, f"no{act}"))
        [message] = messages(desk.serving, [one.key for one in given.waiting])
        assert message.calls[0].fields["text"].startswith("I only know buttons")
    given = bot_schedule.figures(talk(desk, 9, "yes"))
    [message] = messages(desk.serving, [one.key for one in given.waiting])
    assert "chats active: 2" in message.calls[0].fields["text"]
