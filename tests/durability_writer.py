"""Processes for `test_durability.py` to kill: they append events, seal, and say in a file what they were told is durable.

This program reads orders, one JSON object a line, forks a writer for each, and answers with its process id and, when it has
ended, its exit code. A writer's lines: `sent ID` before an event is submitted, `kept ID` when it is durable,
`sealing -` before and `sealed -` after each sealing, `failed SENTENCE`.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from palate import events, retention
from palate.database import connect, reading
from palate.domain import Event
from palate.errors import PalateError
from palate.group_commit import GroupCommit

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """What one writer shall do."""

    said: str
    """Where its lines go."""
    data: str
    url: str | None
    number: int
    seals: bool
    again: list[str]
    """Ids of events to send again, as a client does that heard nothing, or did."""
    largest: int = 0
    """Bytes beyond which no file may grow; 0 for no limit."""


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # at once, one write: whole or not there, also when killed


def resend(commits: GroupCommit, ids: list[str]) -> None:
    for at in range(0, len(ids), 7):
        some = ids[at : at + 7]
        commits.submit([Event(user=id[:4], item="duck", type="like", id=id) for id in some], NOW).result()
        for id in some:
            say(f"kept {id}")


def write(commits: GroupCommit, name: str, seed: int) -> None:
    chance = random.Random(seed)
    for n in range(100_000):
        ids = [f"{name}-{n}-{place}" for place in range(chance.choice([1, 1, 3, 40]))]
        for id in ids:
            say(f"sent {id}")
        now = NOW + timedelta(days=chance.randrange(3))
        try:
            commits.submit([Event(user=id[:4], item="duck", type="like", id=id) for id in ids], now).result()
        except PalateError as error:
            say(f"failed {error}")
            return
        for id in ids:
            say(f"kept {id}")
        time.sleep(chance.uniform(0, 0.03))  # so that sealing gets its turns within the test's short rounds


def run(order: Order) -> None:
    if order.largest:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.largest, order.largest))
    data = Path(order.data)
    engine = connect(order.url, data)
    commits = GroupCommit(engine)
    names = [f"r{order.number:02}t{n}" for n in range(3)]
    writers = [
        threading.Thread(target=write, args=(commits, name, 100 * order.number + n), daemon=True)
        for n, name in enumerate(names)
    ]
    for writer in writers:
        writer.start()
    resend(commits, order.again)
    while order.seals:
        with reading(engine) as connection:
            last = events.last_seq(connection)
        say("sealing -")
        if retention.seal(engine, data / "events", NOW + timedelta(days=3), last):
            say("sealed -")
    for writer in writers:
        writer.join()
    commits.close()


def fork(order: Order) -> int:
    """Run a writer in a process of its own; returns its exit code, minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(order.said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        run(order)
        os._exit(0)
    print(pid, flush=True)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    for line in sys.stdin:
        print(fork(msgspec.json.decode(line, type=Order)), flush=True)
