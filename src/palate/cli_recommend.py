"""The command `palate recommend`: a list for one person as the feed would give it now, or lists for everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate import cli_spark
from palate.command_line import DATA, Config, Data, Json, answer, database, in_role, settings_of, utc_now
from palate.errors import PalateError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from palate.list_making import Made
    from palate.settings import Settings

LIMIT = 10


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("recommend")(recommend)


def recommend(
    user: Annotated[str | None, typer.Option(help="Id of the user.")] = None,
    everybody: Annotated[
        bool, typer.Option("--all", help="Make the lists of everybody: in a folder of Parquet, and for serving.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(help="Length of a list. [default: 10, with --all lists.limit]", min=1, max=1000)
    ] = None,
    surface: Annotated[str | None, typer.Option(help="As this surface of the settings is served.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="With --all: the folder of Parquet. [default: DATA/lists/NAME]", file_okay=False)
    ] = None,
    engine: cli_spark.Runs = "embedded",
    master: cli_spark.Master = None,
    data: Data = DATA,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What the feed would show a user now, exploration aside; nothing is logged or used up. With --all lists for everybody."""
    settings = settings_of(config)
    if everybody == (user is not None):
        raise PalateError("Name one user with --user, or make the lists of everybody with --all.")
    if cli_spark.on_spark(engine, master) and not everybody:
        raise PalateError("Spark makes the lists of everybody: add --all.")
    if surface is not None and surface not in settings.surfaces:
        raise PalateError(f"There is no surface {surface} in the settings: [surfaces.{surface}] would be one.")
    if user is not None:
        answer(as_json, *_for_one(data, settings, user, limit or LIMIT, surface or "cli"))
        return
    with cli_spark.session(engine, master, "recommend") as spark:
        made = _for_all(data, settings, surface, limit, output, as_json, spark)
    came = f"{made.people:,} lists of {made.name} by {made.model} in {made.seconds:.1f} s, of {made.items:,} items"
    text = f"{came}: {made.folder}."
    answer(as_json, {name: getattr(made, name) for name in made.__struct_fields__}, text)


def _for_one(data: Path, settings: Settings, user: str, limit: int, surface: str) -> tuple[Any, str]:
    import msgspec

    from palate import feed, list_making, replica
    from palate.domain import FeedRequest

    now = utc_now()
    with database(data, settings) as engine:
        replica.fetch(engine, data)
        live = list_making.opened(engine, data, list_making.params_of(settings), now)
        request = FeedRequest(user=user, limit=limit, now=now, surface=surface, log=False)
        params = msgspec.structs.replace(settings.feed, exploration=0.0)  # nobody looks, so nothing is learned
        served = feed.serve(live, request, params, feed.generator(request), append=_refuse_events)
    rows = [
        {
            "item": place.item.id,
            "title": place.item.title,
            "score": round(place.score, 4),
            "source": place.source_title,
            "reasons": [reason.text for reason in place.reasons],
        }
        for place in served.items
    ]
    table = "\n".join(f"{row['score']:.3f}  {row['title'] or row['item']}" for row in rows)
    return {"user": user, "model": served.snapshot, "items": rows}, table or "There is nothing to recommend."


def _for_all(
    data: Path,
    settings: Settings,
    surface: str | None,
    limit: int | None,
    output: Path | None,
    quiet: bool,
    spark: SparkSession | None,
) -> Made:
    from palate import list_making, replica
    from palate.surface_params import SurfaceParams

    params, now = list_making.params_of(settings), utc_now()
    shown = SurfaceParams() if surface is None else settings.surfaces[surface]
    name = shown.lists or surface or list_making.EVERYWHERE
    wanted = list_making.wanted_of(shown, params, limit)
    if spark is not None:
        from palate.spark import lists

        wanted = replace(wanted, best=lists.best(spark), people=lists.PEOPLE)
    with in_role(data, settings, "lists") as engine, _bar(quiet) as progress:
        replica.fetch(engine, data)
        live = list_making.opened(engine, data, params, now)
        return list_making.make(live, name, wanted, output or data / "lists" / name, now, progress)


def _refuse_events(_: Any) -> None:
    raise AssertionError("a feed that logs nothing appends no events")


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True, quiet=quiet), transient=True) as bar:
        task = bar.add_task("Making lists", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
