"""The training loop: follows the log and runs a cycle when enough is new, each in a short-lived process of its own.

Learning loads compilers and Parquet, which stay in memory for good; the follower itself loads neither, so that an idle
installation stays small. A cycle's process dies with the follower, and a snapshot is published whole or not at all: either may
be killed at any moment.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import sqlalchemy as sa

from palate import database, events, interactions, snapshots
from palate.cycle import KINDS, Cycle, Params, TrainParams, run_cycle
from palate.database import reading
from palate.domain import from_milliseconds, to_milliseconds
from palate.errors import CycleFailed, PalateError
from palate.examples import Kind
from palate.models.registry import Name
from palate.snapshots import Snapshot

__all__ = ["Cycle", "Params", "TrainParams", "follow", "params_of", "run_cycle", "run_cycle_apart"]

log = logging.getLogger(__name__)

LONGEST_PAUSE = 300.0
"""Seconds between attempts when one after the other fails; the first pause is 2, then it doubles."""


def params_of(settings: msgspec.Struct, served: Name) -> Params:
    """The Params of training among the sections of the settings; `served` is learned too, whatever `train.models` names."""
    sections = {name: getattr(settings, name) for name in Params.__struct_fields__ if name != "served"}
    models = tuple(dict.fromkeys((*sections["train"].models, served)))
    sections["train"] = msgspec.structs.replace(sections["train"], models=models)
    return Params(**sections, served=served)


class Due(msgspec.Struct, frozen=True):
    """That a cycle should run now."""

    kind: Kind
    reason: str


def follow(engine: sa.Engine, data: Path, params: Params, stop: threading.Event, clock: Callable[[], datetime]) -> None:
    """Run cycles as they become due until `stop` is set. Whatever goes wrong is logged and tried again, after a while."""
    failures = 0
    while not stop.is_set():
        try:
            due = find_due(engine, data, params, clock())
            if due is not None:
                _report(run_cycle_apart(engine, data, params, clock(), stop, due.kind, due.reason))
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
    """What the follower asks of a cycle's process."""

    database_url: str
    data: str
    params: Params
    now: int
    kind: Kind
    reason: str


def run_cycle_apart(
    engine: sa.Engine,
    data: Path,
    params: Params,
    now: datetime,
    stop: threading.Event,
    kind: Kind,
    reason: str,
) -> Cycle | None:
    """`run_cycle` in a process of its own; None when `stop` was set before it ended.

    Raises CycleFailed when the process ended without an answer; it has said why on stderr.
    """
    url = engine.url.render_as_string(hide_password=False)
    order = _Order(url, str(data), params, to_milliseconds(now), kind, reason)
    with subprocess.Popen(
        [sys.executable, "-m", "palate.train"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None, "It is a pipe."
        assert child.stdout is not None, "It is a pipe."
        child.stdin.write(msgspec.json.encode(order) + b"\n")
        child.stdin.flush()  # and left open: its end tells the child that we are gone
        while child.poll() is None:
            if stop.wait(0.1):
                child.kill()
                return None
        answer = child.stdout.read()
    if child.returncode != 0:
        raise CycleFailed(f"A training cycle ended with status {child.returncode}; the last snapshot is still served.")
    return msgspec.json.decode(answer, type=Cycle)


def _run_ordered_cycle() -> int:
    """The cycle's process: an order on stdin, a Cycle on stdout; the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; the follower decides what becomes of us
    _die_with_parent()
    os.nice(5)  # people who read come first
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Order)
    threading.Thread(target=_wait_for_end_of_input, daemon=True).start()
    try:
        engine = database.connect(order.database_url, Path(order.data))
        now = from_milliseconds(order.now)
        cycle = run_cycle(engine, Path(order.data), order.params, now, kind=order.kind, reason=order.reason)
    except PalateError as error:
        print(f"palate: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(cycle))
    return 0


def _die_with_parent() -> None:
    """Ask Linux to kill this process with its parent, even while compiled code keeps Python's threads waiting."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of linux/prctl.h


def _wait_for_end_of_input() -> None:
    """Everywhere, and when the parent was gone before we asked: its end of the pipe closes with it."""
    os.read(0, 1)  # nothing more is ever written, and Python's own reader would hold a lock at the exit
    os._exit(1)


if __name__ == "__main__":
    sys.exit(_run_ordered_cycle())
