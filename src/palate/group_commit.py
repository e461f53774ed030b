"""Many callers in one commit: what waits to be written to the event log is made durable together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, repeat
from typing import Protocol

import sqlalchemy as sa

from palate import events, identities
from palate.database import writing
from palate.domain import Event, to_milliseconds
from palate.errors import NotDurable, Overloaded
from palate.events import EventParams
from palate.log_tail import LogTail

FEWEST = 500
"""Events that a commit has room for at least, however long it takes to write them."""


class Outcome(Protocol):
    """Who is told, in the writer's thread and once, what became of events: a future, or less than that."""

    def set_running_or_notify_cancel(self) -> bool:
        """They are about to be written. False: nobody waits for them any more, and they are not."""
        ...

    def set_result(self, result: int, /) -> None:
        """So many are durable."""
        ...

    def set_exception(self, exception: BaseException, /) -> None:
        """They are not. Raises InvalidStateError when something was told before."""
        ...


@dataclass(frozen=True)
class _Submission:
    columns: events.Columns
    count: int
    now: datetime
    future: Outcome


class GroupCommit:
    """Makes the events of many callers durable together: one thread writes all that waits in one transaction.

    A commit to disk costs the same for one event and for hundreds, so callers that wait at the same time share it.
    `committed` is called with the number of events after each commit, and must not raise. `items` are keys that are known,
    and those that come to be; `tail` is told what was written.
    """

    def __init__(
        self,
        engine: sa.Engine,
        params: EventParams | None = None,
        committed: Callable[[int], object] | None = None,
        items: identities.KnownKeys | None = None,
        tail: LogTail | None = None,
    ) -> None:
        self._engine = engine
        self._committed = committed or (lambda _: None)
        self._params = params or EventParams()
        self._waiting: deque[_Submission] = deque()
        self._writing: list[_Submission] = []
        self._keys = identities.WriterKeys(items)
        self._tail = tail or LogTail()
        self._rows = 0
        self._room = self._params.max_commit
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="palate-events", daemon=True)
        self._thread.start()

    def submit(self, several: Sequence[Event], now: datetime) -> Future[int]:
        """Hand over checked events; the future gives their number once they are durable.

        The future raises NotDurable when they could not be written. Raises Overloaded at once when too many wait,
        NotDurable after `close`.
        """
        future: Future[int] = Future()
        self.submit_columns(events.in_columns(several), len(several), now, future)
        return future

    def submit_columns(self, columns: events.Columns, count: int, now: datetime, future: Outcome) -> None:
        """What `submit` does, for so many events that are columns already."""
        with self._changed:
            if self._closed:
                raise NotDurable("The event log is closed: this process is stopping.")
            if self._rows and self._rows + count > self._params.max_waiting:
                raise Overloaded(f"{self._rows} events wait to be written already: try again in a second.")
            self._waiting.append(_Submission(columns, count, now, future))
            self._rows += count
            self._changed.notify()

    def close(self) -> None:
        """Write what waits, then stop. Later submissions are refused."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._take_batch():
                self._commit(self._writing)
        finally:
            with self._changed:
                self._closed = True
                left = [*self._writing, *self._waiting]
                self._waiting.clear()
            _fail(left, NotDurable("The writer of the event log has stopped: restart this process."))

    def _take_batch(self) -> bool:
        """Wait for submissions and take as many as one commit holds; False when closed and drained."""
        batch = self._writing = list[_Submission]()
        rows = 0
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            while self._waiting and (not batch or rows + self._waiting[0].count <= self._room):
                batch.append(self._waiting.popleft())
                rows += batch[-1].count
            self._rows -= rows
        return bool(batch)

    def _commit(self, batch: list[_Submission]) -> None:
        # A future that its caller gave up before now is not written; from here on it can't be given up.
        batch = [submission for submission in batch if submission.future.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            self._write(batch)
        except NotDurable as error:
            _fail(batch, error)
        except BaseException as error:
            if len(batch) == 1:
                _fail(batch, error)
            else:
                self._commit_each(batch)
        else:
            for submission in batch:
                submission.future.set_result(submission.count)

    def _commit_each(self, batch: list[_Submission]) -> None:
        """One of the batch can't be written whatever comes with it: find out which, and keep the others."""
        for submission in batch:
            try:
                self._write([submission])
            except BaseException as error:
                _fail([submission], error)
            else:
                submission.future.set_result(submission.count)

    def _write(self, batch: list[_Submission]) -> None:
        given, now = _together(batch), max(one.now for one in batch)
        received = [at for one in batch for at in repeat(to_milliseconds(one.now), one.count)]
        try:
            with writing(self._engine) as connection:
                begun = time.perf_counter()
                appended = events.append_received(connection, given, received, now, self._keys)
                self._room = next_room(self._room, len(received), time.perf_counter() - begun, self._params)
        except BaseException:
            self._keys.dropped()
            raise
        self._keys.kept()
        if appended is not None:
            self._tail.add(appended)
        self._committed(len(received))


def next_room(room: int, count: int, seconds: float, params: EventParams) -> int:
    """How many events the next commit may take, when this one had room for `room` and wrote `count` in so many seconds.

    >>> params = EventParams()
    >>> next_room(4000, 4000, 0.02, params), next_room(2000, 64, 0.001, params), next_room(800, 600, 1.0, params)
    (2000, 2500, 500)
    """
    if seconds > params.commit_seconds:
        room = max(FEWEST, min(room, int(count * params.commit_seconds / seconds)))
    else:
        room += room // 4
    return min(room, params.max_commit)


def _together(batch: Sequence[_Submission]) -> events.Columns:
    names = {name for one in batch for name in one.columns}
    return {
        name: list(chain.from_iterable(one.columns.get(name) or repeat(None, one.count) for one in batch))
        for name in names
    }


def _fail(submissions: Iterable[_Submission], error: BaseException) -> None:
    for submission in submissions:
        with suppress(InvalidStateError):  # done already, or given up by its caller
            submission.future.set_exception(error)
