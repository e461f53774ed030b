"""The closed loop in one process: a simulated world served and learned from by a real installation, in simulated time.

Every hour what was published is stored, whoever comes is served and does what they would, and the model learns when it is due: by
the functions that an installation runs on (`ingest.store_items`, `feed.serve`, the event log, `train.find_due` and its cycles,
`editions.release_due`), on a data folder of its own. One transaction holds the visits of an hour, and nothing waits for the disk:
what a power failure would cost is a simulation that is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database, editions, events, experiments, feed, ingest, train
from palate.database import writing
from palate.domain import Event, FeedRequest, Item, from_milliseconds, to_milliseconds
from palate.editions import EditionParams
from palate.evaluation import world as worlds
from palate.evaluation.world import DAY_HOURS, HOUR, Floats, Page, Truths, Visit, World
from palate.examples import Memory
from palate.experiments import Experiment, Varied
from palate.feed_params import FeedParams
from palate.list_making import ListMaking
from palate.live import Live
from palate.models import trees
from palate.ranker_training import RankerTraining
from palate.rules import RuleParams
from palate.surface_params import SurfaceParams
from palate.train import Params

Order = Literal["served", "oracle", "random", "newest", "popular"]
"""By whom pages are filled: Palate, or without it by what is truly liked most, by chance, by age, by the number of likes."""

REFERENCES: tuple[Order, ...] = ("oracle", "random", "newest", "popular")
"""The orders that need no installation."""

SURFACE = "simulation"
"""Where readers are served, as the log and the settings name it."""

Rows = NDArray[np.int64]


class Policy(msgspec.Struct, frozen=True):
    """What is compared: everything that decides what readers are shown."""

    name: str
    order: Order = "served"
    feed: FeedParams = FeedParams()
    training: Params = Params()
    surfaces: dict[str, SurfaceParams] = {}
    editions: dict[str, EditionParams] = {}
    rules: RuleParams = RuleParams()
    rankers: RankerTraining | None = None
    """None: nothing is logged for rankers, and the score alone orders; as where they are switched off or can't be had."""
    experiment: Experiment | None = None
    """Tried on all readers from the start; its salt decides who is served by which variant. None: nothing is tried."""


@dataclass(frozen=True, eq=False)
class Record:
    """What happened under a policy, on P pages, and to I items."""

    policy: str
    seed: int
    hours: int
    readers: int
    hour: Rows
    """(P,) since the start."""
    reader: Rows
    """(P,) row of the reader."""
    first: NDArray[np.bool_]
    """(P,) whether it was the first page of a visit."""
    looks: Floats
    """(P,) how many items are looked at in the mean."""
    value: Floats
    """(P,) how many of these are truly liked in the mean."""
    best: Floats
    """(P,) how many would be, had the page held what its reader likes most of all that they hadn't been shown."""
    views: Rows
    """(P,) items that were taken up."""
    likes: Rows
    """(P,) likes that were given."""
    shown: Rows
    """Row of each item that was shown, one page after the other."""
    shown_at: Rows
    """When, in milliseconds since 1970."""
    published: Rows
    """(I,) milliseconds since 1970, in the order of the rows."""
    start: int
    """Milliseconds since 1970."""
    cycles: int
    """Of training, that published a snapshot."""


Told = Callable[[int], None]
"""Is told how many hours are done."""


def run(world: World, policy: Policy, data: Path, hours: int, told: Told = lambda done: None) -> Record:
    """Simulate so many hours; what a policy of Palate's own leaves on disk is in `data`, an empty or missing folder.

    Raises DataFolderError and DatabaseError as an installation does.
    """
    state = _State(worlds.tastes(world))
    with _installed(world, policy, data) as installation:
        _take_in(world, state, installation, range(-world.params.backlog_hours, 0), world.start)
        for hour in range(hours):
            if hour:
                state.tastes = worlds.drifted(world, state.tastes, hour)
                _take_in(world, state, installation, range(hour - 1, hour), world.start + timedelta(hours=hour))
            _serve(world, state, installation, policy, hour)
            _learn(state, installation, policy, world.start + timedelta(hours=hour + 1))
            told(hour + 1)
    return _record(world, state, policy, hours)


@dataclass(eq=False)
class _State:
    """Where a simulation stands."""

    tastes: Floats
    truths: Truths | None = None
    """Of all that is out; None before anything is."""
    ids: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    """Of the items, by their ids."""
    seen: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))
    """(R, I) who was shown what."""
    likes: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    """(I,) that were given to each item."""
    pages: list[tuple[float, ...]] = field(default_factory=list)
    shown: list[Rows] = field(default_factory=list)
    shown_at: list[Rows] = field(default_factory=list)
    cycles: int = 0


@dataclass(eq=False)
class _Installation:
    engine: sa.Engine
    data: Path
    live: Live
    memory: Memory = field(default_factory=Memory)


@contextmanager
def _installed(world: World, policy: Policy, data: Path) -> Iterator[_Installation | None]:
    """An installation that is new and never waits for the disk; None for an order that needs none."""
    if policy.order != "served":
        yield None
        return
    engine = database.connect(None, data)
    sa.event.listen(engine, "connect", _hurry)
    try:
        database.migrate(engine)
        secret = world.seed.to_bytes(32, "big")
        parts = policy.training.interactions, policy.feed.model, secret, policy.rules, policy.surfaces
        yield _Installation(engine, data, Live(engine, data, *parts, ranking=_ranks(policy)))
    finally:
        engine.dispose()


def _ranks(policy: Policy) -> bool:
    return policy.rankers is not None and policy.rankers.heavy.enabled and trees.installed()


def _hurry(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")


def _take_in(world: World, state: _State, installation: _Installation | None, hours: range, now: datetime) -> None:
    """Store what came out in these hours."""
    parts = [worlds.published(world, hour) for hour in hours]
    items = [item for found, _ in parts for item in found]
    if installation is not None:
        ingest.store_items(installation.engine, items, now)
        installation.live.refresh(now)
    _note(world, state, items, [truths for _, truths in parts])


def _note(world: World, state: _State, items: list[Item], truths: list[Truths]) -> None:
    state.rows |= {item.id: len(state.ids) + place for place, item in enumerate(items)}
    state.ids += [item.id for item in items]
    state.truths = worlds.joined([state.truths, *truths] if state.truths is not None else truths)
    state.seen = _widened(state.seen, world.params.readers, len(state.ids))
    state.likes = np.append(state.likes, np.zeros(len(items), np.int64))


def _widened(seen: NDArray[np.bool_], readers: int, items: int) -> NDArray[np.bool_]:
    """With room for so many items, and for as many again when it had to grow."""
    if seen.shape[1] >= items and len(seen):
        return seen
    found = np.zeros((readers, 2 * items), bool)
    found[: len(seen), : seen.shape[1]] = seen
    return found


def _learn(state: _State, installation: _Installation | None, policy: Policy, now: datetime) -> None:
    """Run the cycle of training that is due, and bring out the editions that are."""
    if installation is None:
        return
    engine, data, rankers = installation.engine, installation.data, policy.rankers if _ranks(policy) else None
    due = train.find_due(engine, data, policy.training, now)
    if due is not None:
        cycle = train.learn(
            engine,
            data,
            policy.training,
            now,
            ListMaking(),
            kind=due.kind,
            reason=due.reason,
            memory=installation.memory,
            rankers=rankers,
        )
        state.cycles += cycle.version is not None
    editions.release_due(engine, policy.editions, policy.training.interactions, now)
    installation.live.refresh(now)


@dataclass(frozen=True, eq=False)
class _Filled:
    """A page, by whoever filled it."""

    rows: Rows
    positions: Rows
    """Of its items in the visit, from 0."""
    page: Page
    cursor: str | None = None
    log: tuple[Event, ...] = ()
    """That it was shown."""


Fill = Callable[[int, int, str | None], _Filled]
"""Fills a page of a visit, given its number, the number of items before it, and where the session goes on."""


def _serve(world: World, state: _State, installation: _Installation | None, policy: Policy, hour: int) -> None:
    """All visits of an hour."""
    coming = worlds.visits(world, hour)
    if installation is None:
        for visit in coming:
            _visit(world, state, visit, hour, _by_reference(world, state, policy, visit), None)
        return
    with writing(installation.engine) as connection:
        for visit in coming:
            fill = _by_feed(world, state, installation.live, connection, policy, visit)
            _visit(world, state, visit, hour, fill, connection)


def _visit(world: World, state: _State, visit: Visit, hour: int, fill: Fill, connection: sa.Connection | None) -> None:
    """Page after page, until the reader has enough."""
    before, cursor, now = 0, None, from_milliseconds(visit.time)
    for number in range(world.params.pages):
        rng = worlds.chance(world, visit, number)
        filled = fill(number, before, cursor)
        pleased, done = _look_through(world, state, visit, hour, filled, number == 0, rng)
        if connection is not None:
            events.append(connection, (*filled.log, *done), now)
        before, cursor = before + len(filled.rows), filled.cursor
        if rng.random() >= world.params.more * pleased:
            return


def _look_through(
    world: World, state: _State, visit: Visit, hour: int, filled: _Filled, first: bool, rng: np.random.Generator
) -> tuple[float, list[Event]]:
    """How much of what they look at on a page a reader likes, and what they do; noted with what they might have had."""
    assert state.truths is not None, "Items were stored before anybody came."
    all_liked = worlds.liking(world, state.tastes, visit.reader, state.truths, visit.time)
    liked = all_liked[filled.rows]
    looked_at = worlds.examination(world.params, filled.positions)
    taken_up = worlds.attraction(liked, state.truths.of(filled.rows))
    done = worlds.deeds(filled.page, looked_at, taken_up, liked, world.params, rng)
    looks, value = float(looked_at.sum()), float(looked_at @ liked)
    seen = state.seen[visit.reader]
    seen[filled.rows] = False  # what comes a second time counts as what might have been had
    best = _best(np.where(seen[: len(state.ids)], -1.0, all_liked), looked_at)
    seen[filled.rows] = True
    views, likes = (sum(event.type == type for event in done) for type in ("viewed", "like"))
    state.pages.append((hour, visit.reader, first, looks, value, best, views, likes))
    state.shown.append(filled.rows)
    state.shown_at.append(np.full(len(filled.rows), visit.time))
    np.add.at(state.likes, [state.rows[event.item] for event in done if event.type == "like"], 1)
    return value / looks if looks else 0.0, done


def _best(likings: Floats, looked_at: Floats) -> float:
    """The most that places looked at with these probabilities could hold of what is liked so."""
    count = min(len(looked_at), len(likings))
    top = -np.sort(-np.partition(likings, len(likings) - count)[len(likings) - count :]) if count else likings[:0]
    return float(-np.sort(-looked_at)[:count] @ top)


def _by_feed(world: World, state: _State, live: Live, connection: sa.Connection, policy: Policy, visit: Visit) -> Fill:
    """As an installation serves; what it logs enters the log with what the reader does."""
    user, now = world.ids[visit.reader], from_milliseconds(visit.time)
    by, variant = _tried_on(policy, user)

    def fill(_number: int, before: int, cursor: str | None) -> _Filled:
        asked = FeedRequest(
            user=user, limit=world.params.page, now=now, cursor=cursor, surface=SURFACE, variant=variant
        )
        log: list[Event] = []
        surface = by.surfaces.get(SURFACE)
        served = feed.serve(live, asked, by.feed, feed.generator(asked), log.extend, connection, surface)
        ids = tuple(place.item.id for place in served.items)
        rows = np.array([state.rows[id] for id in ids], np.int64)
        positions = before + np.arange(len(ids))
        return _Filled(rows, positions, Page(user, served.request, SURFACE, visit.time, ids), served.cursor, tuple(log))

    return fill


def _tried_on(policy: Policy, user: str) -> tuple[Varied, str | None]:
    """By which settings somebody is served, and what the log says of that."""
    plain = Varied(feed=policy.feed, surfaces=policy.surfaces)
    if policy.experiment is None:
        return plain, None
    variant = experiments.variant_of(policy.experiment, user)
    served = experiments.varied(plain, variant.settings, variant.name)
    return served, experiments.label(policy.experiment.name, variant.name)


def _by_reference(world: World, state: _State, policy: Policy, visit: Visit) -> Fill:
    """By an order that knows nothing of Palate, out of what the reader hasn't been shown; the oracle looks beyond the window."""
    user = world.ids[visit.reader]

    def fill(number: int, before: int, _cursor: str | None) -> _Filled:
        assert state.truths is not None, "Items were stored before anybody came."
        out = ~state.seen[visit.reader, : len(state.ids)]
        if policy.order != "oracle":
            out &= state.truths.published >= visit.time - policy.feed.window_days * DAY_HOURS * HOUR
        unseen = np.flatnonzero(out)
        merits = _merits(world, state, policy.order, visit, number)[unseen]
        rows = unseen[np.argsort(-merits, kind="stable")[: world.params.page]]
        page = Page(user, f"{visit.time}-{visit.number}", SURFACE, visit.time, tuple(state.ids[row] for row in rows))
        return _Filled(rows, before + np.arange(len(rows)), page)

    return fill


def _merits(world: World, state: _State, order: Order, visit: Visit, page: int) -> Floats:
    """(I,) what an order goes by."""
    assert state.truths is not None, "Items were stored before anybody came."
    if order == "oracle":
        return worlds.liking(world, state.tastes, visit.reader, state.truths, visit.time)
    if order == "random":
        return worlds.chance(world, visit, -1 - page).random(len(state.ids))
    newest = state.truths.published.astype(np.float64)
    return newest if order == "newest" else state.likes + newest / newest.max() / 2


def _record(world: World, state: _State, policy: Policy, hours: int) -> Record:
    assert state.truths is not None, "Items were stored before anybody came."
    columns = np.array(state.pages, np.float64).reshape(-1, 8).T
    hour, reader, first, looks, value, best, views, likes = columns
    return Record(
        policy=policy.name,
        seed=world.seed,
        hours=hours,
        readers=world.params.readers,
        hour=hour.astype(np.int64),
        reader=reader.astype(np.int64),
        first=first.astype(bool),
        looks=looks,
        value=value,
        best=best,
        views=views.astype(np.int64),
        likes=likes.astype(np.int64),
        shown=np.concatenate([np.zeros(0, np.int64), *state.shown]),
        shown_at=np.concatenate([np.zeros(0, np.int64), *state.shown_at]),
        published=state.truths.published,
        start=to_milliseconds(world.start),
        cycles=state.cycles,
    )
