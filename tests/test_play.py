"""The demo on a Telegram of its own: the real hub and the real bot on the two loopback servers, many times as fast."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import sqlalchemy as sa

from palate import accounts, channels, database, demo, events, hub
from palate.accounts import TelegramParams
from palate.database import connect, migrate, reading
from palate.delivery import bot
from palate.delivery.application import create_app
from palate.delivery.bot_params import BotParams
from palate.delivery.context import Play, Serving, ServingParams, open_serving
from palate.domain import Item
from palate.errors import DataFolderError
from palate.hub_params import HubParams
from palate.loopback.bot_api_chats import BOT, TOKEN, Chats
from palate.play import people, preparing, running, script, stage
from palate.play.stage import Stage
from palate.settings import load
from palate.sources.joining import JoiningParams

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
PATIENCE = 60.0


def few_items(now: datetime) -> list[Item]:
    """A tenth of the sample."""
    return demo_items(now)[::10]


demo_items = demo.sample_items


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "sample_items", few_items)
    monkeypatch.setattr(preparing, "READERS", 5)


def test_the_clock_runs_from_the_past_to_the_present_and_never_beyond() -> None:
    played = Stage(NOW - timedelta(days=2), NOW, 1, 2, speed=100.0)
    assert played.at(NOW - timedelta(minutes=1)) == played.opening
    assert played.at(NOW + timedelta(minutes=1)) == played.opening + timedelta(minutes=100)
    later = NOW + timedelta(days=1)
    assert played.at(later) == later
    assert stage.read(played.written()) == played


def test_the_settings_of_a_play_are_settings() -> None:
    played = Stage(NOW, NOW, 8081, 8082)
    settings = load(None, stage.variables(played, "http://127.0.0.1:8080", accounts.new_key()))
    assert settings.bot.api == "http://127.0.0.1:8081"
    assert settings.joining.joins_per_day == JoiningParams().joins_per_day
    assert settings.joining.first_days == JoiningParams().first_days


def test_every_item_is_published_once_and_the_digest_forwards_some() -> None:
    items = demo_items(NOW)
    written = script.write(items)
    own = [scene.item.id for scene in written.scenes if scene.item is not None and scene.forwards is None]
    assert Counter(own) == Counter(item.id for item in items)
    assert sum(scene.forwards is not None for scene in written.scenes) > 100
    roles = Counter(one.role for one in written.channels)
    assert roles["followed"] >= 5
    assert roles["wanted"] >= 10
    assert {scene.channel for scene in written.scenes} <= {one.username for one in written.channels}
    assert [scene.time for scene in written.scenes] == sorted(scene.time for scene in written.scenes)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "palate.sqlite").write_text("precious")
    with pytest.raises(DataFolderError, match="something else"):
        preparing.clear(other)
    assert (other / "palate.sqlite").read_text() == "precious"
    played = tmp_path / "played"
    preparing.clear(played)
    (played / "palate.sqlite").write_text("played")
    preparing.clear(played)
    assert [path.name for path in played.iterdir()] == [preparing.MARK]


def test_people_vote_by_their_taste_and_wait_for_an_answer() -> None:
    items = demo_items(NOW)[:200]
    rng = np.random.default_rng(1)
    everybody, chats = people.people(items, rng), Chats()
    people.arrive(chats, everybody)
    [one, *_] = everybody
    for _ in range(50):
        people.act(one, chats, lambda url: None, everybody, rng)
    assert [message["text"] for message in chats.chat(one.chat).messages.values()] == ["/start"]
    liked: Counter[bool] = Counter()
    for item in items:
        buttons = [{"text": "👍", "callback_data": "like"}, {"text": "👎", "callback_data": "dislike"}]
        content = {"text": "", "reply_markup": {"inline_keyboard": [buttons]}, "link_preview_options": {"url": item.id}}
        chat = chats.chat(one.chat)
        chats.put(chat.messages, chat.head(), BOT, content)
        chats.updates.clear()
        people.act(one, chats, {each.id: each for each in items}.get, [one], rng)
        is_own = bool(one.reader.labels & set(item.labels)) and item.language in one.reader.languages
        pressed = [update["callback_query"]["data"] for update in chats.updates if "callback_query" in update]
        if pressed and is_own:
            liked[pressed[0] == "like"] += 1
    assert liked[True] > liked[False]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def played(data: Path, set_stage: Stage, key: str) -> Iterator[tuple[Serving, sa.Engine]]:
    """The servers, the hub and the bot at work, each in a thread of its own."""
    engine = connect(None, data)
    migrate(engine)
    preparing.prepare(engine, set_stage)
    telegram = TelegramParams(api_id=1, api_hash="loopback", session_key=key)
    joining = JoiningParams(quiet_from=0, quiet_until=0)
    chosen = BotParams(token=TOKEN, api=set_stage.address, window_days=7, poll_seconds=1)
    stop = threading.Event()
    serving_params = ServingParams(joining=joining)
    listening = (engine, data, HubParams(poll_seconds=0.1), telegram, joining, stop, set_stage.clock)
    with open_serving(
        data, None, serving_params, sample=True, play=Play(set_stage.address, set_stage.clock, set_stage.speed)
    ) as serving:
        work = [
            threading.Thread(target=running.run, args=(engine, set_stage, telegram, stop)),
            threading.Thread(target=hub.follow, args=listening),
            threading.Thread(target=bot.run, args=(data, None, serving_params, chosen, stop)),
        ]
        for thread in work:
            thread.start()
        try:
            yield serving, engine
        finally:
            stop.set()
            for thread in work:
                thread.join()
            engine.dispose()


def look(address: str, person: int) -> Any:
    with urllib.request.urlopen(f"{address}/chats/{person}") as answer:
        return json.load(answer)


def posts(address: str, person: int) -> list[dict[str, Any]]:
    """Messages of the bot with votes under them, oldest first."""
    found = look(address, person)["chat"]["messages"]
    return [one for one in found if "👍" in str(one.get("reply_markup", ""))]


def until(true: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


@pytest.mark.usefixtures("few")
def test_channels_are_joined_posts_arrive_and_a_press_on_the_page_brings_the_next_post(
    data: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "ARRIVAL", 3600.0)  # nobody but the visitor speaks
    now = datetime.now(UTC)
    set_stage = Stage(now - stage.BACK, now, free_port(), free_port(), speed=2000.0)
    with played(data, set_stage, accounts.new_key()) as (serving, engine):

        def count() -> dict[str, int]:
            with reading(engine) as connection:
                return channels.count(connection)

        def numbers() -> int:
            with reading(engine) as connection:
                query = sa.select(sa.func.count()).where(database.items.c.id.like("tg:%"))
                return int(connection.scalar(query) or 0)

        joined, stored = count()["joined"], numbers()
        until(lambda: count()["joined"] >= joined + 2 and numbers() > stored)
        until(lambda: serving.play is not None and _answers(set_stage.address))
        asyncio.run(press_all(serving, set_stage.address))
        log = [one for batch in events.stream(engine, data / "events") for one in batch]
        votes = [(one.user, one.type) for one in log if one.surface == "bot" and one.type in ("like", "dislike")]
        assert votes == [(f"telegram:{people.VISITOR}", "like")]


async def page_with(browser: httpx.AsyncClient, address: str, words: str, times: int) -> str:
    """The page, once it has the words so often: messages come while it is looked at."""
    end = time.monotonic() + PATIENCE
    while (page := (await browser.get(address)).text).count(words) < times:
        assert time.monotonic() < end, f"{words!r} never came to {address}"
        await asyncio.sleep(0.05)
    return page


async def press_all(serving: Serving, address: str) -> None:
    """What a visitor of the page does: begin, like the first post, look at what that has led to."""
    transport = httpx.ASGITransport(create_app({"": serving}))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as browser:
        empty = await browser.get("/telegram")
        assert "Write /start" in empty.text
        assert 'href="/telegram"' in empty.text
        begun = await browser.post("/telegram", data={"person": "1", "text": "/start"})
        assert begun.headers["location"] == "/telegram?person=1#chat"
        await asyncio.to_thread(until, lambda: len(posts(address, 1)) == 1)
        [first] = posts(address, 1)
        await page_with(browser, "/telegram?person=1", first["link_preview_options"]["url"], 1)
        data = first["reply_markup"]["inline_keyboard"][0][0]["callback_data"]
        pressed = {"person": "1", "message": str(first["message_id"]), "data": data}
        await browser.post("/telegram", data=pressed, headers={"hx-request": "true"})
        await asyncio.to_thread(until, lambda: len(posts(address, 1)) == 2)
        await page_with(browser, "/telegram/chat?person=1", "👎", 2)
        beside = (await browser.get("/telegram/hub?person=1")).text
        assert "👍 1 · 👎 0" in beside
        assert "anna" in beside
        assert (await browser.get("/telegram?person=77")).status_code == 404
        assert (await browser.get("/telegram?person=x")).status_code == 400


def test_without_a_play_the_page_shows_accounts_and_no_chat(data: Path, sqlite_template: Path) -> None:
    async def read(serving: Serving) -> None:
        transport = httpx.ASGITransport(create_app({"": serving}))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as browser:
            page = await browser.get("/telegram")
            assert "No account yet" in page.text
            assert 'id="chat"' not in page.text
            assert 'href="/telegram"' not in page.text
            assert (await browser.get("/telegram/chat")).status_code == 404
            assert (await browser.post("/telegram", data={"text": "/start"})).status_code == 404

    with open_serving(data, None, ServingParams()) as serving:
        asyncio.run(read(serving))


def _answers(address: str) -> bool:
    try:
        look(address, people.VISITOR)
        return True
    except OSError:
        return False
