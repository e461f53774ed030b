"""What an installation of the play has before it begins: channels that are followed, their posts, and readers of these."""

from __future__ import annotations

import logging
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import sqlalchemy as sa

from palate import accounts, channels, counters, demo, events, ingest, memberships, subscriptions
from palate.database import writing
from palate.domain import Event, Item
from palate.errors import DataFolderError
from palate.evaluation import simulation
from palate.loopback.telegram_world import Channel
from palate.play import script, world
from palate.play.script import ChannelRole
from palate.play.stage import BACK, Stage
from palate.play.world import Play
from palate.sources import archive

log = logging.getLogger(__name__)

READERS = 200
READING_DAYS = 4.0
AHEAD = timedelta(hours=12)
"""The script goes on for so long after the present."""
MARK = "played"
"""A file that says that a folder holds a play, which begins anew."""


def clear(data: Path) -> None:
    """Empty the folder of an earlier play. Raises DataFolderError for one that holds something else."""
    mark = data / MARK
    kept = [mark, data / "locks"]
    try:
        others = [path for path in data.iterdir() if path not in kept] if data.exists() else []
        if others and not mark.exists():
            raise DataFolderError(f"{data} holds something else than this demo: give it a --data folder of its own.")
        for path in others:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        data.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise DataFolderError(f"The data folder {data} can't be emptied: {error.strerror}.") from error


def opened(stage: Stage) -> Play:
    """The play as it stands at its beginning."""
    items = demo.sample_items(stage.opening + BACK + AHEAD)
    play = world.begin(script.write(items), stage.clock)
    world.publish_due(play, stage.opening)
    return play


def prepare(engine: sa.Engine, stage: Stage) -> None:
    """Put all of it into an empty installation: accounts → pool → posts → what readers did."""
    play = opened(stage)
    followed = {one.username for one in play.script.channels if one.role == "followed"}
    with writing(engine) as connection:
        for account in play.world.accounts.values():
            accounts.add(connection, account.name, f"+{account.phone}", stage.opening)
        sources = {name: _follow(connection, play, play.channels[name], stage.opening) for name in sorted(followed)}
        _fill_pool(connection, play, stage.opening)
    labelled = _store_posts(engine, play, sources, stage.opening)
    happened = _read(labelled, stage.opening)
    for start in range(0, len(happened), archive.BATCH):
        with writing(engine) as connection:
            events.append(connection, happened[start : start + archive.BATCH], stage.began)
    log.info("%d posts, %d events of simulated readers", len(labelled), len(happened))


def _follow(connection: sa.Connection, play: Play, channel: Channel, now: datetime) -> str:
    """A channel is followed by one of the accounts. Gives the id of its source."""
    role = _role_of(play, channel)
    added = channels.add(connection, now, username=channel.username, title=channel.title, category=role.category)
    key = channels.identify(connection, added.key, channel.id)
    channels.set_state(connection, key, "joined")
    source = subscriptions.add(connection, "telegram", f"https://t.me/{channel.username}", now, title=channel.title)
    channels.set_source(connection, key, source.key)
    name = world.ACCOUNTS[channel.id % len(world.ACCOUNTS)]
    account = play.world.accounts[name]
    here = accounts.get(connection, name).key
    memberships.join(connection, key, here, account.access_hash(channel.id), now - timedelta(days=9))
    memberships.set_pts(connection, key, here, channel.pts)
    subscriptions.note_heard(connection, source.key, now)
    return source.id


def _role_of(play: Play, channel: Channel) -> ChannelRole:
    return next(one for one in play.script.channels if one.username == channel.username)


def _fill_pool(connection: sa.Connection, play: Play, now: datetime) -> None:
    """What is to be joined: the wanted channels, in between one that lets in by request and a name that nobody has."""
    wanted = [one for one in play.script.channels if one.role == "wanted"]
    for place, one in enumerate(wanted):
        channels.add(connection, now, username=one.username, category=one.category)
        if place == 2:
            channels.add(connection, now, invite=script.LETTERS_INVITE)
        if place == 4:
            channels.add(connection, now, username=script.LOST_NAME)


def _store_posts(engine: sa.Engine, play: Play, sources: dict[str, str], now: datetime) -> list[Item]:
    """Store what the followed channels have published, as the hub does. Gives it with the labels that readers go by."""
    stored, labelled = list[Item](), list[Item]()
    counted: dict[str, dict[str, float]] = {}
    for out, post in world.posts(play):
        source, item = sources.get(out.scene.channel), out.scene.item
        if source is None or item is None or out.scene.forwards is not None:
            continue
        category = _role_of(play, out.channel).category
        stored.append(msgspec.structs.replace(post.item, source=source, labels=(category,)))
        labelled.append(msgspec.structs.replace(item, id=post.item.id, published=post.item.published))
        counted[post.item.id] = dict(post.counters)
    ingest.store_items(engine, stored, now, keep_text=False)
    with writing(engine) as connection:
        counters.put(connection, counted, now)
    return labelled


def _read(items: list[Item], now: datetime) -> list[Event]:
    rng = np.random.default_rng(demo.SEED)
    return simulation.simulate(items, simulation.readers(rng, READERS, items), rng, now, READING_DAYS)
