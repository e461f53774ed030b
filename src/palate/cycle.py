"""One cycle of training: read the log, learn, test, publish a snapshot, tidy up.

A cycle is full (a new model of all examples) or incremental (the last model learns what is new, mixed with a sample of what is
old). It is tested on its newest examples before it learns them, and refused when it is clearly worse than the prior.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import sqlalchemy as sa

from palate import database, events, identities, interactions, metrics, snapshots
from palate.database import reading, writing
from palate.domain import EventColumns, Interactions, from_milliseconds, to_milliseconds
from palate.events import EventParams
from palate.interactions import InteractionParams
from palate.models import factorization_machine as fm
from palate.models import popularity
from palate.models.factorization_machine import FactorizationMachine, FactorizationMachineParams, ItemSources
from palate.models.popularity import Popularity, PopularityParams
from palate.vocabulary import Vocabulary, vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOSS_POINTS = 2_000
"""Points of the loss curve that are kept for a cycle."""


class TrainParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the loop of `train.py` starts a cycle, what a cycle learns from, and what it keeps."""

    new_events: Annotated[int, msgspec.Meta(ge=1)] = 100
    """Deciding events (votes, or views under the rule `views`) since the last cycle that start the next."""
    max_wait: Annotated[float, msgspec.Meta(ge=0)] = 600.0
    """Seconds after the last cycle in which any new event starts the next, however few there are."""
    min_pause: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    """Seconds between the end of a cycle and the start of the next."""
    full_every: Annotated[int, msgspec.Meta(ge=1)] = 20
    """Incremental cycles after which the next is full."""
    window_days: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Events that happened longer ago teach nothing. None: all that the log keeps."""
    share_of_users: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    """Share of people whose events are learned from, always the same ones; the others are served all the same."""
    robots: tuple[str, ...] = ()
    """Ids of users whose events teach nothing."""
    held_out_share: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.1
    """Share of a cycle's examples, the newest, on which it is tested before it learns them. Of each person the older half
    is learned first if there are enough others: serving too knows a person's earlier votes."""
    min_held_out: Annotated[int, msgspec.Meta(ge=1)] = 30
    """Fewest examples for a test; a cycle with less than twice as many new ones is published without."""
    old_per_new: Annotated[int, msgspec.Meta(ge=0)] = 30
    """Old examples that an incremental cycle learns once more with each new one, so that it doesn't forget them."""
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
    poll: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """Seconds between two looks at the log."""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 1
    """Of everything random in learning: the same events, settings and seed give the same model."""


class Params(msgspec.Struct, frozen=True, kw_only=True):
    """All that a cycle is steered by."""

    train: TrainParams = TrainParams()
    interactions: InteractionParams = InteractionParams()
    popularity: PopularityParams = PopularityParams()
    factorization_machine: FactorizationMachineParams = FactorizationMachineParams()
    events: EventParams = EventParams()


class Cycle(msgspec.Struct, frozen=True, kw_only=True):
    """What a cycle did; a row of the table `cycles`, without its loss curve."""

    full: bool
    reason: str
    """Why it ran; when nothing was published, why not."""
    started: int
    """Milliseconds since 1970."""
    seconds: float
    seq: int
    """The last event it had read."""
    examples: int
    """Those that it learned, a sample of old ones not counted."""
    version: str | None
    """Of the snapshot; None when nothing was published."""
    loss: float | None
    """Mean loss on the held-out examples; None when there were too few for a test."""
    prior_loss: float | None
    """Of the mean label, on the same examples."""

    def to_json(self) -> dict[str, object]:
        """The fields by name."""
        return msgspec.structs.asdict(self)

    def summary(self) -> str:
        """What happened, in one sentence."""
        if self.version is None:
            return f"No snapshot was published: {self.reason}."
        tested = "too few examples for a test"
        if self.loss is not None and self.prior_loss is not None:
            tested = f"loss {self.loss:.4f}, prior {self.prior_loss:.4f}"
        kind = "Full" if self.full else "Incremental"
        return f"{kind} cycle of {self.examples} examples in {self.seconds:.1f} s: snapshot {self.version} ({tested})."


@dataclass(frozen=True)
class _Material:
    """What a cycle may learn."""

    seq: int
    rating_range: tuple[float, float] | None
    all: Interactions
    """Every pair in the window, also those that aren't learned from: what people have seen."""
    examples: NDArray[np.bool_]
    """Which of `all` are learned from."""
    new: NDArray[np.bool_]
    """Which of `all` have an event that the last model hasn't learned."""
    item_sources: ItemSources


@dataclass(frozen=True)
class _Last:
    """The model of the snapshot that is served."""

    model: FactorizationMachine
    seq: int


@dataclass(frozen=True)
class _Lesson:
    """What was learned, and how it did in the test."""

    model: FactorizationMachine
    losses: NDArray[np.float32]
    examples: int
    held_out: int
    loss: float | None
    prior_loss: float | None
    error: float
    """Standard error of loss − prior_loss."""
    warm: bool

    def is_refused(self, params: TrainParams) -> bool:
        """Whether it is worse than the prior by more than chance explains, or no number at all."""
        if not np.isfinite(self.losses).all():
            return True
        if self.loss is None or self.prior_loss is None:
            return False
        return not self.loss <= self.prior_loss + params.tolerance + params.doubt * self.error


def run_cycle(
    engine: sa.Engine,
    data: Path,
    params: Params,
    now: datetime,
    *,
    full: bool = True,
    reason: str = "it was asked for",
) -> Cycle:
    """Learn from the log and publish a snapshot in `data/snapshots`, unless it is clearly worse than the prior.

    An incremental cycle becomes a full one when there is no fitting model to go on from, or when its loss jumps. Raises
    DatabaseError or DataFolderError when the log can't be read or the snapshot can't be written.
    """
    begin = time.perf_counter()
    last = None if full else _last_model(data, params)
    material = _read(engine, data, params, now, last.seq if last else 0)
    lesson = _learn(material, last, params)
    if lesson is not None and last is not None and (jump := _jump(engine, lesson, params.train)) is not None:
        lesson, reason = _learn(material, None, params), jump
    version, verdict = _publish(engine, data, material, lesson, params, now)
    cycle = Cycle(
        full=lesson is None or not lesson.warm,
        reason=verdict or reason,
        started=to_milliseconds(now),
        seconds=time.perf_counter() - begin,
        seq=material.seq,
        examples=lesson.examples if lesson else 0,
        version=version,
        loss=lesson.loss if lesson else None,
        prior_loss=lesson.prior_loss if lesson else None,
    )
    _record(engine, cycle, lesson)
    _tidy(engine, data, params, now)
    return cycle


def _last_model(data: Path, params: Params) -> _Last | None:
    """What the served snapshot has learned; None when there is none, or when the settings have changed since."""
    snapshot = snapshots.load_newest_good(data / "snapshots")
    if snapshot is None:
        return None
    header, wanted = snapshot.header["models"]["fm"], params.factorization_machine
    same = (header["loss"], header["factors"]) == (wanted.loss, wanted.factors)
    if not same or snapshot.header["rule"] != params.interactions.rule:
        return None
    return _Last(fm.from_arrays(snapshot.arrays, header["loss"], header["base"]), snapshot.header["seq"])


def _read(engine: sa.Engine, data: Path, params: Params, now: datetime, learned: int) -> _Material:
    """What the log holds; `learned` is the last event that the last model knows."""
    since = now - timedelta(days=params.train.window_days) if params.train.window_days else None
    with reading(engine) as connection:
        seq = events.last_seq(connection)  # looked up first: what comes meanwhile is learned, and once more next time
        sources = _item_sources(connection)
        robots = identities.user_keys(connection, params.train.robots, None)
        left_out = set(identities.persons(connection, robots.values()).values())
    columns = events.read_columns(engine, data / "events", since=since)
    bounds = interactions.rating_range(columns, params.interactions)
    merged = interactions.merge(columns, msgspec.structs.replace(params.interactions, rating_range=bounds), left_out)
    examples = ~np.isnan(merged.label) & _in_share(merged.user, params.train.share_of_users)
    return _Material(seq, bounds, merged, examples, _touched(merged, columns, learned), sources)


def _item_sources(connection: sa.Connection) -> ItemSources:
    items = database.items
    rows = connection.execute(sa.select(items.c.key, items.c.source).where(items.c.source.is_not(None))).all()
    pairs = np.array(rows, np.int64).reshape(-1, 2)
    return ItemSources(pairs[:, 0].copy(), pairs[:, 1].copy())


def _in_share(users: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Which people are learned from: a fixed choice by their key (Fibonacci hashing), so that it is the same in every cycle."""
    hashed = users.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (hashed >> np.uint64(11)).astype(np.float64) / 2**53 < share


def _touched(merged: Interactions, columns: EventColumns, after_seq: int) -> NDArray[np.bool_]:
    """Which pairs have an event of a greater seq."""
    recent = columns.seq > after_seq
    if recent.all():
        return np.ones(len(merged), bool)
    users, items = vocabulary(merged.user), vocabulary(merged.item)
    codes = users.rows(merged.user) * len(items) + items.rows(merged.item)
    rows = users.rows(columns.user[recent]), items.rows(columns.item[recent])
    known = (rows[0] >= 0) & (rows[1] >= 0)  # accounts that are left out have no pairs
    return np.isin(codes, rows[0][known] * len(items) + rows[1][known])


def _learn(material: _Material, last: _Last | None, params: Params) -> _Lesson | None:
    """Learn all but the newest of the new examples, be tested on those, then learn them too. None without any example."""
    if not material.examples.any():
        return None
    new = material.examples if last is None else material.examples & material.new
    held = _newest(material, new, params.train)
    taken = _labelled(material.all, material.examples & ~held)
    steps = _Steps(material, params, np.random.default_rng([params.train.seed, material.seq]))
    model, losses = steps.fit(taken) if last is None else steps.partial_fit(last.model, new & ~held)
    loss, prior_loss, error = _test(model, material.all, held, taken) if held.any() else (None, None, 0.0)
    if held.any():
        model, more = steps.partial_fit(model, held)
        losses = np.concatenate((losses, more))
    return _Lesson(model, losses, int(new.sum()), int(held.sum()), loss, prior_loss, error, last is not None)


@dataclass(frozen=True)
class _Steps:
    """The model's two ways to learn, on the material of one cycle."""

    material: _Material
    params: Params
    random: np.random.Generator

    def fit(self, taken: Interactions) -> tuple[FactorizationMachine, NDArray[np.float32]]:
        """A new model. People and items without an example are in it, at the prior and at the mean of their source."""
        return fm.fit(taken, *self._rest())

    def partial_fit(
        self, model: FactorizationMachine, new: NDArray[np.bool_]
    ) -> tuple[FactorizationMachine, NDArray[np.float32]]:
        """The model with the new examples among a sample of old ones, and with all people and items of the material."""
        if not new.any():
            return fm.partial_fit(model, _labelled(self.material.all, new), *self._rest())[0], np.zeros(0, np.float32)
        old = np.flatnonzero(self.material.examples & ~new)
        train, count = self.params.train, int(new.sum())
        wanted = min(len(old), max(train.old_per_new * count, train.min_mixture - count))
        mixture = new.copy()
        mixture[self.random.choice(old, wanted, replace=False)] = True
        return fm.partial_fit(model, _labelled(self.material.all, mixture), *self._rest())

    def _rest(self) -> tuple[ItemSources, FactorizationMachineParams, int]:
        return self.material.item_sources, self.params.factorization_machine, int(self.random.integers(2**31))


def _newest(material: _Material, new: NDArray[np.bool_], params: TrainParams) -> NDArray[np.bool_]:
    """Which of the new examples are held out: the newest share, none when that is too few for a test.

    The older half of each person's examples is taken only when there are not enough others. The newest of all are often the
    first of somebody who has just come: a model that knows nothing of a person can't be told from the prior by them.
    """
    places = np.flatnonzero(new)
    count = max(round(params.held_out_share * len(places)), params.min_held_out)
    held = np.zeros(len(new), bool)
    if params.held_out_share > 0 and 2 * count <= len(places):
        later = _in_later_half(material.all, material.examples)[places]
        held[places[np.lexsort((material.all.time[places], later))[-count:]]] = True
    return held


def _in_later_half(pairs: Interactions, examples: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which examples are among the later half (rounded down) of their person's."""
    places = np.flatnonzero(examples)
    places = places[np.lexsort((pairs.time[places], pairs.user[places]))]
    _, starts, counts = np.unique(pairs.user[places], return_index=True, return_counts=True)
    later = np.zeros(len(examples), bool)
    later[places] = np.arange(len(places)) - np.repeat(starts, counts) >= np.repeat((counts + 1) // 2, counts)
    return later


def _test(
    model: FactorizationMachine, pairs: Interactions, held: NDArray[np.bool_], taken: Interactions
) -> tuple[float, float, float]:
    """Mean loss of the model and of the prior (the mean label of what was learned) on the held-out examples, and the standard
    error of their difference. Examples of one person err together, so people are what is counted (Liang and Zeger,
    "Longitudinal Data Analysis Using Generalized Linear Models", 1986).
    """
    labels, users = pairs.label[held], pairs.user[held]
    measure = metrics.log_losses if model.loss == "logistic" else metrics.squared_errors
    losses = measure(labels, fm.score(model, users, pairs.item[held]))
    prior_losses = measure(labels, np.full(len(labels), np.nanmean(taken.label, dtype=np.float64)))
    difference = losses - prior_losses
    by_person = np.bincount(np.unique(users, return_inverse=True)[1], difference - difference.mean())
    return float(losses.mean()), float(prior_losses.mean()), float(np.sqrt((by_person**2).sum())) / len(labels)


def _jump(engine: sa.Engine, lesson: _Lesson, params: TrainParams) -> str | None:
    """Why a full fit has to take this incremental lesson's place; None when it hasn't.

    Going on for long from one model can end in a place that no step leaves: the loss stands still over several cycles, then
    jumps. A jump is a loss above the median of the last cycles by more than four times their median absolute deviation, and
    by a tenth.
    """
    if not np.isfinite(lesson.losses).all():
        return "the incremental loss was no number"
    with reading(engine) as connection:
        earlier = [float(losses.mean()) for losses in _incremental_losses(connection, params.standstill)]
    if len(earlier) < params.standstill or not len(lesson.losses):
        return None
    loss, median = float(lesson.losses.mean()), float(np.median(earlier))
    spread = float(np.median(np.abs(np.array(earlier) - median)))
    if loss <= max(median + 4 * spread, 1.1 * median):
        return None
    return f"the incremental loss jumped from {median:.4f} to {loss:.4f}"


def _incremental_losses(connection: sa.Connection, limit: int) -> list[NDArray[np.float32]]:
    """Loss curves of the published incremental cycles since the last full one, the newest `limit`."""
    cycles = database.cycles
    last_full = sa.select(sa.func.coalesce(sa.func.max(cycles.c.key), 0)).where(cycles.c.kind == "full")
    query = (
        sa.select(cycles.c.losses)
        .where(cycles.c.key > last_full.scalar_subquery(), cycles.c.version.is_not(None))
        .order_by(cycles.c.key.desc())
        .limit(limit)
    )
    curves = (np.frombuffer(losses, np.float32) for losses in connection.scalars(query))
    return [curve for curve in curves if len(curve)]


def _publish(
    engine: sa.Engine, data: Path, material: _Material, lesson: _Lesson | None, params: Params, now: datetime
) -> tuple[str | None, str | None]:
    """The version that was published and None, or None and the reason why not. Nobody who was deleted gets into it."""
    if lesson is None:
        return None, "there is nothing to learn from yet"
    if lesson.is_refused(params.train):
        return (
            None,
            f"refused: its loss {lesson.loss or np.nan:.4f} is worse than the prior's {lesson.prior_loss or np.nan:.4f}",
        )
    # Trends fade against the newest event: a log that ended years ago is judged as of its end, not as all faded.
    newest = from_milliseconds(min(to_milliseconds(now), int(material.all.time[material.examples].max())))
    popular = popularity.fit(_labelled(material.all, material.examples), newest, params.popularity)
    folder, users = data / "snapshots", lesson.model.users.keys
    arrays = _arrays(material.all, lesson.model, popular, _deleted(engine, users), params.train.history_limit)
    version = snapshots.publish(folder, _header(material, lesson, popular, params, now), arrays)
    snapshots.forget_user(folder, _deleted(engine, users))  # who was deleted while we wrote
    return version, None


def _deleted(engine: sa.Engine, users: NDArray[np.int64]) -> NDArray[np.int64]:
    with reading(engine) as connection:
        known = np.array(connection.scalars(sa.select(database.users.c.key)).all(), np.int64)
    return np.setdiff1d(users, known)


def _header(material: _Material, lesson: _Lesson, popular: Popularity, params: Params, now: datetime) -> dict[str, Any]:
    model = lesson.model
    return {
        "created": to_milliseconds(now),
        "seq": material.seq,
        "rule": params.interactions.rule,
        "rating_range": list(material.rating_range) if material.rating_range else None,
        "models": {
            "fm": {"loss": model.loss, "base": model.base, "factors": model.item_vectors.shape[1]},
            "popularity": {"mean": popular.prior_mean, "strength": popular.strength},
        },
        "quality": {"loss": lesson.loss, "prior_loss": lesson.prior_loss, "held_out": lesson.held_out},
    }


def _arrays(
    pairs: Interactions, model: FactorizationMachine, popular: Popularity, deleted: NDArray[np.int64], limit: int
) -> dict[str, NDArray[Any]]:
    """The arrays of a snapshot. Items are those of the pairs and of the model; others start at their source's mean."""
    arrays = fm.to_arrays(model)
    kept = ~np.isin(model.users.keys, deleted)
    arrays |= {name: arrays[name][kept] for name in ("users", "user_bias", "user_vectors")}
    rows = popular.items.rows(model.items.keys)
    known = rows >= 0
    evidence = np.zeros(len(rows), np.float32)
    evidence[known] = popular.evidence[rows[known]]
    history = _history(pairs, Vocabulary(arrays["users"]), model.items, limit)
    return (
        arrays | {"popularity": popularity.score(popular, model.items.keys), "popularity_evidence": evidence} | history
    )


def _history(pairs: Interactions, users: Vocabulary, items: Vocabulary, limit: int) -> dict[str, NDArray[Any]]:
    """The newest `limit` pairs of each user, oldest first, one user after the other."""
    rows = users.rows(pairs.user)
    order = np.lexsort((pairs.time, rows))
    order = order[np.count_nonzero(rows < 0) :]
    ends = np.searchsorted(rows[order], np.arange(len(users)), side="right")
    order = order[ends[rows[order]] - np.arange(len(order)) <= limit]
    counts = np.bincount(rows[order], minlength=len(users))
    return {
        "history_offsets": np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        "history_items": items.rows(pairs.item[order]).astype(np.int32),
        "history_labels": pairs.label[order].astype(np.float16),
    }


def _labelled(pairs: Interactions, which: NDArray[np.bool_]) -> Interactions:
    """The same pairs, of which only some are examples."""
    return replace(pairs, label=np.where(which, pairs.label, np.float32(np.nan)))


def _record(engine: sa.Engine, cycle: Cycle, lesson: _Lesson | None) -> None:
    losses = _thinned(lesson.losses) if lesson else np.zeros(0, np.float32)
    row = {name: getattr(cycle, name) for name in cycle.__struct_fields__ if name != "full"}
    row |= {"kind": "full" if cycle.full else "incremental", "warm": int(not cycle.full)}
    with writing(engine) as connection:
        connection.execute(sa.insert(database.cycles).values(**row, losses=losses.tobytes()))


def _thinned(losses: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most LOSS_POINTS points of a curve: means of neighbours."""
    parts = np.array_split(losses, min(len(losses), LOSS_POINTS)) if len(losses) else []
    return np.array([part.mean() for part in parts], np.float32)


def _tidy(engine: sa.Engine, data: Path, params: Params, now: datetime) -> None:
    """Prune old snapshots, seal what all of the kept ones have learned, and drop what is past its time."""
    folder, log_folder = data / "snapshots", data / "events"
    snapshots.prune(folder, params.train.keep_snapshots)
    # Serving finds what a snapshot doesn't know in the unsealed log, also after going back to an older one.
    learned = min(
        (snapshots.load(folder, version, verify=False).header["seq"] for version in snapshots.versions(folder)),
        default=0,
    )
    events.seal(engine, log_folder, now - timedelta(days=params.events.hot_days), learned)
    if params.events.keep_days is not None:
        events.expire(engine, log_folder, now - timedelta(days=params.events.keep_days))
