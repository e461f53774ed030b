"""A list made beforehand against live scoring, over HTTP: milliseconds an answer of ten items, one request after the other.

The service learns `ials` from a file of ratings and makes everybody's lists; then people are asked for in turn, from their list and
scored live, without and with what was shown made durable. Run: python benchmarks/bench_list_serving.py RATINGS [--rounds 3]
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from palate import feed
from palate.delivery.context import ServingParams, open_serving, utc_now
from palate.domain import FeedRequest
from palate.feed_params import FeedParams
from palate.surface_params import SurfaceParams

PALATE = [sys.executable, "-m", "palate"]
SETTINGS = """
[feed]
model = "ials"
window_days = 36500
[surfaces.home]
lists = "default"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ratings", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, config = Path(folder) / "data", Path(folder) / "palate.toml"
        config.write_text(SETTINGS)
        for command in (["import", "events", str(asked.ratings)], ["train", "--full"], ["recommend", "--all"]):
            options = ["--data", str(data), "--config", str(config)]
            subprocess.run([*PALATE, *command, *options], check=True, stdout=subprocess.DEVNULL)
        measure(data, config, asked.rounds)
        measure_own_work(data, asked.rounds)


def measure(data: Path, config: Path, rounds: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*PALATE, "api", "--data", str(data), "--config", str(config), "--port", str(port)]
    service = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait(client)
            for surface, name in (("home", "from the list"), ("api", "scored live")):
                for log in ("false", "true"):
                    times = [timed(client, surface, log, str(user)) for _ in range(rounds) for user in range(1, 301)]
                    said = "made durable" if log == "true" else "not logged"
                    best = statistics.quantiles(times, n=100)
                    print(f"{name}, {said}: median {statistics.median(times):.2f} ms, p99 {best[98]:.2f} ms")
    finally:
        service.terminate()
        service.wait()


def measure_own_work(data: Path, rounds: int) -> None:
    """Without HTTP and the threads behind it, of people who were asked for before."""
    surfaces = {"home": SurfaceParams(lists="default")}
    params = ServingParams(feed=FeedParams(model="ials", window_days=36_500), surfaces=surfaces)
    times = []
    with open_serving(data, None, params) as serving:
        for user in [number for _ in range(rounds + 1) for number in range(1, 301)]:
            request = FeedRequest(user=str(user), limit=10, now=utc_now(), surface="home", log=False)
            begin = time.perf_counter()
            feed.serve(serving.live, request, params.feed, np.random.default_rng(1), lambda _: None)
            times.append(1000 * (time.perf_counter() - begin))
    best = statistics.quantiles(times[300:], n=100)
    print(f"from the list, its own work: median {best[49]:.2f} ms, p99 {best[98]:.2f} ms")


def wait(client: httpx.Client) -> None:
    for _ in range(600):
        try:
            if client.get("/v1/feed", params={"user": "1", "log": "false"}).json()["items"]:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("The service didn't answer within a minute.")


def timed(client: httpx.Client, surface: str, log: str, user: str) -> float:
    begin = time.perf_counter()
    answer = client.get("/v1/feed", params={"user": user, "surface": surface, "limit": "10", "log": log})
    milliseconds = 1000 * (time.perf_counter() - begin)
    assert len(answer.json()["items"]) == 10, answer.text
    return milliseconds


if __name__ == "__main__":
    main()
