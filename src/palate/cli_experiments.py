"""The commands `palate experiment`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.command_line import (
    DATA,
    Config,
    Data,
    Json,
    answer,
    columns,
    database,
    reading,
    settings_of,
    spinner,
    utc_now,
    writing,
)
from palate.errors import InvalidInput, PalateError

if TYPE_CHECKING:
    from palate.experiment_judging import Look
    from palate.experiments import Stored, Varied
    from palate.settings import Settings

experiment_app = typer.Typer(
    help="Variants of the settings, tried on a part of the people beside a control.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="Name of the experiment.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(experiment_app, name="experiment")


@experiment_app.command("start")
def start(
    name: Name,
    variant: Annotated[
        list[str],
        typer.Option(help='A variant: "bold feed.exploration=0.3 feed.model=ials weight=2". Several may be given.'),
    ],
    ramp: Annotated[
        str, typer.Option(help="Hours after the start and percent of all people from then on: 0:5,24:20,72:100.")
    ] = "0:100",
    metric: Annotated[str | None, typer.Option(help="By which it is decided. [default: likes_per_view]")] = None,
    lift: Annotated[
        float | None, typer.Option(help="Relative lift of it that is looked for, such as 0.05 for 5 %. [default: 0.05]")
    ] = None,
    guard: Annotated[
        list[str] | None,
        typer.Option(help="A metric that stops it when a variant does worse. [default: those of the settings]"),
    ] = None,
    data: Data = DATA,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Let a part of the people be served by other settings from now on."""
    import msgspec

    from palate import experiment_judging, experiments

    settings = settings_of(config)
    chosen = {"metric": metric, "lift": lift, "guards": guard or None}
    given = [experiments.parse_variant(text) for text in variant]
    if not any(one.name == experiments.CONTROL for one in given):
        given = [experiments.Variant(name=experiments.CONTROL), *given]
    given.sort(key=lambda one: one.name != experiments.CONTROL)
    values: dict[str, Any] = {key: value for key, value in chosen.items() if value is not None}
    try:
        experiment = msgspec.convert(
            {"name": name, "variants": msgspec.to_builtins(given), "ramp": experiments.parse_ramp(ramp), **values},
            experiments.Experiment,
        )
    except msgspec.ValidationError as error:
        raise InvalidInput(f"this can't be an experiment: {error}") from None
    for one in experiment.variants:
        experiments.varied(_plain(settings), one.settings, f"variant {one.name}")
    with database(data, settings) as engine:
        lacking = experiment_judging.lacking(data, experiment)
        if lacking is not None:
            raise PalateError(
                f"The newest snapshot has no {lacking}: let `palate train --full` learn it, then start the experiment."
            )
        from palate.database import writing

        with writing(engine) as connection:
            stored = experiments.start(connection, experiment, utc_now())
    answer(
        as_json, experiment_judging.to_json(stored, []), f"{name} runs; every server knows it within a second or two."
    )


def _plain(settings: Settings) -> Varied:
    from palate.experiments import Varied

    return Varied(feed=settings.feed, surfaces=settings.surfaces)


@experiment_app.command("stop")
def stop(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why, for later.")] = "by hand",
    data: Data = DATA,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Serve everybody by the plain settings again; of one that stopped by itself the message ends."""
    from palate import experiment_judging, experiments

    with writing(data, settings_of(config)) as connection:
        stored = experiments.stop(connection, name, reason, utc_now())
    answer(as_json, experiment_judging.to_json(stored, []), f"{name} is stopped.")


@experiment_app.command("list")
def list_command(data: Data = DATA, config: Config = None, as_json: Json = False) -> None:
    """All experiments, the newest first."""
    from palate import experiment_judging, experiments

    now = utc_now()
    with reading(data, settings_of(config)) as connection:
        found = experiments.everything(connection)
    rows = [_row(one, now) for one in found]
    answer(as_json, [experiment_judging.to_json(one, []) for one in found], columns(rows) if rows else "None yet.")


def _row(one: Stored, now: datetime) -> list[str]:
    from palate.experiments import share

    variants = " ".join(variant.name for variant in one.experiment.variants)
    part = f"{100 * share(one.experiment, now - one.started):g} % of all people"
    state = part if one.stopped is None else f"stopped {one.stopped:%Y-%m-%d}: {one.reason}"
    return [one.experiment.name, f"{one.started:%Y-%m-%d}", variants, state]


@experiment_app.command("report")
def report(
    name: Name,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write one self-contained page to this file.", dir_okay=False)
    ] = None,
    data: Data = DATA,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What the variants did beside the control, up to now."""
    from palate import experiment_judging, experiment_page, experiments
    from palate.database import reading
    from palate.evaluation.report import page, write

    settings, now = settings_of(config), utc_now()
    params = experiment_judging.judging_of(settings)
    with database(data, settings) as engine, spinner("Reading the log …", quiet=as_json):
        with reading(engine) as connection:
            stored = experiments.find(connection, name)
            kept = experiment_judging.kept_looks(connection, stored)
        after = kept[-1].day if kept else ""
        found: list[Look] = [*kept, *experiment_judging.looks(engine, data, stored, params, now, after)]
    if html is not None:
        write(
            html,
            page(
                f"Experiment {name}", [experiment_page.STYLE, experiment_page.body(stored, found, params.experiments)]
            ),
        )
    text = experiment_page.text(stored, found, params.experiments)
    answer(as_json, experiment_judging.to_json(stored, found), text)


@experiment_app.command("estimate")
def estimate(
    variant: Annotated[str, typer.Option(help='What to estimate: "more feed.exploration=0.3".')],
    days: Annotated[float, typer.Option(help="Days of the log to learn from.", min=0.01)] = 28.0,
    data: Data = DATA,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What a variant would do, estimated from what was shown by chance, without showing anybody anything."""
    import msgspec

    from palate import experiment_estimates, experiments

    settings, given = settings_of(config), experiments.parse_variant(variant)
    experiments.varied(_plain(settings), given.settings, f"variant {given.name}")
    before, liked = settings.feed.exploration, settings.report.liked
    with database(data, settings) as engine, spinner("Reading the log …", quiet=as_json):
        found = experiment_estimates.estimate(engine, data / "events", given.settings, before, liked, days, utc_now())
    answer(as_json, msgspec.to_builtins(found), experiment_estimates.text(found))
