"""Single durable events and rankings (500 items) a second, over keep-alive connections to one server process.

    python benchmarks/bench_api.py [--connections 64] [--seconds 5]

The load comes from a second process with plain sockets, so that its cost is not the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import uvicorn

from palate.delivery.application import configuration, create_app
from palate.delivery.context import ServerParams, Serving, ServingParams, open_serving, utc_now
from palate.domain import Event, Item
from palate.ingest import store_items

ITEMS = 5000
USERS = 10_000
RANKED = 500


def request(path: str, body: object) -> bytes:
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


def event(connection: int, number: int) -> bytes:
    user, item = f"user {(connection * 7919 + number) % USERS}", f"item {(number * 31 + connection) % ITEMS}"
    return request("/v1/events", {"user": user, "item": item, "type": "viewed", "value": 1.5})


def rank(connection: int, number: int) -> bytes:
    first = (connection * 7919 + number * 131) % (ITEMS - RANKED)
    items = [f"item {n}" for n in range(first, first + RANKED)]
    return request("/v1/rank", {"user": f"user {number % 1000}", "items": items})


async def drive(port: int, connection: int, end: float, make: Callable[[int, int], bytes], times: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = 0
    while time.perf_counter() < end:
        started = time.perf_counter()
        writer.write(make(connection, number))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        await reader.readexactly(length)
        times.append(time.perf_counter() - started)
        number += 1
    writer.close()


async def load(port: int, connections: int, seconds: float, make: Callable[[int, int], bytes]) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    await asyncio.gather(*(drive(port, number, end, make, times) for number in range(connections)))
    return times


@contextmanager
def served(serving: Serving) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        server = uvicorn.Server(configuration(create_app({"": serving}), serving.params.server))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def report(name: str, port: int, connections: int, seconds: float) -> None:
    command = [sys.executable, __file__, "--load", name, "--port", str(port)]
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    before = time.process_time()
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    times = np.array(json.loads(output)) * 1000
    own = (time.process_time() - before) / len(times) * 1e6  # unlike the rate, this hardly depends on what else runs
    latency = f"p50 {np.median(times):.1f} ms  p99 {np.percentile(times, 99):.1f} ms"
    print(f"{name:>6}  {connections} connections  {len(times) / seconds:9,.0f}/s  {latency}  {own:,.0f} µs of CPU each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--load", choices=LOADS)
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    if given.load:
        print(json.dumps(asyncio.run(load(given.port, given.connections, given.seconds, LOADS[given.load]))))
        return
    params = ServingParams(server=ServerParams(access_log=False))
    with tempfile.TemporaryDirectory() as folder, open_serving(Path(folder), None, params) as serving:
        store_items(serving.engine, [Item(id=f"item {n}", title=f"Title {n}") for n in range(ITEMS)], utc_now())
        users = [Event(user=f"user {n}", item="item 0", type="viewed") for n in range(USERS)]
        serving.commits.submit(users, utc_now()).result()  # so that everybody is known, as most people are
        serving.live.refresh(utc_now())
        with served(serving) as port:
            for name, connections in (("events", given.connections), ("rank", 8)):
                report(name, port, connections, given.seconds)


LOADS = {"events": event, "rank": rank}

if __name__ == "__main__":
    main()
