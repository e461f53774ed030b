"""What became of an experiment: each day a look at all its figures, until it is stopped, by somebody or by itself.

A look compares every variant with the control, in the figures of `experiments.METRICS`. Looks are kept, so that it stays known
what was seen when; intervals hold at all of them together (`lifts.py`). The looks of days that are over are made by a process of
its own that the training loop starts: reading the log takes libraries that would stay in memory.
"""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import alerts, database, experiments, lifts, snapshots
from palate.database import reading, writing
from palate.domain import from_milliseconds, to_milliseconds
from palate.errors import ProcessDied
from palate.experiment_sums import SUMS, Day, by_day, rules_of
from palate.experiments import METRICS, Experiment, ExperimentParams, Stored
from palate.identities import insert_new
from palate.interactions import InteractionParams
from palate.models import stored as stored_models
from palate.report_params import ReportParams

log = logging.getLogger(__name__)

Values = NDArray[np.float64]

LIFTS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""For which a look says how many people find them."""

_TABLE = database.experiment_looks


class Judging(msgspec.Struct, frozen=True, kw_only=True):
    """The Params of every part that judges."""

    experiments: ExperimentParams = ExperimentParams()
    report: ReportParams = ReportParams()
    interactions: InteractionParams = InteractionParams()


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of one variant, and against the control's; None where nothing can be told, and for the control itself."""

    value: float | None
    relative: float | None = None
    """The lift, as a share of the control's figure, and its interval."""
    low: float | None = None
    high: float | None = None
    absolute: float | None = None
    absolute_low: float | None = None
    absolute_high: float | None = None
    p: float | None = None
    """Always-valid: it may be looked at every day."""


class Needed(msgspec.Struct, frozen=True, kw_only=True):
    """With how many people a lift would be found."""

    lift: float
    people: int | None
    """In all variants together, each observed as long as those of the control were on average; None while nothing is known."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of an experiment at the end of a day."""

    day: str
    complete: bool
    people: dict[str, int]
    """By variant."""
    several: int
    machines: int
    split: float
    """Always-valid p-value of the people being split as they should be."""
    figures: dict[str, dict[str, Compared]]
    """By metric and variant."""
    recommended: dict[str, float | None]
    """By variant, the share of the catalogue that was shown to anybody."""
    needed: list[Needed]
    """For the deciding metric."""


def judging_of(settings: Any) -> Judging:
    """The Params of judging among the sections of the settings."""
    return Judging(experiments=settings.experiments, report=settings.report, interactions=settings.interactions)


# --- one look -------------------------------------------------------------------------------------------------------------


def look(experiment: Experiment, day: Day, params: ExperimentParams) -> Look:
    """The figures at the end of a day."""
    names = [one.name for one in experiment.variants]
    counts = np.bincount(day.variant, minlength=len(names))
    groups = _groups(day, len(names))
    return Look(
        day=day.day,
        complete=day.complete,
        people=dict(zip(names, counts.tolist(), strict=True)),
        several=day.several,
        machines=day.machines,
        split=lifts.sample_ratio(counts, experiments.wanted_shares(experiment)),
        figures=_figures(experiment, groups, params),
        recommended={
            name: items / day.catalogue if day.catalogue else None
            for name, items in zip(names, day.reached, strict=True)
        },
        needed=_needed(experiment, groups[list(METRICS).index(experiment.metric), 0], params),
    )


def guards(experiment: Experiment, params: ExperimentParams) -> tuple[str, ...]:
    """The metrics that stop it."""
    return experiment.guards or params.guards


def level_of(experiment: Experiment, metric: str, guards: Sequence[str], params: ExperimentParams) -> float:
    """The level of a metric's intervals: several variants share the chance of a false alarm, and so do guards (Bonferroni)."""
    variants = len(experiment.variants) - 1
    shared = variants * (1 if metric == experiment.metric or metric not in guards else len(guards))
    return 1 - (1 - params.level) / shared


def _groups(day: Day, variants: int) -> Values:
    """(metrics, variants, 6): the moments of every metric."""
    x = [SUMS.index(one.numerator) for one in METRICS.values()]
    y = [SUMS.index(one.denominator) for one in METRICS.values()]
    own = [np.ascontiguousarray(day.sums[day.variant == number].T) for number in range(variants)]
    return np.stack([lifts.moments(sums[x], sums[y]) for sums in own], axis=1)


def _figures(experiment: Experiment, groups: Values, params: ExperimentParams) -> dict[str, dict[str, Compared]]:
    """By metric and variant; all metrics of one level are compared at once."""
    metrics, values, own = list(METRICS), lifts.ratio(groups), guards(experiment, params)
    levels = [level_of(experiment, metric, own, params) for metric in metrics]
    found: dict[str, dict[str, Compared]] = {metric: {} for metric in metrics}
    for level in set(levels):
        rows = [row for row, one in enumerate(levels) if one == level]
        lift = lifts.compare(groups[rows, :1], groups[rows], experiment.lift, level)
        for place, row in enumerate(rows):
            for number, variant in enumerate(experiment.variants):
                parts = {part: _known(getattr(lift, part)[place, number]) for part in _PARTS if number}
                found[metrics[row]][variant.name] = Compared(value=_known(values[row, number]), **parts)
    return found


_PARTS = ("relative", "low", "high", "absolute", "absolute_low", "absolute_high", "p")


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _needed(experiment: Experiment, control: Values, params: ExperimentParams) -> list[Needed]:
    shares = experiments.wanted_shares(experiment)
    level = level_of(experiment, experiment.metric, (), params)
    found = []
    for wanted in sorted({*LIFTS, experiment.lift}):
        people = lifts.needed_people(
            control, wanted, experiment.lift, (shares[0], min(shares[1:])), level, params.power
        )
        found.append(Needed(lift=wanted, people=math.ceil(people) if math.isfinite(people) else None))
    return found


# --- verdicts -------------------------------------------------------------------------------------------------------------


def first_clear(looks: Sequence[Look], metric: str, variant: str) -> Look | None:
    """The first look at which the interval of the lift left 0 out; what was clear once stays so."""
    for one in looks:
        found = one.figures[metric].get(variant)
        if found is not None and found.low is not None and found.high is not None and not found.low <= 0 <= found.high:
            return one
    return None


def worse(one: Look, experiment: Experiment, params: ExperimentParams) -> str | None:
    """Which guard a variant fails, in a sentence; None if none does."""
    for metric in guards(experiment, params):
        for variant, found in one.figures[metric].items():
            if found.low is None or found.high is None:
                continue
            harm = found.low if not METRICS[metric].higher_is_better else -found.high
            if harm > params.margin:
                lies = f"its lift lies between {percent(found.low)} and {percent(found.high)}"
                return f"{variant} does worse than the control in {metric.replace('_', ' ')}: {lies} on {one.day}"
    return None


def percent(lift: float) -> str:
    """A lift in words."""
    return f"{100 * lift:+.1f} %"


# --- reports --------------------------------------------------------------------------------------------------------------


def looks(
    engine: sa.Engine, data: Path, stored: Stored, params: Judging, now: datetime, after: str = ""
) -> Iterator[Look]:
    """A look for each day of the experiment after this one, from the log; that of today knows what there is so far."""
    rules = rules_of(params.experiments, params.report, params.interactions)
    for day in by_day(engine, data / "events", stored, rules, now, after):
        yield look(stored.experiment, day, params.experiments)


def kept_looks(connection: sa.Connection, stored: Stored) -> list[Look]:
    """Those of days that are over, as they were made then."""
    rows = connection.scalars(sa.select(_TABLE.c.look).where(_TABLE.c.experiment == stored.key).order_by(_TABLE.c.day))
    return [msgspec.json.decode(text, type=Look) for text in rows]


def keep(connection: sa.Connection, stored: Stored, one: Look) -> None:
    """Keep a look; one that is there already stays."""
    row = {"experiment": stored.key, "day": one.day, "look": msgspec.json.encode(one).decode()}
    connection.execute(insert_new(connection, _TABLE).values(row).on_conflict_do_nothing())


# --- every day ------------------------------------------------------------------------------------------------------------


def due(connection: sa.Connection, now: datetime) -> list[Stored]:
    """Experiments with a day that is over and was not looked at."""
    last = dict(
        database.plain_rows(
            connection.execute(sa.select(_TABLE.c.experiment, sa.func.max(_TABLE.c.day)).group_by(_TABLE.c.experiment))
        )
    )
    return [
        one
        for one in experiments.everything(connection)
        if one.started.astimezone(UTC).date() <= _last_day(one, now)
        and last.get(one.key, "") < _last_day(one, now).isoformat()
    ]


def _last_day(stored: Stored, now: datetime) -> date:
    """The last day that is over, or that on which the experiment was stopped."""
    yesterday = now.astimezone(UTC).date() - timedelta(days=1)
    return yesterday if stored.stopped is None else min(yesterday, stored.stopped.astimezone(UTC).date())


def judge(engine: sa.Engine, data: Path, params: Judging, now: datetime) -> None:
    """Look at the days that are over; stop what does harm, and tell of it."""
    with reading(engine) as connection:
        found = [(one, kept_looks(connection, one)) for one in due(connection, now)]
    midnight = datetime.combine(now.astimezone(UTC).date(), datetime.min.time(), UTC)
    for stored, before in found:
        after = before[-1].day if before else ""
        fresh = list(looks(engine, data, stored, params, midnight, after))
        with writing(engine) as connection:
            for one in fresh or [_of_nobody(stored, _last_day(stored, now), params.experiments)]:
                keep(connection, stored, one)
            if fresh and stored.stopped is None:
                _act(connection, data, stored, fresh, params.experiments, now)


def _of_nobody(stored: Stored, day: date, params: ExperimentParams) -> Look:
    """A day by whose end nobody had been served by it, so that it isn't looked at again."""
    variants = len(stored.experiment.variants)
    nothing = Day(
        day=day.isoformat(),
        complete=True,
        variant=np.zeros(0, np.int64),
        sums=np.zeros((0, len(SUMS))),
        several=0,
        machines=0,
        reached=(0,) * variants,
        catalogue=0,
    )
    return look(stored.experiment, nothing, params)


def _act(
    connection: sa.Connection,
    data: Path,
    stored: Stored,
    fresh: Sequence[Look],
    params: ExperimentParams,
    now: datetime,
) -> None:
    name = stored.experiment.name
    harms = (worse(each, stored.experiment, params) for each in fresh)
    why = next((harm for harm in harms if harm is not None), None) or _lost(data, stored.experiment)
    one = fresh[-1]
    if why is not None:
        experiments.stop(connection, name, f"by itself: {why}", now)
        text = f"Experiment {name} was stopped: {why}. To end this message: palate experiment stop {name}."
        alerts.start(connection, experiments.STOPPED, name, text, now)
        log.warning("%s", text)
    elif one.split < params.uneven:
        counts = ", ".join(f"{variant} {people:,}" for variant, people in one.people.items())
        text = f"In experiment {name} people aren't split as they should be ({counts}): trust none of its figures."
        if alerts.start(connection, experiments.UNEVEN, name, text, now):
            log.warning("%s", text)


def _lost(data: Path, experiment: Experiment) -> str | None:
    """That the newest snapshot lacks what a variant is served by; None if it has all."""
    found = lacking(data, experiment)
    return None if found is None else f"the newest snapshot has no {found}"


def lacking(data: Path, experiment: Experiment) -> str | None:
    """What its variants are served by and the newest snapshot lacks, in words; None if it lacks nothing."""
    wanted, needs_rankers = sorted(experiments.models(experiment)), experiments.needs_rankers(experiment)
    found = snapshots.load_newest_good(data / "snapshots", verify=False) if wanted or needs_rankers else None
    known = stored_models.names(found) if found is not None else ()
    model = next((name for name in wanted if name not in known), None)
    if model is not None:
        return f"model {model} (train.models lists what is learned)"
    has_rankers = found is not None and found.header.get("rankers", {}).get("served", False)
    return "rankers (docs/ranking.md says when they come)" if needs_rankers and not has_rankers else None


class _Order(msgspec.Struct, frozen=True):
    database_url: str
    data: str
    params: Judging
    now: int


def watch(engine: sa.Engine, data: Path, params: Judging, now: datetime) -> None:
    """`judge` in a process of its own, when there is something to look at; next to nothing on most calls.

    Raises ProcessDied when it ended with an error, which it has told on stderr.
    """
    with reading(engine) as connection:
        if not due(connection, now):
            return
    url = engine.url.render_as_string(hide_password=False)
    order = msgspec.json.encode(_Order(url, str(data), params, to_milliseconds(now)))
    command = [sys.executable, "-m", "palate.experiment_judging"]
    if subprocess.run(command, input=order, check=False).returncode:
        raise ProcessDied("The experiments could not be looked at; it is tried again.")


def _judge_as_ordered() -> None:
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=_Order)
    engine = database.connect(order.database_url, Path(order.data))
    try:
        judge(engine, Path(order.data), order.params, from_milliseconds(order.now))
    finally:
        engine.dispose()


def to_json(stored: Stored, found: Sequence[Look]) -> Mapping[str, Any]:
    """What `--json` prints of an experiment."""
    own: Mapping[str, Any] = msgspec.to_builtins(stored)
    return {**own, "looks": msgspec.to_builtins(list(found))}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    _judge_as_ordered()
