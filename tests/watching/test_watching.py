"""Archives of sessions and ticks to views: what each rule says, what goes wrong in archives, and what a second run does."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

from palate.errors import ArchiveError, DataFolderError
from palate.watching import archives, etl, invented
from palate.watching.etl import Place, Report
from palate.watching.rules import WatchParams

MAY = 1_714_521_600
"""Seconds at midnight of 1 May 2024, UTC."""
SESSIONS, TICKS = "session,user,video,start,device,duration", "session,time"


def asked(query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(query).fetchall()


class Archives:
    """A folder of archives, and what comes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder / "in", Place(folder / "out")
        self.folder.mkdir()
        self.written = 0

    def sessions(self, date: str, *rows: str, head: str = SESSIONS, name: str = "sessions") -> Path:
        return self.write(f"{name}-{date}.csv", [head, *rows])

    def ticks(self, date: str, *rows: str, name: str = "ticks") -> Path:
        return self.write(f"{name}-{date}.csv", [TICKS, *rows])

    def write(self, name: str, rows: list[str]) -> Path:
        path = self.folder / name
        path.write_text("\n".join(rows) + "\n")
        self.written += 1
        os.utime(path, (self.written, self.written))  # else two versions of one moment look the same
        return path

    def run(self, params: WatchParams | None = None, names: Mapping[str, str] | None = None) -> Report:
        return etl.run(self.folder, self.place, params or WatchParams(), names, threads=1)

    def views(self, date: str = "2024-05-01") -> list[tuple[Any, ...]]:
        """User, item, watched seconds, watched fraction and sessions of each view of a day."""
        number = archives.day_in(date)
        assert number is not None, "a date of these tests"
        query = f"SELECT \"user\", item, seconds, value, sessions FROM read_parquet('{self.place.views(number)}')"
        return asked(f'{query} ORDER BY "user", item, time')


@pytest.fixture
def world(tmp_path: Path) -> Archives:
    return Archives(tmp_path)


def every_minute(session: str, start: int, ticks: int) -> list[str]:
    return [f"{session},{start + 60 * (number + 1)}" for number in range(ticks)]


def test_ticks_of_a_session_are_the_time_that_was_watched(world: Archives) -> None:
    world.sessions("2024-05-01", f"s1,ann,film,{MAY + 36_000},tv,600")
    world.ticks("2024-05-01", *every_minute("s1", MAY + 36_000, 3))
    assert world.run().totals["views"] == 1
    assert world.views() == [("ann", "film", 180.0, 0.3, 1)]


def test_a_pause_counts_as_one_tick(world: Archives) -> None:
    world.sessions("2024-05-01", f"s1,ann,film,{MAY},tv,1000")
    world.ticks("2024-05-01", f"s1,{MAY + 60}", f"s1,{MAY + 120}", f"s1,{MAY + 4000}")
    world.run()
    assert world.views() == [("ann", "film", 180.0, 0.18, 1)]


def test_times_may_be_seconds_milliseconds_or_iso_and_come_in_any_order(world: Archives) -> None:
    world.sessions("2024-05-01", "s1,ann,film,2024-05-01T00:00:00Z,tv,600")
    world.ticks("2024-05-01", f"s1,{MAY + 120}000", f"s1,{MAY + 180}", "s1,2024-05-01T02:01:00+02:00")
    world.run()
    assert world.views() == [("ann", "film", 180.0, 0.3, 1)]


def test_a_player_that_crashed_leaves_one_view(world: Archives) -> None:
    world.sessions(
        "2024-05-01",
        f"s1,ann,film,{MAY},tv,600",
        f"s2,ann,film,{MAY + 240},tv,600",
        f"s3,ann,film,{MAY + 20_000},tv,600",
    )
    world.ticks(
        "2024-05-01",
        *every_minute("s1", MAY, 3),
        *every_minute("s2", MAY + 240, 4),
        *every_minute("s3", MAY + 20_000, 1),
    )
    report = world.run()
    assert world.views() == [("ann", "film", 420.0, 0.7, 2), ("ann", "film", 60.0, 0.1, 1)]
    assert report.totals["restarts"] == 1


def test_a_session_that_lies_within_another_doesnt_end_the_view(world: Archives) -> None:
    long, short, later = MAY, MAY + 60, MAY + 3000
    world.sessions(
        "2024-05-01", *(f"{name},ann,film,{start},tv,6000" for name, start in (("a", long), ("b", short), ("c", later)))
    )
    world.ticks("2024-05-01", *every_minute("a", long, 40), *every_minute("b", short, 1), *every_minute("c", later, 1))
    world.run(WatchParams(restart_minutes=10))
    assert world.views() == [("ann", "film", 2520.0, 0.42, 3)]


def test_nobody_watches_for_a_whole_day(world: Archives) -> None:
    world.sessions("2024-05-01", f"s1,ann,film,{MAY},tv,6000", f"s2,bob,film,{MAY},tv,6000")
    world.ticks("2024-05-01", *every_minute("s1", MAY, 1200), *every_minute("s2", MAY, 50))
    report = world.run()
    assert world.views() == [("bob", "film", 3000.0, 0.5, 1)]
    assert report.totals["endless"] == 1


def test_a_fraction_is_one_at_most(world: Archives) -> None:
    world.sessions("2024-05-01", f"s1,ann,film,{MAY},tv,300")
    world.ticks("2024-05-01", *every_minute("s1", MAY, 8))
    report = world.run()
    assert world.views() == [("ann", "film", 480.0, 1.0, 1)]
    assert report.totals["over_duration"] == 1


def test_a_duration_that_one_session_lacks_is_that_of_another(world: Archives) -> None:
    world.sessions(
        "2024-05-01", f"s1,ann,film,{MAY},tv,", f"s2,bob,film,{MAY},tv,600", f"s3,bob,talk,{MAY + 9000},tv,-5"
    )
    world.ticks(
        "2024-05-01",
        *(
            tick
            for name, start in (("s1", MAY), ("s2", MAY), ("s3", MAY + 9000))
            for tick in every_minute(name, start, 3)
        ),
    )
    report = world.run()
    assert [(user, item, value) for user, item, _, value, _ in world.views()] == [
        ("ann", "film", 0.3),
        ("bob", "film", 0.3),
    ]
    assert report.totals["without_duration"] == 1


def test_a_video_whose_duration_changed_is_named(world: Archives) -> None:
    world.sessions("2024-05-01", f"s1,ann,film,{MAY},tv,600", f"s2,bob,film,{MAY},tv,5400", f"s3,bob,talk,{MAY},tv,600")
    assert world.run().totals["two_durations"] == 1


def test_what_is_told_twice_counts_once(world: Archives) -> None:
    session, ticks = f"s1,ann,film,{MAY},tv,600", every_minute("s1", MAY, 3)
    world.sessions("2024-05-01", session, session)
    world.sessions("2024-05-01", session, name="again-sessions")
    world.ticks("2024-05-01", *ticks, *ticks[:2])
    report = world.run()
    assert world.views() == [("ann", "film", 180.0, 0.3, 1)]
    assert (report.totals["sessions_twice"], report.totals["ticks_twice"]) == (2, 2)


def test_ticks_and_sessions_that_miss_each_other_are_counted(world: Archives) -> None:
    world.sessions("2024-05-01", f"s1,ann,film,{MAY + 5000},tv,600", f"s2,bob,film,{MAY},tv,600")
    world.ticks("2024-05-01", f"gone,{MAY + 60}", f"s1,{MAY + 100}", *every_minute("s1", MAY + 5000, 1))
    totals = world.run().totals
    assert (totals["ticks_without_session"], totals["sessions_without_ticks"], totals["ticks_outside"]) == (1, 1, 1)


def test_a_view_over_midnight_belongs_to_the_day_it_began(world: Archives) -> None:
    world.sessions("2024-05-01", f"s1,ann,film,{MAY + 86_340},tv,600")
    world.ticks("2024-05-01", f"s1,{MAY + 86_399}")
    world.ticks("2024-05-02", f"s1,{MAY + 86_460}")
    world.run()
    assert world.views() == [("ann", "film", 120.0, 0.2, 1)]


def test_late_data_opens_only_its_own_days(world: Archives) -> None:
    for day in (1, 2, 3):
        world.sessions(f"2024-05-0{day}", f"s{day},ann,film,{MAY + 86_400 * (day - 1)},tv,600")
        world.ticks(f"2024-05-0{day}", *every_minute(f"s{day}", MAY + 86_400 * (day - 1), 2))
    assert list(world.run().built) == ["2024-05-01", "2024-05-02", "2024-05-03"]
    world.ticks("2024-05-04", f"s2,{MAY + 86_400 + 180}")
    late = world.run()
    assert set(late.read) == {"ticks-2024-05-04.csv"}
    assert list(late.built) == ["2024-05-01", "2024-05-02"]  # a tick of the second may be of a session of the first
    assert world.views("2024-05-02") == [("ann", "film", 180.0, 0.3, 1)]


def test_a_second_run_does_nothing_and_another_rule_does_all(world: Archives) -> None:
    world.sessions("2024-05-01", f"s1,ann,film,{MAY},tv,600")
    world.ticks("2024-05-01", *every_minute("s1", MAY, 3))
    world.run()
    again = world.run()
    assert (again.read, again.built, again.totals["views"]) == ({}, {}, 1)
    assert list(world.run(WatchParams(shortest_seconds=200)).built) == ["2024-05-01"]
    assert world.views() == []


def test_an_archive_that_changed_is_read_again_in_place_of_the_old(world: Archives) -> None:
    world.sessions("2024-05-01", f"s1,ann,film,{MAY},tv,600")
    world.ticks("2024-05-01", *every_minute("s1", MAY, 3), *every_minute("s2", MAY + 86_400, 3))
    world.run()
    world.sessions("2024-05-01", f"s2,bob,film,{MAY + 86_400},tv,600")
    assert list(world.run().built) == ["2024-05-02"]
    assert world.views("2024-05-02") == [("bob", "film", 180.0, 0.3, 1)]
    assert not world.place.views(19_844).exists()


def test_a_truncated_archive_is_named_and_the_others_are_used(world: Archives) -> None:
    world.sessions("2024-05-01", f"s1,ann,film,{MAY},tv,600")
    world.ticks("2024-05-01", *every_minute("s1", MAY, 3))
    packed = gzip.compress("\n".join([TICKS, *every_minute("s1", MAY + 180, 97)]).encode())
    broken = world.folder / "ticks-2024-05-01-more.csv.gz"
    broken.write_bytes(packed[: len(packed) // 2])
    report = world.run()
    assert list(report.failed) == ["ticks-2024-05-01-more.csv.gz"]
    assert "can't be read to its end" in report.failed["ticks-2024-05-01-more.csv.gz"]
    assert world.views() == [("ann", "film", 180.0, 0.3, 1)]
    broken.write_bytes(packed)
    assert world.run().failed == {}
    assert world.views() == [("ann", "film", 6000.0, 1.0, 1)]


def test_a_renamed_column_can_be_named_and_a_missing_one_is_a_sentence(world: Archives) -> None:
    world.sessions("2024-05-01", f"s1,ann,film,{MAY},600", head="session,viewer,video,start,duration")
    world.ticks("2024-05-01", *every_minute("s1", MAY, 3))
    report = world.run()
    assert "no column 'user'" in report.failed["sessions-2024-05-01.csv"]
    assert "--column user=ITS_NAME" in report.failed["sessions-2024-05-01.csv"]
    assert world.run(names={"user": "viewer"}).failed == {}
    assert world.views() == [("ann", "film", 180.0, 0.3, 1)]


def test_mixed_line_ends_garbage_and_odd_clocks_lose_only_their_own_rows(world: Archives) -> None:
    path = world.folder / "sessions-2024-05-01.csv"
    rows = [
        SESSIONS.encode() + b"\r\n",
        f"s1,ann,film,{MAY},tv,600\r\n".encode(),
        f"s2,bob,film,{MAY},tv,600\n".encode(),
        b"torn\n",
        f"s3,,film,{MAY},tv,600\n".encode(),
        b"s4,cid,film,yesterday,tv,600\n",
        b"s5,cid,film,2031-01-01T00:00:00Z,tv,600\n",
        f"{'x' * 300},cid,film,{MAY},tv,600\n".encode(),
    ]
    path.write_bytes(b"".join(rows))
    world.ticks("2024-05-01", *every_minute("s1", MAY, 3), *every_minute("s2", MAY, 3))
    report = world.run()
    assert [view[0] for view in world.views()] == ["ann", "bob"]
    assert report.read["sessions-2024-05-01.csv"].rows == {19_844: 2, -1: 4, -2: 1}


def test_an_empty_day_and_files_of_others_are_no_trouble(world: Archives) -> None:
    world.sessions("2024-05-01")
    world.write("notes.txt", ["session of the board"])
    world.write("views-2024-05-01.csv", ["a,b"])
    report = world.run()
    assert (report.failed, report.built, report.days) == ({}, {}, 0)
    assert report.ignored == ["notes.txt", "views-2024-05-01.csv"]


def test_people_with_hundreds_of_views_a_month_are_found(world: Archives) -> None:
    rows = [f"s{number},shop,film-{number},{MAY + 600 * number},tv,600" for number in range(30)]
    world.sessions("2024-05-01", *rows, f"t,ann,film-1,{MAY},tv,600")
    world.ticks(
        "2024-05-01",
        *(tick for number in range(30) for tick in every_minute(f"s{number}", MAY + 600 * number, 2)),
        *every_minute("t", MAY, 2),
    )
    assert world.run(WatchParams(most_views=25)).heavy == 1
    assert asked(f"SELECT * FROM read_parquet('{world.place.heavy}')") == [("shop",)]
    assert world.run(WatchParams(most_views=31)).heavy == 0


def test_a_folder_or_manifest_that_cant_be_read_is_one_sentence(world: Archives, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="is no folder"):
        etl.run(tmp_path / "nowhere", world.place, WatchParams())
    world.place.folder.mkdir(parents=True)
    world.place.manifest.write_text("{")
    with pytest.raises(DataFolderError, match="delete it to read all archives again"):
        world.run()


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("sessions-2024-05-01.csv", 19_844),
        ("20240501_ticks.csv.gz", 19_844),
        ("ticks.csv", None),
        ("s-2024-13-41.csv", None),
    ],
)
def test_the_date_is_in_the_name(name: str, day: int | None) -> None:
    assert archives.day_in(name) == day


def test_all_that_goes_wrong_at_once_is_counted_and_interrupting_changes_nothing(tmp_path: Path) -> None:
    invented.write(tmp_path / "in", invented.World(sessions=3000), tmp_path / "scratch", threads=1)
    whole = etl.run(tmp_path / "in", Place(tmp_path / "whole"), WatchParams(), threads=1)
    rare = {"without_duration", "two_durations", "over_duration"}
    assert {name for name, count in whole.totals.items() if count == 0} <= rare
    assert whole.heavy == 0
    steps = 0

    def stop_later(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps % 4 == 0:
            raise KeyboardInterrupt

    for _ in range(9):
        try:
            etl.run(tmp_path / "in", Place(tmp_path / "parts"), WatchParams(), progress=stop_later, threads=1)
            break
        except KeyboardInterrupt:
            continue
    parts = etl.run(tmp_path / "in", Place(tmp_path / "parts"), WatchParams(), threads=1)
    assert parts.totals == whole.totals
    for day in (19_844, 19_845, 19_846):
        query = "SELECT * FROM read_parquet('{}')"
        one, other = (query.format(Place(tmp_path / name).views(day)) for name in ("whole", "parts"))
        assert asked(f"({one}) EXCEPT ({other})") == []
