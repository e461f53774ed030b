"""Several real processes behind one address."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from feed_world import World

from palate import events, snapshots
from palate.database import opened, reading, writing


class Service:
    """`palate api` with two workers."""

    def __init__(self, data: Path, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.data, self.address = data, f"http://127.0.0.1:{port}"
        arguments = ["api", "--workers", "2", "--data", str(data), "--port", str(port)]
        environment = {**os.environ, "PALATE_SERVER__DRAIN_SECONDS": "1", **settings}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "palate", *arguments], env=environment, stderr=subprocess.DEVNULL
        )
        for _ in range(600):
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.address}/readyz").status_code == 200 and len(self.workers()) == 2:
                    return
            time.sleep(0.1)
        raise AssertionError("it did not start")

    def workers(self) -> list[psutil.Process]:
        """Those that live, the process that multiprocessing keeps for itself left out."""
        return [child for child in psutil.Process(self.process.pid).children() if "spawn_main" in _command(child)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it is dead
        return ""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for several tests, the last of which ends it."""
    service = Service(tmp_path_factory.mktemp("workers") / "data")
    yield service
    service.process.kill()
    service.process.wait()


class Load(threading.Thread):
    """Posts events with ids one after the other, each until it is taken."""

    def __init__(self, service: Service, name: str) -> None:
        super().__init__(daemon=True)
        self.address, self.prefix = f"{service.address}/v1/events", name
        self.taken, self.refused, self.over = 0, list[int](), threading.Event()

    def run(self) -> None:
        client = httpx.Client(timeout=30)
        while not self.over.is_set():
            event = {"user": f"user {self.taken % 7}", "item": "duck", "type": "viewed"}
            try:
                answer = client.post(self.address, json={**event, "id": f"{self.prefix}-{self.taken}"})
            except httpx.HTTPError:
                continue
            if answer.status_code == 200:
                self.taken += 1
            else:
                self.refused.append(answer.status_code)
        client.close()


def test_workers_that_cannot_write_refuse_what_would_wait_too_long_and_keep_all_else(data: Path) -> None:
    service = Service(data, PALATE_EVENTS__MAX_WAITING="5")
    try:
        with opened(None, data) as engine, ThreadPoolExecutor(40) as clients:
            with writing(engine):  # each worker holds at most 5 that wait and 5 that it has begun to write
                asked = [clients.submit(post_one, service, number) for number in range(40)]
                refused = [next(answered).result() for answered in [as_completed(asked)] for _ in range(20)]
            answers = [one.result() for one in asked]
            assert {answer.status_code for answer in refused} == {429}
            assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
            accepted = sum(answer.status_code == 200 for answer in answers)
            assert accepted + sum(answer.status_code == 429 for answer in answers) == 40
            with reading(engine) as connection:
                assert events.count(connection, None) == accepted > 0
            assert post_one(service, 0).status_code == 200
    finally:
        service.process.kill()
        service.process.wait()


def post_one(service: Service, number: int) -> httpx.Response:
    event = {"user": f"u{number}", "item": "duck", "type": "like"}
    return httpx.post(f"{service.address}/v1/events", json=event, timeout=30)


UP = {f"p{number}": 0.8 - 0.1 * number for number in range(6)}
DOWN = {id: 1 - liked for id, liked in UP.items()}


class Reader(threading.Thread):
    """Asks for an order and for a feed again and again, by one connection or by one for each call."""

    def __init__(self, service: Service, keeps: bool) -> None:
        super().__init__(daemon=True)
        self.service, self.keeps, self.over = service, keeps, threading.Event()
        self.told = list[tuple[str, list[str], set[str]]]()
        """Of each answer the version that scored it, the order, and what the feed held."""
        self.wrong = list[str]()

    def run(self) -> None:
        client = httpx.Client(base_url=self.service.address, timeout=30)
        while not self.over.is_set():
            ranked = client.post("/v1/rank", json={"user": "somebody", "items": list(UP)})
            feed = client.get("/v1/feed", params={"user": "somebody", "log": "false"})
            if {ranked.status_code, feed.status_code} != {200}:
                self.wrong.append(ranked.text + feed.text)
                break
            order = [place["item"] for place in ranked.json()["items"]]
            self.told.append((ranked.json()["model"], order, {place["item"] for place in feed.json()["items"]}))
            if not self.keeps:
                client.close()
                client = httpx.Client(base_url=self.service.address, timeout=30)
        client.close()

    def has_seen(self, version: str, times: int) -> bool:
        return sum(told[0] == version for told in list(self.told)) >= times or not self.is_alive()


def test_a_snapshot_is_swapped_under_load_without_a_wrong_answer(service: Service) -> None:
    items = [{"id": id, "title": f"Title of {id}"} for id in (*UP, "gone")]
    httpx.post(f"{service.address}/v1/items", json=items).raise_for_status()
    with opened(None, service.data) as engine:
        world = World(engine, service.data)
        readers = [Reader(service, keeps) for keeps in (True, True, False)]
        versions = [publish(world, UP)]
        httpx.delete(f"{service.address}/v1/items/gone").raise_for_status()
        until(lambda: all(model_of(service) == versions[0] for _ in range(8)))
        for reader in readers:
            reader.start()
        for likely in (DOWN, UP):
            until(lambda: all(reader.has_seen(versions[-1], 5) for reader in readers))
            versions.append(publish(world, likely))
        until(lambda: all(reader.has_seen(versions[-1], 5) for reader in readers))
    for reader in readers:
        reader.over.set()
        reader.join()
    assert [reader.wrong for reader in readers] == [[]] * 3
    for reader in readers:
        for version, order, feed in reader.told:
            assert order == (sorted(UP, reverse=True) if version == versions[1] else sorted(UP)), version
            assert feed == set(UP)
        if reader.keeps:  # one worker answers all of a connection, and doesn't go back
            told = [versions.index(version) for version, _, _ in reader.told]
            assert told == sorted(told)
    assert {model_of(service) for _ in range(16)} == {versions[-1]}


def publish(world: World, likely: dict[str, float]) -> str:
    """A snapshot by which items are liked by so many of all people; its version."""
    popularity = {id: (share, 1000.0) for id, share in {**likely, "gone": 0.99}.items()}
    world.publish({id: [0.0, 0.0] for id in popularity}, popularity=popularity)
    version = snapshots.current(world.data / "snapshots")
    assert version is not None
    return version


def model_of(service: Service) -> str | None:
    """By a connection of its own."""
    answer = httpx.post(f"{service.address}/v1/rank", json={"user": "somebody", "items": ["p0"]})
    model: str | None = answer.json()["model"]
    return model


def until(holds: Callable[[], bool]) -> None:
    for _ in range(600):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it never came about")


def test_workers_share_votes_and_one_that_is_killed_under_load_loses_nothing(service: Service) -> None:
    items = [{"id": f"p{number}", "title": f"Title {number}", "labels": [f"label {number}"]} for number in range(2)]
    httpx.post(f"{service.address}/v1/items", json=items)
    loads = [Load(service, name) for name in ("a", "b", "c", "d")]
    for load in loads:
        load.start()
    while sum(load.taken for load in loads) < 40:
        time.sleep(0.01)
    victim, other = service.workers()
    victim.kill()
    while victim.pid in {worker.pid for worker in service.workers()} or len(service.workers()) < 2:
        time.sleep(0.05)
    for load in loads:
        load.over.set()
    for load in loads:
        load.join()
    assert [load.refused for load in loads] == [[]] * 4
    assert other.is_running()
    with opened(None, service.data) as engine:
        found = [event.id for some in events.stream(engine, service.data / "events") for event in some]
    assert len(found) == len(set(found))
    assert set(found) >= {f"{load.prefix}-{number}" for load in loads for number in range(load.taken)}
    _a_vote_counts_whoever_answers(service)
    _the_end_is_told_before_it_comes(service)


def _a_vote_counts_whoever_answers(service: Service) -> None:
    httpx.post(f"{service.address}/v1/events", json={"user": "ann", "item": "p1", "type": "dislike"})
    for _ in range(8):  # each by a connection of its own, so that both workers answer some
        answer = httpx.post(f"{service.address}/v1/rank", json={"user": "ann", "items": ["p0", "p1"]}).json()
        assert [place["item"] for place in answer["items"]] == ["p0", "p1"]
        assert answer["items"][0]["score"] > answer["items"][1]["score"]


def _the_end_is_told_before_it_comes(service: Service) -> None:
    with httpx.Client(base_url=service.address) as client:
        assert client.get("/readyz").status_code == 200
        service.process.send_signal(signal.SIGTERM)
        while client.get("/readyz").status_code == 200:
            time.sleep(0.01)
        assert client.get("/readyz").json()["error"]["code"] == "stopping"
        event = {"user": "ann", "item": "p0", "type": "like"}
        assert client.post("/v1/events", json=event).status_code == 200
    assert service.process.wait(30) == 0
