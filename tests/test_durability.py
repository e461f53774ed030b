"""What Palate promises of events: what was acknowledged is there, once, whatever dies and whatever is full."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from palate import database, events, retention, user_index
from palate.database import connect, migrate, reading, writing
from palate.domain import Event
from palate.errors import DataFolderError, NotDurable
from palate.group_commit import GroupCommit

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
WRITER = Path(__file__).with_name("durability_writer.py")


class Nursery:
    """Starts writers (`durability_writer.py`) by forking one process that has everything imported already."""

    def __init__(self, said: Path) -> None:
        self.said = said
        self.process = subprocess.Popen(
            [sys.executable, str(WRITER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, **order: object) -> int:
        """Start a writer; returns its process id."""
        self.said.unlink(missing_ok=True)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"said": str(self.said), **order}) + "\n")
        self.process.stdin.flush()
        return int(self._answer())

    def ended(self) -> tuple[int, list[tuple[str, str]]]:
        """Wait for the writer's end; returns its exit code (minus the signal that killed it) and what it had said."""
        code = int(self._answer())
        return code, [
            (kind, rest) for kind, _, rest in (line.partition(" ") for line in self.said.read_text().splitlines())
        ]

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("nursery") / "said")
    yield nursery
    nursery.process.communicate()
    assert nursery.process.returncode == 0


def kill_at_a_random_moment(nursery: Nursery, pid: int, after: str, chance: random.Random) -> list[tuple[str, str]]:
    """Kill the writer some time after it first said `after`; returns what it had said."""
    deadline = time.monotonic() + 60
    while not (nursery.said.exists() and after in nursery.said.read_text()):
        assert time.monotonic() < deadline, "The writer came to nothing in a minute."
        time.sleep(0.005)
    time.sleep(chance.uniform(0, 0.3))
    os.kill(pid, signal.SIGKILL)
    code, said = nursery.ended()
    assert code == -signal.SIGKILL, "The writer ended by itself instead of being killed."
    return said


def ids_in_log(engine: sa.Engine, folder: Path) -> Counter[str | None]:
    return Counter(event.id for some in events.stream(engine, folder) for event in some)


KILLED_AFTER = ("sealed", "sealing", "sealed", "kept")


def survive(nursery: Nursery, engine: sa.Engine, url: str | None, data: Path, rounds: int) -> None:
    chance = random.Random(7)
    sent: list[str] = []
    kept: set[str] = set()
    for number in range(rounds):
        again = chance.sample(sent, min(len(sent), 30)) + sent[-30:]
        pid = nursery.start(data=str(data), url=url, number=number, seals=number % 4 != 3, again=again)
        for kind, id in kill_at_a_random_moment(nursery, pid, KILLED_AFTER[number % 4], chance):
            assert kind != "failed", f"The writer failed: {id}"
            if kind == "kept":
                kept.add(id)
            elif kind == "sent":
                sent.append(id)
        found = ids_in_log(engine, data / "events")
        assert kept <= found.keys(), "An acknowledged event is lost."
        assert found.keys() <= set(sent), "There is an event that nobody sent."
        assert set(found.values()) <= {1}, "An event counts twice."
        columns = events.read_columns(engine, data / "events")
        assert len(columns) == found.total()
        assert len(set(columns.seq.tolist())) == len(columns)
        with reading(engine) as connection:
            users = connection.scalars(sa.select(database.events.c.user).order_by(database.events.c.seq)).all()
            everybody = user_index.of_users(connection, set(users))
            assert connection.scalar(sa.select(sa.func.count()).where(everybody)) == len(users), (
                "One isn't found by user."
            )
    assert len(kept) > rounds
    assert list((data / "events").glob("day=*/*.parquet")), "Nothing was sealed under the kills."


def test_acknowledged_events_survive_kill_9_once_each(
    nursery: Nursery, migrated_url: str | None, engine: sa.Engine, data: Path
) -> None:
    survive(nursery, engine, migrated_url, data, 8 if migrated_url is None else 3)


@pytest.mark.soak
def test_acknowledged_events_survive_50_kills(
    nursery: Nursery, migrated_url: str | None, engine: sa.Engine, data: Path
) -> None:
    survive(nursery, engine, migrated_url, data, 50)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with 3 MB, mounted; skips where that isn't allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not shutil.which("mount") or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", disk]).returncode:
        pytest.skip("mounting a small disk needs rights that this process lacks")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_said_and_loses_nothing_and_works_again_with_room(small_disk: Path) -> None:
    engine = connect(None, small_disk)
    migrate(engine)
    commits = GroupCommit(engine)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_000_000)
    kept = 0
    with pytest.raises(NotDurable, match="full"):
        for n in range(10_000):
            kept += commits.submit(
                [Event(user="ann", item=f"i{n}", type="like", id=f"{n}-{m}") for m in range(50)], NOW
            ).result()
    assert kept > 0
    with pytest.raises(NotDurable, match="full"):
        commits.submit([Event(user="ann", item="late", type="like", id=f"late-{m}") for m in range(500)], NOW).result()
    ballast.unlink()
    assert commits.submit([Event(user="ann", item="late", type="like", id="late")], NOW).result() == 1
    commits.close()
    found = ids_in_log(engine, small_disk / "events")
    assert set(found.values()) == {1}
    assert found.total() == kept + 1
    engine.dispose()


def test_a_disk_too_full_to_seal_keeps_the_events_where_they_are(small_disk: Path, tmp_path: Path) -> None:
    engine = connect(None, tmp_path / "data")
    migrate(engine)
    with writing(engine) as connection:
        events.append(connection, [Event(user="ann", item="duck", type="like", id=f"{n}") for n in range(500)], NOW)
    with (small_disk / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError, match="space"):
        while True:
            ballast.write(b"x" * 4096)
    folder = small_disk / "events"
    with pytest.raises(DataFolderError, match="space"):
        retention.seal(engine, folder, NOW.replace(day=21), 1000)
    assert ids_in_log(engine, folder).total() == 500
    (small_disk / "ballast").unlink()
    assert len(retention.seal(engine, folder, NOW.replace(day=21), 1000)) == 1
    assert ids_in_log(engine, folder).total() == 500
    engine.dispose()


def test_a_folder_that_turns_read_only_is_said_and_loses_nothing(small_disk: Path) -> None:
    engine = connect(None, small_disk)
    migrate(engine)
    commits = GroupCommit(engine)
    assert commits.submit([Event(user="ann", item="duck", type="like", id="before")], NOW).result() == 1
    engine.dispose()  # a disk with files open for writing can't be made read-only
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(NotDurable, match="can't be written"):
        commits.submit([Event(user="ann", item="duck", type="like", id="during")], NOW).result()
    with pytest.raises(DataFolderError, match="Read-only"):
        retention.seal(engine, small_disk / "events", NOW, 1000)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert commits.submit([Event(user="ann", item="duck", type="like", id="after")], NOW).result() == 1
    commits.close()
    assert ids_in_log(engine, small_disk / "events") == {"before": 1, "after": 1}
    engine.dispose()


def test_a_write_beyond_the_limit_of_a_file_is_said_and_loses_nothing(nursery: Nursery, data: Path) -> None:
    """What a full disk does, where no disk can be mounted: the system refuses to let a file grow."""
    engine = connect(None, data)
    migrate(engine)
    size = sum(file.stat().st_size for file in data.iterdir())
    nursery.start(data=str(data), url=None, number=0, seals=False, again=[], largest=size + 200_000)
    code, said = nursery.ended()
    kept = {rest for kind, rest in said if kind == "kept"}
    assert code == 0
    assert len(kept) > 100
    failures = [rest for kind, rest in said if kind == "failed"]
    assert len(failures) == 3
    assert all(failure.startswith("The database can't be written") for failure in failures)
    found = ids_in_log(engine, data / "events")
    assert kept <= found.keys()
    assert set(found.values()) == {1}
    with writing(engine) as connection:
        connection.execute(sa.insert(database.meta).values(name="works", value="again"))
    engine.dispose()
