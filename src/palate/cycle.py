"""One cycle of training: read the log, learn each model, test it, publish a snapshot, tidy up.

A cycle is full (new models of all examples) or incremental (the last models learn what is new, mixed with a sample of what is
old). Each is tested on its newest examples before it learns them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import sqlalchemy as sa

from palate import database, events, lessons, snapshots
from palate.database import reading, writing
from palate.domain import to_milliseconds
from palate.examples import Examples, Params, TrainParams, read
from palate.lessons import Last, Lesson, LossTest
from palate.models import stored
from palate.publishing import publish

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Cycle", "Params", "TrainParams", "run_cycle"]

LOSS_POINTS = 2_000
"""Points of the loss curve that are kept for a cycle."""


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
class _Learned:
    """The models of the snapshot that is served, and the last event that they have learned."""

    models: Mapping[str, Last]
    seq: int


def run_cycle(
    engine: sa.Engine,
    data: Path,
    params: Params,
    now: datetime,
    *,
    full: bool = True,
    reason: str = "it was asked for",
) -> Cycle:
    """Learn from the log and publish a snapshot in `data/snapshots`, unless the model to serve is clearly worse than the prior.

    An incremental cycle becomes a full one when there are no fitting models to go on from, or when the loss jumps. Raises
    DatabaseError or DataFolderError when the log can't be read or the snapshot can't be written.
    """
    begin = time.perf_counter()
    last = None if full else _last_models(data, params)
    examples = read(engine, data, params, now, last.seq if last else 0)
    taught = _learn(examples, last, params)
    if last is not None and (jump := _jump(engine, taught, params.train)) is not None:
        last, reason = None, jump
        taught = _learn(examples, None, params)
    refusal = _refusal(examples, taught, params)
    version = publish(engine, data, examples, _published(taught, params), params, now) if refusal is None else None
    test = next((lesson.test for lesson in taught if isinstance(lesson.test, LossTest)), LossTest())
    cycle = Cycle(
        full=last is None,
        reason=refusal or reason,
        started=to_milliseconds(now),
        seconds=time.perf_counter() - begin,
        seq=examples.seq,
        examples=max((lesson.examples for lesson in taught), default=0),
        version=version,
        loss=test.loss,
        prior_loss=test.prior_loss,
    )
    _record(engine, cycle, taught)
    _tidy(engine, data, params, now)
    return cycle


def _last_models(data: Path, params: Params) -> _Learned | None:
    """What the served snapshot has learned; None when there is none, or when the settings have changed since."""
    snapshot = snapshots.load_newest_good(data / "snapshots")
    if snapshot is None or snapshot.header["rule"] != params.interactions.rule:
        return None
    known = [name for name in params.train.models if name in stored.names(snapshot)]
    if not known or not all(lessons.goes_on(name, snapshot.header["models"][name], params) for name in known):
        return None
    models: dict[str, Last] = {
        name: Last(stored.load(snapshot, name), snapshot.header["models"][name]) for name in known
    }
    return _Learned(models, snapshot.header["seq"])


def _learn(examples: Examples, last: _Learned | None, params: Params) -> list[Lesson]:
    """A lesson of each model that has anything to learn from."""
    models = last.models if last else {}
    wanted = (name for name in params.train.models if name != "popularity")
    found = (lessons.learn(examples, name, models.get(name), params) for name in wanted)
    return [lesson for lesson in found if lesson is not None]


def _published(taught: Sequence[Lesson], params: Params) -> list[Lesson]:
    return [lesson for lesson in taught if lesson.refusal(params.train) is None]


def _refusal(examples: Examples, taught: Sequence[Lesson], params: Params) -> str | None:
    """Why nothing is published; None when something is. Without the model that serving wants the old snapshot is better."""
    if params.served == "popularity" and examples.labelled.any():
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
        .where(cycles.c.key > last_full.scalar_subquery(), cycles.c.version.is_not(None))
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
