"""Durable events, single and 500 at a time, and rankings (500 items) a second, over keep-alive connections to one server process.

    python benchmarks/bench_api.py [--kinds events rank batches batches_ids] [--connections N] [--rate R] [--peer PYTHON]

The load comes from a second process with plain sockets, so that its cost is not the server's. Each connection asks as soon as it is
answered (closed loop), or all of them together R times a second whether or not they are answered (open loop): what is late then counts
from when it should have been asked. `--peer` names the Python of an environment with Flask and gunicorn: the same load is put on
`rating_service_peer.py` there, in turn with ours. The command of `--busy` runs again and again meanwhile. With `--data` a folder that
exists is served, such as one whose snapshot has rankers; only rankings can be asked of it, of its own people and items.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import sqlalchemy as sa
import uvicorn
import uvloop
from bench_insert import synced

from palate import database, feed, identities
from palate.database import reading
from palate.delivery.application import configuration, create_app, settle
from palate.delivery.connections import connections
from palate.delivery.context import ServerParams, Serving, ServingParams, open_serving, utc_now
from palate.domain import Event, Item
from palate.ingest import store_items

ITEMS = 5000
USERS = 10_000
RANKED = 500
BATCH = 500
NAMES = "PALATE_BENCH_NAMES"
"""Where the process that makes the load is told of a file with ids."""


def request(path: str, body: object) -> bytes:
    text = msgspec.json.encode(body)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


def event(connection: int, number: int) -> bytes:
    user, item = f"user {(connection * 7919 + number) % USERS}", f"item {(number * 31 + connection) % ITEMS}"
    return request("/v1/events", {"user": user, "item": item, "type": "viewed", "value": 1.5})


def batch(connection: int, number: int) -> bytes:
    """BATCH events, the same few lists of them again and again: to make them costs more than to take them."""
    return request("/v1/events", many(connection, number % 8))


@lru_cache
def many(connection: int, number: int) -> list[dict[str, object]]:
    rng = np.random.default_rng((connection, number))
    pairs = zip(rng.integers(0, USERS, BATCH).tolist(), rng.integers(0, ITEMS, BATCH).tolist(), strict=True)
    return [{"user": f"user {u}", "item": f"item {i}", "type": "viewed", "value": 1.5} for u, i in pairs]


def batch_with_ids(connection: int, number: int) -> bytes:
    first = time.time_ns()
    events = [{**one, "id": f"{connection}-{first + n}"} for n, one in enumerate(many(connection, number % 8))]
    return request("/v1/events", events)


def rank(connection: int, number: int) -> bytes:
    users, items = names()
    first = (connection * 7919 + number * 131) % (len(items) - RANKED)
    return request("/v1/rank", {"user": users[number % 1000 % len(users)], "items": items[first : first + RANKED]})


@lru_cache
def names() -> tuple[list[str], list[str]]:
    """Ids of people and of items, as the process that serves has told."""
    if NAMES in os.environ:
        return msgspec.json.decode(Path(os.environ[NAMES]).read_bytes(), type=tuple[list[str], list[str]])
    return [f"user {n}" for n in range(USERS)], [f"item {n}" for n in range(ITEMS)]


def tell_names(serving: Serving, file: Path) -> None:
    """Of people who did something, and of items that may be served."""
    with reading(serving.engine) as connection:
        users = [id for (id,) in connection.execute(sa.select(database.users.c.id).limit(1000))]
        keys = serving.live.pool.keys[:ITEMS].tolist()
        items = list(identities.item_ids(connection, keys).values())
    file.write_bytes(msgspec.json.encode((users, items)))
    os.environ[NAMES] = str(file)


class Client(asyncio.Protocol):
    """Sends a request as soon as the answer to the one before it is whole."""

    def __init__(
        self, connection: int, end: float, make: Callable[[int, int], bytes], times: list[float], every: float
    ) -> None:
        self.connection, self.end, self.make, self.times = connection, end, make, times
        self.every, self.due = every, 0.0
        self.number, self.left = 0, -1
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own isn't one by its class
        asyncio.get_running_loop().call_later(self.connection * 0.618 % 1 * self.every, self.ask)  # not all at once

    def ask(self) -> None:
        request = self.make(self.connection, self.number)
        self.number += 1
        self.started = self.due = self.due if self.every and self.due else time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self.left < 0:
            if not data.startswith(b"HTTP/1.1 200"):
                self.over.set_exception(SystemExit(f"The server refused: {data[:400]!r}"))
            head, _, body = data.partition(b"\r\n\r\n")
            self.left = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]) - len(body)
        else:
            self.left -= len(data)
        if self.left == 0:
            self.left = -1
            self.answered(time.perf_counter())

    def answered(self, now: float) -> None:
        self.times.append(now - self.started)
        if now < self.end and self.every:
            self.due += self.every  # an open loop: what is late counts from when it should have been asked
            asyncio.get_running_loop().call_later(max(0.0, self.due - now), self.ask)
        elif now < self.end:
            self.ask()
        else:
            self.transport.close()
            self.over.set_result(None)


async def load(
    port: int, connections: int, seconds: float, make: Callable[[int, int], bytes], rate: float
) -> list[float]:
    """Seconds that each request took; at `rate` requests a second, or (0) as fast as they are answered."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    clients = [Client(number, end, make, times, connections / rate if rate else 0.0) for number in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*(client.over for client in clients))
    return times


@contextmanager
def served(serving: Serving) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        server = uvicorn.Server(configuration(create_app({"": serving}), serving.params.server, connections(serving)))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


@contextmanager
def busy(command: str | None) -> Iterator[None]:
    """While the command runs again and again."""
    again = None if command is None else subprocess.Popen(f"while {command} > /dev/null; do :; done", shell=True)
    try:
        yield
    finally:
        if again is not None:
            again.terminate()
            again.wait()


def report(name: str, port: int, connections: int, seconds: float, whose: str, rate: float = 0.0) -> None:
    command = [sys.executable, __file__, "--load", name, "--port", str(port)]
    command += ["--connections", str(connections), "--seconds", str(seconds), "--rate", str(rate)]
    before = time.process_time()
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    count, median, late, latest = json.loads(output)
    own = (time.process_time() - before) / count * 1e6  # unlike the rate, this hardly depends on what else runs
    latency = f"p50 {median:.1f} ms  p99 {late:.1f} ms  max {latest:.0f} ms"
    cost = f"  {own:,.0f} µs of CPU each" if whose == "ours" else ""
    print(f"{whose}: {name:<12} {connections:3} connections {count / seconds:9,.0f}/s  {latency}{cost}", flush=True)


@contextmanager
def peer(python: str) -> Iterator[int]:
    """The port of the peer while it runs, with one worker as ours."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [python, "-m", "gunicorn", "-w", "1", "-k", "gthread", "--threads", "8", "--keep-alive", "60"]
    command += ["--log-level", "error", "-b", f"127.0.0.1:{port}", "rating_service_peer:app"]
    service = subprocess.Popen(command, cwd=Path(__file__).parent)
    try:
        for _ in range(200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield port
    finally:
        service.terminate()
        service.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument(
        "--connections", type=int, help="of each kind, by default 64 for events, 8 for rank, 16 for batches"
    )
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second of an open loop")
    parser.add_argument("--busy", help="a command that runs meanwhile, such as a training")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peer", help="Python of an environment with Flask and gunicorn")
    parser.add_argument("--data", type=Path, help="a folder that exists, of which rankings are asked")
    parser.add_argument("--load", choices=LOADS)
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    if given.load:
        times = uvloop.run(load(given.port, given.connections, given.seconds, LOADS[given.load], given.rate))
        print(json.dumps([len(times), *(np.percentile(times, (50, 99, 100)) * 1000).tolist()]))
        return
    params = ServingParams(server=ServerParams(access_log=False))
    print(f"the disk makes a page durable {synced(1.0):,.0f} times a second", flush=True)
    with tempfile.TemporaryDirectory() as folder, open_serving(given.data or Path(folder), None, params) as serving:
        if given.data is None:
            fill(serving)
        else:
            tell_names(serving, Path(folder) / "names.json")
        settle()
        with served(serving) as own, peer(given.peer) if given.peer else nullcontext() as other, busy(given.busy):
            for _ in range(given.rounds):
                for kind in given.kinds:
                    compare(kind, own, other, given)


def fill(serving: Serving) -> None:
    store_items(serving.engine, [Item(id=f"item {n}", title=f"Title {n}") for n in range(ITEMS)], utc_now())
    users = [Event(user=f"user {n}", item="item 0", type="viewed") for n in range(USERS)]
    serving.commits.submit(users, utc_now()).result()  # so that everybody is known, as most people are
    serving.live.refresh(utc_now())
    for first in range(0, ITEMS, RANKED):  # so that the items were asked for before, as in a service that runs
        ids = [f"item {n}" for n in range(first, first + RANKED)]
        feed.rank(serving.live, "user 0", ids, utc_now(), serving.params.feed)


def compare(kind: str, own: int, other: int | None, given: argparse.Namespace) -> None:
    width = given.connections or CONNECTIONS[kind]
    report(kind, own, width, given.seconds, "ours", given.rate)
    if other is not None and not kind.startswith("batches"):
        report(kind, other, width, given.seconds, "peer", given.rate)


CONNECTIONS = {"events": 64, "rank": 8, "batches": 16, "batches_ids": 16}
LOADS = {"events": event, "rank": rank, "batches": batch, "batches_ids": batch_with_ids}

if __name__ == "__main__":
    main()
