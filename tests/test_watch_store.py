"""Archives that lie in an object store: copied when they are new, and the views put back, by the command itself."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from palate import store, watch_store
from palate.cli import app
from palate.store import Store
from palate.watching.etl import Place

SESSIONS = "session,user,video,start,device,duration\ns{n},ann,film-{n},2024-05-0{n}T10:00:00Z,tv,600\n"
TICKS = "session,time\ns{n},2024-05-0{n}T10:01:00Z\ns{n},2024-05-0{n}T10:02:00Z\n"


@pytest.fixture(params=["folder", "bucket"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "bucket":
        return str(request.getfixturevalue("bucket"))
    (tmp_path / "shared").mkdir()
    return f"file://{tmp_path / 'shared'}"


def bring(files: Store, number: int) -> None:
    """The archives of a day."""
    for kind, text in (("sessions", SESSIONS), ("ticks", TICKS)):
        packed = gzip.compress(text.format(n=number).encode())
        files.write(f"player/{kind}-2024-05-0{number}.csv.gz", packed)


def etl(tmp_path: Path, address: str) -> Any:
    base, _, query = address.partition("?")
    here, there = (f"{base}/{place}{'?' if query else ''}{query}" for place in ("player", "views-of-us"))
    arguments = ["watch-etl", here, "--publish", there, "--data", str(tmp_path / "data"), "--json", "--threads", "1"]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    return json.loads(told.stdout)


def test_archives_come_from_a_store_and_views_go_to_one(address: str, tmp_path: Path) -> None:
    files = store.opened(address)
    (tmp_path / "shared" / "views-of-us").mkdir(parents=True, exist_ok=True)
    bring(files, 1)
    assert list(etl(tmp_path, address)["built"]) == ["2024-05-01"]
    bring(files, 2)
    assert len(etl(tmp_path, address)["read"]) == 2
    assert etl(tmp_path, address)["read"] == {}
    made = [f"views-of-us/views/day=2024-05-0{number}/views.parquet" for number in (1, 2)]
    assert files.names("views-of-us") == made
    here = tmp_path / "data" / "watch" / "views" / "day=2024-05-02" / "views.parquet"
    assert files.read(made[1]) == here.read_bytes()


def test_what_changed_in_the_store_is_fetched_again_and_what_is_gone_goes(address: str, tmp_path: Path) -> None:
    files, copies = store.opened(address), tmp_path / "copies"
    files.write("a/sessions-1.csv", b"one")
    files.write("ticks-1.csv", b"two")
    files.write(".hidden", b"three")
    assert watch_store.fetch(files, copies) == ["a/sessions-1.csv", "ticks-1.csv"]
    assert watch_store.fetch(files, copies) == []
    files.write("ticks-1.csv", b"longer")
    files.delete("a/sessions-1.csv")
    assert watch_store.fetch(files, copies) == ["ticks-1.csv"]
    assert (copies / "ticks-1.csv").read_bytes() == b"longer"
    assert not (copies / "a" / "sessions-1.csv").exists()


def test_views_that_are_no_more_leave_the_store(address: str, tmp_path: Path) -> None:
    files, place = store.opened(address), Place(tmp_path / "watch")
    for day in ("2024-05-01", "2024-05-02"):
        (place.folder / "views" / f"day={day}").mkdir(parents=True)
        (place.folder / "views" / f"day={day}" / "views.parquet").write_bytes(day.encode())
    assert watch_store.publish(files, place, ["2024-05-01"]) == 2
    assert watch_store.publish(files, place, ["2024-05-01"]) == 1
    (place.folder / "views" / "day=2024-05-02" / "views.parquet").unlink()
    assert watch_store.publish(files, place, []) == 0
    assert files.names("views") == ["views/day=2024-05-01/views.parquet"]
