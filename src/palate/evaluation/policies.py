"""Policies compared in one and the same simulated world: what readers truly liked of what each of them showed.

Every policy meets the same readers, visits and items, for each of several seeds. Figures are sums over readers, so that two
policies are compared reader by reader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate import metrics
from palate.evaluation import closed_loop, world
from palate.evaluation.closed_loop import Policy, Record
from palate.evaluation.measuring import Figure, mean_over_seeds
from palate.evaluation.world import DAY_HOURS, HOUR, WorldParams
from palate.metrics import Finish, Values

FAIR = 0.25
"""Of the mean number of times that an item is shown within a day of its coming: a fair number, for a new item."""

FEWEST_SEEDS = 3
"""From which on an interval over them says anything."""

SAMPLES_OF_CHANCE = 7_919
"""Begins the stream of chance by which intervals are drawn."""


@dataclass(frozen=True)
class Measure:
    """A figure of a policy: one sum over pages over another."""

    above: str
    below: str
    meaning: str
    less_from_one: bool = False
    """Whether it is what is missing to 1."""

    @property
    def finish(self) -> Finish:
        """From the two sums."""
        return _missing if self.less_from_one else metrics.mean_of


MEASURES = {
    "liked": Measure("value", "looks", "share of what readers look at that they truly like"),
    "regret": Measure("value", "best", "what is missing to the best pages there could have been", less_from_one=True),
    "likes per view": Measure("likes", "views", "likes that are given, over items that are taken up"),
    "views per visit": Measure("views", "first", "items that are taken up in a visit"),
    "pages per visit": Measure("pages", "first", "pages in a visit"),
}
"""What intervals over readers are told of."""

OVER_TIME = ("liked", "regret")

CATALOGUE = {
    "coverage": "share of the items that came out which anybody was shown",
    "fair start": f"share of the new items that were shown at least {FAIR:g} times as often as the mean one on their first day",
}
"""What is told of the items of a run, by the mean over seeds."""

Task = Callable[[str, int, int], None]
"""Is told of the policy that is simulated, the hours that are done, and how many there are to be done."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a policy did, in one record for each seed."""

    policy: Policy
    records: tuple[Record, ...]


def simulate(
    params: WorldParams,
    policies: Sequence[Policy],
    seeds: Sequence[int],
    hours: int,
    start: datetime,
    folder: Path,
    told: Task = lambda what, done, all_: None,
) -> list[Outcome]:
    """Every policy in the worlds of all the seeds. Their installations are left in `folder/NAME-SEED`.

    Raises DataFolderError and DatabaseError.
    """
    found, done, total = [], 0, len(policies) * len(seeds) * hours
    for policy in policies:
        records = []
        for seed in seeds:
            place = folder / f"{policy.name}-{seed}"
            begun, what = done, f"{policy.name}, seed {seed}"
            records.append(
                closed_loop.run(
                    world.create(params, seed, start),
                    policy,
                    place,
                    hours,
                    lambda hour, begun=begun, what=what: told(what, begun + hour, total),  # type: ignore[misc]
                )
            )
            done += hours
        found.append(Outcome(policy, tuple(records)))
    return found


def figures(outcome: Outcome, hours: range | None = None) -> dict[str, Figure]:
    """Every figure, of these hours or of all, with its interval over readers; of the catalogue over seeds, of the whole time."""
    found = _figures([(_parts(outcome, name, hours), one.finish) for name, one in MEASURES.items()], list(MEASURES))
    return found | (_of_catalogue(outcome) if hours is None else {})


def differences(ours: Outcome, theirs: Outcome) -> dict[str, Figure]:
    """By how much each figure of the first is larger than that of the second, reader by reader and seed by seed."""
    cases = [
        (np.concatenate((_parts(ours, name), _parts(theirs, name)), axis=1), _less(one.finish))
        for name, one in MEASURES.items()
    ]
    return _figures(cases, list(MEASURES)) | _catalogue_less(ours, theirs)


def by_world(outcome: Outcome) -> dict[str, list[float]]:
    """The figures of `OVER_TIME` of each seed."""
    alone = [replace(outcome, records=(record,)) for record in outcome.records]
    return {name: [float(MEASURES[name].finish(_parts(one, name).sum(axis=0))) for one in alone] for name in OVER_TIME}


def differences_of_worlds(ours: Outcome, theirs: Outcome) -> dict[str, Figure]:
    """By how much the figures of `OVER_TIME` are larger, seed by seed: what another world may be expected to show."""
    own, others = by_world(ours), by_world(theirs)
    return {name: _over_seeds((np.array(own[name]) - np.array(others[name])).tolist()) for name in OVER_TIME}


def change(outcome: Outcome, first: range, last: range) -> dict[str, Figure]:
    """By how much each figure is larger in the last of these stretches of hours than in the first, reader by reader."""
    cases = [
        (np.concatenate((_parts(outcome, name, last), _parts(outcome, name, first)), axis=1), _less(one.finish))
        for name, one in MEASURES.items()
    ]
    return _figures(cases, list(MEASURES))


def over_time(outcome: Outcome, stretch: int) -> list[dict[str, Figure]]:
    """The figures of `OVER_TIME` in each stretch of so many hours; what is left over at the end is left out."""
    hours = outcome.records[0].hours
    stretches = [range(begin, begin + stretch) for begin in range(0, hours - stretch + 1, stretch)]
    cases = [(_parts(outcome, name, one), MEASURES[name].finish) for one in stretches for name in OVER_TIME]
    found = _figures(cases, [str(number) for number in range(len(cases))])
    both = list(found.values())
    return [
        dict(zip(OVER_TIME, both[begin : begin + len(OVER_TIME)], strict=True))
        for begin in range(0, len(both), len(OVER_TIME))
    ]


def _parts(outcome: Outcome, name: str, hours: range | None = None) -> Values:
    """(readers of all seeds, 2): the two sums of a figure."""
    measure = MEASURES[name]
    return np.concatenate(
        [
            np.stack([_sums(record, column, hours) for column in (measure.above, measure.below)], axis=1)
            for record in outcome.records
        ]
    )


def _sums(record: Record, column: str, hours: range | None) -> Values:
    """(R,) of a column of the pages by reader."""
    kept = np.ones(len(record.hour), bool)
    if hours is not None:
        kept = (record.hour >= hours.start) & (record.hour < hours.stop)
    values = np.ones(len(kept)) if column == "pages" else getattr(record, column).astype(np.float64)
    found: Values = np.bincount(record.reader[kept], values[kept], record.readers).astype(np.float64)
    return found


def _missing(sums: Values) -> Values:
    found: Values = 1 - metrics.mean_of(sums)
    return found


def _less(finish: Finish) -> Finish:
    return lambda sums: finish(sums[..., :2]) - finish(sums[..., 2:])


def _figures(cases: Sequence[tuple[Values, Finish]], names: Sequence[str]) -> dict[str, Figure]:
    values = [float(finish(parts.sum(axis=0))) for parts, finish in cases]
    bounds = metrics.intervals_of_sums(cases, np.random.default_rng(SAMPLES_OF_CHANCE))
    return {
        name: Figure(None) if np.isnan(value) else Figure(value, *bound)
        for name, value, bound in zip(names, values, bounds, strict=True)
    }


def _of_catalogue(outcome: Outcome) -> dict[str, Figure]:
    return {name: _over_seeds([_catalogue(record)[name] for record in outcome.records]) for name in CATALOGUE}


def _catalogue_less(ours: Outcome, theirs: Outcome) -> dict[str, Figure]:
    pairs = [(_catalogue(a), _catalogue(b)) for a, b in zip(ours.records, theirs.records, strict=True)]
    return {name: _over_seeds([one[name] - other[name] for one, other in pairs]) for name in CATALOGUE}


def _over_seeds(values: Sequence[float]) -> Figure:
    if len(values) >= FEWEST_SEEDS:
        return mean_over_seeds(values)
    mean = float(np.mean(values))
    return Figure(None if np.isnan(mean) else mean)


def _catalogue(record: Record) -> Mapping[str, float]:
    """NaN where no new item has been there for a day."""
    shown = np.bincount(record.shown, minlength=len(record.published))
    fresh = record.shown_at - record.published[record.shown] < DAY_HOURS * HOUR
    early = np.bincount(record.shown[fresh], minlength=len(record.published))
    end = record.start + (record.hours - DAY_HOURS) * HOUR
    new: NDArray[np.bool_] = (record.published >= record.start) & (record.published < end)
    fair = float(np.mean(early[new] >= FAIR * early[new].mean())) if new.any() else float("nan")
    return {"coverage": float(np.mean(shown > 0)), "fair start": fair}


def to_json(outcomes: Sequence[Outcome], params: WorldParams, seconds: Mapping[str, float]) -> dict[str, Any]:
    """All figures: what `palate simulate --json` prints. Policies are compared with the first."""
    first = outcomes[0]
    hours = first.records[0].hours
    stretch = min(hours, DAY_HOURS if hours < 14 * DAY_HOURS else 7 * DAY_HOURS)
    return {
        "world": msgspec.structs.asdict(params),
        "hours": hours,
        "seeds": [record.seed for record in first.records],
        "against": first.policy.name,
        "stretch_hours": stretch,
        "policies": {one.policy.name: _policy(one, first, stretch) for one in outcomes},
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "stated": stated(outcomes),
    }


def _policy(outcome: Outcome, first: Outcome, stretch: int) -> dict[str, Any]:
    return {
        "order": outcome.policy.order,
        "metrics": _named(figures(outcome)),
        "difference": None if outcome is first else _named(differences(outcome, first)),
        "worlds": by_world(outcome),
        "difference_of_worlds": None if outcome is first else _named(differences_of_worlds(outcome, first)),
        "over_time": [_named(one) for one in over_time(outcome, stretch)],
        "change": _last_against_first(outcome, stretch),
        "pages": sum(len(record.hour) for record in outcome.records),
        "cycles": sum(record.cycles for record in outcome.records),
    }


def _last_against_first(outcome: Outcome, stretch: int) -> dict[str, dict[str, float | None]] | None:
    """None where there is but one stretch."""
    whole = outcome.records[0].hours // stretch
    if whole < 2:
        return None
    return _named(change(outcome, range(stretch), range((whole - 1) * stretch, whole * stretch)))


def _named(found: Mapping[str, Figure]) -> dict[str, dict[str, float | None]]:
    return {name: figure.to_json() for name, figure in found.items()}


def stated(outcomes: Sequence[Outcome]) -> list[str]:
    """What holds of the figures."""
    seeds = len(outcomes[0].records)
    sentences = [f"{name}: {one.meaning}." for name, one in MEASURES.items()]
    sentences += [f"{name}: {meaning}." for name, meaning in CATALOGUE.items()]
    sentences += [
        "What is liked is what simulated readers truly like, whether they say so or not. People may differ from them.",
        f"Intervals hold with 95 %, over the readers of {seeds} {'world' if seeds == 1 else 'worlds'}; differences are of the "
        "same readers. They say nothing of worlds of another kind.",
        "The best page, for regret, is of all items that are out and that the reader hadn't been shown under that policy, "
        "however old.",
    ]
    if any(one.policy.order != "served" for one in outcomes):
        sentences.append("oracle, random, newest and popular order by what they are called, without Palate.")
    return sentences
