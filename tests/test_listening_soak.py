"""The hub at full size: 500 channels joined by three accounts over simulated weeks, and 10,000 posts of 500 channels.

Left to `make soak`, but for a small run of each.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
import sqlalchemy as sa
from hub_world import Scene, play

from palate import accounts, channels, joins, memberships, subscriptions
from palate.database import reading, writing
from palate.hub_params import HubParams
from palate.loopback.telegram_server import Call
from palate.loopback.telegram_world import Channel
from palate.sources.joining import Idle, JoiningParams

RARE = HubParams(shortest_sweep=5760, longest_sweep=10_080, counter_hours=720)
"""Simulated weeks would be nothing but sweeps otherwise."""
DAY = timedelta(days=1)


@pytest.fixture
def engine(sqlite_engine: sa.Engine) -> sa.Engine:
    """SQLite alone: what differs between databases is tested where the tables are."""
    return sqlite_engine


def keeps_the_limits(calls: list[Call], params: JoiningParams, since: datetime) -> None:
    """By the server's own account: joins a day, pauses between them, rest at night and in the first days."""
    joins = [call.time for call in calls if call.method in ("JoinChannel", "ImportChatInvite")]
    gaps = [later - earlier for earlier, later in pairwise(joins)]
    assert min(gaps, default=DAY) >= timedelta(minutes=params.pause_minutes)
    assert all(
        joins[place + params.joins_per_day] - time >= DAY for place, time in enumerate(joins[: -params.joins_per_day])
    )
    assert all(params.quiet_until <= time.hour < params.quiet_from for time in joins)
    assert all(time >= since + timedelta(days=params.first_days) for time in joins)
    looked_up = [call.time for call in calls if call.method == "ResolveUsername"]
    assert all(sum(time - DAY < one <= time for one in looked_up) <= params.resolves_per_day for time in looked_up)


@pytest.mark.parametrize("number", [8, pytest.param(500, marks=pytest.mark.soak)])
def test_channels_are_joined_over_weeks_under_every_limit(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    params = JoiningParams()

    async def script(scene: Scene) -> None:
        began = scene.clock.now
        names = ["one", "two", "three"]
        for name in names:
            scene.account(name, days=0)
        for place in range(number):
            scene.channel(f"channel_{place:03}")
        rng = np.random.default_rng(3)
        while (inside := joined(engine)) < number:
            assert scene.clock.now < began + timedelta(days=10 + number / 4)
            if rng.random() < 0.008:
                scene.server.fail(f"FLOOD_WAIT_{int(rng.integers(60, 40_000))}", method="JoinChannel")
            if rng.random() < 0.004:
                await scene.restart()
            if inside >= number // 2 and "four" not in scene.world.accounts:
                scene.world.accounts["one"].refused = "USER_DEACTIVATED_BAN"
                scene.world.accounts["two"].frozen = True
                scene.account("four", days=0)
                scene.account("five", days=0)
                names += ["four", "five"]
            await scene.step(until_due(engine, params, scene.clock.now))
        with reading(engine) as connection:
            states = {one.name: one.state for one in accounts.list_accounts(connection)}
            attempts = memberships.count_outcomes(connection)
        assert (states["one"], states["two"], states["three"]) == ("banned", "frozen", "active")
        assert Counter(scene.pool().values()) == {"joined": number}
        for name in names:
            keeps_the_limits([call for call in scene.server.calls if call.account == name], params, scene.added[name])
        print(f"{number} channels in {(scene.clock.now - began) / DAY:.1f} days, {attempts}; {figures(scene)}")

    play(engine, script, monkeypatch, joining=params, params=RARE)


def until_due(engine: sa.Engine, params: JoiningParams, now: datetime) -> timedelta:
    """Till when nothing happens but sweeps, which may wait a little; between a second and two hours."""
    with reading(engine) as connection:
        action = joins.next_action(connection, params, now)
    due = action.until if isinstance(action, Idle) else now
    return min(max((due or now + DAY) - now, timedelta(seconds=1)), timedelta(hours=2))


def figures(scene: Scene) -> str:
    """What the server saw, of each account: joins and look-ups within 24 hours at most, the shortest pause, waits."""
    calls = scene.server.calls
    tried = ("JoinChannel", "ImportChatInvite")
    lines = []
    for name in scene.world.accounts:
        times = [call.time for call in calls if call.account == name and call.method in tried]
        looked_up = [call.time for call in scene.server.made("ResolveUsername", name)]
        pause = min((later - earlier for earlier, later in pairwise(times)), default=DAY)
        lines.append(f"{name}: {len(times)}, {most(times)} a day, {most(looked_up)} look-ups a day, pause {pause}")
    waits = [call for call in calls if call.error is not None and call.error.startswith("FLOOD_WAIT")]
    return f"{len(waits)} waits; {'; '.join(lines)}; {dict(Counter(call.method for call in calls))}"


def most(times: list[datetime]) -> int:
    """Of these within any 24 hours."""
    return max((sum(time - DAY < one <= time for one in times) for time in times), default=0)


def joined(engine: sa.Engine) -> int:
    with reading(engine) as connection:
        return sum(memberships.count_joined(connection).values())


@pytest.mark.parametrize(("number", "posts"), [(12, 240), pytest.param(500, 10_000, marks=pytest.mark.soak)])
def test_every_post_of_many_channels_comes_in_exactly_once(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, number: int, posts: int
) -> None:
    async def script(scene: Scene) -> None:
        everybody = [scene.account(name) for name in ("one", "two", "three")]
        many = [scene.channel(f"channel_{place:03}") for place in range(number)]
        already_in(scene, many)
        rng, wanted, times = np.random.default_rng(4), set[str](), Counter[str]()
        published = 0
        while published < posts:
            channel = many[int(rng.integers(number))]
            account = next(one for one in everybody if channel.id in one.joined)
            fate = rng.random()
            account.hears = fate > 0.02
            if fate > 0.9:
                size = int(rng.integers(2, 11))
                ids = scene.world.album(channel, [f"Album {published}"] + [""] * (size - 1), 10**6 + published)
            else:
                ids = [scene.world.post(channel, f"Post {published} of this channel, with some words about football")]
            account.hears = True
            published += 1
            wanted.add(f"tg:{channel.id}:{ids[0]}")
            if fate < 0.05:
                scene.world.edit(channel, ids[0], f"Edited {published}")
            elif fate < 0.08:
                scene.world.delete(channel, *ids)
                wanted.discard(f"tg:{channel.id}:{ids[0]}")
            if rng.random() < 0.002:
                scene.server.drop(account)
            if rng.random() < 0.001:
                await scene.restart()
            if published % 20 == 0:
                await scene.step()
            times["albums"] += fate > 0.9
        with suppress(AssertionError):  # what is missing, or too much, says more
            await scene.until(lambda: scene.items().keys() == wanted, timedelta(minutes=1), steps=200)
        assert scene.items().keys() == wanted
        print(f"{published} posts, {len(wanted)} left, {times}, {Counter(call.method for call in scene.server.calls)}")

    play(engine, script, monkeypatch)


def already_in(scene: Scene, many: list[Channel]) -> None:
    """Let the accounts be in the channels, as if they had joined long ago, each in its share."""
    everybody = list(scene.world.accounts.values())
    with writing(scene.engine) as connection:
        keys = {one.name: one.key for one in accounts.list_accounts(connection)}
        for place, channel in enumerate(many):
            account = everybody[place % len(everybody)]
            account.joined.add(channel.id)
            found = channels.find(connection, username=channel.username)
            assert found is not None
            channels.identify(connection, found.key, channel.id, channel.username, channel.title)
            channels.set_state(connection, found.key, "joined")
            source = subscriptions.add(connection, "telegram", found.address, scene.clock.now, title=channel.title)
            channels.set_source(connection, found.key, source.key)
            memberships.join(
                connection, found.key, keys[account.name], account.access_hash(channel.id), scene.clock.now
            )
