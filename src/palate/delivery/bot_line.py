"""In which order, and how fast, waiting messages go out. Pure: it knows keys, chats and times, and no clock of its own.

In any second at most `per_second` calls are begun. At most `ceiling`, which is what Telegram itself allows, are under way or have
ended within the last second: so however late they arrive there, it never counts more. A sixth of `per_second` is kept for what is
most urgent, and changes of messages that are there take half at most. A chat gets its next message `gap` seconds after the last
one's answer; changes don't wait for that, and have a lane of their own.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import NamedTuple

SECOND = 1.0
MOST_URGENT = 0
CEILING = 30
"""Calls a second that Telegram allows."""


class Lane(NamedTuple):
    """What goes out one after another: a chat's messages (`spaced`), or the changes of them."""

    chat: int
    spaced: bool


class _Kind(NamedTuple):
    urgency: int
    spaced: bool


class Line:
    """Messages that wait, by urgency (0 first) and, within it, in the order of their keys. All times are seconds of one clock."""

    def __init__(self, per_second: int, gap: float, ceiling: int = CEILING) -> None:
        assert ceiling >= per_second, "more can't be begun than may be under way"
        self._per_second = per_second
        self._ceiling = ceiling
        self._gap = gap
        self._waiting: dict[Lane, list[tuple[int, int]]] = {}
        self._ready: dict[_Kind, list[tuple[int, Lane]]] = {}
        self._resting: list[tuple[float, Lane]] = []
        self._rest: dict[Lane, float] = {}
        self._flying: dict[int, tuple[int, Lane]] = {}
        self._busy: set[Lane] = set()
        self._begun: deque[tuple[float, bool]] = deque()
        self._ended: deque[float] = deque()
        self._held: dict[int | None, float] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count + len(self._flying)

    def put(self, key: int, lane: Lane, urgency: int, rest: float = 0.0) -> None:
        """Let a message wait; its lane sends nothing before the time `rest`."""
        self._push(lane, urgency, key)
        self._let_rest(lane, max(rest, self._rest.get(lane, 0.0)))

    def take(self, now: float) -> int | None:
        """Key of the message to send now, which is then under way; None when none may be."""
        self._wake(now)
        if self.held(None) > now:
            return None
        for kind in sorted(self._ready):
            while self._ready[kind] and self._has_room(kind):
                key, lane = heapq.heappop(self._ready[kind])
                if self._starts(key, lane, kind.urgency, now):
                    return key
        return None

    def _starts(self, key: int, lane: Lane, urgency: int, now: float) -> bool:
        """Let a message be under way, if it is still the next of its lane."""
        own = self._waiting.get(lane)
        is_resting = self._rest.get(lane, 0.0) > now
        if lane in self._busy or is_resting or not own or own[0] != (urgency, key):
            return False  # the lane has gone on since it was put here
        if self.held(lane.chat) > now:
            self._let_rest(lane, self.held(lane.chat))
            return False
        heapq.heappop(own)
        self._count -= 1
        self._busy.add(lane)
        self._flying[key] = urgency, lane
        self._begun.append((now, lane.spaced))
        return True

    def done(self, key: int, now: float) -> None:
        """A message was answered, well or for good not: its lane goes on after the gap."""
        _, lane = self._land(key, now)
        self._let_rest(lane, now + self._gap if lane.spaced else now)

    def again(self, key: int, now: float, wait: float) -> None:
        """A message has to be tried once more, before what comes after it, in `wait` seconds at the earliest."""
        urgency, lane = self._land(key, now)
        self._push(lane, urgency, key)
        self._let_rest(lane, now + max(wait, self._gap if lane.spaced else 0.0))

    def hold(self, chat: int | None, until: float) -> None:
        """Send nothing to a chat, or (None) to anybody, before this time."""
        self._held[chat] = max(until, self.held(chat))

    def held(self, chat: int | None) -> float:
        """Until when nothing goes to a chat, or (None) to anybody."""
        return self._held.get(chat, 0.0)

    def drop(self, chat: int) -> None:
        """Forget what waits for a chat."""
        for spaced in (True, False):
            self._count -= len(self._waiting.pop(Lane(chat, spaced), ()))

    def wait(self, now: float) -> float | None:
        """Seconds until `take` may give something; None when nothing waits but what is under way, or for that to end."""
        self._wake(now)
        ready = [kind for kind, heap in self._ready.items() if heap]
        times = [self._resting[0][0]] if self._resting else []
        times += [self._begun[0][0] + SECOND] if ready and self._begun else []
        times += [self._ended[0] + SECOND] if ready and self._ended and self._is_at_ceiling() else []
        times += [now] if any(map(self._has_room, ready)) else []
        return max(0.0, max(min(times), self.held(None)) - now) if times else None

    def _has_room(self, kind: _Kind) -> bool:
        used = len(self._begun)
        if self._is_at_ceiling() or used >= self._per_second:
            return False
        if kind.urgency == MOST_URGENT:
            return True
        changes = sum(not spaced for _, spaced in self._begun)
        within_half = kind.spaced or changes < max(self._per_second // 2, 1)
        return within_half and used < self._per_second - self._per_second // 6

    def _is_at_ceiling(self) -> bool:
        return len(self._flying) + len(self._ended) >= self._ceiling

    def _wake(self, now: float) -> None:
        while self._begun and self._begun[0][0] <= now - SECOND:
            self._begun.popleft()
        while self._ended and self._ended[0] <= now - SECOND:
            self._ended.popleft()
        while self._resting and self._resting[0][0] <= now:
            time, lane = heapq.heappop(self._resting)
            if time < self._rest.get(lane, 0.0) or lane in self._busy:
                continue  # it was told to rest for longer
            own = self._waiting.get(lane)
            if own:
                urgency, key = own[0]
                heapq.heappush(self._ready.setdefault(_Kind(urgency, lane.spaced), []), (key, lane))
            else:
                self._waiting.pop(lane, None)
                self._rest.pop(lane, None)

    def _push(self, lane: Lane, urgency: int, key: int) -> None:
        heapq.heappush(self._waiting.setdefault(lane, []), (urgency, key))
        self._count += 1

    def _let_rest(self, lane: Lane, until: float) -> None:
        self._rest[lane] = until
        heapq.heappush(self._resting, (until, lane))

    def _land(self, key: int, now: float) -> tuple[int, Lane]:
        urgency, lane = self._flying.pop(key)
        self._busy.discard(lane)
        self._ended.append(now)
        return urgency, lane
