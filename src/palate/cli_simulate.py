"""The command `palate simulate`: policies compared on readers whose tastes are known."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from palate import cli_evaluation as options
from palate.command_line import Config, Json, answer, columns, settings_of
from palate.errors import PalateError

if TYPE_CHECKING:
    from palate.evaluation.closed_loop import Policy
    from palate.evaluation.world import WorldParams
    from palate.settings import Settings

START = datetime(2026, 1, 5, tzinfo=UTC)
"""When simulated time begins: a Monday. Any other would do as well, but the same is needed for the same answer."""

POLICIES = ("served", "random", "newest", "popular", "oracle")
"""What is compared where nothing is named."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")

Shown = Mapping[str, Mapping[str, float | None]]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("simulate")(simulate)


def simulate(
    *,
    days: Annotated[float, typer.Option(help="Days that are simulated.", min=0.05, max=3650)] = 3.0,
    readers: Annotated[int, typer.Option(help="Readers who come.", min=1, max=100_000)] = 100,
    items_per_hour: Annotated[float, typer.Option(help="New items in an hour, in the mean.", min=0.01)] = 10.0,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="What is compared; as often as needed. Either NAME=section.setting=value,section.setting=value… or one of: "
            "served (the settings as they are), a model (fm, ials, blend …), oracle, random, newest, popular."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Of the world, as name=value: position_bias, drift_days …")
    ] = None,
    seed: options.Seed = 1,
    seeds: Annotated[int, typer.Option(help="Worlds that each policy is tried in.", min=1, max=1000)] = 1,
    report: options.ReportOption = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder that keeps the simulated installations. [default: none is kept]")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Compare settings on simulated readers of known taste: real storing, serving and learning, in simulated time."""
    from palate.evaluation import policies, simulation_report
    from palate.evaluation import report as pages

    settings = settings_of(config)
    asked = [policy_of(settings, text) for text in policy or POLICIES]
    _check_names(asked)
    params = _world(readers, items_per_hour, set_ or [])
    outcomes, seconds = [], {}
    with _folder(data) as folder, options.progress_bar(as_json) as progress:
        for one in asked:
            begin = time.perf_counter()
            hours = max(1, round(24 * days))
            outcomes += policies.simulate(params, [one], range(seed, seed + seeds), hours, START, folder, progress)
            seconds[one.name] = time.perf_counter() - begin
    found = policies.to_json(outcomes, params, seconds)
    if report is not None:
        pages.write(report, simulation_report.page(found))
    answer(as_json, found, text_of(found))


def policy_of(settings: Settings, text: str) -> Policy:
    """A policy as it is written on the command line. Raises PalateError, SettingsError."""
    from palate.evaluation.closed_loop import REFERENCES
    from palate.models.registry import Name

    name, given, changes = text.partition("=")
    if not NAME.fullmatch(name):
        raise PalateError(f"{name!r} is no name of a policy: letters, digits, '_', '.' and '-', at most 40.")
    if given:
        return _policy(settings, name, _changes(changes, text))
    if name in REFERENCES:
        return _policy(settings, name, {}, order=name)
    if name in get_args(Name):
        return _policy(settings, name, {"feed.model": name})
    if name != "served":
        known = ", ".join(("served", *REFERENCES, *get_args(Name)))
        raise PalateError(
            f"There is no policy {name}: say what it changes, {name}=feed.exploration=0.2, or choose of {known}."
        )
    return _policy(settings, name, {})


def _changes(text: str, policy: str) -> dict[str, Any]:
    found = {}
    for part in re.split(r",(?=[a-z_]+\.[A-Za-z0-9_.]+=)", text):
        path, sign, value = part.partition("=")
        if not sign:
            raise PalateError(f"{part!r} in --policy {policy} is no section.setting=value.")
        found[path.strip()] = options.parsed(value.strip())
    return found


def _policy(settings: Settings, name: str, changes: Mapping[str, Any], order: Any = "served") -> Policy:
    from palate import ranker_training, train
    from palate.evaluation.closed_loop import Policy
    from palate.settings_file import changed

    its = changed(settings, changes, f"policy {name}")
    training = train.params_of(its, its.feed.model)
    rankers = ranker_training.params_of(its)
    return Policy(name, order, its.feed, training, its.surfaces, its.editions, its.rules, rankers)


def _check_names(asked: Sequence[Policy]) -> None:
    names = [one.name for one in asked]
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise PalateError(f"Two policies have the name {twice[0]}: give one of them another.")


def _world(readers: int, items_per_hour: float, assignments: Sequence[str]) -> WorldParams:
    from palate.evaluation.world import WorldParams

    values = options.values_of(assignments, WorldParams, "world")
    found = options.with_values(WorldParams(readers=readers, items_per_hour=items_per_hour), values)
    assert isinstance(found, WorldParams), "Values don't change the kind of a struct."
    return found


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    """Where the installations go: the folder that is to keep them, which must be new or empty, or one that vanishes."""
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="palate-simulate-") as name:
            yield Path(name)
        return
    if kept.exists() and (not kept.is_dir() or any(kept.iterdir())):
        raise PalateError(f"{kept} is not empty: name a new folder for the simulated installations.")
    yield kept


def text_of(found: Mapping[str, Any]) -> str:
    """The answer as tables."""
    policies: Mapping[str, Mapping[str, Any]] = found["policies"]
    names = list(next(iter(policies.values()))["metrics"])
    figures = columns([["", *names], *([name, *_cells(one["metrics"], names)] for name, one in policies.items())])
    others = [
        [name, *_cells(one["difference"], names)] for name, one in policies.items() if one["difference"] is not None
    ]
    parts = [
        f"{found['hours'] / 24:g} days, {found['world']['readers']:,} readers, worlds {', '.join(map(str, found['seeds']))}:"
    ]
    parts += ["", figures]
    if others:
        parts += ["", f"Beside {found['against']}:", columns([["", *names], *others])]
    stretch = "day" if found["stretch_hours"] <= 24 else "week"
    parts += ["", f"Liked, {stretch} by {stretch}, and the last {stretch} beside the first:", _over_time(policies)]
    speed = [
        f"{name} {found['hours'] * 3600 * len(found['seeds']) / max(took, 1e-9):,.0f} ×"
        for name, took in found["seconds"].items()
    ]
    return "\n".join([*parts, "", f"Faster than life: {', '.join(speed)}.", "", *found["stated"]])


def _over_time(policies: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [
            name,
            *(_cell(one["liked"], interval=False) for one in found["over_time"]),
            _cell(found["change"]["liked"]) if found["change"] else "",
        ]
        for name, found in policies.items()
    ]
    return columns(rows)


def _cells(figures: Shown, names: Sequence[str]) -> list[str]:
    return [_cell(figures[name]) for name in names]


def _cell(figure: Mapping[str, float | None], *, interval: bool = True) -> str:
    value, low, high = figure["value"], figure["low"], figure["high"]
    if value is None:
        return "–"
    if low is None or high is None or not interval:
        return f"{value:.3f}"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
