"""One cycle of training: read the log, learn each model, test it, publish a snapshot, tidy up.

A cycle is full (new models of all examples) or incremental (the last models learn what is new, mixed with a sample of what is
old): each model is tested on its newest examples before it learns them. Between those a cycle of items only finds a vector for
what is new, with people as they are.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import sqlalchemy as sa

from palate import database, events, gorse_feedback, lessons, replica, retention, snapshots
from palate.database import reading, writing
from palate.domain import to_milliseconds
from palate.errors import StoreError
from palate.examples import Examples, Kind, Memory, Params, TrainParams, read, remember
from palate.lessons import NO_SOLVERS, Last, Lesson, LossTest
from palate.models import stored
from palate.models.registry import Solver
from palate.publishing import Addition, publish

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

__all__ = ["Cycle", "Memory", "Params", "TrainParams", "run_cycle"]

KINDS: dict[Kind, str] = {"full": "Full", "incremental": "Incremental", "items": "Items"}

LOSS_POINTS = 2_000
"""Points of the loss curve that are kept for a cycle."""


class Cycle(msgspec.Struct, frozen=True, kw_only=True):
    """What a cycle did; a row of the table `cycles`, without its loss curve."""

    kind: Kind
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
    quality: dict[str, Any]
    """Of each model that was learned, by its name: what the header of the snapshot says."""

    @property
    def full(self) -> bool:
        """Whether all was learned anew."""
        return self.kind == "full"

    def to_json(self) -> dict[str, object]:
        """The fields by name."""
        return msgspec.structs.asdict(self)

    def summary(self) -> str:
        """What happened, in one sentence."""
        if self.version is None:
            return f"No snapshot was published: {self.reason}."
        tested = "; ".join(words for name, found in self.quality.items() if (words := _tested(name, found)))
        return (
            f"{KINDS[self.kind]} cycle of {self.examples} examples in {self.seconds:.1f} s: snapshot {self.version} "
            f"({tested or 'too few examples for a test'})."
        )


def _tested(name: str, found: Mapping[str, Any]) -> str:
    if found.get("loss") is not None:
        return f"{name}: loss {found['loss']:.4f}, prior {found['prior_loss']:.4f}"
    if found.get("ndcg") is not None:
        return f"{name}: nDCG@10 {found['ndcg']:.3f}, popularity {found['popularity_ndcg']:.3f}"
    return ""


@dataclass(frozen=True)
class _Learned:
    """The models of the snapshot that is served, and the last event that they have learned."""

    models: Mapping[str, Last]
    seq: int
    """Of what people taught; a cycle of items that came after it is not counted."""


def run_cycle(
    engine: sa.Engine,
    data: Path,
    params: Params,
    now: datetime,
    *,
    kind: Kind = "full",
    reason: str = "it was asked for",
    memory: Memory | None = None,
    solvers: Mapping[str, Solver] = NO_SOLVERS,
    adding: Callable[[Examples], Addition] | None = None,
) -> Cycle:
    """Learn from the log and publish a snapshot in `data/snapshots`, unless the model to serve is clearly worse than the prior.

    `memory` is what is kept of the log from one cycle of this process to the next, None when there is no next. `solvers` are
    those of models that are learned elsewhere, as on a cluster. `adding` gives what the snapshot holds beside the models.

    A cycle becomes a full one when there are no fitting models to go on from, or when an incremental loss jumps. Raises
    DatabaseError or DataFolderError when the log can't be read or the snapshot can't be written.
    """
    begin, memory = time.perf_counter(), memory or Memory()
    last = None if kind == "full" else _last_models(data, params, memory)
    examples = read(engine, data, params, now, last.seq if last else 0, memory)
    taught = _learn(examples, kind, last, params, solvers)
    if kind == "incremental" and last is not None and (jump := _jump(engine, taught, params.train)) is not None:
        last, reason = None, jump
        taught = _learn(examples, kind, None, params, solvers)
    refusal = _refusal(examples, taught, params)
    learned = last.seq if last and kind == "items" else examples.seq
    publishable = _published(taught, params)
    version = None
    if refusal is None:
        added = None if adding is None else adding(examples)
        version = publish(
            engine, data, examples, publishable, learned, params, now, anew=last is None, memory=memory, addition=added
        )
        remember(memory, learned, version)
    test = next((lesson.test for lesson in taught if isinstance(lesson.test, LossTest)), LossTest())
    cycle = Cycle(
        kind="full" if last is None else kind,
        reason=refusal or reason,
        started=to_milliseconds(now),
        seconds=time.perf_counter() - begin,
        seq=examples.seq,
        examples=max((lesson.examples for lesson in taught), default=0),
        version=version,
        loss=test.loss,
        prior_loss=test.prior_loss,
        quality={lesson.name: lesson.test.to_json() for lesson in taught},
    )
    _record(engine, cycle, taught)
    try:
        replica.push(engine, data)
        if _tidy(engine, data, params, now):
            memory.forget_window()
    except StoreError as error:
        log.error("%s What it lacks lies here meanwhile.", error)  # the follower brings it there when it can
    return cycle


def _last_models(data: Path, params: Params, memory: Memory) -> _Learned | None:
    """What the served snapshot has learned; None when there is none, or when the settings have changed since."""
    folder = data / "snapshots"
    written_by_us = memory.version is not None and memory.version == snapshots.current(folder)
    snapshot = snapshots.load_newest_good(folder, verify=not written_by_us)
    if snapshot is None or snapshot.header["rule"] != params.interactions.rule:
        return None
    known = [name for name in params.train.models if name in stored.names(snapshot)]
    if not known or not all(lessons.goes_on(name, snapshot.header["models"][name], params) for name in known):
        return None
    models, quality = snapshot.header["models"], snapshot.header.get("quality", {})
    return _Learned(
        {name: Last(stored.load(snapshot, name), models[name], quality.get(name)) for name in known},
        snapshot.header.get("learned", snapshot.header["seq"]),
    )


def _learn(
    examples: Examples, kind: Kind, last: _Learned | None, params: Params, solvers: Mapping[str, Solver]
) -> list[Lesson]:
    """A lesson of each model that has anything to learn from."""
    found = []
    for name in params.train.models:
        old = last.models.get(name) if last else None
        if name != "popularity":
            found.append(
                lessons.fold_items(examples, name, old, params)
                if kind == "items" and old is not None
                else lessons.learn(examples, name, old, params, solvers)
            )
    return [lesson for lesson in found if lesson is not None]


def _published(taught: Sequence[Lesson], params: Params) -> list[Lesson]:
    return [lesson for lesson in taught if lesson.refusal(params.train) is None]


def _refusal(examples: Examples, taught: Sequence[Lesson], params: Params) -> str | None:
    """Why nothing is published; None when something is. Without the model that serving wants the old snapshot is better."""
    if params.served == "popularity" and (examples.labelled.any() or examples.weighted.any()):
        return None
    if not taught:
        return "there is nothing to learn from yet"
    refused = {lesson.name: lesson.refusal(params.train) for lesson in taught}
    if all(refused.values()) or refused.get(params.served):
        return refused.get(params.served) or next(iter(refused.values()))
    return None


def _jump(engine: sa.Engine, taught: Sequence[Lesson], params: TrainParams) -> str | None:
    """Why a full fit has to take the place of these incremental lessons; None when it hasn't.

    Going on for long from one model can end in a place that no step leaves: the loss stands still over several cycles, then
    jumps. A jump is a loss above the median of the last cycles by more than four times their median absolute deviation, and
    by a tenth.
    """
    losses = _losses(taught)
    if not np.isfinite(losses).all():
        return "the incremental loss was no number"
    with reading(engine) as connection:
        earlier = [float(curve.mean()) for curve in _incremental_losses(connection, params.standstill)]
    if len(earlier) < params.standstill or not len(losses):
        return None
    loss, median = float(losses.mean()), float(np.median(earlier))
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
        .where(cycles.c.key > last_full.scalar_subquery(), cycles.c.version.is_not(None), cycles.c.kind != "items")
        .order_by(cycles.c.key.desc())
        .limit(limit)
    )
    curves = (np.frombuffer(losses, np.float32) for losses in connection.scalars(query))
    return [curve for curve in curves if len(curve)]


def _losses(taught: Sequence[Lesson]) -> NDArray[np.float32]:
    """The loss curve of the cycle: that of the first model which learns by steps."""
    return next((lesson.losses for lesson in taught if len(lesson.losses)), np.zeros(0, np.float32))


def _record(engine: sa.Engine, cycle: Cycle, taught: Sequence[Lesson]) -> None:
    losses = _thinned(_losses(taught))
    row = {name: getattr(cycle, name) for name in cycle.__struct_fields__ if name != "quality"}
    row |= {"warm": int(not cycle.full)}
    with writing(engine) as connection:
        connection.execute(sa.insert(database.cycles).values(**row, losses=losses.tobytes()))


def _thinned(losses: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most LOSS_POINTS points of a curve: means of neighbours."""
    parts = np.array_split(losses, min(len(losses), LOSS_POINTS)) if len(losses) else []
    return np.array([part.mean() for part in parts], np.float32)


def _tidy(engine: sa.Engine, data: Path, params: Params, now: datetime) -> bool:
    """Prune old snapshots, seal what all of the kept ones have learned, and drop what is past its time.

    Returns whether that took anything out of the window of training.
    """
    folder, log_folder = data / "snapshots", data / "events"
    replica.prune(engine, data, params.train.keep_snapshots)
    # Serving finds what a snapshot doesn't know in the unsealed log, also after going back to an older one.
    learned = min(
        (
            snapshots.history_seq(snapshots.load(folder, version, verify=False))
            for version in snapshots.versions(folder)
        ),
        default=0,
    )
    retention.seal(engine, log_folder, now - timedelta(days=params.events.hot_days), learned)
    keep, window = params.events.keep_days, params.train.window_days
    if keep is None:
        return False
    with writing(engine) as connection:
        gorse_feedback.expire(connection, now - timedelta(days=keep))
    if not retention.expire(engine, log_folder, now - timedelta(days=keep)):
        return False
    return window is None or timedelta(days=window) + events.CLOCK_SKEW > timedelta(days=keep)
