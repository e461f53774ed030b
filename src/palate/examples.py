"""What a cycle of training may learn from: the log within its window, merged, and the parameters that say so.

Few events are read and merged in each cycle. Many stay in memory between cycles, as a `Memory`, and only what is new is read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
import sqlalchemy as sa

from palate import columns, contents, database, events, identities, interactions, matrix, pairs, running_tally
from palate.database import reading
from palate.domain import EventColumns, Interactions, to_milliseconds
from palate.domain import Kind as ItemKind
from palate.events import EventParams
from palate.interactions import InteractionParams
from palate.matrix import Sparse
from palate.models.blend import BlendParams
from palate.models.content import ContentParams, Contents
from palate.models.ease import EaseParams
from palate.models.factorization_machine import FactorizationMachineParams, ItemSources
from palate.models.implicit_als import ImplicitALSParams
from palate.models.item_knn import ItemKnnParams
from palate.models.material import Material
from palate.models.nearest import IndexParams
from palate.models.popularity import PopularityParams
from palate.models.registry import Name
from palate.models.svd import SvdParams
from palate.pairs import Pairs
from palate.places import Places, Some
from palate.pool import POOL_LIMIT
from palate.quality import QualityParams
from palate.running_tally import Change, RunningTally
from palate.vocabulary import Vocabulary, vocabulary
from palate.window import resident
from palate.window.joining import NOTHING_SAID, Joined, Said
from palate.window.resident import Window
from palate.window.view import View, view

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Keys = NDArray[np.int64]

Kind = Literal["full", "incremental", "items"]
"""Of a cycle."""

SECTIONS: dict[str, str] = {
    "popularity": "popularity",
    "fm": "factorization_machine",
    "ials": "implicit_als",
    "itemknn": "item_knn",
    "ease": "ease",
    "svd": "svd",
    "blend": "blend",
}
"""The settings of each model by its name: the field of `Params`, and the section of the settings file."""


class TrainParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which models are learned, when the loop of `train.py` starts a cycle, what a cycle learns from, and what it keeps."""

    models: tuple[Name, ...] = ("fm",)
    """What is fitted and published, beside popularity, which always is."""
    new_events: Annotated[int, msgspec.Meta(ge=1)] = 100
    """Deciding events (votes, or views under the rule `views`) since the last cycle that start the next."""
    max_wait: Annotated[float, msgspec.Meta(ge=0)] = 600.0
    """Seconds after the last cycle in which any new event starts the next, however few there are."""
    new_item_events: Annotated[int, msgspec.Meta(ge=1)] | None = 20
    """Events since the last cycle that tell of items that no model has learned of, and start a cycle of items: it only finds a
    vector for each of these. None: new items wait for the next incremental cycle."""
    min_pause: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    """Seconds between the end of a cycle and the start of the next."""
    full_every: Annotated[int, msgspec.Meta(ge=1)] = 20
    """Incremental cycles after which the next is full."""
    window_days: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Events that happened longer ago teach nothing. None: all that the log keeps."""
    share_of_users: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    """Share of people whose events are learned from, always the same ones; the others are served all the same."""
    people_from: tuple[ItemKind, ...] = ()
    """Kinds of items that `ials` learns people from; what they did with items of other kinds only gives these their vectors, in
    the same space: who reads is recommended videos before they have watched any. It is then fitted anew in every cycle. Empty:
    all kinds."""
    robots: tuple[str, ...] = ()
    """Ids of users whose events teach nothing."""
    held_out_share: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.1
    """Share of a cycle's examples, the newest, on which it is tested before it learns them. Of each person the older half
    is learned first if there are enough others: serving too knows a person's earlier votes."""
    max_held_out: Annotated[int, msgspec.Meta(ge=1)] = 100_000
    """Most examples for a test: more tell hardly more, and have to be learned apart."""
    min_held_out: Annotated[int, msgspec.Meta(ge=1)] = 30
    """Fewest examples for a test; a cycle with less than twice as many new ones is published without."""
    old_per_new: Annotated[int, msgspec.Meta(ge=0)] = 30
    """Old examples that an incremental cycle learns once more with each new one, so that it doesn't forget them."""
    anew_below: Annotated[int, msgspec.Meta(ge=0)] = 20_000
    """With fewer examples than this the factorization machine is learned anew in every cycle, which takes less than a second:
    going on from its own steps again and again would fit few examples too closely."""
    max_old: Annotated[int, msgspec.Meta(ge=0)] = 10_000_000
    """Most old examples that it learns once more, whatever `old_per_new` says."""
    min_mixture: Annotated[int, msgspec.Meta(ge=0)] = 2_048
    """Fewest examples of an incremental cycle, old and new, if there are as many."""
    tolerance: Annotated[float, msgspec.Meta(ge=0)] = 0.001
    """By how much the loss may exceed the prior's: where all labels are alike both are nearly 0, and one is larger."""
    doubt: Annotated[float, msgspec.Meta(ge=0)] = 1.5
    """By how many of its standard errors the difference must exceed `tolerance` for a refusal: on few examples a sound model
    is often a little worse by chance, and without a model there is no feed."""
    standstill: Annotated[int, msgspec.Meta(ge=2)] = 4
    """Incremental cycles whose losses are compared with the newest; when it jumps out of them, a full fit takes its place."""
    keep_snapshots: Annotated[int, msgspec.Meta(ge=1)] = 5
    """Snapshots that are kept to go back to."""
    history_limit: Annotated[int, msgspec.Meta(ge=1)] = 1_000
    """Newest items of each person that a snapshot remembers."""
    resident_events: Annotated[int, msgspec.Meta(ge=1)] | None = 3_000_000
    """Events within the window from which on the process that learns keeps them in memory, in about 15 bytes each, and lives on
    between cycles. With fewer it ends after each cycle, and the next reads them again. None: it always does."""
    poll: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """Seconds between two looks at the log."""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 1
    """Of everything random in learning: the same events, settings and seed give the same model."""


class Params(msgspec.Struct, frozen=True, kw_only=True):
    """All that a cycle is steered by."""

    train: TrainParams = TrainParams()
    served: Name = "fm"
    """The model that serving wants: without it nothing is published."""
    interactions: InteractionParams = InteractionParams()
    popularity: PopularityParams = PopularityParams()
    factorization_machine: FactorizationMachineParams = FactorizationMachineParams()
    implicit_als: ImplicitALSParams = ImplicitALSParams()
    item_knn: ItemKnnParams = ItemKnnParams()
    ease: EaseParams = EaseParams()
    svd: SvdParams = SvdParams()
    blend: BlendParams = BlendParams()
    content: ContentParams = ContentParams()
    index: IndexParams = IndexParams()
    events: EventParams = EventParams()
    quality: QualityParams = QualityParams()

    def of(self, model: str) -> Any:
        """The Params of the model of this name."""
        return getattr(self, SECTIONS[model])


@dataclass
class Memory:
    """What the process that learns keeps from one cycle to the next; at first nothing."""

    window: Window | None = None
    """None while there are few events."""
    looked: Looked | None = None
    """What the window said."""
    tally: RunningTally | None = None
    """What its pairs say of each item; None where that wasn't counted."""
    learned: int = 0
    """The last event that is no news to the window: that of the snapshot which was served then."""
    earliest: int = 0
    """What happened before this millisecond has left the window."""
    version: str | None = None
    """Of the snapshot that this process published last."""
    catalog: contents.Known | None = None
    """What the catalog said of its items; None while there are few events."""

    def forget_window(self) -> None:
        """So that the next cycle reads the log again."""
        self.window = self.looked = self.tally = self.catalog = None


@dataclass(frozen=True, eq=False)
class Looked:
    """What was seen in a window."""

    view: View
    said: Said
    share: float
    """Of the people who are learned from."""

    @property
    def taught(self) -> Mask:
        """(people,): who is learned from."""
        return self.view.kept & _in_share(self.view.window.sorted.users.keys, self.share)


@dataclass(frozen=True, eq=False)
class Examples:
    """All that a cycle may learn."""

    seq: int
    """The last event that was read."""
    rating_range: tuple[float, float] | None
    now: datetime
    pairs: Pairs
    """Every pair in the window, also those that aren't learned from: what people have seen."""
    learned_from: Mask
    """(people,): whose pairs may be learned from, as far as they say anything."""
    new: Some
    """The pairs that have an event which the last models haven't learned."""
    users: Vocabulary
    """Of all the pairs; every model has a row for each. Likewise `items`."""
    items: Vocabulary
    """Of all the pairs, and what else may be served."""
    item_sources: ItemSources
    contents: Contents
    """Of each of the items."""
    content: ContentParams = field(default_factory=ContentParams)

    looked: Looked | None = None
    """Where the pairs come from when they are many."""
    elsewhere: Mask | None = None
    """(items of the pairs,): of which nothing is learned about people; None: of none of them."""

    @cached_property
    def taught(self) -> Mask:
        """Which of the pairs may be learned from, as far as they say anything."""
        return self.pairs.of_people(self.learned_from)

    @cached_property
    def labelled(self) -> Mask:
        """The examples of models of labels."""
        return self.pairs.labelled(self.learned_from)

    @cached_property
    def weighted(self) -> Mask:
        """The examples of models of weights."""
        mask: Mask = self.taught & (self.pairs.weight != 0)
        return mask

    def later(self, moment: int) -> Change:
        """The pairs later than this millisecond, or more; and which of them are, may be learned from and say something."""
        if self.looked is None:
            return Change(self.pairs, (self.labelled | self.weighted) & (self.pairs.time > moment))
        late = pairs.of_view(self.looked.view.only(self.pairs.time > moment // self.pairs.unit))
        return saying(late, self.learned_from)

    def labels(self, chosen: Some) -> Sparse:
        """(users, items): the labels of the chosen pairs."""
        cells, users, items = self.pairs.labels(chosen), self.pairs.users, self.pairs.items
        if len(users) == len(self.users) and len(items) == len(self.items):
            return cells
        return matrix.spread(
            cells, self.users.rows(users.keys), self.items.rows(items.keys), len(self.users), len(self.items)
        )

    def material(self, chosen: Mask, now: datetime | None = None) -> Material:
        """All pairs, of which only the chosen say anything. `now` is what age counts to, None: the moment of the cycle."""
        every = self.pairs.rows(self.pairs.of_people(self.pairs.kept))
        told = chosen if self.pairs.kept.all() else chosen[self.pairs.of_people(self.pairs.kept)]
        return Material(
            replace(
                every,
                label=np.where(told, every.label, np.float32(np.nan)),
                weight=np.where(told, every.weight, np.float32(0)),
            ),
            self.users,
            self.items,
            now or self.now,
            self.item_sources,
            contents=self.contents,
            content=self.content,
        )


def read(
    engine: sa.Engine, data: Path, params: Params, now: datetime, learned: int, memory: Memory | None = None
) -> Examples:
    """What the log holds. `learned` is the last event that the last models know; 0 means that they know none.

    `memory` is what former cycles keep of the log: this one goes on from there and leaves its own. With any memory the same
    examples come out, but for times, which are whole seconds where there are many events, and values, which have 11 bits there.
    """
    memory = memory or Memory()
    since = now - timedelta(days=params.train.window_days) if params.train.window_days else None
    with reading(engine) as connection:
        seq = events.last_seq(connection)  # looked up first: what comes meanwhile is left for the next time
        servable = _servable(connection)
        robots = identities.user_keys(connection, params.train.robots, None)
        left_out = set(identities.persons(connection, robots.values()).values())
        few = params.train.resident_events is None or events.count(connection, since) < params.train.resident_events
    if few:
        memory.forget_window()
        seen = _merged(_Log(engine, data / "events", since, seq, learned), params.interactions, left_out)
    else:
        joined = _follow(_Log(engine, data / "events", since, seq, learned), params.interactions, memory)
        looked = _look(memory, joined, left_out, params.train.share_of_users)
        seen = _Seen(pairs.of_view(looked.view, looked.said), _news(looked.view, learned), looked.view.rating_range)
    items = seen.pairs.items.extended(servable)
    with reading(engine) as connection:
        if few:
            sources, of_items = _item_sources(connection), contents.read(connection, items.keys)
        else:
            memory.catalog = contents.known(connection, now, memory.catalog if learned else None)
            sources, of_items = ItemSources(*memory.catalog.sources()), memory.catalog.of(items.keys)
        elsewhere = _elsewhere(connection, seen.pairs.items, params.train.people_from)
    return Examples(
        seq=seq,
        rating_range=seen.rating_range,
        now=now,
        pairs=seen.pairs,
        learned_from=seen.pairs.kept & _in_share(seen.pairs.people.keys, params.train.share_of_users),
        new=seen.new,
        users=seen.pairs.users,
        items=items,
        item_sources=sources,
        contents=of_items,
        content=params.content,
        looked=None if few else memory.looked,
        elsewhere=elsewhere,
    )


@dataclass(frozen=True)
class _Log:
    """What is wanted of the log."""

    engine: sa.Engine
    folder: Path
    since: datetime | None
    seq: int
    """The last event."""
    learned: int


@dataclass(frozen=True, eq=False)
class _Seen:
    """What it comes to."""

    pairs: Pairs
    new: Some
    rating_range: tuple[float, float] | None


def _merged(log: _Log, params: InteractionParams, left_out: set[int]) -> _Seen:
    """All events read, and merged at once."""
    happened = events.read_columns(log.engine, log.folder, since=log.since)
    with reading(log.engine) as connection:
        gone = identities.missing(connection, np.unique(happened.user))
    happened = interactions.counted(happened, params, left_out | set(gone.tolist()))
    merged = interactions.merge(happened, params)
    bounds = interactions.rating_range(happened, params)
    return _Seen(pairs.of_interactions(merged), _touched(merged, happened, log.learned), bounds)


def _follow(log: _Log, params: InteractionParams, memory: Memory) -> Joined:
    """Bring the window to the present state of the log, its news being what came after `learned`; and say what changed."""
    earliest = 0 if log.since is None else to_milliseconds(log.since)
    if memory.window is not None and not _goes_on(memory, memory.window, log, params, earliest):
        memory.forget_window()  # before the next is read: there is room for one
    if memory.window is None:
        memory.window, memory.learned = _begun(log, params), log.learned
    after = memory.window.seq
    news = events.batches(log.engine, log.folder, after_seq=after, up_to_seq=log.seq, since=log.since)
    memory.window = resident.appended(memory.window, news)
    with reading(log.engine) as connection:
        persons = columns.persons(identities.joined(connection))
        gone = identities.missing(connection, resident.people(memory.window))
    said = memory.looked.said if memory.looked else NOTHING_SAID
    before, memory.window = memory.window, None  # half changed it would be worth nothing
    window, joined = resident.followed(
        before, said, earliest=earliest, persons=persons, forgotten=gone.tolist(), threads=_threads(), own=True
    )
    memory.window, memory.earliest = replace(window, seq=max(window.seq, log.seq)), earliest
    return joined


def _goes_on(memory: Memory, window: Window, log: _Log, params: InteractionParams, earliest: int) -> bool:
    """Whether the window that is kept is of this log and of these settings, and knows what the models know."""
    same = window.params == params and memory.earliest <= earliest and window.seq <= log.seq
    return same and log.learned in (0, memory.learned)


def _begun(log: _Log, params: InteractionParams) -> Window:
    """A window of all that the models know."""
    window = resident.empty(params)
    if not log.learned:
        return window
    known = events.batches(log.engine, log.folder, up_to_seq=log.learned, since=log.since)
    return resident.learned(resident.appended(window, known))


def _look(memory: Memory, joined: Joined, left_out: set[int], share: float) -> Looked:
    """What the window says now; of pairs that haven't changed as before. The sums by item follow."""
    assert memory.window is not None, "It has been read."
    before, found = memory.looked, view(memory.window, left_out, _threads())
    memory.looked, size = None, len(joined.content.columns)
    known = before is not None and len(joined.said.label) == size  # nothing is said of a window without pairs
    if not known or before is None or (before.view.rating_range, before.share) != (found.rating_range, share):
        memory.looked, memory.tally = Looked(found, pairs.said_of(found), share), None
        return memory.looked
    left, others = _who_joins_or_leaves(before.view, found, joined)
    changed = joined.came
    if len(left) or len(others):
        changed = np.union1d(changed, _pairs_of(found, np.concatenate((left, others))))
    came = pairs.of_view(found.only(changed))
    joined.said.label[changed], joined.said.time[changed] = came.label, came.time
    memory.looked = Looked(found, joined.said, share)
    if memory.tally is not None:
        lost = [_of_old(before, joined), *([_stayed(found, joined, left, share)] if len(left) else [])]
        memory.tally = running_tally.changed(memory.tally, lost, saying(came, memory.looked.taught))
    return memory.looked


def _who_joins_or_leaves(before: View, found: View, joined: Joined) -> tuple[Keys, Keys]:
    """The rows of who is left out now and wasn't before, and of who was and no more is: all their pairs say something else."""
    rows = np.flatnonzero(joined.rows >= 0)
    was, now = before.kept[joined.rows[rows]], found.kept[rows]
    return rows[was & ~now], rows[now & ~was]


def _pairs_of(found: View, rows: Keys) -> Places:
    """Where the pairs of these people are."""
    offsets = found.window.sorted.pairs
    parts = [np.arange(offsets[row], offsets[row + 1]) for row in np.sort(rows)]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _of_old(before: Looked, joined: Joined) -> Change:
    """What the pairs said that have changed or left."""
    old = replace(before.view, window=replace(before.view.window, sorted=joined.lost))
    return saying(pairs.of_view(old), before.taught)


def _stayed(found: View, joined: Joined, left: Keys, share: float) -> Change:
    """What the other pairs of these people said, who are left out now."""
    kept = np.zeros(len(found.kept), bool)
    kept[left] = True
    theirs = np.setdiff1d(_pairs_of(found, left), joined.came, assume_unique=True)
    as_before = replace(found.only(theirs), kept=kept)
    return saying(pairs.of_view(as_before), Looked(as_before, joined.said, share).taught)


def saying(given: Pairs, people: Mask) -> Change:
    """Which pairs of these people say something."""
    return Change(given, given.of_people(people) & (~np.isnan(given.label) | (given.weight != 0)))


def _news(found: View, learned: int) -> Some:
    return found.touched() if learned else np.ones(len(found.window.sorted.columns), bool)


def remember(memory: Memory, learned: int, version: str) -> None:
    """After a snapshot was published that has learned all up to this event: none of the window's are news."""
    memory.version = version
    if memory.window is not None and learned > memory.learned:
        memory.window, memory.learned = resident.learned(memory.window), learned


def _threads() -> int:
    return len(os.sched_getaffinity(0))


def _item_sources(connection: sa.Connection) -> ItemSources:
    items = database.items
    query = sa.select(items.c.key, items.c.source).where(items.c.source.is_not(None))
    rows = database.plain_rows(connection.execute(query))
    columns = np.array(rows, np.int64).reshape(-1, 2)
    return ItemSources(columns[:, 0].copy(), columns[:, 1].copy())


def _servable(connection: sa.Connection) -> NDArray[np.int64]:
    """Keys of the newest items that can be served: they have a place in every model before anybody has seen them."""
    items = database.items
    newest = sa.select(items.c.key).where(items.c.state == "live").order_by(items.c.key.desc()).limit(POOL_LIMIT)
    # as one text: an object for each key takes the driver ten times as long
    text = connection.scalar(sa.select(sa.func.aggregate_strings(sa.cast(newest.subquery().c.key, sa.Text), ",")))
    return np.fromstring(text, np.int64, sep=",") if text else np.empty(0, np.int64)


def _elsewhere(connection: sa.Connection, items: Vocabulary, kinds: Sequence[ItemKind]) -> Mask | None:
    if not kinds:
        return None
    table = database.items
    rows = database.plain_rows(connection.execute(sa.select(table.c.key).where(table.c.kind.not_in(kinds))))
    places = items.rows(np.array([row[0] for row in rows], np.int64))
    mask = np.zeros(len(items), bool)
    mask[places[places >= 0]] = True
    return mask


def _in_share(users: NDArray[np.int64], share: float) -> Mask:
    """Which people are learned from: a fixed choice by their key (Fibonacci hashing), so that it is the same in every cycle."""
    hashed = users.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    chosen: Mask = (hashed >> np.uint64(11)).astype(np.float64) / 2**53 < share
    return chosen


def _touched(merged: Interactions, columns: EventColumns, after_seq: int) -> Mask:
    """Which pairs have an event of a greater seq."""
    recent = columns.seq > after_seq
    if recent.all():
        return np.ones(len(merged), bool)
    users, items = vocabulary(merged.user), vocabulary(merged.item)
    codes = users.rows(merged.user) * len(items) + items.rows(merged.item)
    rows = users.rows(columns.user[recent]), items.rows(columns.item[recent])
    known = (rows[0] >= 0) & (rows[1] >= 0)  # accounts that are left out have no pairs
    return np.isin(codes, rows[0][known] * len(items) + rows[1][known])
