"""How long a person waits between a tap and the next post, with 1,000 people who vote so many times a second in all.

They tap at random moments (a Poisson process) or, with --even, one after another. Each tap causes a message and a change of buttons,
and the bot may do 25 of both together in a second, messages first: what is left of the changes follows when the taps end. Beside the
waits stands what the limit alone would make of the same taps, if nothing else took any time.

The bot runs as in production, with the real aiogram, over HTTP, on the sample's items and a model trained on its simulated readers.
The stand-in for Telegram runs in a process of its own with the people in it; it counts every breach of a limit.

    python benchmarks/bench_bot.py [--people 1000] [--rate 20] [--even]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palate import demo, train
from palate.database import connect, migrate
from palate.delivery import bot
from palate.delivery.bot_params import BotParams
from palate.delivery.bot_sending import Clock
from palate.delivery.context import ServingParams, open_serving
from palate.loopback.bot_api import serving
from palate.loopback.bot_api_chats import TOKEN, Chats
from palate.settings import Settings

Times = NDArray[np.float64]


def moments(people: int, rate: float, even: bool) -> Times:
    """When each person taps, in seconds from the beginning."""
    return np.cumsum(np.full(people, 1 / rate) if even else np.random.default_rng(1).exponential(1 / rate, people))


def limited(taps: Times, per_second: int) -> Times:
    """How long each of these taps waits where in any second so many are answered, at once, and nothing else is sent."""
    sent = taps.copy()
    for place in range(per_second, len(taps)):
        sent[place] = max(taps[place], sent[place - per_second] + 1)
    return sent - taps


def telegram(pipe: Connection, people: int, rate: float, even: bool) -> None:
    """The process of the stand-in and its people."""
    asyncio.run(play(pipe, people, rate, even))


async def play(pipe: Connection, people: int, rate: float, even: bool) -> None:
    chats = Chats()
    async with serving(chats) as address:
        pipe.send(address)
        for person in range(1, people + 1):
            chats.say(person, "/next")
            await asyncio.sleep(1 / rate)
        await chats.until(lambda: all(len(chats.chat(person).of_bot()) == 1 for person in range(1, people + 1)), 300)
        await asyncio.sleep(2)
        sent, started = chats.rates.sent, time.perf_counter()
        taps = enumerate(moments(people, rate, even), start=1)
        waits = await asyncio.gather(*(vote(chats, person, time) for person, time in taps))
        seconds = time.perf_counter() - started
        pipe.send((waits, chats.rates.sent - sent, marked(chats), seconds, chats.rates.breaches))


def marked(chats: Chats) -> int:
    """How many of the posts show that they were voted on."""
    rows = [
        row for chat in chats.chats.values() for one in chat.of_bot() for row in one["reply_markup"]["inline_keyboard"]
    ]
    return sum("✓" in button["text"] for row in rows for button in row)


async def vote(chats: Chats, person: int, after: float) -> float:
    """One tap, some time after the beginning; how long the next post took."""
    await asyncio.sleep(after)
    [post] = chats.chat(person).of_bot()
    started = time.perf_counter()
    chats.tap(person, post["message_id"], "👍" if person % 2 else "👎")
    await chats.until(lambda: len(chats.chat(person).of_bot()) == 2, 300)
    return time.perf_counter() - started


def prepare(data: Path) -> None:
    """The sample, its readers, and a model of them."""
    engine, now, settings = connect(None, data), datetime.now(UTC), Settings()
    migrate(engine)
    demo.prepare(engine, now)
    train.run_cycle(engine, data, train.params_of(settings, "fm"), now)
    engine.dispose()


async def work(data: Path, address: str) -> None:
    with open_serving(data, None, ServingParams()) as opened:
        await bot.work(opened, BotParams(token=TOKEN, api=address), Clock())


def run_bot(data: Path, address: str) -> None:
    with suppress(KeyboardInterrupt):
        asyncio.run(work(data, address))


def spread(waits: Sequence[float] | Times) -> str:
    """The middle of the waits, and the long ones."""
    median, p90, p99 = (float(np.percentile(waits, share)) for share in (50, 90, 99))
    return f"median {median:.3f} s, p90 {p90:.3f} s, p99 {p99:.3f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--even", action="store_true")
    asked = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        prepare(data)
        server = context.Process(target=telegram, args=(theirs, asked.people, asked.rate, asked.even), daemon=True)
        server.start()
        worker = context.Process(target=run_bot, args=(data, ours.recv()), daemon=True)
        worker.start()
        waits, sent, changed, seconds, breaches = ours.recv()
        worker.terminate()
        worker.join()
    alone = limited(moments(asked.people, asked.rate, asked.even), BotParams().per_second)
    print(f"{len(waits)} people voted in {seconds:.0f} s, and each got the next post")
    print(f"a second: {sent / seconds:.1f} messages sent, {changed / seconds:.1f} changed")
    print(f"tap to next post: {spread(waits)}")
    print(f"by the limit alone: {spread(alone)}")
    print(f"breaches of Telegram's limits: {len(breaches)} {breaches[:3]}")


if __name__ == "__main__":
    main()
