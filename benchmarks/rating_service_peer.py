"""A rating service as an article on one describes it: Flask under gunicorn, events into a queue that another process empties into a
map in memory, the model in memory that the HTTP workers share. Nothing is durable. `bench_api.py --peer PYTHON` runs it.
"""

from __future__ import annotations

import multiprocessing
import os
from contextlib import suppress
from queue import Empty
from typing import Any

import numpy as np
from flask import Flask, request  # type: ignore[import-not-found,unused-ignore]  # of the peer's own environment

USERS, ITEMS, FACTORS = 10_000, 5_000, 64

app = Flask(__name__)
rng = np.random.default_rng(1)
users = {f"user {n}": n for n in range(USERS)}
items = {f"item {n}": n for n in range(ITEMS)}
user_vectors = rng.normal(0, 0.1, (USERS, FACTORS)).astype(np.float32)
item_vectors = rng.normal(0, 0.1, (ITEMS, FACTORS)).astype(np.float32)
user_bias, item_bias = rng.normal(0, 0.1, USERS).astype(np.float32), rng.normal(0, 0.1, ITEMS).astype(np.float32)
queue: multiprocessing.Queue[tuple[str, str, str]] = multiprocessing.Queue()


def collect() -> None:
    """The dispatcher's first task: the queue into one big map, until the server is gone."""
    interactions: dict[tuple[str, str], str] = {}
    server = os.getppid()
    while os.getppid() == server:
        with suppress(Empty):
            user, item, type = queue.get(timeout=1)
            interactions[user, item] = type


if "PALATE_PEER_COLLECTS" not in os.environ:
    os.environ["PALATE_PEER_COLLECTS"] = "1"
    multiprocessing.Process(target=collect, daemon=True).start()


@app.post("/v1/events")
def add_event() -> dict[str, int]:
    event = request.get_json()
    queue.put((event["user"], event["item"], event["type"]))
    return {"accepted": 1}


@app.post("/v1/rank")
def get_rates() -> dict[str, Any]:
    asked = request.get_json()
    user, names = users[asked["user"]], asked["items"]
    rows = np.array([items[name] for name in names])
    linear = item_vectors[rows] @ user_vectors[user] + item_bias[rows] + user_bias[user]
    scores = 1 / (1 + np.exp(-linear))
    best = np.argsort(-scores)
    return {"items": [{"item": names[place], "score": float(scores[place])} for place in best], "model": "peer"}
