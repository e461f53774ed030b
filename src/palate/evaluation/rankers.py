"""How good the heavy ranker is on what this installation showed: the test that decides whether it is served, with intervals.

A ranker learns the older impressions and is judged on the newest, against the plain score, and against rankers that are learned
without some of the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate import heavy_learning, metrics
from palate.errors import PalateError
from palate.evaluation.measuring import Figure, named
from palate.heavy_learning import HeavyParams, Join, Tried
from palate.impressions import Impressions
from palate.metrics import Finish
from palate.models import trees

Values = NDArray[np.float64]
Parts = Mapping[str, Values]
"""(people, P) by the metric: what is summed over people."""

Progress = Callable[[str, int, int], None]
"""Told what is done, how many are, and of how many."""

BINS = 10
"""Of the calibration error."""


def _gaps(sums: Values) -> Values:
    return metrics.mean_of(np.stack((np.abs(sums[..., :-1]).sum(axis=-1), sums[..., -1]), axis=-1))


METRICS: dict[str, Finish] = {"ndcg@10": metrics.mean_of, "log-loss": metrics.mean_of, "calibration": _gaps}


@dataclass(frozen=True)
class Compared:
    """One way to order and to foretell, and how much it differs from the whole ranker: its value less that one's."""

    figures: Mapping[str, Figure]
    difference: Mapping[str, Figure]

    def to_json(self) -> dict[str, Any]:
        """As the command line answers."""
        return {"metrics": named(self.figures), "difference": named(self.difference)}


@dataclass(frozen=True)
class Outcome:
    """What came out."""

    learned: int
    """Impressions that the ranker knew, those of its calibration included."""
    tested: Mapping[str, int]
    """Impressions, positives, lists and people of the test."""
    served: bool
    """Whether a ranker with these figures would be served."""
    heavy: Mapping[str, Figure]
    plain: Compared
    without: Mapping[Join, Compared]
    """By the columns that were switched off."""

    def to_json(self) -> dict[str, Any]:
        """As the command line answers."""
        return {
            "learned": self.learned,
            "tested": dict(self.tested),
            "served": self.served,
            "metrics": named(self.heavy),
            "plain": self.plain.to_json(),
            "without": {join: compared.to_json() for join, compared in self.without.items()},
        }


def evaluate(found: Impressions, params: HeavyParams, seed: int, progress: Progress) -> Outcome:
    """Judge a ranker of the older impressions on the newer; each join of columns that `params` has on is switched off in turn.

    All stand on the same drawn people (bootstrap, 95 %), and all lists are weighted by the places of the whole ranker. Raises
    PalateError when there are too few impressions, or when CatBoost is missing.
    """
    _check(found, params)
    joins = [join for join in get_args(Join) if join not in params.without]
    progress("Learning", 0, 1 + len(joins))
    tried = heavy_learning.trial(found, params, seed)
    looked = heavy_learning.propensities(tried.ranker.trees, tried.late, params.without)
    heavy = _parts(tried.late, looked, tried.raw, tried.calibration(tried.raw_in_place))
    plain = _parts(tried.late, looked, tried.plain, tried.plain_calibration(tried.plain))
    without: dict[Join, Parts] = {}
    for number, join in enumerate(joins):
        progress(f"Learning without {join}", 1 + number, 1 + len(joins))
        less = heavy_learning.trial(found, msgspec.structs.replace(params, without=(*params.without, join)), seed)
        without[join] = _parts(less.late, looked, less.raw, less.calibration(less.raw_in_place))
    return Outcome(
        learned=len(found) - len(tried.late),
        tested=_tested(tried),
        served=bool(heavy_learning.judged(tried, params)["served"]),
        heavy=_compared(heavy, heavy, seed).figures,
        plain=_compared(plain, heavy, seed),
        without={join: _compared(parts, heavy, seed) for join, parts in without.items()},
    )


def _check(found: Impressions, params: HeavyParams) -> None:
    if not trees.installed():
        raise PalateError("Rankers need CatBoost: pip install 'palate[ranker]'.")
    if (why := heavy_learning.too_few(found, params)) is not None:
        raise PalateError(
            f"The ranker can't be judged: {why}. It takes {params.min_impressions:,} impressions with {params.min_positives:,} "
            f"positives (heavy.min_impressions, heavy.min_positives), each {params.answer_minutes:g} minutes old."
        )


def _tested(tried: Tried) -> dict[str, int]:
    late = tried.late
    return {
        "impressions": len(late),
        "positives": int((late.gain > 0).sum()),
        "lists": len(heavy_learning.people(late)),
        "people": len(np.unique(late.user)),
    }


# --- figures --------------------------------------------------------------------------------------------------------------


def _parts(late: Impressions, looked: Values, scores: Values, probabilities: NDArray[np.float32]) -> Parts:
    """What each person of the test adds to each metric."""
    people, person = np.unique(late.user, return_inverse=True)
    of_lists = np.searchsorted(people, heavy_learning.people(late))
    positive = (late.gain > 0).astype(np.float64)
    said = probabilities.astype(np.float64)
    cell = person * BINS + metrics.calibration_bins(said, BINS)
    shown = np.bincount(person, minlength=len(people)).astype(np.float64)
    gaps = np.bincount(cell, positive - said, len(people) * BINS).reshape(len(people), BINS)
    return {
        "ndcg@10": _sums(of_lists, heavy_learning.ndcg(late, scores, looked), len(people)),
        "log-loss": _sums(person, metrics.log_losses(positive, said), len(people)),
        "calibration": np.column_stack((gaps, shown)),
    }


def _sums(person: NDArray[np.int64], values: Values, people: int) -> Values:
    """(people, 2) the sum of each person's values, and how many there are."""
    return np.column_stack((np.bincount(person, values, people), np.bincount(person, minlength=people)))


def _compared(parts: Parts, whole: Parts, seed: int) -> Compared:
    figures, difference = {}, {}
    for name, finish in METRICS.items():
        own, both = parts[name], np.concatenate((parts[name], whole[name]), axis=1)
        figures[name] = _figure(own, finish, seed)
        difference[name] = _figure(both, _less(finish, own.shape[1]), seed)
    return Compared(figures, difference)


def _less(finish: Finish, width: int) -> Finish:
    return lambda sums: finish(sums[..., :width]) - finish(sums[..., width:])


def _figure(parts: Values, finish: Finish, seed: int) -> Figure:
    """The statistic with its interval; every call draws the same people."""
    value = float(finish(parts.sum(axis=0)))
    ((low, high),) = metrics.intervals_of_sums([(parts, finish)], np.random.default_rng(seed))
    return Figure(*(None if np.isnan(one) else one for one in (value, low, high)))


# --- words ----------------------------------------------------------------------------------------------------------------


def stated(outcome: Outcome) -> list[str]:
    """What holds of the figures."""
    tested = outcome.tested
    return [
        f"Learned from the older {outcome.learned:,} impressions, judged on the newest {tested['impressions']:,}: "
        f"{tested['positives']:,} positives, {tested['lists']:,} lists, {tested['people']:,} people.",
        "Differences are to the whole ranker: above 0 a row has the better nDCG@10, or the worse log loss and calibration.",
        "Intervals of 95 % by drawing people. What counts in nDCG is weighted by how likely each place is looked at.",
        f"With these figures the ranker {'is' if outcome.served else 'would not be'} served.",
    ]
