"""A real Telethon client over our loopback server: looking up, joining, listening, catching up, and what Telegram refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from palate.errors import TelegramRefused, TelegramUnreachable
from palate.loopback.telegram_server import CODE, TelegramServer
from palate.loopback.telegram_world import Account, TelegramWorld
from palate.sources import telegram
from palate.sources.telegram import Change, ChannelRef, Client

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(eq=False)
class Scene:
    """A world with a server before it, and one account that is connected."""

    world: TelegramWorld
    server: TelegramServer
    account: Account
    client: Client
    heard: list[Change] = field(default_factory=list)


def play(script: Callable[[Scene], Awaitable[None]]) -> None:
    """Run a script against a scene; afterwards the client has broken no rule."""

    async def run() -> None:
        world = TelegramWorld(lambda: NOW)
        server = TelegramServer(world)
        await server.start()
        account = world.add_account("one")
        heard: list[Change] = []
        client = await telegram.connect(server.session(account), 1, "hash", heard.append)
        try:
            await script(Scene(world, server, account, client, heard))
        finally:
            await client.close()
            await server.close()
        assert server.breaches == []

    asyncio.run(run())


async def until(true: Callable[[], bool]) -> None:
    """Wait for what another task is about to do."""
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


async def refused(call: Awaitable[object]) -> tuple[str, float | None]:
    with pytest.raises(TelegramRefused) as error:
        await call
    return error.value.code, error.value.retry_after


def test_an_account_finds_joins_mutes_and_leaves_a_channel() -> None:
    async def script(scene: Scene) -> None:
        channel = scene.world.add_channel("Habr", title="Хабр")
        found = await scene.client.resolve("habr")
        assert (found.ref.id, found.name.title, found.name.username) == (channel.id, "Хабр", "habr")
        assert (await scene.client.join(found.ref)).ref == found.ref
        await scene.client.mute(found.ref)
        assert (scene.account.joined, scene.account.muted) == ({channel.id}, {channel.id})
        pts, name = await scene.client.position(found.ref)
        assert (pts, name.username) == (1, "habr")
        await scene.client.leave(found.ref)
        assert scene.account.joined == set()

    play(script)


def test_an_invitation_leads_into_a_private_channel_also_when_we_are_in_it_or_it_was_a_group_before() -> None:
    async def script(scene: Scene) -> None:
        private = scene.world.add_channel(invite="secret")
        moved = scene.world.add_channel(invite="moved", migrated_from=5)
        assert (await scene.client.join_invite("secret")).ref.id == private.id
        assert (await scene.client.join_invite("secret")).ref.id == private.id
        assert (await scene.client.join_invite("moved")).ref.id == moved.id

    play(script)


def test_what_telegram_refuses_keeps_its_name() -> None:
    async def script(scene: Scene) -> None:
        scene.world.add_channel("open")
        scene.world.add_channel(invite="asks", asks=True)
        closed = scene.world.add_channel()
        client, ref = scene.client, (await scene.client.resolve("open")).ref
        assert await refused(client.resolve("nobody")) == ("USERNAME_NOT_OCCUPIED", None)
        assert await refused(client.join_invite("gone")) == ("INVITE_HASH_EXPIRED", None)
        assert await refused(client.join_invite("asks")) == ("INVITE_REQUEST_SENT", None)
        hidden = ChannelRef(closed.id, scene.account.access_hash(closed.id))
        assert await refused(client.join(hidden)) == ("CHANNEL_PRIVATE", None)
        assert await refused(client.difference(hidden, 1)) == ("CHANNEL_PRIVATE", None)
        assert await refused(client.join(ChannelRef(ref.id, 1))) == ("CHANNEL_INVALID", None)
        for message in ("CHANNELS_TOO_MUCH", "FROZEN_METHOD_INVALID", "USER_DEACTIVATED_BAN", "SOMETHING_NEW"):
            scene.server.fail(message, method="JoinChannel")
            assert await refused(client.join(ref)) == (message, None)
        scene.server.fail("FLOOD_WAIT_70", method="JoinChannel")
        assert await refused(client.join(ref)) == ("FLOOD_WAIT", 70.0)
        assert await refused(client.join(ref)) == ("FLOOD_WAIT", 70.0)  # Telethon itself doesn't ask again until then
        assert len(scene.server.made("JoinChannel")) == 7

    play(script)


def test_an_account_that_was_logged_out_elsewhere_says_so() -> None:
    async def script(scene: Scene) -> None:
        profile = await scene.client.profile()
        assert (profile.id, profile.premium, profile.channel_limit) == (9001, False, 500)
        for message in ("SESSION_REVOKED", "AUTH_KEY_UNREGISTERED", "USER_DEACTIVATED"):
            scene.account.refused = message
            assert await refused(scene.client.profile()) == (message, None)

    play(script)


def test_a_premium_account_may_be_in_more_channels() -> None:
    async def script(scene: Scene) -> None:
        scene.account.premium = True
        profile = await scene.client.profile()
        assert (profile.premium, profile.channel_limit) == (True, 1000)

    play(script)


def test_changes_are_heard_in_their_order() -> None:
    async def script(scene: Scene) -> None:
        world, channel = scene.world, scene.world.add_channel("habr", title="Хабр")
        await scene.client.join((await scene.client.resolve("habr")).ref)
        world.post(channel, "Привет", views=3)
        world.album(channel, ["a", ""], 7)
        world.edit(channel, 1, "Hello")
        world.count(channel, 1, views=120, forwards=3, likes=9)
        world.delete(channel, 2, 3)
        world.rename(channel, "habr_new", "New")
        await until(lambda: len(scene.heard) == 9)
        told = [(one.pts, one.message and (one.message.id, one.message.message), one.edited) for one in scene.heard]
        assert told[:3] == [(2, (1, "Привет"), False), (3, (2, "a"), False), (4, (3, ""), False)]
        assert told[3] == (5, (1, "Hello"), True)
        assert [dict(one.counters) for one in scene.heard[4:7]] == [
            {1: {"views": 120.0}},
            {1: {"forwards": 3.0}},
            {1: {"reactions": 9.0}},
        ]
        assert (scene.heard[7].deleted, scene.heard[7].pts, scene.heard[7].count) == ((2, 3), 7, 2)
        assert scene.heard[8].moved
        assert scene.heard[8].names[channel.id].username == "habr_new"

    play(script)


def test_what_was_missed_is_told_from_a_position_on() -> None:
    async def script(scene: Scene) -> None:
        world, channel = scene.world, scene.world.add_channel("habr")
        ref = (await scene.client.resolve("habr")).ref
        for number in range(130):
            world.post(channel, f"post {number}")
        world.edit(channel, 5, "edited")
        world.delete(channel, 7)
        first = await scene.client.difference(ref, 1)
        assert (first.is_final, first.pts, len(first.changes)) == (False, 101, 99)  # post 7 is gone
        second = await scene.client.difference(ref, first.pts)
        assert (second.is_final, second.pts) == (True, channel.pts)
        assert [one.deleted for one in second.changes][-1] == (7,)
        assert (await scene.client.difference(ref, second.pts)).changes == ()
        scene.server.too_long = 100
        assert (await scene.client.difference(ref, 1)).too_long

    play(script)


def test_history_albums_and_counters_are_read_without_counting_as_a_reader() -> None:
    async def script(scene: Scene) -> None:
        world, channel = scene.world, scene.world.add_channel("habr")
        ref = (await scene.client.resolve("habr")).ref
        for number in range(110):
            world.post(channel, f"post {number}")
        world.album(channel, ["one", "two", "three"], 9)
        page, names = await scene.client.history(ref)
        assert ([one.id for one in page[:2]], len(page), list(names)) == ([113, 112], 100, [channel.id])
        older, _ = await scene.client.history(ref, page[-1].id)
        assert [one.id for one in older] == list(range(13, 0, -1))
        parts, _ = await scene.client.album(ref, 112, 9)
        assert [one.id for one in parts] == [111, 112, 113]
        world.count(channel, 3, views=50, forwards=2)
        assert await scene.client.counters(ref, [3, 999]) == {3: {"views": 50.0, "forwards": 2.0}, 999: {}}

    play(script)


def test_a_line_that_was_cut_is_made_again_and_what_was_missed_comes() -> None:
    async def script(scene: Scene) -> None:
        world, channel = scene.world, scene.world.add_channel("habr")
        await scene.client.join((await scene.client.resolve("habr")).ref)
        world.post(channel, "before")
        await until(lambda: len(scene.heard) == 1)
        scene.account.hears = False
        world.post(channel, "missed")
        scene.server.drop(scene.account)
        scene.account.hears = True
        await scene.client.profile()
        world.post(channel, "after")
        await until(lambda: len(scene.heard) == 3)
        assert [one.message.message for one in scene.heard] == ["before", "missed", "after"]

    play(script)


def test_without_a_server_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        server = TelegramServer(TelegramWorld(lambda: NOW))
        await server.start()
        session = server.session(server.world.add_account("one"))
        await server.close()
        with pytest.raises(TelegramUnreachable, match="Telegram doesn't answer"):
            await telegram.connect(session, 1, "hash")

    asyncio.run(run())


def test_an_account_logs_in_with_code_and_password_and_the_session_is_good_afterwards() -> None:
    async def script(scene: Scene) -> None:
        account = scene.world.add_account("two", password="sesame")
        client = await telegram.connect(scene.server.session(None), 1, "hash")
        profile = await telegram.log_in(client, account.phone, lambda: CODE, lambda: "sesame")
        session = client.session()
        await client.close()
        again = await telegram.connect(session, 1, "hash")
        assert (profile.phone, await again.profile()) == (account.phone, profile)
        await again.close()

    play(script)


@pytest.mark.parametrize(
    ("code", "password", "error"), [("11111", "", "PHONE_CODE_INVALID"), (CODE, "wrong", "PASSWORD_HASH_INVALID")]
)
def test_a_wrong_code_or_password_logs_nobody_in(code: str, password: str, error: str) -> None:
    async def script(scene: Scene) -> None:
        account = scene.world.add_account("two", password="sesame")
        client = await telegram.connect(scene.server.session(None), 1, "hash")
        assert await refused(telegram.log_in(client, account.phone, lambda: code, lambda: password)) == (error, None)
        assert account.keys == []
        await client.close()

    play(script)
