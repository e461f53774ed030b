"""What people watched, by Spark: the same rows and the same report as by the embedded engine."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from palate.spark import watching
from palate.watching import archives, etl, invented
from palate.watching.etl import Place, Report
from palate.watching.rules import WatchParams

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def put_odd_rows(folder: Path) -> None:
    """What the generator doesn't make: other separators and line ends, rows torn or told in two ways, a file cut short."""
    odd = [
        "Session;User;Video;Start;Device;Duration",
        'x1;"ann; b";"a ""film""";2024-05-01T10:00:00Z;tv;600',
        "x1;bob;film;1714557600;;",
        "x2;bob;film;1714557600;;610\r",
        "x2;bob;film;1714557600;tv;600",
        "torn",
        "x3;cid;film;12345;tv;600",
        "x4;cid;film;yesterday;tv;600",
        "x5;cid;film;2031-01-01 00:00:00;tv;600;and;more",
    ]
    (folder / "sessions-2024-05-01-odd.csv").write_text("\n".join(odd) + "\n")
    (folder / "ticks-2024-05-01-odd.csv").write_text(
        "time,session\n1714557660000,x1\n1714557720,x2\n\n,x2\n1714557660,x2\n"
    )
    torn = gzip.compress(b"session,time\n" + b"".join(b"s%d,1714557660\n" % n for n in range(2000)))
    (folder / "ticks-2024-05-02-torn.csv.gz").write_bytes(torn[: len(torn) // 2])
    (folder / "ticks-2024-05-02-renamed.csv").write_text("id,time\ns1,1714557660\n")


def come_late(folder: Path) -> None:
    (folder / "ticks-2024-05-02-late.csv").write_text("session,time\nx1,1714557780\nx2,1714557900\n")


def die_when_building(what: str, _done: int, _of: int) -> None:
    if what.startswith("building"):
        raise KeyboardInterrupt


def views(place: Place) -> dict[str, list[dict[str, Any]]]:
    from pyarrow import parquet

    days = sorted(archives.load(place.manifest).days)
    return {etl.iso(day): parquet.read_table(place.views(day)).to_pylist() for day in days}


def heavy(place: Place) -> list[str]:
    from pyarrow import parquet

    people: list[str] = parquet.read_table(place.heavy).column("user").to_pylist()
    return people


def told(report: Report) -> tuple[object, ...]:
    """All but the engine's own words for what it couldn't read."""
    counts = report.built, report.totals, report.days, report.heavy
    return *counts, report.ignored, sorted(report.failed), {name: read.rows for name, read in report.read.items()}


def test_spark_gives_the_same_rows_and_the_same_report_and_does_nothing_twice(
    spark: SparkSession, tmp_path: Path
) -> None:
    given, params = tmp_path / "in", WatchParams(most_views=8)
    invented.write(given, invented.World(sessions=400, days=1, people=40, videos=20), tmp_path / "scratch", threads=1)
    put_odd_rows(given)
    one, other = Place(tmp_path / "one"), Place(tmp_path / "other")
    here = etl.run(given, one, params, threads=1)
    there = etl.run(given, other, params, engine=watching.engine(spark))
    assert told(there) == told(here)
    assert {name: read.rows for name, read in there.read.items()} == {
        name: read.rows for name, read in here.read.items()
    }
    assert "can't be read to its end" in there.failed["ticks-2024-05-02-torn.csv.gz"]
    assert "no column 'session'" in there.failed["ticks-2024-05-02-renamed.csv"]
    assert views(other) == views(one)
    assert sum(map(len, views(one).values())) > 200
    assert heavy(other) == heavy(one) != []
    again = etl.run(given, other, params, engine=watching.engine(spark))
    assert (again.built, sorted(again.read)) == ({}, sorted(there.failed))
    come_late(given)
    with pytest.raises(KeyboardInterrupt):
        etl.run(given, other, params, progress=die_when_building, engine=watching.engine(spark))
    here, there = etl.run(given, one, params, threads=1), etl.run(given, other, params, engine=watching.engine(spark))
    assert (there.built, there.totals) == (here.built, here.totals)
    assert list(there.built) == ["2024-05-01"]
    assert views(other) == views(one)
    assert not list(other.folder.rglob(".*"))
