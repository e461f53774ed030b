"""Views of the archives in the event log: when, once, and what they then change."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from palate import events, watch_log
from palate.cli import app
from palate.watching import etl
from palate.watching.etl import Place
from palate.watching.rules import WatchParams

MAY = 1_714_521_600
NOW = datetime(2024, 5, 9, tzinfo=UTC)


def write_day(folder: Path, day: int, people: tuple[str, ...], ticks: int) -> None:
    """A session of each of these people with the film of that day, which lasts ten minutes."""
    folder.mkdir(exist_ok=True)
    start, date = MAY + 86_400 * (day - 1), f"2024-05-{day:02}"
    sessions = [f"{name}-{day},{name},film-{day},{start},tv,600" for name in people]
    (folder / f"sessions-{date}.csv").write_text("\n".join(["session,user,video,start,device,duration", *sessions]))
    told = [f"{name}-{day},{start + 60 * (tick + 1)}" for name in people for tick in range(ticks)]
    (folder / f"ticks-{date}.csv").write_text("\n".join(["session,time", *told]))


def logged(engine: sa.Engine, data: Path) -> list[tuple[str, str, str, float | None]]:
    found = [event for batch in events.stream(engine, data / "events") for event in batch]
    return [(event.user, event.item, event.type, event.value) for event in found]


def nothing(_what: str, _done: int, _all: int) -> None: ...


def test_a_day_enters_the_log_once_when_it_has_settled(engine: sa.Engine, tmp_path: Path) -> None:
    place, params = Place(tmp_path / "watch"), WatchParams(settled_days=2, most_views=1)
    write_day(tmp_path / "in", 1, ("ann", "bob"), 3)
    write_day(tmp_path / "in", 2, ("ann",), 6)
    etl.run(tmp_path / "in", place, params, threads=1)
    assert watch_log.enter(engine, place, params, NOW, nothing) == 0
    write_day(tmp_path / "in", 3, ("cid",), 1)
    etl.run(tmp_path / "in", place, params, threads=1)
    assert watch_log.enter(engine, place, params, NOW, nothing) == 1
    assert logged(engine, tmp_path) == [("bob", "film-1", "watch", 0.3)]  # ann has two views in 30 days: too many here
    assert watch_log.enter(engine, place, params, NOW, nothing) == 0


def test_a_run_that_was_killed_while_entering_counts_each_view_once(engine: sa.Engine, tmp_path: Path) -> None:
    place, params = Place(tmp_path / "watch"), WatchParams(settled_days=0)
    write_day(tmp_path / "in", 1, ("ann", "bob"), 3)
    etl.run(tmp_path / "in", place, params, threads=1)
    before = place.manifest.read_bytes()
    assert watch_log.enter(engine, place, params, NOW, nothing) == 2
    place.manifest.write_bytes(before)  # as if the mark of the day had not been written any more
    watch_log.enter(engine, place, params, NOW, nothing)
    assert len(logged(engine, tmp_path)) == 2


def test_the_command_says_what_it_did_and_a_player_view_counts_in_the_feed(tmp_path: Path) -> None:
    archives, data = tmp_path / "in", tmp_path / "data"
    for day in (1, 2, 3, 4):
        write_day(archives, day, ("ann", "bob"), 3)
    told = CliRunner().invoke(app, ["watch-etl", str(archives), "--data", str(data), "--threads", "1"])
    assert told.exit_code == 0, told.output
    assert "8 archives read, 4 days built; 4 days there in all." in told.output
    assert "4 views of settled days entered the event log." in told.output
    again = CliRunner().invoke(app, ["watch-etl", str(archives), "--data", str(data), "--json", "--threads", "1"])
    answer = json.loads(again.stdout)
    assert (answer["built"], answer["entered"], answer["totals"]["views"]) == ({}, 0, 8)
    films = tmp_path / "films.csv"
    films.write_text("item,title\n" + "".join(f"film-{day},Film\n" for day in (1, 2, 3, 4, 5)))
    assert CliRunner().invoke(app, ["import", "items", str(films), "--data", str(data)]).exit_code == 0
    for user, left in (("ann", {"film-3", "film-4", "film-5"}), ("eve", {f"film-{day}" for day in (1, 2, 3, 4, 5)})):
        feed = CliRunner().invoke(app, ["recommend", "--user", user, "--data", str(data), "--json"])
        assert {item["item"] for item in json.loads(feed.stdout)["items"]} == left


@pytest.mark.parametrize("column", ["user", "viewer=x", "user="])
def test_a_column_that_is_none_is_one_sentence(tmp_path: Path, column: str) -> None:
    told = CliRunner().invoke(app, ["watch-etl", str(tmp_path), "--column", column, "--data", str(tmp_path / "data")])
    assert told.exit_code != 0
    assert "--column takes OURS=THEIRS" in str(told.exception or told.output)
