"""Snapshots evaluated as late as their training takes: a model that is quicker to train knows what came meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from palate import splits
from palate.errors import PalateError
from palate.evaluation import evaluating, measuring, protocols
from palate.evaluation.evaluating import Clock, Conditions, Fitted, Outcome, Plan, Progress, Result, Snapshot
from palate.evaluation.protocols import Meaning

HOUR = 3_600_000
"""Milliseconds."""


@dataclass(frozen=True)
class Schedule:
    """When a model is fitted anew."""

    every: float
    """Hours between the starts of two trainings, unless the first takes longer."""
    delay: float | None = None
    """Seconds from the start of a training until its snapshot serves; None: as long as the fit is measured to take."""


@dataclass(frozen=True, eq=False)
class _Serving:
    """A model, what happened before its training started, and since when it serves (milliseconds since 1970)."""

    fitted: Fitted | None
    start: int
    ready: int


def evaluate(
    meaning: Meaning,
    test_share: float,
    schedule: Schedule,
    plan: Plan,
    conditions: Conditions,
    seed: int,
    progress: Progress = lambda what, done, total: None,
    clock: Clock = time.perf_counter,
) -> Outcome:
    """Replay the newest share of the events: each is asked of the newest snapshot that was ready when it happened.

    A snapshot knows all that happened before its training started. The first starts one interval before the cut and serves from
    the cut on, however long it takes, so that models of any delay are asked for the same events. Raises PalateError when
    nobody is asked for anything.
    """
    events = meaning.events
    cut = int(events.time[splits.newest(events.time, test_share)].min(initial=2**62))
    end = int(events.time.max(initial=0)) + 1
    results, snapshots = [], []
    for serving, following in pairwise(_servings(meaning, cut, end, schedule, plan, conditions, seed, clock)):
        progress(f"Replaying {plan.model}", serving.ready - cut, end - cut)
        result = _asked(meaning, serving, following.ready, conditions, clock)
        if result is not None:
            results.append(result)
            snapshots.append(_snapshot(result, serving, following.ready, seed))
    if not results:
        raise PalateError("Nobody took to anything new after the first snapshot: give a larger --test-share.")
    return _outcome(plan, results, snapshots, schedule, seed)


def _servings(
    meaning: Meaning,
    cut: int,
    end: int,
    schedule: Schedule,
    plan: Plan,
    conditions: Conditions,
    seed: int,
    clock: Clock,
) -> Iterator[_Serving]:
    """Each snapshot when it is ready, and at the end one that has no model."""
    step = max(1, round(schedule.every * HOUR))
    start = cut - step
    while start < end:
        train = protocols.before(meaning, start)
        if not len(train):
            raise PalateError("Nothing happened before the first snapshot: give a smaller --test-share or --every.")
        fitted = evaluating.fit(train, plan, conditions, seed, clock)
        took = round(1000 * (fitted.seconds if schedule.delay is None else schedule.delay))
        ready = cut if start < cut else start + took
        if ready >= end:
            break
        yield _Serving(fitted, start, ready)
        start += max(step, took)
    yield _Serving(None, start, end)


def _asked(meaning: Meaning, serving: _Serving, until: int, conditions: Conditions, clock: Clock) -> Result | None:
    """None when nobody took to anything new meanwhile."""
    assert serving.fitted is not None, "Only the end has no model."
    split = protocols.between(meaning, serving.fitted.material.interactions, serving.ready, until)
    if not evaluating.to_find(split, conditions)[0].any():
        return None
    return evaluating.ask(serving.fitted, split, conditions, clock=clock)


def _snapshot(result: Result, serving: _Serving, until: int, seed: int) -> Snapshot:
    figures = result.measured.figures(np.random.default_rng(seed))
    fit = round(result.fitted.seconds, 4)
    return Snapshot(serving.start, serving.ready, until, fit, result.measured.asked, figures)


def _outcome(
    plan: Plan,
    results: list[Result],
    snapshots: list[Snapshot],
    schedule: Schedule,
    seed: int,
) -> Outcome:
    measured = measuring.together([result.measured for result in results])
    figures = measured.figures(np.random.default_rng(seed))
    seconds = {
        "fit": float(np.mean([result.fitted.seconds for result in results])),
        "measure": sum(result.seconds for result in results),
    }
    late = (
        "their fits were measured to take"
        if schedule.delay is None
        else f"a fit is said to take ({schedule.delay:g} s)"
    )
    stated = (
        *_stated(results),
        f"{len(snapshots)} snapshots, one every {schedule.every:g} hours, each asked for what happened from its data's end on "
        f"as much later as {late}; the first learned {schedule.every:g} hours before the cut and serves from it.",
        "A user of several snapshots counts once for each; intervals of 95 % are bootstraps over users (1,000 samples).",
    )
    return Outcome(plan, figures, measured.asked, seconds, stated, measured, results[-1].fitted, tuple(snapshots))


def _stated(results: list[Result]) -> list[str]:
    """What holds of every snapshot, and what else holds of the last."""
    every = set.intersection(*(set(result.stated) for result in results))
    return [
        sentence if sentence in every else f"Of the last snapshot: {sentence[0].lower()}{sentence[1:]}"
        for sentence in results[-1].stated
    ]
