"""Writers of one SQLite file take turns: across threads in the order they came, across processes nearly so.

SQLite itself lets a waiting writer ask again after ever longer pauses, so one that commits without a pause locks others out for
seconds.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from palate.errors import NotDurable

PAUSE = 0.001
"""Seconds between two looks at a lock that another process holds: the system's own wait for one has no time limit."""


class Turns:
    """The turns of this process's threads at one database file, among those of other processes.

    A turn is a lock on `FILE.lock`. Who wants it waits with a lock on `FILE.next`, so whoever has just ended a turn comes
    after the one who waits. The system frees both when a process dies.
    """

    def __init__(self, file: Path, patience: float) -> None:
        self._lock = file.with_name(f"{file.name}.lock")
        self._next = file.with_name(f"{file.name}.next")
        self._patience = patience
        self._guard = threading.Lock()
        self._line: deque[threading.Event] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold a turn for the block. Raises NotDurable after waiting for `patience` seconds, or when nothing can be locked."""
        end = time.monotonic() + self._patience
        with self._first_in_line(end), ExitStack() as held:
            with _locked(self._next, end):
                held.enter_context(_locked(self._lock, end))
            yield

    @contextmanager
    def _first_in_line(self, end: float) -> Iterator[None]:
        called = threading.Event()
        with self._guard:
            self._line.append(called)
            self._line[0].set()
        try:
            if not called.wait(max(0, end - time.monotonic())):
                raise _late()
            yield
        finally:
            with self._guard:
                self._line.remove(called)
                if self._line:
                    self._line[0].set()


@contextmanager
def _locked(path: Path, end: float) -> Iterator[None]:
    try:
        # For reading only, so that another account's file does as well.
        handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _unlockable(path, error) from error
    try:
        while not _taken(path, handle):
            if time.monotonic() > end:
                raise _late()
            time.sleep(PAUSE)
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)  # a child forked meanwhile has the handle too: closing it here frees nothing
        os.close(handle)


def _taken(path: Path, handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _unlockable(path, error) from error
    return True


def _unlockable(path: Path, error: OSError) -> NotDurable:
    return NotDurable(f"The database can't be written: {path} can't be locked: {error.strerror}.")


def _late() -> NotDurable:
    return NotDurable("The database can't be written: others have been writing to it for too long, try again.")
