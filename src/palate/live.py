"""What serving knows: the published snapshot, the items that may be served, and what a person did since.

`Live` swaps whole frozen values, so that a request works on one state from its beginning to its end while others refresh.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import catalog, contents, events, happenings, identities, people, rankers, snapshots, spaces
from palate.database import items as items_table
from palate.database import reading, writing
from palate.domain import EventColumns, to_milliseconds
from palate.happenings import Happenings
from palate.interactions import EventType, InteractionParams, merge
from palate.lately import Lately
from palate.log_tail import LogTail
from palate.pool import Pool, empty_pool
from palate.pool_model import Strangers, strangers
from palate.rankers import Rankers
from palate.readership import Readership
from palate.rules import EVERYTHING, RuleParams, Viewer, viewer
from palate.snapshots import Snapshot
from palate.source_links import SourceRanks
from palate.stock import Stock, as_known, changed, like, prepare, stock
from palate.surface_params import SurfaceParams
from palate.vocabulary import Vocabulary

OVERLAP = timedelta(seconds=60)
"""How far before the last look we look again: a transaction becomes visible later than the times it wrote."""

HISTORIES = 4_000
"""People whose history is remembered, until something new happens to them or a new snapshot comes."""

TASTES = 1_000
"""People of whom is remembered what their votes were solved to."""

CARDS = 4_000
"""Items of which all that is shown is remembered."""

SAYS_NOTHING = EventType()
"""What an event means that tells of no taste, as that something was shown."""

Keys = NDArray[np.int64]


def _no_keys() -> Keys:
    return np.zeros(0, np.int64)


def _no_numbers() -> NDArray[np.float32]:
    return np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class History:
    """Items that a person has met, each once, oldest first."""

    items: Keys = field(default_factory=_no_keys)
    labels: NDArray[np.float32] = field(default_factory=_no_numbers)
    """0..1, NaN for an item that was only seen."""
    weights: NDArray[np.float32] = field(default_factory=_no_numbers)
    """Strength as a positive; below 0 for what was refused, 0 for neither."""

    def __len__(self) -> int:
        return len(self.items)

    def of_items(self, kept: NDArray[np.bool_]) -> History:
        """The part that `kept` marks."""
        return History(self.items[kept], self.labels[kept], self.weights[kept])

    def after(self, other: History) -> History:
        """The other one, then this one."""
        return History(
            np.concatenate((other.items, self.items)),
            np.concatenate((other.labels, self.labels)),
            np.concatenate((other.weights, self.weights)),
        )

    @property
    def voted(self) -> NDArray[np.bool_]:
        """Which of the items have a label."""
        return ~np.isnan(self.labels)


@dataclass(frozen=True, eq=False)
class Person:
    """What is known of the one who asks, at the moment they ask."""

    key: int | None = None
    """None for somebody we have never heard of."""
    keys: tuple[int, ...] = ()
    """Of all ids they are known by."""
    history: History = field(default_factory=History)
    """All that was shown to them or that they acted on."""
    vector: NDArray[np.float32] | None = None
    """Of the snapshot, None if they aren't in it."""
    bias: float = 0.0
    hidden: tuple[int, ...] = ()
    """Keys of sources they don't want."""
    followed: tuple[int, ...] = ()
    """Keys of sources they asked for."""
    topics: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    """Empty: any."""
    window: timedelta | None = None
    """None: the installation's."""
    viewer: Viewer = EVERYTHING
    """As the rules of items see them."""


@dataclass(frozen=True, eq=False)
class State:
    """One consistent state: the items, and the snapshot that their model columns come from."""

    snapshot: Snapshot | None
    stock: Stock
    others: Mapping[str, Stock] = field(default_factory=dict)
    """The same items as other models know them, that surfaces and experiments are served by; by the model's name."""
    happenings: Happenings = field(default_factory=Happenings)
    """What happened lately."""
    rankers: Rankers | None = None
    """Those of the snapshot; None: the plain score orders."""

    @property
    def pool(self) -> Pool:
        """All items in one pool; where there are very many it costs a copy of them after each change."""
        return self.stock.whole

    @property
    def stocks(self) -> tuple[Stock, ...]:
        """The items as each of the models knows them."""
        return (self.stock, *self.others.values())

    def by(self, model: str | None) -> State:
        """The state with this model's items; None, or a model that nothing else is served by: as it is."""
        stock = None if model is None else self.others.get(model)
        return self if stock is None else replace(self, stock=stock)


@dataclass(frozen=True, eq=False)
class _Told:
    """A history, as the log and a snapshot tell it."""

    history: History
    seq: int
    """Of the last event that it takes in."""
    snapshot: weakref.ref[Snapshot] | None
    """Not kept alive: an old one stays on the disk and in memory as long as anything knows it."""

    def of(self, snapshot: Snapshot | None) -> bool:
        """Whether this snapshot told it."""
        return snapshot is (None if self.snapshot is None else self.snapshot())


def _told(history: History, seq: int, snapshot: Snapshot | None) -> _Told:
    return _Told(history, seq, None if snapshot is None else weakref.ref(snapshot))


class Live:
    """The state that serving reads; one for a process, shared by its threads.

    `interactions` says what a person's newest events mean, as it does in training; `model` is the one to serve by,
    `secret` this installation's (None: it is read when it is needed), `rules` what is obeyed of labels, `surfaces` those of the
    settings by their names. Each model that a surface wants beside the one of the feed takes a pool of its own. `ranking` says
    whether the snapshot's rankers order what is served, and what they know of it is logged; `prepare` is called before items or
    rankers are served that weren't before.
    """

    def __init__(
        self,
        engine: sa.Engine,
        data: Path,
        interactions: InteractionParams | None = None,
        model: str = "fm",
        secret: bytes | None = None,
        rules: RuleParams | None = None,
        surfaces: Mapping[str, SurfaceParams] | None = None,
        ranking: bool = False,
        prepare: Callable[[State], None] | None = None,
    ) -> None:
        self.engine = engine
        self._prepare = prepare
        self.surfaces = surfaces or {}
        self.ranking = ranking
        self._model = model
        self._rules = rules or RuleParams()
        self._others = {surface.model for surface in self.surfaces.values() if surface.model is not None} - {model}
        self._tried = frozenset[str]()
        self.readership = Readership(engine)
        self.source_ranks = SourceRanks(engine)
        self.state = State(None, stock(empty_pool()))
        self.events_folder = data / "events"
        self._folder = data / "snapshots"
        # Whoever is too busy to teach others still gets a feed of their own.
        self._interactions = msgspec.structs.replace(interactions or InteractionParams(), max_events_per_day=None)
        self._refreshing = threading.Lock()
        self._since = self._newest = 0
        self._known = (0, 0)
        self._secret = secret
        self._histories: Lately[tuple[int, ...], _Told] = Lately(HISTORIES)
        self.known_items: identities.KnownKeys = Lately(identities.KNOWN)
        """Items by their ids, of those that were asked for lately."""
        self.tail = LogTail()
        """What this process wrote to the log lately."""
        self.cards: catalog.Cards = Lately(CARDS)
        self.tastes: Lately[tuple[int, ...], Any] = Lately(TASTES)
        """What people's votes were solved to, by the keys of their ids …"""
        self.judged: Lately[tuple[int, ...], Any] = Lately(TASTES)
        """… and by what they are judged, as long as that holds."""
        self.candidates: Lately[tuple[int, ...], Any] = Lately(TASTES)
        """What was found for them a moment ago."""

    @property
    def snapshot(self) -> Snapshot | None:
        """The published model that is served; None before the first."""
        return self.state.snapshot

    @property
    def pool(self) -> Pool:
        """The items that may be served."""
        return self.state.pool

    @property
    def secret(self) -> bytes:
        """This installation's secret, which signs cursors."""
        if self._secret is None:
            with writing(self.engine) as connection:
                self._secret = people.secret(connection)
        return self._secret

    def serve_also(self, models: Collection[str]) -> None:
        """Know the items by these models too, from the next refresh on; those of an earlier call are given up."""
        self._tried = frozenset(models) - {self._model}

    def refresh(self, now: datetime) -> None:
        """Take up a new snapshot and what changed in the catalog; cheap when nothing did. A broken snapshot is not used."""
        with self._refreshing:
            snapshot, stock = self._newest_snapshot(), self.state.stock
            if snapshot is not None and snapshot is not self.state.snapshot:
                stock = as_known(stock, snapshot, self._model, partial(self._strangers, snapshot=snapshot))
            stock = self._with_spaces(self._with_changes(stock, snapshot, now), snapshot)
            others = self._as_others(stock, snapshot)
            for one in (stock, *others.values()):
                prepare(one)
            same = snapshot is self.state.snapshot
            loaded = self.state.rankers if same or not self.ranking else rankers.load(snapshot)
            before, happened = self.state, self._happenings(stock, snapshot, now)
            found = State(snapshot, stock, others, happened, loaded)
            if self._prepare is not None and (loaded is not before.rankers or stock.base is not before.stock.base):
                self._prepare(found)
            self.state = found

    def _with_spaces(self, items: Stock, snapshot: Snapshot | None) -> Stock:
        if items is self.state.stock and snapshot is self.state.snapshot:
            return items
        with reading(self.engine) as connection:
            known = self.state.stock.spaces
            return replace(items, spaces=spaces.refreshed(known, connection, snapshot, items.base, items.side))

    def _happenings(self, items: Stock, snapshot: Snapshot | None, now: datetime) -> Happenings:
        if not self.ranking:
            return self.state.happenings
        with reading(self.engine) as connection:
            found = happenings.refreshed(
                self.state.happenings, connection, snapshot, items.base, self._interactions.types, now, self.tail
            )
            return found if found.spaces is items.spaces else replace(found, spaces=items.spaces)

    def _as_others(self, items: Stock, snapshot: Snapshot | None) -> Mapping[str, Stock]:
        """What stays as it was is shared."""
        wanted = self._others | self._tried
        if snapshot is None or not wanted:
            return {}
        if items is self.state.stock and self.state.others.keys() == wanted:
            return self.state.others
        told = partial(self._strangers, snapshot=snapshot)
        before = self.state.others if snapshot is self.state.snapshot else {}
        return {name: like(items, before.get(name), snapshot, name, told) for name in sorted(wanted)}

    def _newest_snapshot(self) -> Snapshot | None:
        served = self.state.snapshot
        if served is not None and snapshots.is_current(self._folder, served):
            return served
        if snapshots.current(self._folder) is None:
            return served
        found = snapshots.load_newest_good(self._folder)
        same = found is None or (served is not None and (found.version, found.stamp) == (served.version, served.stamp))
        return served if same else found

    def _with_changes(self, items: Stock, snapshot: Snapshot | None, now: datetime) -> Stock:
        with reading(self.engine) as connection:
            found, newest = _fingerprint(connection, self._since, self._newest)
            if found == self._known and newest == self._newest:
                return items
            late = found != self._known  # something became visible among what we had read, or left it by an edit
            rows = catalog.changed_since(connection, self._since if late else self._newest + 1)
            self._since, self._newest = max(self._since, to_milliseconds(now - OVERLAP)), newest
            self._known, _ = _fingerprint(connection, self._since, newest)
        return changed(items, rows, snapshot, partial(self._strangers, snapshot=snapshot))

    def _strangers(self, keys: Keys, snapshot: Snapshot | None) -> Strangers | None:
        """What is known of those of the items that have come since the snapshot."""
        new = strangers(keys, snapshot)
        if not len(new):
            return None
        with reading(self.engine) as connection:
            return Strangers(Vocabulary(np.sort(new)), contents.read(connection, np.sort(new)))

    def person(self, connection: sa.Connection, user_id: str, snapshot: Snapshot | None) -> Person:
        """All that serving needs to know about a user; an empty Person for an id that nobody has used.

        `snapshot` is that of the state the request works on.
        """
        found = people.identify(connection, user_id)
        if found is None:
            return Person(viewer=viewer({}, self._rules))
        key, keys, choices = found.key, found.keys, found.choices
        vector, bias = _learned(snapshot, (key, *keys))
        by_source = people.source_choices(connection, key) if found.chose_sources else {}
        return Person(
            key=key,
            keys=keys,
            history=self._history(connection, key, keys, snapshot),
            vector=vector,
            bias=bias,
            hidden=tuple(source for source, choice in by_source.items() if choice == "hidden"),
            followed=tuple(source for source, choice in by_source.items() if choice == "followed"),
            topics=choices.topics,
            languages=choices.languages,
            window=None if choices.window_days is None else timedelta(days=choices.window_days),
            viewer=viewer(found.labels, self._rules),
        )

    def viewer(self, connection: sa.Connection, user_id: str | None) -> Viewer:
        """A user as the rules of items see them; None and an id that nobody has used are somebody of whom nothing is known."""
        found = None if user_id is None else people.identify(connection, user_id)
        return viewer({} if found is None else found.labels, self._rules)

    def visitor(self, recent: EventColumns, snapshot: Snapshot | None) -> Person:
        """Somebody of whom nothing is known but these events, all of them one person's."""
        history = _continued(History(), recent, self._params(snapshot))
        return Person(history=history, viewer=viewer({}, self._rules))

    def unanswered(self, connection: sa.Connection, person: Person, before: datetime) -> Keys:
        """Items last shown before this time, to which nothing else ever happened, that shown longest ago first.

        Only the unsealed part of the log is looked at: what was shown days ago has had its chance.
        """
        hot = events.of_user(connection, person.keys, 0, person.key)
        shown = np.array([name == "shown" for name in hot.types], bool)[hot.type]
        order = np.lexsort((hot.time, hot.item))
        newest = order[np.append(hot.item[order][1:] != hot.item[order][:-1], True)] if len(hot) else order
        answered = np.union1d(hot.item[~shown], person.history.items[person.history.voted])
        newest = newest[(hot.time[newest] < to_milliseconds(before)) & ~np.isin(hot.item[newest], answered)]
        return hot.item[newest[np.argsort(hot.time[newest], kind="stable")]]

    def shown_since(self, connection: sa.Connection, person: Person, since: datetime) -> Keys:
        """Items that were shown to the person at this time or later."""
        hot = events.of_user(connection, person.keys, 0, person.key)
        shown = np.array([name == "shown" for name in hot.types], bool)[hot.type]
        return np.unique(hot.item[shown & (hot.time >= to_milliseconds(since))])

    def _history(
        self, connection: sa.Connection, person: int, keys: tuple[int, ...], snapshot: Snapshot | None
    ) -> History:
        """What the snapshot knows, with the events since taken in by the rules that training follows."""
        before = self._histories.get(keys)
        if before is None or not before.of(snapshot):
            found = self._read_history(connection, person, keys, snapshot)
        else:
            new = events.of_user(connection, keys, before.seq, person)
            if not len(new):
                return before.history
            history = _after_pages(before.history, new, self._interactions)
            if history is None and self._stand_alone(new, before.history):
                history = _continued(before.history, new, self._params(snapshot))
            if history is not None:
                found = _told(history, int(new.seq[-1]), snapshot)
            else:
                found = self._read_history(connection, person, keys, snapshot)
        self._histories.add({keys: found})
        return found.history

    def _stand_alone(self, new: EventColumns, history: History) -> bool:
        """Whether these events mean the same without those before them: of other items, or telling that something was shown.
        What a value means depends on all the others of a person, where training hasn't found the scale."""
        types = {new.types[number] for number in np.unique(new.type)}
        meanings = self._interactions.types
        if types == {"shown"} and "shown" not in meanings:
            return True
        valued = any("value" in (meanings[name].label, meanings[name].positive) for name in types if name in meanings)
        return not valued and not np.isin(new.item, history.items).any()

    def _read_history(
        self, connection: sa.Connection, person: int, keys: tuple[int, ...], snapshot: Snapshot | None
    ) -> _Told:
        old = _learned_history(snapshot, keys)
        learned = _history_seq(snapshot)
        recent = events.of_user(connection, keys, learned, person)
        seq = int(recent.seq[-1]) if len(recent) else learned
        again = np.intersect1d(recent.item, old.items[old.voted | (old.weights != 0)])
        if len(again):
            # What said something before is touched again: only all its events together tell what holds now.
            recent = events.of_user(connection, keys, learned, person, again.tolist())
        return _told(_continued(old, recent, self._params(snapshot)), seq, snapshot)

    def _params(self, snapshot: Snapshot | None) -> InteractionParams:
        """One person's ratings don't show the whole scale: it is the one that training found."""
        scale = None if snapshot is None else snapshot.header.get("rating_range")
        if scale is None:
            return self._interactions
        return msgspec.structs.replace(self._interactions, rating_range=(float(scale[0]), float(scale[1])))


def _fingerprint(connection: sa.Connection, since: int, newest: int) -> tuple[tuple[int, int], int]:
    """Number and sum of the times of change from `since` to `newest`, and the last of all times; read from the index alone."""
    updated = items_table.c.updated
    known = updated <= newest
    count, total = sa.func.count().filter(known), sa.func.sum(updated - since).filter(known)
    query = sa.select(count, sa.func.coalesce(total, 0), sa.func.max(updated)).where(updated >= since)
    number, sum_, last = connection.execute(query).one()
    return (number, int(sum_)), max(last or 0, newest)


def _history_seq(snapshot: Snapshot | None) -> int:
    return 0 if snapshot is None else snapshots.history_seq(snapshot)


def _learned(snapshot: Snapshot | None, keys: tuple[int, ...]) -> tuple[NDArray[np.float32] | None, float]:
    """Vector and bias of the first of the keys that the model knows."""
    rows = _user_rows(snapshot, keys)
    if snapshot is None or not len(rows) or "user_vectors" not in snapshot.arrays:
        return None, 0.0
    arrays = snapshot.arrays
    return np.array(arrays["user_vectors"][rows[0]], np.float32), float(arrays["user_bias"][rows[0]])


def _user_rows(snapshot: Snapshot | None, keys: tuple[int, ...]) -> Keys:
    if snapshot is None:
        return _no_keys()
    return _known_rows(np.asarray(snapshot.arrays["users"]), keys)


def _known_rows(users: Keys, keys: tuple[int, ...]) -> Keys:
    rows = Vocabulary(users).rows(np.array(keys, np.int64))
    return rows[rows >= 0]


def _learned_history(snapshot: Snapshot | None, keys: tuple[int, ...]) -> History:
    """History of all the keys together: ids that were joined after the training still have one each."""
    found = History()
    if snapshot is None:
        return found
    arrays = snapshot.arrays
    item_keys = arrays.get("history_item_keys", arrays["items"])
    for row in _known_rows(snapshots.people_of_histories(arrays), keys):
        part = slice(*arrays["history_offsets"][row : row + 2])
        items, labels = item_keys[arrays["history_items"][part]], arrays["history_labels"][part]
        weights = arrays["history_weights"][part] if "history_weights" in arrays else np.zeros(len(items))
        found = History(items, labels.astype(np.float32), weights.astype(np.float32)).after(found)
    return _once(found)


def _once(history: History) -> History:
    """Each item at its last place; a label counts before none."""
    rank = np.lexsort((np.arange(len(history)), history.voted, history.items))
    last = np.append(history.items[rank][1:] != history.items[rank][:-1], True) if len(history) else rank.astype(bool)
    kept = np.zeros(len(history), bool)
    kept[rank[last]] = True
    return history.of_items(kept)


def _after_pages(old: History, recent: EventColumns, params: InteractionParams) -> History | None:
    """What `_continued` gives where nothing came but pages of items that weren't met before, as at most requests; else None."""
    if any(params.types.get(name) != SAYS_NOTHING for name in recent.types):
        return None
    order = np.lexsort((recent.item, recent.time))
    items, count = recent.item[order], len(order)
    met = set(items.tolist())
    if len(met) < count or not met.isdisjoint(old.items.tolist()):
        return None
    return History(items, np.full(count, np.nan, np.float32), np.zeros(count, np.float32)).after(old)


def _continued(old: History, recent: EventColumns, params: InteractionParams) -> History:
    """The old history with these events after it."""
    if not len(recent):
        return old
    merged = merge(recent, params)
    order = np.argsort(merged.time, kind="stable")
    items, labels, weights = merged.item[order], merged.label[order], merged.weight[order]
    decided = _of_types(recent, items, lambda name: _decides(name, params))
    labels = np.where(decided, labels, _before(old.of_items(old.voted), "labels", items, labels))
    weights = _weights(recent, items, weights, _before(old, "weights", items, weights), params)
    return History(items, labels, weights).after(old.of_items(~np.isin(old.items, items)))


def _of_types(recent: EventColumns, items: Keys, wanted: Callable[[str], bool]) -> NDArray[np.bool_]:
    """Which of the items have an event of a type that is wanted."""
    types = np.array([wanted(name) for name in recent.types], bool)
    return np.isin(items, recent.item[types[recent.type]])


def _decides(name: str, params: InteractionParams) -> bool:
    """Whether an event of this type settles the label whatever came before: a vote, an action or a retraction."""
    meaning = params.types.get(name)
    if meaning is None:
        return name.startswith("retract")
    return (meaning.label if params.rule == "votes" else meaning.positive) is not None


def _weights(
    recent: EventColumns,
    items: Keys,
    weights: NDArray[np.float32],
    before: NDArray[np.float32],
    params: InteractionParams,
) -> NDArray[np.float32]:
    """What an item weighs after these events, where the events behind the weight `before` are sealed and not at hand.

    A refusal or a retraction settles it; an old refusal stays until something is done with the item; else the larger weight
    holds, which is short by what a second type of event adds.
    """
    taken_back = _of_types(recent, items, lambda name: name.startswith("retract"))
    acted = _of_types(recent, items, lambda name: name in params.types and params.types[name].positive is not None)
    larger = np.where((before < 0) & ~acted, before, np.maximum(weights, before))
    return np.where(taken_back | (weights < 0), weights, larger).astype(np.float32)


def _before(old: History, what: str, items: Keys, missing: NDArray[np.float32]) -> NDArray[np.float32]:
    """The old label or weight of each item, `missing` where it is not in the old history."""
    order = np.argsort(old.items)
    places = Vocabulary(old.items[order]).rows(items)
    return np.where(places >= 0, np.append(getattr(old, what)[order], np.nan)[places], missing).astype(np.float32)
