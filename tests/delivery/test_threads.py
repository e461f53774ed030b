from __future__ import annotations

import asyncio
import threading

import pytest

from palate.delivery.threads import Threads, gone
from palate.errors import Overloaded


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


async def settled() -> None:
    """Every task has come as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_who_comes_while_too_many_wait_is_sent_away_and_those_that_wait_are_answered() -> None:
    async def calls() -> list[object]:
        threads, go = Threads(threads=2, waiting=3, longest_wait=20), threading.Event()
        running = [asyncio.create_task(threads.run(go.wait)) for _ in range(5)]
        await settled()
        with pytest.raises(Overloaded, match="try again"):
            await threads.run(go.wait)
        assert await threads.beside(lambda: 3) == 3
        go.set()
        return [*await asyncio.gather(*running), await threads.run(lambda: 7)]

    assert asyncio.run(calls()) == [True] * 5 + [7]


def test_who_would_wait_longer_than_the_longest_wait_is_sent_away_at_once() -> None:
    async def calls() -> tuple[int, list[bool]]:
        clock = Clock()
        threads, go = Threads(threads=2, waiting=100, longest_wait=1.0, clock=clock), threading.Event()
        for _ in range(60):  # calls take 0.4 s by now, so that two threads end one in 0.2 s
            await threads.run(lambda: clock.pass_by(0.4))
        running = [asyncio.create_task(threads.run(go.wait)) for _ in range(40)]
        await settled()
        refused = [task for task in running if task.done()]
        assert all(isinstance(task.exception(), Overloaded) for task in refused)
        go.set()
        return len(refused), await asyncio.gather(*(task for task in running if task not in refused))

    assert asyncio.run(calls()) == (33, [True] * 7)  # two that run, and five that wait up to 1.0 s


def test_one_call_that_takes_very_long_sends_nobody_away_for_long() -> None:
    async def calls() -> list[int]:
        clock = Clock()
        threads = Threads(threads=1, waiting=100, longest_wait=1.0, clock=clock)
        await threads.run(lambda: clock.pass_by(3600))
        return await asyncio.gather(*(threads.run(lambda n=n: n) for n in range(8)))  # type: ignore[misc]

    assert asyncio.run(calls()) == list(range(8))


def test_nothing_is_computed_for_those_who_waited_too_long_or_have_gone() -> None:
    async def calls() -> list[str]:
        clock, begun, go, done = Clock(), threading.Event(), threading.Event(), list[str]()
        threads = Threads(threads=1, waiting=100, longest_wait=1.0, clock=clock)

        def hold() -> bool:
            begun.set()
            return go.wait()

        running = asyncio.create_task(threads.run(hold))
        await asyncio.to_thread(begun.wait)
        early = asyncio.create_task(threads.run(lambda: done.append("early")))
        await settled()
        clock.pass_by(1.5)
        late = asyncio.create_task(threads.run(lambda: done.append("late")))
        gone.set(lambda: True)
        left = asyncio.create_task(threads.run(lambda: done.append("left")))
        await settled()
        go.set()
        assert await running
        for task in (early, left):
            with pytest.raises(Overloaded, match="waited too long"):
                await task
        await late
        return done

    assert asyncio.run(calls()) == ["late"]


def test_a_call_that_fails_makes_room_for_the_next() -> None:
    def fail() -> None:
        raise ValueError("broken")

    async def calls() -> int:
        threads = Threads(threads=1, waiting=0, longest_wait=1.0)
        for _ in range(3):
            with pytest.raises(ValueError, match="broken"):
                await threads.run(fail)
        return await threads.run(lambda: 1)

    assert asyncio.run(calls()) == 1
