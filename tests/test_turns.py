from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from palate import database
from palate.database import connect, migrate, reading, writing
from palate.errors import NotDurable
from palate.turns import Turns

START = """
import sys, threading
from pathlib import Path
import sqlalchemy as sa
from palate.database import connect, meta, writing
from palate.turns import Turns

folder = Path(sys.argv[1])
"""

HOLD = """
with Turns(folder / "x", 60).turn():
    print("in turn", flush=True)
    sys.stdin.read()
"""

FOLLOW = """
print("begun", flush=True)
with Turns(folder / "x", 60).turn(), (folder / "order").open("a") as order:
    order.write("other ")
"""

HAMMER = """
engine = connect(None, folder)

def hammer():
    while True:
        with writing(engine) as connection:
            connection.execute(sa.update(meta).where(meta.c.name == "count").values(value=meta.c.value + 1))

for _ in range(4):
    threading.Thread(target=hammer, daemon=True).start()
print("hammering", flush=True)
sys.stdin.read()
"""


@contextmanager
def running(program: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has said its first line; it is killed in the end."""
    command = [sys.executable, "-c", START + program, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "It never came to that."
        time.sleep(0.001)


def is_held(path: Path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_who_has_just_written_comes_after_another_process_that_waits(tmp_path: Path) -> None:
    turns, own = Turns(tmp_path / "x", 60), ExitStack()
    own.enter_context(turns.turn())
    with running(FOLLOW, tmp_path) as process:
        until(lambda: is_held(tmp_path / "x.next"))
        own.close()
        with turns.turn(), (tmp_path / "order").open("a") as order:
            order.write("own")
        process.wait()
    assert (tmp_path / "order").read_text() == "other own"


def test_threads_write_in_the_order_they_came(tmp_path: Path) -> None:
    turns, order = Turns(tmp_path / "x", 60), list[int]()

    def write(number: int) -> None:
        with turns.turn():
            order.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    with turns.turn():
        for number, thread in enumerate(threads):
            thread.start()
            until(partial(lambda length: len(turns._line) == length, number + 2))
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4, 5]


def test_a_process_that_commits_without_a_pause_lets_another_write(data: Path) -> None:
    engine = connect(None, data)
    migrate(engine)
    with writing(engine) as connection:
        connection.execute(sa.insert(database.meta).values(name="count", value="0"))
    count = sa.select(database.meta.c.value).where(database.meta.c.name == "count")
    overtaken = 0
    with running(HAMMER, data):
        for _ in range(40):
            with reading(engine) as connection:
                before = int(connection.scalar(count) or 0)
            with writing(engine) as connection:
                overtaken += int(connection.scalar(count) or 0) - before
    assert overtaken > 0, "Nobody else was writing."
    assert overtaken < 40 * 5
    engine.dispose()


def test_the_turn_of_a_killed_process_ends(tmp_path: Path) -> None:
    with running(HOLD, tmp_path) as process:
        with pytest.raises(NotDurable), Turns(tmp_path / "x", 0).turn():
            pass
        process.kill()
        with Turns(tmp_path / "x", 60).turn():
            pass


def test_waiting_ends_with_a_sentence_and_leaves_the_line_in_order(tmp_path: Path) -> None:
    turns = Turns(tmp_path / "x", 0.01)
    with turns.turn():
        for other in (turns, Turns(tmp_path / "x", 0.01)):  # a thread's line, and another process's lock
            with pytest.raises(NotDurable, match="for too long"), other.turn():
                pass
    with turns.turn():
        pass


def test_a_failed_block_ends_its_turn(tmp_path: Path) -> None:
    turns = Turns(tmp_path / "x", 0.01)
    with pytest.raises(KeyError), turns.turn():
        raise KeyError
    with turns.turn():
        pass


def test_a_lock_that_cannot_be_made_is_said_in_one_sentence(data: Path) -> None:
    engine = connect(None, data)
    (data / "palate.sqlite.lock").mkdir()
    with pytest.raises(NotDurable, match=r"The database can't be written: .*palate.sqlite.lock can't be locked: "):
        migrate(engine)
    engine.dispose()
