"""Simulated people of an experiment, day by day: they come, come back, look at much or little and like some of it.

Made to prove the statistics of `experiment_judging`: what people do is skewed, differs from person to person for good and
from day to day by mood, and the busy ones come first, as it is where people really read. Nobody is served anything: sums are
drawn directly, so that a thousand experiments take minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate import experiments
from palate.experiment_sums import SUMS, Day
from palate.experiments import Experiment

FIRST = date(2026, 3, 2)


class PopulationParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who the people are."""

    people: Annotated[int, msgspec.Meta(ge=2)] = 3_000
    """In all variants together."""
    days: Annotated[int, msgspec.Meta(ge=1)] = 28
    newcomers: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.15
    """Share of those who haven't come yet that comes on a day; the busiest come first."""
    likes: tuple[float, float] = (1.6, 6.4)
    """Beta distribution of a person's likes over views."""
    views: float = 12.0
    """Mean of a visit."""


def run(
    experiment: Experiment, params: PopulationParams, effects: Mapping[str, float], rng: np.random.Generator
) -> Iterator[Day]:
    """The sums at the end of each day. `effects` is the relative lift of a variant's likes over views; 0 where it isn't named."""
    n = params.people
    variant = rng.choice(len(experiment.variants), n, p=experiments.wanted_shares(experiment))
    lift = np.array([1 + effects.get(one.name, 0.0) for one in experiment.variants])[variant]
    busy = rng.gamma(1.2, 1 / 1.2, n)
    often = np.clip(0.1 + 0.25 * busy, 0, 0.95)
    taste = np.minimum(rng.beta(*params.likes, n) * lift, 1)
    came = np.minimum(rng.geometric(np.clip(params.newcomers * (0.5 + 0.5 * busy), 0.02, 1)) - 1, params.days - 1)
    sums, active = np.zeros((n, len(SUMS))), np.zeros((n, params.days), bool)
    for day in range(params.days):
        there = np.flatnonzero((came == day) | ((came < day) & (rng.random(n) < often)))
        active[there, day] = True
        _live(sums, there, busy[there], taste[there], params, rng)
        here = came <= day
        yield _told(sums[here], active[here, : day + 1], variant[here], len(experiment.variants), day)


def assigned_again(days: Sequence[Day], experiment: Experiment, came: Mapping[str, int]) -> list[Day]:
    """The same days of people who were all served alike, by another experiment's assignment: by its salt, and nothing else.

    `came` are the ids of all people in the order of the sums, and with which of the days, from 0, each is in them.
    """
    place = {one.name: number for number, one in enumerate(experiment.variants)}
    variant = np.array([place[experiments.variant_of(experiment, id).name] for id in came], np.int64)
    first = np.array(list(came.values()), np.int64)
    found = []
    for number, day in enumerate(days):
        theirs = variant[first <= number]
        assert len(theirs) == len(day.variant), "Everybody who was there by then is in the sums of the day."
        found.append(replace(day, variant=theirs))
    return found


def _live(
    sums: NDArray[np.float64],
    there: NDArray[np.int64],
    busy: NDArray[np.float64],
    taste: NDArray[np.float64],
    params: PopulationParams,
    rng: np.random.Generator,
) -> None:
    """A day of these people."""
    visits = 1 + rng.poisson(0.5 + 0.5 * busy)
    mood = rng.gamma(2.0, 0.5, len(there))
    views = rng.poisson(params.views * visits * mood * (0.4 + 0.6 * busy))
    empty = np.where(views == 0, visits, rng.binomial(visits - 1, 0.15))
    done = {
        "visits": visits,
        "empty_visits": empty,
        "views": views,
        "shown": views + rng.poisson(8.0 * visits),
        "likes": rng.binomial(views, taste),
        "opens": rng.binomial(views, 0.25),
        "comments": rng.binomial(views, 0.1 * taste),
        "hours": views * rng.lognormal(-5.0, 0.8, len(there)),
    }
    for name, amount in done.items():
        sums[there, SUMS.index(name)] += amount


def _told(
    sums: NDArray[np.float64], active: NDArray[np.bool_], variant: NDArray[np.int64], variants: int, day: int
) -> Day:
    sums[:, SUMS.index("people")] = 1
    weeks = active.shape[1] // 7
    by_week = np.asarray(active[:, : 7 * weeks].reshape(len(active), weeks, 7).any(axis=2), bool)
    for name, matrix in (("days", active), ("weeks", by_week)):
        before, after = matrix[:, :-1], matrix[:, 1:]
        sums[:, SUMS.index(f"followed_{name}")] = before.sum(axis=1)
        sums[:, SUMS.index(f"kept_{name}")] = (before & after).sum(axis=1)
    return Day(
        day=(FIRST + timedelta(days=day)).isoformat(),
        complete=True,
        variant=variant,
        sums=sums,
        several=0,
        machines=0,
        reached=(0,) * variants,
        catalogue=0,
    )
