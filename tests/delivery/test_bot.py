"""The bot with the real aiogram, over HTTP, in front of a stand-in for Telegram."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from bot_world import BEGINNING, BotWorld, bot_world, data_of, has_button, post

from palate import chats, feed, outbox, people, staging
from palate.database import reading, writing
from palate.delivery import bot_callbacks
from palate.delivery.application import create_app
from palate.delivery.bot_callbacks import Pressed
from palate.delivery.bot_texts import COMMANDS, names
from palate.delivery.context import Serving, ServingParams, open_serving
from palate.domain import Event, Item
from palate.loopback.bot_api_chats import ANSWERABLE, Channel, Fault, button_of

Script = Callable[[BotWorld], Coroutine[Any, Any, None]]
Play = Callable[..., None]


@pytest.fixture
def serving(data: Path, sqlite_template: Path) -> Iterator[Serving]:
    """An empty installation."""
    data.mkdir()
    shutil.copy(sqlite_template, data / "palate.sqlite")
    with open_serving(data, None, ServingParams()) as serving:
        yield serving


@pytest.fixture
def play(serving: Serving) -> Play:
    """Plays a script against a bot."""

    def run(script: Script, **params: Any) -> None:
        async def main() -> None:
            async with bot_world(serving, **params) as world:
                await script(world)

        asyncio.run(main())

    return run


def test_somebody_new_gets_two_messages_and_a_post(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start")
        first, second, shown = await world.until_texts(1, 3)
        assert first.startswith("Hello!")
        assert "👍 or 👎" in second
        assert shown.startswith("Post ")
        preview = world.posts(1)[0]["link_preview_options"]
        assert preview["url"].startswith("https://t.me/cats/")
        assert preview["show_above_text"]
        assert preview["prefer_large_media"]
        assert set(world.chats.commands) == {"", "ru"}

    play(script)


def test_the_bot_speaks_russian_to_whose_telegram_does(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.chat(1, "Аня", "ru-RU")
        world.chats.say(1, "/start")
        assert (await world.until_texts(1, 1))[0].startswith("Здравствуйте!")
        world.chats.say(1, "/language")
        await world.until_texts(1, 4)
        menu = world.chats.chat(1).of_bot()[-1]
        world.chats.tap(1, menu["message_id"], "English")
        await world.until_quiet()
        assert world.texts(1)[-1].startswith("Language")

    play(script)


def test_a_vote_counts_and_brings_the_next_post(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start")
        [first] = await world.until_posts(1, 1)
        world.chats.tap(1, first["message_id"], "👍")
        second = (await world.until_posts(1, 2))[1]
        assert second["text"] != first["text"]
        await world.until_quiet()
        assert [event[2] for event in world.events("like", "dislike")] == ["like"]
        assert world.chats.chat(1).notices == ["👍 More like this."]
        assert button_of(world.posts(1)[0], "👍")["text"] == "👍 ✓"

    play(script)


def test_a_vote_moves_the_very_next_post(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        kinds = {"cats": "https://t.me/cats", "cars": "https://t.me/cars"}
        world.add(*(post(100 + n, kinds["cats"], labels=("cats",)) for n in range(20)))
        world.add(*(post(200 + n, kinds["cars"], labels=("cars",)) for n in range(20)))
        world.chats.say(1, "/start")
        for count in range(1, 11):
            shown = (await world.until_posts(1, count))[-1]
            world.chats.tap(1, shown["message_id"], "👎" if "Cars" in shown["text"] else "👍")
        await world.until_posts(1, 11)
        await world.until_quiet()
        later = [one["text"] for one in world.posts(1)[4:]]
        assert sum("Cars" in text for text in later) <= 2

    play(script, posts=0)


def test_votes_in_the_bot_move_the_same_persons_feed_elsewhere(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        for first, label in ((100, "cats"), (200, "cars")):
            world.add(*(post(first + n, f"https://t.me/{label}", labels=(label,)) for n in range(20)))
        for person, loved in ((1, "Cats"), (2, "Cars")):
            world.chats.say(person, "/start")
            for count in range(1, 9):
                shown = (await world.until_posts(person, count))[-1]
                world.chats.tap(person, shown["message_id"], "👍" if loved in shown["text"] else "👎")
        await world.until_quiet()
        transport = httpx.ASGITransport(app=create_app({"": world.serving}))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            for person, loved in ((1, "cats"), (2, "cars")):
                asked = {
                    "user": f"telegram:{person}",
                    "items": [f"tg:77:{n}" for n in (*range(100, 120), *range(200, 220))],
                }
                ranked = (await client.post("/v1/rank", json=asked)).json()["items"]
                best = [int(one["item"].removeprefix("tg:77:")) for one in ranked[:15]]
                assert all((number < 200) == (loved == "cats") for number in best)

    play(script, posts=0)


def test_a_changed_vote_counts_and_a_second_press_of_the_same_does_nothing(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start")
        [first] = await world.until_posts(1, 1)
        for button in ("👍", "👍", "👎", "👎"):
            world.chats.tap(1, first["message_id"], button)
        await world.until_quiet()
        await world.chats.until(lambda: len(world.chats.chat(1).notices) == 4)
        assert [event[2] for event in world.events("like", "dislike")] == ["like", "dislike"]
        assert len(world.posts(1)) == 2
        assert sorted(world.chats.chat(1).notices)[:2] == ["It counts already."] * 2
        assert button_of(world.posts(1)[0], "👎")["text"] == "👎 ✓"
        assert button_of(world.posts(1)[0], "👍")["text"] == "👍"

    play(script)


def test_tampered_and_foreign_buttons_do_nothing(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        for person in (1, 2):
            world.chats.say(person, "/start")
        [mine], [other] = await world.until_posts(1, 1), await world.until_posts(2, 1)
        data = data_of(other, "👍")
        for forged in (data, data[:-1] + ("A" if data[-1] != "A" else "B"), "like:1", "x" * 64, "ж"):
            world.chats.tap(1, mine["message_id"], data=forged)
        await world.chats.until(lambda: len(world.chats.chat(1).notices) == 5)
        assert set(world.chats.chat(1).notices) == {"This button is not from here. /next brings a fresh post."}
        assert world.events("like") == []

    play(script)


def test_an_old_button_of_a_post_that_is_gone_says_so(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start")
        await world.until_posts(1, 1)
        secret = world.serving.secret
        world.chats.tap(1, 5, data=bot_callbacks.button(secret, 1, Pressed("l", 999_999)))
        await world.chats.until(lambda: bool(world.chats.chat(1).notices))
        assert world.chats.chat(1).notices == ["This post is no longer there."]

    play(script)


def test_a_tap_that_is_too_old_for_an_answer_counts_all_the_same(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start")
        [first] = await world.until_posts(1, 1)
        await world.kill()
        tap = world.chats.tap(1, first["message_id"], "👍")
        world.chats.taps[tap] = -ANSWERABLE, 1
        world.start()
        await world.until_posts(1, 2)
        await world.chats.until(lambda: not world.chats.taps)
        assert [event[2] for event in world.events("like")] == ["like"]
        assert world.chats.chat(1).notices == []

    play(script)


def test_two_taps_at_once_are_two_votes_and_bring_two_different_posts(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start")
        world.chats.say(1, "/next")
        first, second = await world.until_posts(1, 2)
        for message, button in ((first, "👍"), (second, "👎"), (first, "👍"), (second, "👎")):  # with two thumbs
            world.chats.tap(1, message["message_id"], button)
        await world.until_posts(1, 4)
        await world.until_quiet()
        shown = [one["text"] for one in world.posts(1)]
        assert len(shown) == len(set(shown)) == 4
        assert [event[2] for event in world.events("like", "dislike")] == ["like", "dislike"]

    play(script)


def test_a_post_of_4096_characters_of_markup_is_shown(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        text = ("<b>&amp;<i>😀</i></b><script>" * 200)[:4096]
        world.add(Item(id="long", title=text[:3000], text=text, published=BEGINNING, source="https://t.me/cats"))
        world.chats.say(1, "/start")
        [shown] = await world.until_posts(1, 1)
        assert shown["text"].startswith("&😀<script>&😀")  # as text; the server refuses what is no markup of its own
        world.chats.tap(1, shown["message_id"], "👍")
        await world.until_quiet()
        assert button_of(world.posts(1)[0], "👍")["text"] == "👍 ✓"

    play(script, posts=0)


def test_votes_on_the_page_move_the_bot_and_nothing_comes_twice(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start")
        await world.until_posts(1, 1)
        seen_on_page = [Event(user="telegram:1", item=f"tg:77:{n}", type="shown") for n in range(18)]
        world.serving.commits.submit(seen_on_page, world.clock.now()).result(10)
        for count in range(2, 5):
            world.chats.say(1, "/next")
            await world.until_texts(1, 2 + count)
        texts = world.texts(1)[2:]
        posts = [text.split("\n")[0] for text in texts if text.startswith("Post")]
        assert len(posts) == len(set(posts))
        assert set(posts[1:]) <= {"Post 18", "Post 19"}
        assert texts[-1].startswith("That is all")

    play(script)


def test_a_hidden_channel_is_seen_no_more_and_can_be_shown_again(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.add(post(50, "https://t.me/dogs"))
        world.chats.say(1, "/start")
        [first] = await world.until_posts(1, 1)
        while "Cats" not in first["text"]:
            world.chats.say(1, "/next")
            first = (await world.until_posts(1, 2))[-1]
        world.chats.tap(1, first["message_id"], "🙈")
        await world.until_quiet()
        assert [event[2] for event in world.events("hide")] == ["hide"]
        assert "Cats is hidden from now on." in world.chats.chat(1).notices
        world.chats.say(1, "/next")
        await world.until_quiet()
        assert not any("Cats" in one["text"] for one in world.posts(1)[2:])
        world.chats.tap(1, first["message_id"], "👁")
        await world.until_quiet()
        world.chats.say(1, "/next")
        await world.until_quiet()
        assert "Cats" in world.posts(1)[-1]["text"]

    play(script)


def test_disliked_posts_disappear_for_whoever_wants_that(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start")
        await world.until_posts(1, 1)
        world.chats.say(1, "/settings")
        await world.until_texts(1, 4)
        menu = world.chats.chat(1).of_bot()[-1]
        world.chats.tap(1, menu["message_id"], "☐")
        await world.until_quiet()
        first = world.posts(1)[0]
        world.chats.tap(1, first["message_id"], "👎")
        await world.until_quiet()
        assert world.chats.chat(1).deleted == [first["message_id"]]
        assert len(world.posts(1)) == 1

    play(script)


def test_a_ration_ends_the_day(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start")
        await world.until_posts(1, 1)
        with writing(world.serving.engine) as connection:
            person = people.get(connection, "telegram:1")
            assert person is not None
            people.set_choices(connection, person.key, people.Choices(daily_ration=2))
        for _ in range(2):
            world.chats.say(1, "/next")
        texts = await world.until_texts(1, 5)
        assert len(world.posts(1)) == 2
        assert texts[-1].startswith("That was your 2 for today.")

    play(script)


def test_stale_posts_are_not_sent(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.add(post(60 * 24 * 3 + 30), post(60 * 24 * 2))
        world.chats.say(1, "/start")
        [first] = await world.until_posts(1, 1)
        world.chats.tap(1, first["message_id"], "👍")
        await world.until_quiet()
        assert first["text"].startswith("Post 2880")
        assert world.texts(1)[-1].startswith("That is all")

    play(script, posts=0)


def test_a_shared_post_counts_and_the_friend_starts_from_it(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start")
        [first] = await world.until_posts(1, 1)
        link = unquote(button_of(first, "↗")["url"])
        found = re.search(r"https://t\.me/palate_test_bot\?start=([A-Za-z0-9_-]+)$", link)
        assert found is not None
        world.chats.say(2, f"/start {found[1]}")
        texts = await world.until_texts(2, 3)
        assert texts[2].split("\n")[0] == first["text"].split("\n")[0]
        assert "a friend sent you this" in texts[2]
        world.chats.say(1, f"/start {found[1]}")  # one's own link is no share
        await world.until_quiet()
        assert [event[0] for event in world.events("share")] == ["telegram:1"]
        world.chats.tap(2, world.posts(2)[0]["message_id"], "👍")
        await world.until_posts(2, 2)

    play(script)


def test_a_broken_link_starts_all_the_same(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start AAAA")
        await world.until_posts(1, 1)

    play(script)


def test_topics_come_first_for_somebody_new(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.add(*(post(100 + n, labels=("space",)) for n in range(5)))
        world.chats.say(1, "/start")
        await world.until_posts(1, 1)
        menu = world.chats.chat(1).of_bot()[1]
        world.chats.tap(1, menu["message_id"], "space")
        await world.until_quiet()
        assert has_button(world.chats.chat(1).of_bot()[1], "✅ space")
        world.chats.say(1, "/next")
        shown = (await world.until_posts(1, 2))[1]
        assert int(shown["text"].split()[1]) >= 100

    play(script)


def test_lists_show_nothing_that_rules_close(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.add(post(19, labels=("age:18",)), post(2, labels=("rights:none",)), post(100, language="de"))
        world.chats.say(1, "/start")
        await world.until_texts(1, 3)
        for place, said in enumerate(("/top", "/stories"), start=4):
            world.chats.say(1, said)
            told = (await world.until_texts(1, place))[-1]
            assert ("1. Post" in told, "Post 19" in told, "Post 2 " in told) == (True, False, False), told

    play(script)


def test_lists_and_menus_answer(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.add(post(100, language="de"))
        world.chats.say(1, "/start")
        await world.until_texts(1, 3)
        for place, (said, start) in enumerate(
            [
                ("/top", "What everybody likes\n1. Post"),
                ("/stories", "The news of the day\n1. Post"),
                ("/sources", "Channels and feeds"),
                ("/web", "This link logs"),
                ("/help", "👍 and 👎 teach"),
                ("meow", "I only know"),
            ],
            start=4,
        ):
            world.chats.say(1, said)
            assert (await world.until_texts(1, place))[-1].startswith(start)

    play(script, web_address="https://feed.example.org/")


def test_sources_are_hidden_in_their_menu(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.add(*(post(100 + n, f"https://t.me/channel{n}") for n in range(10)))
        world.chats.say(1, "/sources")
        await world.until_texts(1, 1)
        menu = world.chats.chat(1).of_bot()[0]["message_id"]
        world.chats.tap(1, menu, "›")
        await world.until_quiet()
        world.chats.tap(1, menu, "✅ Channel9")
        await world.until_quiet()
        assert has_button(world.chats.chat(1).messages[menu], "🙈 Channel9")
        with reading(world.serving.engine) as connection:
            person = people.get(connection, "telegram:1")
            assert person is not None
            assert list(people.source_choices(connection, person.key).values()) == ["hidden"]

    play(script)


def test_a_person_gets_all_that_is_known_and_can_be_forgotten(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start")
        [first] = await world.until_posts(1, 1)
        world.chats.tap(1, first["message_id"], "👍")
        world.chats.say(1, "/export")
        await world.chats.until(lambda: any("document" in one for one in world.chats.chat(1).of_bot()))
        file = next(one for one in world.chats.chat(1).of_bot() if "document" in one)
        told = json.loads(file["loopback_content"])
        assert told["ids"] == ["telegram:1"]
        assert "like" in [event["type"] for event in told["events"]]
        world.chats.say(1, "/forget")
        await world.chats.until(lambda: has_button(world.chats.chat(1).of_bot()[-1], "Forget me"))
        world.chats.tap(1, world.chats.chat(1).of_bot()[-1]["message_id"], "Forget me")
        await world.chats.until(lambda: world.texts(1)[-1].startswith("Nothing is known"))
        assert world.events("like", "shown") == []
        with reading(world.serving.engine) as connection:
            assert people.get(connection, "telegram:1") is None
            assert chats.get(connection, 1) is None

    play(script)


def test_the_login_link_makes_page_and_bot_one_person(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/web")
        text = (await world.until_texts(1, 1))[0]
        token = text.rsplit("/", 1)[1]
        with writing(world.serving.engine) as connection:
            person = people.redeem_login(connection, token, world.clock.now())
            known = people.get(connection, "telegram:1")
        assert known is not None
        assert person == known.key

    play(script, web_address="https://feed.example.org")


def test_whoever_blocks_the_bot_is_left_alone_until_they_come_back(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start")
        [first] = await world.until_posts(1, 1)
        world.chats.tap(1, first["message_id"], "👍")
        world.chats.block(1)
        await world.until_quiet()
        with reading(world.serving.engine) as connection:
            chat = chats.get(connection, 1)
            assert chat is not None
            assert not chat.is_active
            assert outbox.counts(connection)["blocked"] >= 1
        world.chats.say(1, "/next")
        await world.until_posts(1, 2)

    play(script)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(retry_after=8),
        Fault(retry_after=8, everybody=True),
        Fault(status=502, description="Bad Gateway"),
        Fault(drop="before"),
    ],
    ids=["429 of a chat", "429 of all", "502", "dropped"],
)
def test_what_fails_for_the_moment_comes_later_and_once(play: Play, fault: Fault) -> None:
    async def script(world: BotWorld) -> None:
        for person in (1, 2):
            world.chats.say(person, "/start")
        for person in (1, 2):
            await world.until_posts(person, 1)
        world.chats.faults += [fault, fault] if fault.retry_after is None else [fault]
        for person in (1, 2):
            world.chats.tap(person, world.posts(person)[0]["message_id"], "👍")
        for person in (1, 2):
            await world.until_posts(person, 2)
        await world.until_quiet()
        assert [len(world.posts(person)) for person in (1, 2)] == [2, 2]

    play(script)


def test_what_can_never_be_sent_is_given_up(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start")
        await world.until_posts(1, 1)
        world.chats.faults.append(Fault(method="sendMessage", status=400, description="Bad Request: wrong somehow"))
        world.chats.say(1, "/next")
        world.chats.say(1, "/next")
        await world.until_posts(1, 2)
        await world.until_quiet()
        with reading(world.serving.engine) as connection:
            assert outbox.counts(connection)["failed"] == 1

    play(script)


def test_nothing_is_lost_or_sent_twice_over_restarts(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        for person in range(1, 9):
            world.chats.say(person, "/start")
        for restart in range(6):
            await world.chats.until(lambda: world.chats.rates.sent >= 4 * restart + 1)  # noqa: B023
            await world.kill()
            world.start()
        for person in range(1, 9):
            await world.until_posts(person, 1)
        await world.until_quiet()
        for person in range(1, 9):
            assert [text[:5] for text in world.texts(person)] == ["Hello", "Press", "Post "]

    play(script)


def test_what_was_said_while_the_bot_was_away_is_answered(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start")
        [first] = await world.until_posts(1, 1)
        await world.kill()
        world.chats.tap(1, first["message_id"], "👍")
        world.chats.say(1, "/help")
        world.start()
        await world.until_texts(1, 5)
        assert [text[:4] for text in world.texts(1)[3:]] == ["Post", "👍 an"]

    play(script)


def test_posts_in_the_staging_channel_are_copied_whole(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.channels[-100900] = Channel(-100900, "Staging", has_bot=True)
        world.chats.say(1, "/start")
        [first] = await world.until_posts(1, 1)
        number = int(first["text"].split()[1].rstrip())
        with reading(world.serving.engine) as connection:
            assert staging.wanted(connection, 10) == [f"tg:77:{number}"]
        for each in range(40):  # whichever is chosen for the next person
            origin = {
                "type": "channel",
                "date": 0,
                "chat": {"id": -1_000_000_000_077, "type": "channel", "title": "Cats"},
                "message_id": each,
            }
            world.chats.publish(-100900, "the whole post", forward_origin=origin)
        await world.until_quiet()
        world.chats.say(2, "/start")
        await world.until_posts(2, 1)
        assert world.posts(2)[0]["text"] == "the whole post"
        world.chats.channels[-100900].has_bot = False  # it was thrown out: the link has to do
        world.chats.say(3, "/start")
        await world.until_posts(3, 1)
        assert world.posts(3)[0]["text"].startswith("Post ")

    play(script, staging_channel=-100900)


def test_many_people_vote_and_each_is_answered_in_order(play: Play) -> None:
    people_count, votes = 10, 2

    async def script(world: BotWorld) -> None:
        async def person(number: int) -> None:
            world.chats.say(number, "/start")
            for count in range(1, votes + 1):
                shown = (await world.until_posts(number, count))[-1]
                world.chats.tap(number, shown["message_id"], "👍" if number % 2 else "👎")
            await world.until_posts(number, votes + 1)

        await asyncio.gather(*(person(number) for number in range(1, people_count + 1)))
        for number in range(1, people_count + 1):
            texts = world.texts(number)
            assert [text[:5] for text in texts] == ["Hello", "Press", *["Post "] * (votes + 1)]
            assert len(set(texts)) == len(texts)
        assert len(world.events("like", "dislike")) == people_count * votes

    play(script, posts=30)


def test_a_vote_counts_although_no_next_post_can_be_found(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(world: BotWorld) -> None:
        world.chats.say(1, "/start")
        [first] = await world.until_posts(1, 1)
        monkeypatch.setattr(feed, "serve", lambda *_: 1 / 0)
        world.chats.tap(1, first["message_id"], "👍")
        await world.until_quiet()
        assert [event[2] for event in world.events("like")] == ["like"]
        assert button_of(world.posts(1)[0], "👍")["text"] == "👍 ✓"

    play(script)


def test_old_posts_of_the_staging_channel_are_forgotten(play: Play) -> None:
    async def script(world: BotWorld) -> None:
        def known() -> list[int]:
            with reading(world.serving.engine) as connection:
                return [message for post in (1, 2) for message in staging.messages(connection, f"tg:77:{post}")]

        await world.kill()
        with writing(world.serving.engine) as connection:
            staging.arrived(connection, 77, 1, 11, BEGINNING - timedelta(days=31))
            staging.arrived(connection, 77, 2, 22, BEGINNING - timedelta(days=29))
        assert known() == [11, 22]
        world.start()
        world.chats.say(1, "/start")
        async with asyncio.timeout(30):
            while known() != [22]:
                await asyncio.sleep(0.01)

    play(script)


def test_every_text_is_there_in_every_language() -> None:
    assert names()["en"] == names()["ru"]
    assert list(COMMANDS["en"]) == list(COMMANDS["ru"])
