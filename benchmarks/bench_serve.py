"""Memory and speed of `palate serve` as a whole: 100,000 items, all loops on, one CPU.

Prints the proportional memory (PSS) of all its processes, idle and at its peak while it trains and answers, the size of a
model's arrays on disk, and the latency of the feed. Run: python benchmarks/bench_serve.py [--items 100000]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import psutil

PALATE = [sys.executable, "-m", "palate"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {0})  # inherited by the service: one CPU for everything
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or Path(folder) / "data"
        if not (data / "palate.sqlite").exists():
            fill(data, options.items, options.users, options.events)
        measure(data, options.users)


def fill(data: Path, items: int, users: int, events: int) -> None:
    rng = np.random.default_rng(1)
    data.mkdir(parents=True)
    now = int(time.time() * 1000)
    with (data / "items.jsonl").open("w") as file:
        for n in range(items):
            published = now - int(rng.integers(0, 6 * 86_400_000))
            labels = [f"topic {n % 50}", f"topic {int(rng.integers(50))}"]
            text = f"<p>{'Some words about a thing that happened. ' * 12}</p>"
            row = {"item": f"item-{n}", "title": f"What happened, part {n}", "text": text, "labels": labels}
            file.write(json.dumps({**row, "source": f"source {n % 300}", "published": published}) + "\n")
    with (data / "events.jsonl").open("w") as file:
        for _ in range(events):
            user, item = int(rng.integers(users)), int(items * rng.random() ** 3)
            likes = rng.random() < (0.9 if item % 5 == user % 5 else 0.3)  # each person likes a fifth of the topics
            row = {"user": f"user-{user}", "item": f"item-{item}", "type": "like" if likes else "dislike", "time": now}
            file.write(json.dumps(row) + "\n")
    for what in ("items", "events"):
        start = time.perf_counter()
        subprocess.run([*PALATE, "import", what, str(data / f"{what}.jsonl"), "--data", str(data)], check=True)
        print(f"import of {what}: {time.perf_counter() - start:.1f} s")


def measure(data: Path, users: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    start = time.perf_counter()
    arguments = ["serve", "--data", str(data), "--port", str(port)]
    service = subprocess.Popen([*PALATE, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(address)
        print(f"ready after {time.perf_counter() - start:.1f} s")
        peak = Peak(service.pid)
        peak.start()
        latencies = drive(address, users)
        wait_for_snapshot(data)
        trained = time.perf_counter() - start
        latencies += drive(address, users)
        wait_until_idle(service.pid)
        peak.stop = True
        peak.join()
        idle = memory(service.pid)
        print(f"first snapshot after {trained:.1f} s")
        print("idle PSS, MB: " + ", ".join(f"{name} {size:.0f}" for name, size in idle.items()))
        print(f"idle PSS in all: {sum(idle.values()):.0f} MB (promise: 450)")
        print(f"peak PSS in all: {peak.highest:.0f} MB (promise: 1,000)")
        print(
            f"feed of 20, {len(latencies)} calls: p50 {statistics.median(latencies):.1f} ms, "
            f"p99 {np.quantile(latencies, 0.99):.1f} ms (on the one CPU that also trains)"
        )
        arrays = sum(file.stat().st_size for file in (data / "snapshots").glob("*/*.npy"))
        print(f"snapshot arrays on disk: {arrays / 1e6:.1f} MB")
    finally:
        service.terminate()
        service.wait()


def drive(address: str, users: int) -> list[float]:
    """Each of a hundred people asks for a feed and likes its first item."""
    latencies = []
    for n in range(100):
        user = f"user-{n % users}"
        start = time.perf_counter()
        with urllib.request.urlopen(f"{address}/v1/feed?user={user}&limit=20") as answer:
            items = json.load(answer)["items"]
        latencies.append(1000 * (time.perf_counter() - start))
        post(f"{address}/v1/events", {"user": user, "item": items[0]["item"], "type": "like"})
    return latencies


def post(address: str, body: Any) -> None:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        answer.read()


def wait_until_ready(address: str) -> None:
    while True:
        try:
            with urllib.request.urlopen(f"{address}/readyz"):
                return
        except OSError:
            time.sleep(0.1)


def wait_for_snapshot(data: Path) -> None:
    for _ in range(600):
        if (data / "snapshots" / "CURRENT").exists():
            return
        time.sleep(0.2)
    raise SystemExit("No snapshot was published within two minutes.")


def wait_until_idle(pid: int) -> None:
    """Until what was voted is learned, and for ten seconds no loop has had a child at work; at most two minutes."""
    quiet, end = 0, time.monotonic() + 120
    time.sleep(10)
    while quiet < 10 and time.monotonic() < end:
        service = psutil.Process(pid)
        quiet = quiet + 1 if len(service.children(recursive=True)) == len(service.children()) else 0
        time.sleep(1)


def memory(pid: int) -> dict[str, float]:
    """PSS in MB of a process and all below it, by what each runs."""
    found: dict[str, float] = {}
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        try:
            name = next((word for word in process.cmdline()[3:4] if word.isalpha()), "others")
            found[name] = found.get(name, 0) + process.memory_full_info().pss / 1e6
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


class Peak(threading.Thread):
    """Follows the memory of a process tree."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.highest, self.stop = pid, 0.0, False

    def run(self) -> None:
        while not self.stop:
            self.highest = max(self.highest, sum(memory(self.pid).values()))
            time.sleep(0.25)


if __name__ == "__main__":
    main()
