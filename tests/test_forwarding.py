"""Posts that the bot wants to copy get into its staging channel: real Telethon clients before a loopback Telegram."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa
from hub_world import Scene, play
from telethon.tl import types

from palate import staging, telegram_tables
from palate.database import reading, writing
from palate.loopback.telegram_world import Account, Channel


@pytest.fixture
def engine(sqlite_engine: sa.Engine) -> sa.Engine:
    return sqlite_engine


def stage(scene: Scene, *accounts: Account) -> Channel:
    """A staging channel into which these accounts may publish."""
    channel = scene.world.add_channel(title="Staging")
    for account in accounts:
        account.joined.add(channel.id)
        account.writes.add(channel.id)
    scene.staging = scene.hub.staging = channel.id
    return channel


def want(scene: Scene, *items: str) -> None:
    with writing(scene.engine) as connection:
        for item in items:
            staging.want(connection, item, scene.clock.now)


def states(scene: Scene) -> dict[str, tuple[str, list[int]]]:
    table = telegram_tables.bot_staged
    with reading(scene.engine) as connection:
        return {row.item: (row.state, row.messages) for row in connection.execute(sa.select(table))}


def test_wanted_posts_and_albums_are_forwarded_whole(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(scene: Scene) -> None:
        one = scene.account("one")
        lying = stage(scene, one)
        habr, digest = scene.channel("habr"), scene.channel("digest")
        await scene.join(3)
        scene.world.post(habr, "First")
        scene.world.album(habr, ["Album", "", ""], 7)
        scene.world.post(habr, "After the album")
        origin = types.MessageFwdHeader(scene.clock.now, from_id=types.PeerChannel(habr.id), channel_post=900)
        scene.world.post(digest, "Forwarded", fwd_from=origin)
        await scene.until(lambda: len(scene.items()) == 4)
        album, last, again = f"tg:{habr.id}:2", f"tg:{habr.id}:5", f"tg:{digest.id}:1"
        want(scene, album, last, again, "tg:77:1", "no post of Telegram")
        await scene.until(lambda: states(scene)[again][0] == "staged", timedelta(seconds=10))
        assert states(scene) == {
            album: ("staged", [1, 2, 3]),
            last: ("staged", [4]),
            again: ("staged", [5]),
            "tg:77:1": ("wanted", []),
            "no post of Telegram": ("wanted", []),
        }
        assert [post.fwd_from.channel_post for post in lying.posts.values()] == [2, 3, 4, 5, 900]
        assert [len(call.request.id) for call in scene.server.made("ForwardMessages")] == [4, 1]
        await scene.step(timedelta(days=1.5))
        assert states(scene).keys() == {album, last, again}  # nobody could forward the others

    play(engine, script, monkeypatch)


def test_what_a_channel_forbids_to_copy_and_what_is_gone_is_refused(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        stage(scene, scene.account("one"))
        habr, closed = scene.channel("habr"), scene.channel("closed")
        closed.noforwards = True
        await scene.join(3)
        gone, kept = scene.world.post(habr, "Gone"), scene.world.post(habr, "Kept")
        scene.world.post(closed, "Closed")
        await scene.until(lambda: len(scene.items()) == 3)
        del habr.posts[gone]
        ids = [f"tg:{habr.id}:{gone}", f"tg:{habr.id}:{kept}", f"tg:{closed.id}:1"]
        want(scene, *ids)
        await scene.until(lambda: states(scene)[ids[2]][0] == "refused", timedelta(seconds=10))
        assert [states(scene)[id][0] for id in ids] == ["refused", "staged", "refused"]

    play(engine, script, monkeypatch)


def test_a_wait_leaves_posts_wanted_and_an_account_without_the_right_forwards_nothing(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(scene: Scene) -> None:
        one, two = scene.account("one"), scene.account("two")
        lying = stage(scene, one)
        two.joined.add(lying.id)
        habr, other = scene.channel("habr"), scene.channel("other")
        await scene.join(4)
        ids = {channel: f"tg:{channel.id}:{scene.world.post(channel, 'Post')}" for channel in (habr, other)}
        mine, its = (habr, other) if habr.id in one.joined else (other, habr)
        await scene.until(lambda: len(scene.items()) == 2)
        scene.server.fail("FLOOD_WAIT_600", method="ForwardMessages")
        want(scene, *ids.values())
        await scene.step(timedelta(seconds=10))
        began = scene.clock.now
        assert states(scene)[ids[mine]] == ("wanted", [])
        await scene.until(lambda: states(scene)[ids[mine]] == ("staged", [1]), timedelta(minutes=1), steps=20)
        assert scene.clock.now - began >= timedelta(seconds=600)
        assert states(scene)[ids[its]] == ("wanted", [])

    play(engine, script, monkeypatch)
