from __future__ import annotations

import asyncio
import threading

import pytest

from palate.delivery.threads import Threads
from palate.errors import Overloaded


def test_who_comes_while_too_many_wait_is_sent_away_and_those_that_wait_are_answered() -> None:
    async def calls() -> list[object]:
        threads, go = Threads(threads=2, waiting=3), threading.Event()
        running = [asyncio.create_task(threads.run(go.wait)) for _ in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="try again"):
            await threads.run(go.wait)
        go.set()
        return [*await asyncio.gather(*running), await threads.run(lambda: 7)]

    assert asyncio.run(calls()) == [True] * 5 + [7]


def test_a_call_that_fails_makes_room_for_the_next() -> None:
    def fail() -> None:
        raise ValueError("broken")

    async def calls() -> int:
        threads = Threads(threads=1, waiting=0)
        for _ in range(3):
            with pytest.raises(ValueError, match="broken"):
                await threads.run(fail)
        return await threads.run(lambda: 1)

    assert asyncio.run(calls()) == 1
