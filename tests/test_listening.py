"""The hub, with real Telethon clients over loopback: what is posted becomes items, each once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hub_world import NIGHTLESS, START, Scene, play
from telethon.tl import types

from palate import accounts, alerts, catalog, channels, hub, ingest, subscriptions
from palate.accounts import TelegramParams
from palate.database import connect, migrate, reading, writing
from palate.errors import NotDurable
from palate.hub_params import HubParams
from palate.loopback.telegram_server import TelegramServer
from palate.loopback.telegram_world import TelegramWorld

TEXT = "The team won the match after two goals in the second half, and the coach was content with his players."
GERMAN = "Die Mannschaft hat das Spiel nach zwei Toren gewonnen, und der Trainer war zufrieden."
HOUR = timedelta(hours=1)


@pytest.fixture
def engine(sqlite_engine: sa.Engine) -> sa.Engine:
    """SQLite alone: what differs between databases is tested where the tables are."""
    return sqlite_engine


def alert_kinds(engine: sa.Engine) -> set[tuple[str, str]]:
    with reading(engine) as connection:
        return {(one.kind, one.subject) for one in alerts.list_alerts(connection)}


def state_of(engine: sa.Engine, name: str) -> str:
    with reading(engine) as connection:
        return accounts.get(connection, name).state


def test_what_a_channel_publishes_becomes_items(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(scene: Scene) -> None:
        one = scene.account("one")
        habr = scene.channel("habr", category="sports")
        scene.world.post(habr, "long ago", date=scene.clock.now - timedelta(days=9))
        scene.world.post(habr, TEXT, views=7)
        await scene.until(lambda: len(scene.items()) == 1)
        assert one.muted == one.joined == {habr.id}
        scene.world.post(habr, "Second post")
        scene.world.album(habr, ["An album", ""], 5)
        await scene.until(lambda: len(scene.items()) == 3)
        id = f"tg:{habr.id}:"
        first = scene.items()[id + "2"]
        assert (first.title, first.text, first.language, first.category) == (None, None, "en", "sports")
        assert (first.url, first.labels) == ("https://t.me/habr/2", ["sports"])
        assert scene.counted(id + "2") == {"views": 7.0, "forwards": 0.0}
        scene.world.count(habr, 2, views=120, forwards=4, likes=9)
        scene.world.edit(habr, 3, GERMAN)
        await scene.until(lambda: scene.items()[id + "3"].language == "de")
        assert scene.counted(id + "2") == {"views": 120.0, "forwards": 4.0, "reactions": 9.0}
        scene.world.delete(habr, 3, 4, 5)
        await scene.until(lambda: set(scene.items()) == {id + "2"})

    play(engine, script, monkeypatch)


def test_texts_are_kept_where_the_owner_wants_it_and_the_channel_allows_it(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        scene.account("one")
        habr = scene.channel("habr")
        scene.world.post(habr, TEXT)
        scene.world.post(habr, TEXT, noforwards=True)
        await scene.until(lambda: len(scene.items()) == 2)
        texts = {id: (item.text, item.language) for id, item in scene.items().items()}
        assert texts == {f"tg:{habr.id}:1": (TEXT, "en"), f"tg:{habr.id}:2": (None, "en")}

    play(engine, script, monkeypatch, keep_text=True)


def test_an_edited_album_is_read_whole_and_a_part_that_is_gone_leaves_the_rest(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        scene.account("one")
        habr = scene.channel("habr")
        await scene.join(1)
        scene.world.album(habr, ["", TEXT, "", "", "", "", "", "", "", ""], 5)
        await scene.until(lambda: len(scene.items()) == 1)
        id = f"tg:{habr.id}:1"
        assert scene.items()[id].language == "en"
        scene.world.edit(habr, 2, GERMAN)
        await scene.until(lambda: scene.items()[id].language == "de")
        scene.world.delete(habr, 10)
        scene.world.edit(habr, 9, "x")
        await scene.step()
        await scene.step()
        assert list(scene.items()) == [id]
        assert scene.items()[id].language == "de"

    play(engine, script, monkeypatch)


def forward(channel: int, message: int) -> Any:
    return types.MessageFwdHeader(date=START, from_id=types.PeerChannel(channel), channel_post=message)


def test_a_forwarded_post_is_the_original_and_its_channel_becomes_a_candidate(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        scene.account("one")
        habr, digest = scene.channel("habr"), scene.channel("digest")
        stranger = scene.channel("stranger", wanted=False)
        scene.world.post(habr, TEXT)
        await scene.join(2)
        await scene.until(lambda: len(scene.items()) == 1)
        scene.world.post(digest, TEXT, fwd_from=forward(habr.id, 1))
        scene.world.post(digest, GERMAN + " @digest @other_one", fwd_from=forward(stranger.id, 77))
        await scene.until(lambda: len(scene.items()) == 2)
        assert {item.url for item in scene.items().values()} == {"https://t.me/habr/1", "https://t.me/stranger/77"}
        with reading(engine) as connection:
            found = {one.channel.username: one for one in channels.candidates(connection, 9)}
        assert {name: one.mentions for name, one in found.items()} == {"stranger": 1, "other_one": 1}
        assert found["stranger"].channel.telegram_id == stranger.id

    play(engine, script, monkeypatch)


def test_channels_that_posts_name_are_counted_once_for_each_source(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        scene.account("one")
        habr, digest = scene.channel("habr"), scene.channel("digest")
        stranger = scene.channel("stranger", wanted=False)
        await scene.join(2)
        for channel in (habr, digest):
            scene.world.post(channel, "The very same", fwd_from=forward(stranger.id, 77))
        hidden = types.MessageEntityTextUrl(0, 4, "https://t.me/by_link/15")
        scene.world.post(habr, "Here and t.me/+AbCdEfGhIjK, by @by_name", entities=[hidden])
        await scene.until(lambda: len(scene.items()) == 2)
        scene.world.edit(habr, 2, "Now @by_name only")
        await scene.until(lambda: scene.hub.lines[1].channels[habr.id].reached == habr.pts)
        await scene.step()
        with reading(engine) as connection:
            found = {one.channel.address: (one.sources, one.mentions) for one in channels.candidates(connection, 9)}
        named = dict.fromkeys(["https://t.me/by_link", "https://t.me/by_name", "https://t.me/+AbCdEfGhIjK"], (1, 1))
        assert found == {"https://t.me/stranger": (2, 2), **named}

    play(engine, script, monkeypatch)


def test_a_renamed_channel_keeps_its_items_under_new_addresses(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        scene.account("one")
        habr = scene.channel("habr")
        scene.world.post(habr, TEXT)
        await scene.until(lambda: len(scene.items()) == 1)
        scene.world.rename(habr, "Habr_Daily", "Daily <b>Habr</b>")
        await scene.until(lambda: "https://t.me/habr_daily" in scene.pool())
        [item] = scene.items().values()
        assert (item.url, item.language) == ("https://t.me/habr_daily/1", "en")
        with reading(engine) as connection:
            [source] = subscriptions.list_sources(connection)
        assert (source.kind, source.address, source.title) == ("telegram", "https://t.me/habr_daily", "Daily Habr")
        scene.world.rename(habr, None, "Hidden")
        await scene.until(lambda: scene.items()[f"tg:{habr.id}:1"].url == f"https://t.me/c/{habr.id}/1")

    play(engine, script, monkeypatch)


def test_a_channel_that_shuts_us_out_is_given_up_and_its_items_stay(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        one = scene.account("one")
        habr, other = scene.channel("habr"), scene.channel("other")
        scene.world.post(habr, TEXT)
        await scene.join(2)
        await scene.until(lambda: len(scene.items()) == 1)
        scene.world.expel(habr, one)
        await scene.until(lambda: scene.pool()["https://t.me/habr"] == "failed")
        scene.world.post(other, GERMAN)
        await scene.until(lambda: len(scene.items()) == 2)

    play(engine, script, monkeypatch)


def test_who_asked_to_be_let_in_listens_as_soon_as_the_owner_allows_it(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        one = scene.account("one")
        club = scene.world.add_channel(invite="club", asks=True, title="Club")
        with writing(engine) as connection:
            channels.add(connection, scene.clock.now, invite="club")
        await scene.until(lambda: scene.pool()["https://t.me/+club"] == "requested")
        one.joined.add(club.id)
        scene.world.rename(club, None, "The club")
        scene.world.post(club, TEXT)
        await scene.until(lambda: len(scene.items()) == 1)
        assert scene.items()[f"tg:{club.id}:1"].url == f"https://t.me/c/{club.id}/1"

    play(engine, script, monkeypatch)


def test_who_is_never_let_in_gives_up_after_some_weeks(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(scene: Scene) -> None:
        scene.account("one")
        scene.world.add_channel(invite="club", asks=True, title="Club")
        with writing(engine) as connection:
            channels.add(connection, scene.clock.now, invite="club")
        await scene.until(lambda: scene.pool()["https://t.me/+club"] == "requested")
        for _ in range(27):
            await scene.step(timedelta(days=1))
        assert scene.pool()["https://t.me/+club"] == "requested"
        await scene.step(timedelta(days=2))
        with reading(engine) as connection:
            [club] = channels.list_channels(connection)
        assert (club.state, club.error) == (
            "failed",
            "Its owner was asked on 2026-03-02 to let us in, and hasn't answered.",
        )
        assert scene.server.made("CheckChatInvite") == []

    play(engine, script, monkeypatch)


def test_channels_that_an_account_is_in_for_its_owner_take_its_places(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        one = scene.account("one")
        for number in range(130):
            one.joined.add(scene.world.add_channel(f"owners_{number:03}").id)
        scene.channel("habr")
        await scene.join(131)
        await scene.restart()
        await scene.step()
        with reading(engine) as connection:
            assert accounts.get(connection, "one").other_channels == 130
        assert len(scene.server.made("GetDialogs")) == 4

    play(engine, script, monkeypatch)


def test_an_account_that_cannot_be_reached_holds_up_nobody(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(scene: Scene) -> None:
        with writing(engine) as connection:
            key = accounts.add(connection, "away", None, scene.clock.now).key
            session = TelegramServer(scene.world).session(None)  # where nobody listens
            accounts.log_in(connection, key, session, scene.telegram, scene.clock.now - timedelta(days=30))
        two = scene.account("two")
        scene.channel("habr")
        await scene.until(lambda: len(two.joined) == 1, timedelta(minutes=1), steps=3)
        assert state_of(engine, "away") == "active"

    play(engine, script, monkeypatch)


def test_updates_that_were_lost_are_found(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(scene: Scene) -> None:
        one = scene.account("one")
        habr, quiet = scene.channel("habr"), scene.channel("quiet")
        await scene.join(2)
        scene.world.post(habr, "Heard")
        scene.world.post(quiet, "Heard too")
        await scene.until(lambda: len(scene.items()) == 2)
        one.hears = False
        scene.world.post(habr, "Lost")
        scene.world.post(quiet, "Lost as well")
        scene.world.delete(habr, 1)
        one.hears = True
        scene.world.post(habr, "After a gap")
        await scene.until(lambda: {f"tg:{habr.id}:{id}" for id in (2, 3)} <= scene.items().keys())
        await scene.until(lambda: f"tg:{habr.id}:1" not in scene.items(), steps=20)
        await scene.until(lambda: f"tg:{quiet.id}:2" in scene.items(), timedelta(minutes=5), steps=15)

    play(engine, script, monkeypatch)


def test_after_a_long_absence_the_history_is_read_and_what_is_missing_in_it_was_deleted(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        scene.account("one")
        habr = scene.channel("habr")
        for number in range(5):
            scene.world.post(habr, f"Post {number}")
        await scene.until(lambda: len(scene.items()) == 5)
        await scene.restart()
        scene.world.delete(habr, 3)
        for number in range(130):
            scene.world.post(habr, f"Missed {number}")
        scene.server.too_long = 100
        await scene.until(lambda: len(scene.items()) == 134)
        assert f"tg:{habr.id}:3" not in scene.items()
        assert len(scene.server.made("GetHistory")) == 3

    play(engine, script, monkeypatch)


def test_what_was_found_but_not_stored_when_we_died_is_found_again(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        scene.account("one")
        habr = scene.channel("habr")
        scene.world.post(habr, "An hour old", date=scene.clock.now - timedelta(hours=1))
        await scene.until(lambda: bool(scene.server.made("GetHistory")))
        assert scene.items() == {}
        await scene.restart()
        await scene.until(lambda: len(scene.items()) == 1, steps=20)
        scene.clock.now += timedelta(hours=2)
        await scene.restart()
        scene.server.too_long = 2
        for number in range(3):
            scene.world.post(habr, f"Missed {number}", date=scene.clock.now - timedelta(hours=1))
        await scene.until(lambda: len(scene.server.made("GetHistory")) == 3)
        await scene.restart()
        await scene.until(lambda: len(scene.items()) == 4, steps=20)

    play(engine, script, monkeypatch)


def test_each_post_comes_exactly_once_through_cut_lines_crashes_and_full_disks(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        everybody = [scene.account(name) for name in ("one", "two", "three")]
        many = [scene.channel(f"channel_{number:02}") for number in range(6)]
        await scene.join(6)
        rng, posted = np.random.default_rng(5), set[str]()
        refuse = [False]
        original = ingest.store_items

        def store_or_fail(*arguments: Any, **options: Any) -> Any:
            if refuse[0]:
                raise NotDurable("The database can't be written: the disk is full.")
            return original(*arguments, **options)

        monkeypatch.setattr(ingest, "store_items", store_or_fail)
        for turn in range(48):
            channel = many[int(rng.integers(6))]
            fate = int(rng.integers(8))
            everybody[turn % 3].hears = fate != 1
            if fate == 0:
                ids = scene.world.album(channel, ["One", "", "Three"], 1000 + turn)[:1]
            else:
                ids = [scene.world.post(channel, f"Post {turn}")]
            posted |= {f"tg:{channel.id}:{id}" for id in ids}
            if fate == 2:
                scene.server.drop(everybody[turn % 3])
            if fate == 3 and turn % 4 == 0:
                await scene.restart()
            refuse[0] = fate == 4
            with failing(refuse[0]):
                await scene.step()
            if fate == 5:
                scene.world.edit(channel, ids[0], f"Edited {turn}")
            if fate == 6:
                scene.world.delete(channel, ids[0])
                posted.discard(f"tg:{channel.id}:{ids[0]}")
        refuse[0] = False
        for account in everybody:
            account.hears = True
        await scene.until(lambda: set(scene.items()) == posted, timedelta(minutes=1), steps=120)

    play(engine, script, monkeypatch)


@contextmanager
def failing(expected: bool) -> Iterator[None]:
    """A step may fail while the database can't be used, and then only by that."""
    try:
        yield
    except NotDurable:
        assert expected


def test_a_banned_accounts_channels_go_to_the_others_who_go_on_where_it_was(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        one, two = scene.account("one"), scene.account("two")
        many = [scene.channel(f"channel_{number}") for number in range(4)]
        await scene.join(4)
        assert (len(one.joined), len(two.joined)) == (2, 2)
        mine = [channel for channel in many if channel.id in one.joined]
        one.refused = "USER_DEACTIVATED_BAN"
        one.joined.clear()
        scene.world.post(mine[0], TEXT)
        await scene.until(lambda: state_of(engine, "one") == "banned", timedelta(minutes=5))
        assert ("account_banned", "one") in alert_kinds(engine)
        await scene.until(lambda: two.joined == {channel.id for channel in many}, timedelta(minutes=5))
        await scene.until(lambda: len(scene.items()) == 1)

    play(engine, script, monkeypatch)


def test_a_frozen_account_joins_nothing_more(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(scene: Scene) -> None:
        one, two = scene.account("one"), scene.account("two")
        one.frozen = True
        for number in range(4):
            scene.channel(f"channel_{number}")
        await scene.until(lambda: len(two.joined) == 4, timedelta(minutes=5))
        assert (one.joined, state_of(engine, "one")) == (set(), "frozen")
        assert len(scene.server.made("JoinChannel", "one")) == 1

    play(engine, script, monkeypatch)


@pytest.mark.parametrize("reason", ["SESSION_REVOKED", "AUTH_KEY_UNREGISTERED"])
def test_an_account_that_was_logged_out_elsewhere_keeps_its_channels_for_its_next_login(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    async def script(scene: Scene) -> None:
        one = scene.account("one")
        habr = scene.channel("habr")
        await scene.join(1)
        one.refused = reason
        await scene.until(lambda: state_of(engine, "one") == "logged_out", timedelta(minutes=5))
        assert ("account_logged_out", "one") in alert_kinds(engine)
        assert scene.hub.lines == {}
        scene.world.post(habr, TEXT)
        one.refused = None
        with writing(engine) as connection:
            key = accounts.get(connection, "one").key
            accounts.log_in(connection, key, scene.server.session(one), scene.telegram, scene.clock.now)
        await scene.until(lambda: len(scene.items()) == 1, timedelta(minutes=1))

    play(engine, script, monkeypatch)


def test_a_wait_that_telegram_asks_for_is_kept(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(scene: Scene) -> None:
        scene.account("one")
        scene.channel("habr")
        await scene.join(1)
        await scene.step(HOUR)
        scene.server.fail("FLOOD_WAIT_7200", method="GetChannelDifference")
        await scene.until(lambda: scene.server.made("GetChannelDifference")[-1].error is not None, timedelta(minutes=5))
        asked = len(scene.server.calls)
        began = scene.clock.now
        await scene.until(lambda: scene.clock.now - began > timedelta(minutes=110), timedelta(minutes=5))
        assert len(scene.server.calls) == asked
        await scene.until(lambda: len(scene.server.made("GetChannelDifference")) >= 3, timedelta(minutes=5))
        with reading(engine) as connection:
            flood = accounts.get(connection, "one").flood_until
        assert flood == began + timedelta(seconds=7200)

    play(engine, script, monkeypatch)


def test_a_clock_that_jumps_neither_stops_the_sweeps_nor_makes_a_storm_of_them(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        one = scene.account("one")
        habr = scene.channel("habr")
        await scene.join(1)
        await scene.step()

        async def is_swept() -> None:
            asked = len(scene.server.made("GetChannelDifference"))
            await scene.until(
                lambda: len(scene.server.made("GetChannelDifference")) > asked, timedelta(minutes=5), steps=30
            )
            await scene.step()
            assert len(scene.server.made("GetChannelDifference")) <= asked + 2

        await is_swept()
        scene.clock.now += timedelta(days=400)
        await is_swept()
        scene.clock.now -= timedelta(days=500)
        await is_swept()
        scene.server.drop(one)
        scene.world.post(habr, TEXT, date=scene.clock.now)
        await scene.until(lambda: len(scene.items()) == 1, timedelta(minutes=5), steps=30)

    play(engine, script, monkeypatch)


def test_a_clock_that_was_ahead_holds_up_neither_joins_nor_what_was_missed(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        scene.clock.now += timedelta(days=400)
        scene.account("one", days=0)
        habr = scene.channel("habr")
        await scene.join(1)
        await scene.step()
        scene.clock.now -= timedelta(days=400)
        scene.channel("other")
        await scene.until(lambda: scene.joined() == 2, timedelta(minutes=5), steps=12)
        await scene.restart()
        with writing(engine) as connection:
            heard = scene.clock.now + timedelta(days=400)
            [source] = [one for one in subscriptions.list_sources(connection) if one.address.endswith("habr")]
            subscriptions.note_heard(connection, source.key, heard)
        for number in range(3):
            scene.world.post(habr, f"Missed {number}")
        scene.server.too_long = 2
        await scene.until(lambda: len(scene.items()) == 3)

    play(engine, script, monkeypatch)


def test_names_that_change_hands_go_with_their_channels(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(scene: Scene) -> None:
        scene.account("one")
        first, second = scene.channel("first"), scene.channel("second")
        await scene.join(2)
        for channel in (first, second):
            scene.world.post(channel, TEXT)
        await scene.until(lambda: len(scene.items()) == 2)
        scene.world.rename(first, None, "The first")
        scene.world.rename(second, "First", "The second")  # which may be heard before the other has lost it
        await scene.until(lambda: scene.items()[f"tg:{second.id}:1"].url == "https://t.me/first/1")
        await scene.until(lambda: scene.items()[f"tg:{first.id}:1"].url == f"https://t.me/c/{first.id}/1")
        stranger = scene.world.add_channel("second", title="A stranger")
        scene.world.post(stranger, "Of no interest")
        scene.world.post(second, GERMAN)
        await scene.until(lambda: len(scene.items()) == 3)
        assert scene.items()[f"tg:{second.id}:2"].url == "https://t.me/first/2"
        with reading(engine) as connection:
            addresses = {one.title: one.address for one in subscriptions.list_sources(connection)}
        assert addresses == {"The first": f"tg:{first.id}", "The second": "https://t.me/first"}

    play(engine, script, monkeypatch)


def test_what_the_owner_does_with_a_channel_counts(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(scene: Scene) -> None:
        one = scene.account("one")
        habr, other = scene.channel("habr"), scene.channel("other")
        await scene.join(2)
        with writing(engine) as connection:
            [source] = [one for one in subscriptions.list_sources(connection) if one.address == "https://t.me/habr"]
            subscriptions.pause(connection, source.id)
        await scene.step(timedelta(minutes=2))
        scene.world.post(habr, "Not heard")
        scene.world.post(other, TEXT)
        await scene.until(lambda: len(scene.items()) == 1)
        with writing(engine) as connection:
            subscriptions.resume(connection, source.id, scene.clock.now)
            found = channels.find(connection, username="other")
            assert found is not None
            channels.set_state(connection, found.key, "left")
        await scene.until(lambda: one.joined == {habr.id} and len(scene.items()) == 2, timedelta(minutes=1))

    play(engine, script, monkeypatch)


def test_candidates_beyond_the_best_are_forgotten_once_a_day(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "prune_candidates", partial(channels.prune_candidates, keep=1))

    def left() -> set[str | None]:
        with reading(engine) as connection:
            return {one.channel.username for one in channels.candidates(connection, 9)}

    async def script(scene: Scene) -> None:
        scene.account("one")
        habr = scene.channel("habr")
        await scene.join(1)
        scene.world.post(habr, TEXT + " @often_named @seldom_named")
        scene.world.post(habr, GERMAN + " @often_named")
        await scene.until(lambda: left() == {"often_named", "seldom_named"})
        await scene.until(lambda: left() == {"often_named"}, timedelta(hours=30))

    play(engine, script, monkeypatch)


def test_counters_are_kept_up_for_some_days(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(scene: Scene) -> None:
        one = scene.account("one")
        habr = scene.channel("habr")
        scene.world.post(habr, TEXT)
        await scene.until(lambda: len(scene.items()) == 1)
        one.hears = False
        scene.world.count(habr, 1, views=500, forwards=7)
        await scene.until(lambda: scene.counted(f"tg:{habr.id}:1").get("views") == 500.0, HOUR / 2, steps=20)
        await scene.until(lambda: scene.clock.now > START + timedelta(days=4), 4 * HOUR)
        asked = len(scene.server.made("GetMessagesViews"))
        await scene.step(timedelta(hours=7))
        assert len(scene.server.made("GetMessagesViews")) == asked > 4

    play(engine, script, monkeypatch)


def test_without_an_account_nothing_of_telegram_is_loaded(data: Path) -> None:
    code = """
import sys, threading
from datetime import UTC, datetime
from pathlib import Path
from palate import hub
from palate.accounts import TelegramParams
from palate.database import connect, migrate
from palate.hub_params import HubParams
from palate.sources.joining import JoiningParams
engine = connect(None, Path(sys.argv[1]))
migrate(engine)
stop = threading.Event()
threading.Timer(0.3, stop.set).start()
hub.follow(engine, Path(), HubParams(poll_seconds=0.1), TelegramParams(), JoiningParams(), stop, lambda: datetime.now(UTC))
print("telethon" in sys.modules, "numba" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, str(data)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_hub_starts_with_the_first_account_and_stops_when_it_is_told(data: Path, sqlite_template: Path) -> None:
    async def post_and_wait(engine: sa.Engine) -> None:
        clock = datetime.now
        server = TelegramServer(TelegramWorld(lambda: clock(UTC)))
        await server.start()
        telegram = TelegramParams(api_id=1, api_hash="hash", session_key=accounts.new_key())
        stop = threading.Event()
        follow = (
            engine,
            data,
            HubParams(poll_seconds=0.1, album_seconds=0.5),
            telegram,
            NIGHTLESS,
            stop,
            lambda: clock(UTC),
        )
        listener = threading.Thread(target=hub.follow, args=follow)
        listener.start()
        there = server.world.add_account("one")
        habr = server.world.add_channel("habr")
        with writing(engine) as connection:
            key = accounts.add(connection, "one", None, clock(UTC)).key
            accounts.log_in(connection, key, server.session(there), telegram, clock(UTC) - timedelta(days=9))
            channels.add(connection, clock(UTC), username="habr")
        server.world.post(habr, TEXT)
        async with asyncio.timeout(60):
            while not stored(engine):
                await asyncio.sleep(0.05)
        stop.set()
        await asyncio.to_thread(listener.join)
        await server.close()

    def stored(engine: sa.Engine) -> bool:
        with reading(engine) as connection:
            return catalog.get(connection, "tg:1000001:1") is not None

    engine = connect(None, data)
    migrate(engine)
    asyncio.run(post_and_wait(engine))
    engine.dispose()
