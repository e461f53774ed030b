"""Several machines: servers and a trainer, each with a data folder of its own, share a PostgreSQL database and an S3 server."""

from __future__ import annotations

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
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from palate import database, events, replica, retention, snapshots
from palate.database import reading, writing
from palate.domain import Event
from palate.errors import StoreError
from palate.store import Folder
from palate.train import Params, TrainParams, run_cycle

PALATE = [sys.executable, "-m", "palate"]
PARAMS = Params(train=TrainParams(models=()), served="popularity")
ITEMS = 60


@pytest.fixture
def shared(postgres_url: str, bucket: str, tmp_path: Path) -> Path:
    """The settings file that all machines have alike: with the database and the store."""
    file = tmp_path / "palate.toml"
    file.write_text(
        f"database_url = {json.dumps(postgres_url)}\nstore = {json.dumps(bucket)}\n"
        '[feed]\nmodel = "popularity"\n'
        "[train]\nmodels = []\nnew_events = 20\nmin_pause = 0.2\npoll = 0.2\n"
    )
    return file


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Process:
    """A command of `palate` on a machine of its own."""

    def __init__(self, settings: Path, name: str, *arguments: str) -> None:
        self.log = settings.parent / f"{name}.log"
        data = ["--data", str(settings.parent / name), "--config", str(settings)]
        self.command = [*PALATE, *arguments, *data]
        self.start()

    def start(self) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(30) in (0, -signal.SIGTERM), self.log.read_text()


class Api(Process):
    """A server, and what asks it."""

    def __init__(self, settings: Path, name: str) -> None:
        port = free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
        super().__init__(settings, name, "api", "--port", str(port))

    def end(self) -> None:
        super().end()
        self.http.close()

    def wait(self, what: Callable[[], bool]) -> None:
        for _ in range(600):
            with contextlib.suppress(httpx.HTTPError):
                if what():
                    return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def wait_until_ready(self) -> None:
        self.wait(lambda: self.http.get("/readyz").status_code == 200)

    def wait_for_model(self, version: str | None) -> None:
        self.wait(lambda: self.model() == version)

    def model(self) -> str | None:
        answer = self.http.post("/v1/rank", json={"user": "ann", "items": ["i0"]}).raise_for_status()
        model: str | None = answer.json()["model"]
        return model

    def feed(self, user: str, limit: int) -> list[str]:
        answer = self.http.get("/v1/feed", params={"user": user, "limit": limit}).raise_for_status()
        return [item["item"] for item in answer.json()["items"]]


@contextlib.contextmanager
def running(*processes: Process) -> Iterator[None]:
    try:
        yield
        for process in processes:
            process.stop()
    finally:
        for process in processes:
            process.end()


class Client:
    """Sends events one after the other, each until a server has acknowledged it: to another one when the first is silent."""

    def __init__(self, apis: list[Api], seed: int) -> None:
        self.apis, self.seed = apis, seed
        self.acknowledged = list[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        chance, number = random.Random(self.seed), 0
        while not self._stop.is_set():
            number += 1
            item, user = f"i{chance.randrange(ITEMS)}", f"u{chance.randrange(20)}"
            event = {"id": f"{self.seed}-{number}", "user": user, "item": item, "type": "like"}
            while not self._sent(chance.choice(self.apis), event):
                if self._stop.wait(0.02):
                    return  # nobody acknowledged the last
            self.acknowledged.append(event["id"])

    def _sent(self, api: Api, event: dict[str, str]) -> bool:
        try:
            return api.http.post("/v1/events", json=event).status_code == 200
        except httpx.HTTPError:
            return False


def put_items(api: Api) -> None:
    items = [{"id": f"i{n}", "title": f"Title {n}", "labels": ["even" if n % 2 == 0 else "odd"]} for n in range(ITEMS)]
    api.http.post("/v1/items", json=items).raise_for_status()


def engine_of(settings: Path, name: str) -> sa.Engine:
    from palate.settings import load

    loaded = load(settings, {})
    return database.connect(loaded.database_url, settings.parent / name, loaded.store)


def check_that_each_is_there_once(engine: sa.Engine, folder: Path, acknowledged: list[str]) -> None:
    found = Counter(event.id for some in events.stream(engine, folder) for event in some if event.type == "like")
    assert set(found.values()) <= {1}
    assert not set(acknowledged) - set(found)


def check_that_each_counts_at_the_other(one: Api, other: Api) -> None:
    """What was shown or liked at one server is known at the other in the very next call."""
    shown = one.feed("reader", 5)
    assert len(shown) == 5
    liked = next(f"i{n}" for n in range(ITEMS) if f"i{n}" not in shown)
    one.http.post("/v1/events", json={"user": "reader", "item": liked, "type": "like"}).raise_for_status()
    assert not {*shown, liked} & set(other.feed("reader", ITEMS))


def test_two_servers_share_nothing_but_the_database_and_the_store(shared: Path) -> None:
    one, other = Api(shared, "one"), Api(shared, "other")
    trainer, data = engine_of(shared, "trainer"), shared.parent / "trainer"
    with running(one, other):
        for api in (one, other):
            api.wait_until_ready()
        put_items(one)
        with Client([one, other], 1) as client:
            other.wait(lambda: len(client.acknowledged) >= 30)
            first = run_cycle(trainer, data, PARAMS, datetime.now(UTC)).version
            for api in (one, other):
                api.wait_for_model(first)
            one.kill()
            before = len(client.acknowledged)
            other.wait(lambda: len(client.acknowledged) > before + 10)
            second = run_cycle(trainer, data, PARAMS, datetime.now(UTC)).version
            one.start()
            for api in (one, other):
                api.wait_for_model(second)
        check_that_each_is_there_once(trainer, data / "events", client.acknowledged)
        check_that_each_counts_at_the_other(one, other)
    trainer.dispose()
    assert len(snapshots.versions(shared.parent / "one" / "snapshots")) == 2


@pytest.mark.soak
def test_whatever_machine_is_killed_nothing_is_lost_and_both_serve(shared: Path, tmp_path: Path) -> None:
    one, other = Api(shared, "one"), Api(shared, "other")
    trainer = Process(shared, "trainer", "train")
    with running(one, other, trainer):
        for api in (one, other):
            api.wait_until_ready()
        put_items(other)
        with Client([one, other], 1) as first, Client([other, one], 2) as second:
            one.wait(lambda: one.model() is not None)
            for victim in (one, other, trainer) * 2:
                before = len(first.acknowledged) + len(second.acknowledged), one.model() if victim is trainer else None
                victim.kill()
                left = other if victim is one else one
                left.wait(lambda before=before: len(first.acknowledged) + len(second.acknowledged) > before[0] + 20)  # type: ignore[misc]
                victim.start()
                if isinstance(victim, Api):
                    victim.wait_until_ready()
                else:
                    one.wait(lambda before=before: one.model() not in (None, before[1]))  # type: ignore[misc]
        second_trainer = subprocess.run(
            [*PALATE, "train", "--data", str(tmp_path / "third"), "--config", str(shared)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert second_trainer.returncode == 1
        assert "already running on this database" in second_trainer.stderr
        trainer.stop()
        last = snapshots.current(tmp_path / "trainer" / "snapshots")
        for api in (one, other):
            api.wait_for_model(last)
        trainer.start()
        fresh = engine_of(shared, "fresh")
        check_that_each_is_there_once(fresh, tmp_path / "fresh" / "events", [*first.acknowledged, *second.acknowledged])
        check_that_each_counts_at_the_other(one, other)
        fresh.dispose()
    assert "Traceback" not in "".join(process.log.read_text() for process in (one, other, trainer))


def test_the_trainer_learns_without_the_store_and_brings_it_there_later(
    sqlite_engine: sa.Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now, data = datetime(2026, 3, 1, tzinfo=UTC), tmp_path / "trainer"
    engine = database.connect(sqlite_engine.url.render_as_string(), data, f"file://{tmp_path}/shared")
    with writing(engine) as connection:
        events.append(connection, [Event(user="ann", item="duck", type="like")], now)
    cycle = run_cycle(engine, data, PARAMS, now + timedelta(days=3))
    assert cycle.version == snapshots.current(data / "snapshots") is not None
    assert "make or mount the folder" in caplog.text
    assert replica.is_pending(engine, data)
    with pytest.raises(StoreError, match="make or mount the folder"):
        replica.keep_up(engine, data, None, threading.Event(), publishes=True)
    with reading(engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(database.events)) == 1  # still unsealed
    (tmp_path / "shared").mkdir()
    replica.push(engine, data)
    assert len(retention.seal(engine, data / "events", now + timedelta(days=1), 1)) == 1
    names = Folder(tmp_path / "shared").names("snapshots")
    assert f"snapshots/{cycle.version}/header.json" in names
    engine.dispose()
