"""A service under mixed load for half an hour: feeds, rankings, events and new items, with the burst of an edition every few minutes.

    python benchmarks/bench_soak.py [--minutes 30] [--items 100000] [--feeds 10] [--ranks 20] [--events 300]

`palate serve` with all its loops, learning included. Requests start when they are due, whether or not those before have been answered
(open loop), from a process of its own. Printed by the minute: p50 and p99 of each kind outside bursts, the proportional memory of all
processes; at the end the first third against the last, what was answered and refused within bursts, and whether every acknowledged event
is in the log once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bench_serve import PALATE, fill, memory, wait_until_ready

BURST_EVERY, BURST_LASTS, BURST = 300.0, 20.0, 4.0
"""Seconds between two editions, seconds for which people come for one, and how many times as many."""

RANKED = 200
PATIENCE = 10.0
"""Seconds after which an answer is given up."""


@dataclass
class Tally:
    """What happened to the requests so far, by kind and minute."""

    times: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds from when each that was done outside bursts was due to the end of its answer."""
    bursts: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    """The same within bursts, by kind and status."""
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    """Requests that got no answer, by what happened instead."""
    acknowledged: int = 0
    """Events."""


def request(method: str, path: str, body: object = None) -> bytes:
    text = b"" if body is None else json.dumps(body).encode()
    kind = f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n" if text else ""
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}\r\n".encode() + text


def makers(items: int, users: int, rng: np.random.Generator) -> dict[str, Callable[[int], bytes]]:
    """How a request of each kind is made, by its number."""

    def user() -> str:
        return f"user-{int(users * rng.random() ** 2)}"

    def item() -> str:
        return f"item-{int(items * rng.random() ** 3)}"

    def event(number: int) -> bytes:
        happened = {"user": user(), "item": item(), "type": "viewed" if number % 4 else "like", "id": f"soak-{number}"}
        return request("POST", "/v1/events", happened)

    def rank(_: int) -> bytes:
        return request("POST", "/v1/rank", {"user": user(), "items": [item() for _ in range(RANKED)]})

    def new(number: int) -> bytes:
        text = f"<p>{'Some words about a thing that happened. ' * 12}</p>"
        given = {"id": f"new-{number}", "title": f"What happened just now, part {number}", "text": text}
        return request(
            "POST", "/v1/items", {**given, "source": f"source {number % 300}", "labels": [f"topic {number % 50}"]}
        )

    def feed(_: int) -> bytes:
        return request("GET", f"/v1/feed?user={user()}&limit=20")

    return {"feed": feed, "rank": rank, "event": event, "item": new}


class Connections:
    """Open connections to the service; each answers one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, text: bytes) -> tuple[int, bytes]:
        """Status and body; a connection that broke is not used again."""
        while self._free and self._free[-1][0].at_eof():  # the service closed one that nobody used for seconds
            self._free.pop()[1].close()
        reader, writer = self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(text)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            body = await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        self._free.append((reader, writer))
        return int(head[9:12]), body


async def drive(port: int, rates: dict[str, float], minutes: float, items: int, users: int, tally: Tally) -> None:
    """Requests of every kind at their rates, until the time is over and all are answered."""
    make, pool, started = makers(items, users, np.random.default_rng(7)), Connections(port), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for kind, rate in rates.items():
            group.create_task(_keep_asking(kind, rate, make[kind], pool, started, minutes, tally))


async def _keep_asking(
    kind: str,
    rate: float,
    make: Callable[[int], bytes],
    pool: Connections,
    started: float,
    minutes: float,
    tally: Tally,
) -> None:
    rng, due, number = np.random.default_rng(len(kind)), started, 0
    async with asyncio.TaskGroup() as group:
        while due < started + 60 * minutes:
            bursts = kind in ("feed", "rank") and (due - started) % BURST_EVERY < BURST_LASTS
            due += rng.exponential(1 / (rate * (BURST if bursts else 1)))
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            minute = int((due - started) // 60)
            within = (due - started) % BURST_EVERY < BURST_LASTS
            group.create_task(_one(kind, make(number), pool, due, None if within else minute, tally))
            number += 1


async def _one(kind: str, text: bytes, pool: Connections, due: float, minute: int | None, tally: Tally) -> None:
    """`minute` is None within a burst."""
    try:
        status, body = await asyncio.wait_for(pool.ask(text), PATIENCE)
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        status, body = 0, b""
        tally.unanswered[f"{kind} after {time.perf_counter() - due:.0f} s: {type(error).__name__}"] += 1
    if minute is None:
        tally.bursts[kind, status].append(time.perf_counter() - due)
    elif status == 200:
        tally.times[kind, minute].append(time.perf_counter() - due)
    tally.statuses[kind, status] += 1
    if kind == "event" and status == 200:
        tally.acknowledged += json.loads(body)["accepted"]


async def watch(service: int, tally: Tally, kinds: list[str], minutes: float) -> list[float]:
    """A line each minute; the memory (MB) at each."""
    found = []
    for minute in range(int(minutes)):
        await asyncio.sleep(60)
        found.append(sum(memory(service).values()))
        shares = "  ".join(f"{kind} {_latency(tally.times[kind, minute])}" for kind in kinds)
        print(f"{minute + 1:3d} min  {found[-1]:6.0f} MB  {shares}", flush=True)
    return found


def _latency(times: list[float]) -> str:
    if not times:
        return "none"
    return f"{np.median(times) * 1000:.1f}/{np.percentile(times, 99) * 1000:.0f} ms"


def logged(data: Path) -> int:
    """Events with an id of ours in the log."""
    out = data / "all.jsonl"
    subprocess.run([*PALATE, "export", "events", str(out), "--data", str(data)], check=True, capture_output=True)
    with out.open() as file:
        ids = [row["id"] for row in map(json.loads, file) if str(row.get("id") or "").startswith("soak-")]
    assert len(ids) == len(set(ids)), "an event is in the log twice"
    return len(ids)


def thirds(tally: Tally, kind: str, minutes: int) -> Iterator[list[float]]:
    """The times of the first and of the last third of the minutes, the first two minutes left out."""
    length = max(1, (minutes - 2) // 3)
    for first in (min(2, minutes - 1), minutes - length):
        yield [one for minute in range(first, first + length) for one in tally.times[kind, minute]]


def report(tally: Tally, memories: list[float], minutes: float, kinds: list[str]) -> None:
    for kind in kinds:
        first, last = thirds(tally, kind, int(minutes))
        print(f"{kind:>6}: first third {_latency(first)}, last third {_latency(last)}")
    for (kind, status), times in sorted(tally.bursts.items()):
        print(f"within bursts: {kind} {status}: {len(times):,} times, {_latency(times)}")
    third = max(1, len(memories) // 3)
    early, late = max(memories[2 : 2 + third] or memories), max(memories[-third:])
    print(f"memory: at most {early:.0f} MB in the first third, {late:.0f} MB in the last")
    print(
        "answers:", ", ".join(f"{kind} {status}: {count}" for (kind, status), count in sorted(tally.statuses.items()))
    )

    if tally.unanswered:
        print("unanswered:", ", ".join(f"{why}: {count}" for why, count in tally.unanswered.most_common(20)))


async def run(port: int, service: int, options: Any) -> Tally:
    tally, kinds = Tally(), ["feed", "rank", "event", "item"]
    rates = dict(zip(kinds, (options.feeds, options.ranks, options.events, options.new), strict=True))
    watching = asyncio.create_task(watch(service, tally, kinds, options.minutes))
    await drive(port, rates, options.minutes, options.items, options.users, tally)
    report(tally, await watching, options.minutes, kinds)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--feeds", type=float, default=10.0, help="feeds a second outside bursts")
    parser.add_argument("--ranks", type=float, default=20.0, help="rankings of 200 items a second")
    parser.add_argument("--events", type=float, default=300.0, help="single events a second")
    parser.add_argument("--new", type=float, default=0.5, help="new items a second")
    parser.add_argument("--data", type=Path, help="a folder that an earlier run filled")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or Path(folder) / "data"
        if not (data / "palate.sqlite").exists():
            fill(data, options.items, options.users, 100_000)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        command = [*PALATE, "serve", "--data", str(data), "--port", str(port)]
        service = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until_ready(f"http://127.0.0.1:{port}")
            tally = asyncio.run(run(port, service.pid, options))
        finally:
            service.terminate()
            service.wait(60)
        found = logged(data)
        print(f"events: {tally.acknowledged:,} acknowledged, {found:,} in the log")
        sys.exit(0 if found >= tally.acknowledged else 1)


if __name__ == "__main__":
    main()
