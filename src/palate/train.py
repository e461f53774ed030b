"""The training loop: follows the log and runs a cycle when enough is new, in a process of its own.

Learning loads compilers and Parquet, which stay in memory for good; the follower itself loads neither, and the process that
learns ends with its cycle, so that an idle installation stays small. Only where it keeps very many events in memory does it live
on to the next cycle. It dies with the follower, and a snapshot is published whole or not at all: either may be killed at any
moment.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import sqlalchemy as sa

from palate import (
    database,
    events,
    experiment_judging,
    interactions,
    list_making,
    quality,
    ranker_training,
    replica,
    snapshots,
)
from palate.cycle import KINDS, Cycle, Memory, Params, TrainParams, run_cycle
from palate.database import reading
from palate.domain import from_milliseconds, to_milliseconds
from palate.errors import CycleFailed, PalateError
from palate.examples import Kind
from palate.experiment_judging import Judging
from palate.lessons import NO_SOLVERS
from palate.list_making import ListMaking
from palate.models.registry import Name, Solver
from palate.ranker_training import RankerTraining
from palate.snapshots import Snapshot

__all__ = ["Cycle", "Learner", "Params", "TrainParams", "follow", "learn", "params_of", "run_cycle"]

log = logging.getLogger(__name__)

LONGEST_PAUSE = 300.0
"""Seconds between attempts when one after the other fails; the first pause is 2, then it doubles."""


def params_of(settings: msgspec.Struct, served: Name) -> Params:
    """The Params of training among the sections of the settings; `served` is learned too, and what surfaces are served by,
    whatever `train.models` names.
    """
    sections = {name: getattr(settings, name) for name in Params.__struct_fields__ if name != "served"}
    surfaces = getattr(settings, "surfaces", {}).values()
    wanted = [surface.model for surface in surfaces if surface.model is not None]
    models = tuple(dict.fromkeys((*sections["train"].models, served, *wanted)))
    sections["train"] = msgspec.structs.replace(sections["train"], models=models)
    return Params(**sections, served=served)


class Due(msgspec.Struct, frozen=True):
    """That a cycle should run now."""

    kind: Kind
    reason: str


def learn(
    engine: sa.Engine,
    data: Path,
    params: Params,
    now: datetime,
    lists: ListMaking,
    *,
    kind: Kind = "full",
    reason: str = "it was asked for",
    memory: Memory | None = None,
    solvers: Mapping[str, Solver] = NO_SOLVERS,
    rankers: RankerTraining | None = None,
) -> Cycle:
    """A cycle, with the rankers if they are named; after a full one, if it is wanted, lists for everybody. Raises as both do."""
    adding = (
        None if rankers is None else lambda examples: ranker_training.addition(engine, data, examples, rankers, now)
    )
    cycle = run_cycle(
        engine, data, params, now, kind=kind, reason=reason, memory=memory, solvers=solvers, adding=adding
    )
    if lists.lists.renew and cycle.full and cycle.version is not None:
        for made in list_making.renew(engine, data, lists, now):
            log.info("%d lists of %s by %s in %.1f s", made.people, made.name, made.model, made.seconds)
    return cycle


def follow(
    engine: sa.Engine,
    data: Path,
    params: Params,
    stop: threading.Event,
    clock: Callable[[], datetime],
    lists: ListMaking | None = None,
    judging: Judging | None = None,
    rankers: RankerTraining | None = None,
) -> None:
    """Run cycles as they become due until `stop` is set. Whatever goes wrong is logged and tried again, after a while."""
    failures = 0
    learning = Learner(engine, data, params, lists, rankers)
    with replica.following(engine, data, publishes=True) as looked, learning as learner:
        looked.wait()  # so that the first cycle goes on from what another machine published
        while not stop.is_set():
            try:
                due = find_due(engine, data, params, clock())
                if due is not None:
                    _report(learner.run_cycle(clock(), stop, due.kind, due.reason))
                quality.watch(engine, params.quality, clock())
                experiment_judging.watch(engine, data, judging or Judging(), clock())
                failures = 0
            except PalateError as error:
                log.error("%s", error)
                failures += 1
            except Exception:
                log.exception("the training loop stumbled")
                failures += 1
            stop.wait(min(LONGEST_PAUSE, 2.0**failures) if failures else params.train.poll)


def _report(cycle: Cycle | None) -> None:
    if cycle is not None:
        log.info("%s", cycle.summary())


def find_due(engine: sa.Engine, data: Path, params: Params, now: datetime) -> Due | None:
    """Whether a cycle should run now, and which.

    One is due when enough deciding events came since the last, or when any came and the last is long ago; never sooner than
    the pause. All it needs is in the database: a follower that was killed goes on where it was.
    """
    with reading(engine) as connection:
        last, learned = _last_cycle(connection, KINDS), _last_cycle(connection, ("full", "incremental"))
        waited = _seconds_since(last, now)
        if events.last_seq(connection) <= (last.seq if last else 0) or waited < params.train.min_pause:
            return None
        found = _due(connection, learned, now, params)
        incremental = _incremental_since_full(connection)
        if found is None:
            return _due_for_items(connection, data, last, params)
    if snapshots.current(data / "snapshots") is None:
        return Due("full", "there is no snapshot yet")
    if incremental >= params.train.full_every:
        return Due("full", f"{incremental} incremental cycles since the last full one")
    return found


def _due(connection: sa.Connection, learned: _LastCycle | None, now: datetime, params: Params) -> Due | None:
    """An incremental cycle when enough teaching events came since people were last learned, or any long ago."""
    seq, waited = learned.seq if learned else 0, _seconds_since(learned, now)
    new = _count(connection, _teaching(params, seq), params.train.new_events)
    if new >= params.train.new_events:
        return Due("incremental", f"at least {new} new events")
    if waited < params.train.max_wait or (learned is None and not new) or events.last_seq(connection) <= seq:
        return None
    return Due("incremental", f"{new} new events")


def _due_for_items(connection: sa.Connection, data: Path, last: _LastCycle | None, params: Params) -> Due | None:
    """A cycle of items when enough events tell of items that the models don't know: those that came after all they learned of."""
    enough = params.train.new_item_events
    folds = {"fm", "ials"} & set(params.train.models)
    snapshot = snapshots.load_newest_good(data / "snapshots", verify=False) if enough and folds else None
    if enough is None or snapshot is None or last is None:
        return None
    newest = _newest_learned(snapshot)
    new = _count(connection, [*_teaching(params, last.seq), database.events.c.item > newest], enough)
    return Due("items", f"at least {new} events about new items") if new >= enough else None


def _newest_learned(snapshot: Snapshot) -> int:
    """The greatest key of an item of which a model has learned anything: others have a place by their content alone."""
    arrays, items = snapshot.arrays, np.asarray(snapshot.arrays.get("items", np.zeros(0, np.int64)))
    counts = (arrays[name] for name in ("item_examples", "item_positives") if name in arrays)
    learned = np.flatnonzero(sum((np.asarray(count) > 0 for count in counts), np.zeros(len(items), bool)))
    return int(items[learned[-1]]) if len(learned) else 0


class _LastCycle(NamedTuple):
    started: int
    seconds: float
    seq: int


def _last_cycle(connection: sa.Connection, kinds: Collection[Kind]) -> _LastCycle | None:
    cycles = database.cycles
    query = sa.select(cycles.c.started, cycles.c.seconds, cycles.c.seq).where(cycles.c.kind.in_(kinds))
    row = connection.execute(query.order_by(cycles.c.key.desc()).limit(1)).first()
    return None if row is None else _LastCycle(*row)


def _seconds_since(last: _LastCycle | None, now: datetime) -> float:
    """From the end of the last cycle; endless when there was none, or when the clock was set back behind its start."""
    if last is None or last.started > to_milliseconds(now):
        return float("inf")
    return (now - from_milliseconds(last.started)).total_seconds() - last.seconds


def _teaching(params: Params, after_seq: int) -> list[sa.ColumnElement[bool]]:
    """What events meet that teach one of the models something and come after `after_seq`; undone ones are among them."""
    rules, table = params.interactions, database.events
    types = set(interactions.deciding_types(rules))
    if not set(params.train.models) <= {"fm"}:
        types |= {name for name, meaning in rules.types.items() if meaning.weight is not None}
    forms = [form for name in sorted(types) for form in (name, f"retract:{name}")]
    return [table.c.seq > after_seq, table.c.type.in_([*forms, "retract"])]


def _count(connection: sa.Connection, which: Collection[sa.ColumnElement[bool]], enough: int) -> int:
    """How many events meet all of these, counted no further than `enough`."""
    found = sa.select(database.events.c.seq).where(*which).limit(enough).subquery()
    return connection.execute(sa.select(sa.func.count()).select_from(found)).scalar_one()


def _incremental_since_full(connection: sa.Connection) -> int:
    cycles = database.cycles
    last_full = (
        sa.select(sa.func.coalesce(sa.func.max(cycles.c.key), 0)).where(cycles.c.kind == "full").scalar_subquery()
    )
    incremental = cycles.c.key > last_full, cycles.c.kind == "incremental"
    return connection.execute(sa.select(sa.func.count()).where(*incremental)).scalar_one()


class _Order(msgspec.Struct, frozen=True):
    """What the follower asks of the process that learns."""

    database_url: str
    store: str | None
    data: str
    params: Params
    now: int
    kind: Kind
    reason: str
    lists: ListMaking
    rankers: RankerTraining | None = None


class _Answer(msgspec.Struct, frozen=True):
    """What it answers."""

    cycle: Cycle
    stays: bool
    """Whether it waits for the next order."""


class Learner:
    """The process that learns: started when there is something to learn, and anew when it has ended."""

    def __init__(
        self,
        engine: sa.Engine,
        data: Path,
        params: Params,
        lists: ListMaking | None = None,
        rankers: RankerTraining | None = None,
    ) -> None:
        self._url = engine.url.render_as_string(hide_password=False)
        self._store = database.store_of(engine)
        self._data = data
        self._params = params
        self._lists = lists or ListMaking()
        self._rankers = rankers
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Learner:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run_cycle(self, now: datetime, stop: threading.Event, kind: Kind, reason: str) -> Cycle | None:
        """`run_cycle` in that process; None when `stop` was set before it ended.

        Raises CycleFailed when the process ended without an answer; it has said why on stderr.
        """
        moment = to_milliseconds(now)
        order = msgspec.json.encode(
            _Order(
                self._url, self._store, str(self._data), self._params, moment, kind, reason, self._lists, self._rankers
            )
        )
        try:
            answer = _asked(self._living(), order, stop)
        except BaseException:
            self._end()
            raise
        if answer is None:
            self._end()
            return None
        if not answer:
            raise CycleFailed(f"A training cycle ended with status {self._end()}; the last snapshot is still served.")
        found = msgspec.json.decode(answer, type=_Answer)
        if not found.stays:
            self._end()
        return found.cycle

    def _living(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None:
            command = [sys.executable, "-m", "palate.train"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._process

    def _end(self) -> int:
        """Kill the process, unless it has ended; return its status."""
        if self._process is None:
            return 0
        with self._process as process:
            self._process = None
            process.kill()
        return process.returncode


def _asked(process: subprocess.Popen[bytes], order: bytes, stop: threading.Event) -> bytes | None:
    """The process's answer to an order, a line; empty when it ended without one, None when `stop` was set before."""
    assert process.stdin is not None, "It is a pipe."
    assert process.stdout is not None, "It is a pipe."
    try:
        process.stdin.write(order + b"\n")
        process.stdin.flush()  # and left open: its end tells the child that we are gone
    except BrokenPipeError:
        return b""
    while not select.select([process.stdout], [], [], 0.1)[0]:
        if stop.is_set():
            return None
    return process.stdout.readline()  # it writes whole lines


def _learn_as_ordered() -> int:
    """The process that learns: orders on stdin, an answer on stdout to each, a line each; the exit status.

    It goes on for as long as it has something in memory that the next cycle would have to read again.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; the follower decides what becomes of us
    _die_with_parent()
    os.nice(5)  # people who read come first
    orders, memory = queue.SimpleQueue[bytes](), Memory()
    threading.Thread(target=_read_orders, args=(orders,), daemon=True).start()
    while True:
        order = msgspec.json.decode(orders.get(), type=_Order)
        try:
            cycle = _run_ordered_cycle(order, memory)
        except PalateError as error:
            print(f"palate: {error}", file=sys.stderr)
            return 1
        stays = memory.window is not None
        sys.stdout.buffer.write(msgspec.json.encode(_Answer(cycle, stays)) + b"\n")
        sys.stdout.buffer.flush()
        if not stays:
            return 0


def _run_ordered_cycle(order: _Order, memory: Memory) -> Cycle:
    data, now = Path(order.data), order.now
    engine = database.connect(order.database_url, data, order.store)
    try:
        moment, why = from_milliseconds(now), order.reason
        return learn(
            engine,
            data,
            order.params,
            moment,
            order.lists,
            kind=order.kind,
            reason=why,
            memory=memory,
            rankers=order.rankers,
        )
    finally:
        engine.dispose()  # so that no connection grows old between cycles


def _die_with_parent() -> None:
    """Ask Linux to kill this process with its parent, even while compiled code keeps Python's threads waiting."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of linux/prctl.h


def _read_orders(orders: queue.SimpleQueue[bytes]) -> None:
    """Pass on each line of the input. At its end die, everywhere, and also when the parent was gone before we asked to die with
    it: its end of the pipe closes with it.
    """
    begun = b""
    while read := os.read(0, 1 << 16):  # Python's own reader would hold a lock at the exit
        *lines, begun = (begun + read).split(b"\n")
        for line in lines:
            orders.put(line)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(_learn_as_ordered())
