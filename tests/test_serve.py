"""The whole service as a user starts it: real processes, real HTTP, real SIGKILL."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from palate.loopback.bot_api import serving, wait_for_messages
from palate.loopback.bot_api_chats import TOKEN, Chats

PALATE = [sys.executable, "-m", "palate"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def run(*arguments: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PALATE, *arguments], capture_output=True, text=True, timeout=120, **kwargs)  # type: ignore[call-overload,no-any-return]


class Service:
    """`palate serve` on a data folder, and the address it answers at."""

    def __init__(self, data: Path, **environment: str) -> None:
        self.data, self.port, self.environment = data, free_port(), environment
        self.address = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        arguments = ["serve", "--data", str(self.data), "--port", str(self.port)]
        with (self.data.parent / "serve.log").open("a") as log:
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen([*PALATE, *arguments], stdout=log, stderr=log, env=environment)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        for _ in range(300):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.address}/readyz").status_code == 200:
                    return
            assert self.process.poll() is None, (self.data.parent / "serve.log").read_text()
            time.sleep(0.1)
        raise AssertionError((self.data.parent / "serve.log").read_text())

    def processes(self) -> list[psutil.Process]:
        """The supervisor first, then its children."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def trainers(self) -> list[int]:
        """Process ids of the training loop, one unless it was just killed."""
        return [process.pid for process in self.processes() if _is_trainer(process)]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(30) == 0


def _is_trainer(process: psutil.Process) -> bool:
    try:
        return "train" in process.cmdline()
    except psutil.Error:  # it ended while we looked
        return False


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for all that leave it as it was; the last of them stops it."""
    service = Service(tmp_path_factory.mktemp("served") / "data")
    yield service
    service.stop()


def test_a_like_through_the_api_is_in_the_export(service: Service, tmp_path: Path) -> None:
    items = [{"id": f"p{n}", "title": f"Title {n}", "labels": ["even" if n % 2 == 0 else "odd"]} for n in range(40)]
    assert httpx.post(f"{service.address}/v1/items", json=items).status_code == 200
    first = httpx.get(f"{service.address}/v1/feed", params={"user": "ann", "limit": 5}).json()["items"]
    liked = {"user": "ann", "item": first[0]["item"], "type": "like"}
    assert httpx.post(f"{service.address}/v1/events", json=liked).json() == {"accepted": 1}
    second = httpx.get(f"{service.address}/v1/feed", params={"user": "ann", "limit": 35}).json()["items"]
    assert not {item["item"] for item in first} & {item["item"] for item in second}
    exported = run("export", "events", str(tmp_path / "log.jsonl"), "--data", str(service.data))
    assert exported.returncode == 0, exported.stderr
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert Counter(row["type"] for row in rows) == {"shown": 40, "like": 1}


def test_a_second_server_on_the_same_folder_is_refused_in_one_sentence(service: Service) -> None:
    second = run("serve", "--data", str(service.data), "--port", str(free_port()))
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert "already running" in second.stderr
    service.wait_until_ready()


def test_a_taken_port_is_named(service: Service, tmp_path: Path) -> None:
    second = run("serve", "--data", str(tmp_path / "other"), "--port", str(service.port))
    assert second.returncode == 1
    assert f"Port {service.port}" in second.stderr


def test_a_killed_loop_is_started_again_while_the_others_serve(service: Service) -> None:
    (trainer,) = service.trainers()
    os.kill(trainer, signal.SIGKILL)
    assert httpx.get(f"{service.address}/readyz").status_code == 200
    for _ in range(200):
        if [pid for pid in service.trainers() if pid != trainer]:
            return
        time.sleep(0.1)
    raise AssertionError("the trainer was not started again")


def test_stopping_leaves_no_process_behind_and_without_a_token_there_was_no_bot(service: Service) -> None:
    processes = service.processes()
    assert len(processes) >= 4
    assert bots(service) == []
    service.stop()
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


class Telegram(threading.Thread):
    """The stand-in for the Bot API, while it is asked."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.chats = Chats()
        self.ready, self.address = threading.Event(), ""
        self.start()
        assert self.ready.wait(30)

    def run(self) -> None:
        asyncio.run(self.serve())

    async def serve(self) -> None:
        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        async with serving(self.chats) as self.address:
            self.ready.set()
            await self.over.wait()

    def talk(self) -> str:
        """What the bot answers somebody first."""
        self.loop.call_soon_threadsafe(self.chats.say, 1, "/start")
        told = asyncio.run_coroutine_threadsafe(wait_for_messages(self.chats, 1, 1, 60), self.loop)
        return str(told.result()[0]["text"])

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.over.set)
        self.join(30)


def bots(service: Service) -> list[list[str]]:
    return [process.cmdline() for process in service.processes()[1:] if "bot" in process.cmdline()]


def test_a_token_brings_the_bot_and_no_child_outlives_a_killed_supervisor(data: Path) -> None:
    telegram = Telegram()
    with contextlib.ExitStack() as stack:
        stack.callback(telegram.stop)
        service = Service(data, PALATE_BOT__TOKEN=TOKEN, PALATE_BOT__API=telegram.address)
        stack.callback(service.process.kill)
        assert telegram.talk().startswith("Hello!")
        assert len(bots(service)) == 1
        children = service.processes()[1:]
        assert len(children) >= 4
        service.process.kill()
        service.process.wait()
        _, alive = psutil.wait_procs(children, timeout=20)
        assert alive == []


class Load(threading.Thread):
    """Posts events with ids, again and again until each is acknowledged, some of them twice on purpose."""

    def __init__(self, service: Service, name: str) -> None:
        super().__init__(daemon=True)
        self.service, self.prefix = service, name
        self.acknowledged: set[str] = set()
        self.stopped = threading.Event()

    def run(self) -> None:
        rng, number = random.Random(self.prefix), 0
        client = httpx.Client(timeout=5)
        batch: list[dict[str, object]] = []
        while not self.stopped.is_set():
            if not batch:
                batch = [
                    {"id": f"{self.prefix}-{number + n}", "user": f"u{n}", "item": f"p{number % 7}", "type": "like"}
                    for n in range(rng.choice([1, 1, 20]))
                ]
                number += len(batch)
            try:
                answer = client.post(f"{self.service.address}/v1/events", json=batch)
            except httpx.HTTPError:
                time.sleep(0.05)
                continue
            time.sleep(0.01)  # the service gets the processor, not the load
            if answer.status_code == 200:
                assert answer.json() == {"accepted": len(batch)}
                self.acknowledged.update(str(event["id"]) for event in batch)
                if rng.random() < 0.8:
                    batch = []
        client.close()


def kill_at_random(service: Service, rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(rounds):
        time.sleep(rng.uniform(0.1, 1.0))
        victim = rng.choice(service.processes())
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
        if victim.pid == service.process.pid:
            service.process.wait()
            wait_for_locks(service.data)
            service.start()
        service.wait_until_ready()


def wait_for_locks(data: Path) -> None:
    """Until the children of a killed supervisor have let go of their roles."""
    import fcntl

    for name in ("ingest", "train"):
        with (data / "locks" / name).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)


@pytest.mark.parametrize(
    "rounds", [pytest.param(4, id="4 rounds"), pytest.param(50, id="50 rounds", marks=pytest.mark.soak)]
)
def test_whatever_is_killed_each_acknowledged_event_is_there_once(rounds: int, data: Path, tmp_path: Path) -> None:
    service = Service(data)
    loads = [Load(service, name) for name in ("a", "b", "c")]
    for load in loads:
        load.start()
    kill_at_random(service, rounds, seed=rounds)
    time.sleep(0.5)
    for load in loads:
        load.stopped.set()
        load.join()
    service.stop()
    exported = run("export", "events", str(tmp_path / "log.jsonl"), "--data", str(data))
    assert exported.returncode == 0, exported.stderr
    found = Counter(json.loads(line)["id"] for line in (tmp_path / "log.jsonl").read_text().splitlines())
    acknowledged = set().union(*(load.acknowledged for load in loads))
    assert len(acknowledged) > 100
    assert acknowledged <= found.keys()
    assert set(found.values()) == {1}


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can only be mounted by root")
def test_a_full_disk_is_503_and_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    service = None
    try:
        service = Service(disk / "data")
        accepted = fill_up(service)
        assert httpx.get(f"{service.address}/healthz").status_code == 200
        assert wait_for_status(f"{service.address}/readyz", 503)
        subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
        assert wait_for_status(f"{service.address}/readyz", 200)
        event = {"user": "ann", "item": "p1", "type": "like"}
        assert httpx.post(f"{service.address}/v1/events", json=event).json() == {"accepted": 1}
        service.stop()
        run("export", "events", str(tmp_path / "log.csv"), "--data", str(disk / "data"))
        assert len((tmp_path / "log.csv").read_text().splitlines()) == 1 + accepted + 1
    finally:
        if service is not None:
            service.process.kill()
            service.process.wait()
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill_up(service: Service) -> int:
    """Post events in ever smaller batches until not one more fits; returns how many were accepted."""
    accepted = 0
    with httpx.Client() as client:
        for size in (100, 10, 1):
            while True:
                batch = [{"user": "u" * 150, "item": f"{accepted}-{n}", "type": "like"} for n in range(size)]
                answer = client.post(f"{service.address}/v1/events", json=batch)
                if answer.status_code != 200:
                    break
                accepted += size
            assert answer.status_code == 503
            assert "full" in answer.json()["error"]["message"]
    return accepted


def wait_for_status(address: str, status: int) -> bool:
    for _ in range(100):
        if httpx.get(address).status_code == status:
            return True
        time.sleep(0.1)
    return False
