"""The command `palate watch-etl`: archives of a player's sessions and ticks to what people watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate import cli_spark
from palate.command_line import DATA, Config, Data, Json, answer, database, settings_of, utc_now
from palate.errors import PalateError
from palate.supervisor import role

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from palate.settings import Settings
    from palate.watching.engines import Engine
    from palate.watching.etl import Place, Report

Folder = Annotated[
    str,
    typer.Argument(
        help="Folder of the daily archives, sessions-DATE.csv.gz, ticks-DATE.csv.gz; or s3://bucket/prefix with them."
    ),
]
Publish = Annotated[
    str | None, typer.Option(help="Where the views by day are put as well: s3://bucket/prefix or file:///folder.")
]
Column = Annotated[
    list[str] | None, typer.Option("--column", help="A column that the archives call otherwise: user=viewer_id.")
]
Log = Annotated[bool, typer.Option(help="Whether settled days enter the event log too.")]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("watch-etl")(watch_etl)


def watch_etl(
    folder: Folder,
    column: Column = None,
    log: Log = True,
    data: Data = DATA,
    config: Config = None,
    threads: Annotated[int | None, typer.Option(help="Of DuckDB. [default: all processors]", min=1)] = None,
    engine: cli_spark.Runs = "embedded",
    master: cli_spark.Master = None,
    publish: Publish = None,
    as_json: Json = False,
) -> None:
    """Join sessions and ticks to what people watched: Parquet by day in DATA/watch/views, and events in the log."""
    from palate import store, watch_store
    from palate.watching import etl

    settings, names = settings_of(config), _names(column or [])
    place = etl.Place(data / "watch")
    with role(data, "watch-etl"), _bar(as_json) as progress:
        archives = _at_hand(folder, place)
        with cli_spark.session(engine, master, "watch-etl") as spark:
            runs = None if spark is None else _cluster(spark)
            report = etl.run(archives, place, settings.watch, names, progress, threads, runs)
        if publish is not None:
            watch_store.publish(store.opened(publish), place, list(report.built))
        entered = _enter(data, settings, place, report, log, progress)
    answer(as_json, _builtins(asdict(report) | {"entered": entered}), _told(report, entered, log))
    if report.failed:
        first = next(iter(report.failed.values()))
        raise PalateError(f"{len(report.failed)} archives could not be used; the first: {first}")


def _at_hand(folder: str, place: Place) -> Path:
    """The folder, or copies of what is in the store of that address."""
    from palate import store, watch_store

    if "://" not in folder:
        return Path(folder)
    copies = place.folder / "archives"
    watch_store.fetch(store.opened(folder), copies)
    return copies


def _cluster(spark: SparkSession) -> Engine:
    from palate.spark import watching

    return watching.engine(spark)


def _names(given: list[str]) -> dict[str, str]:
    from palate.watching import rules

    known = {*rules.SESSION_COLUMNS, *rules.TICK_COLUMNS}
    pairs = [pair.partition("=") for pair in given]
    for name, _, theirs in pairs:
        if name not in known or not theirs:
            raise PalateError(f"--column takes OURS=THEIRS, ours one of {', '.join(sorted(known))}: not {name!r}.")
    return {name: theirs for name, _, theirs in pairs}


def _enter(
    data: Path, settings: Settings, place: Place, report: Report, log: bool, progress: Callable[[str, int, int], None]
) -> int:
    """Keep what was counted of the built days, and take settled ones into the log if wanted; how many views that were."""
    from palate import quality, watch_log

    counted = {date.fromisoformat(day): counts for day, counts in report.built.items()}
    with database(data, settings) as engine:
        quality.enter_archives(engine, counted, settings.quality, utc_now())
        return watch_log.enter(engine, place, settings.watch, utc_now(), progress) if log else 0


def _told(report: Report, entered: int, log: bool) -> str:
    from palate.watching import rules

    lines = [f"{len(report.read)} archives read, {len(report.built)} days built; {report.days} days there in all."]
    lines += [
        f"{report.totals[name]:>14,}  {meaning}" for name, meaning in rules.COUNTS.items() if name in report.totals
    ]
    bad = sum(rows for read in report.read.values() for day, rows in read.rows.items() if day == -1)
    off = sum(rows for read in report.read.values() for day, rows in read.rows.items() if day == -2)
    lines += [f"{bad:>14,}  rows of these archives that say nothing", f"{off:>14,}  rows of a clock that is off"]
    lines.append(f"{report.heavy:>14,}  people with more views in 30 days than a person has: left out of the log")
    lines += [f"not used, since its name says neither session nor tick: {name}" for name in report.ignored[:5]]
    if log:
        lines.append(f"{entered:,} views of settled days entered the event log.")
    return "\n".join(lines)


def _builtins(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value)


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True, quiet=quiet), transient=True) as bar:
        task = bar.add_task("looking at the archives", total=None)
        yield lambda what, done, of: bar.update(task, description=what, completed=done, total=of)
