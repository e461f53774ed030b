"""A replay in which the right answer is always the newest item."""

from __future__ import annotations

import numpy as np
import pytest
from test_measuring import NoParams, serve

from palate.domain import Event
from palate.errors import PalateError
from palate.evaluation import freshness, protocols, recordings
from palate.evaluation.evaluating import Conditions, Outcome, Plan
from palate.evaluation.freshness import HOUR, Schedule
from palate.evaluation.measuring import wanted
from palate.evaluation.protocols import Meaning
from palate.interactions import InteractionParams

HOURS = 20


def log() -> Meaning:
    """Each hour on the hour somebody new takes to item h, and half an hour later to item h too."""
    events = [
        Event(user=f"u{hour}{half}", item=f"{hour}", type="like", time=hour * HOUR + half * HOUR // 2)
        for hour in range(HOURS)
        for half in (0, 1)
    ]
    return protocols.meaning(recordings.of_log(iter([events])), InteractionParams(), None)


def replayed(every: float, delay: float | None, clock: list[float] | None = None) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        serve(patch, lambda users, items: items + 0 * users)  # the newest item that it knows is the best
        ticks = iter(clock or np.zeros(10_000).tolist())
        return freshness.evaluate(
            log(),
            0.5,
            Schedule(every, delay),
            Plan("oracle", NoParams()),
            Conditions(wanted("hr@1")),
            1,
            clock=lambda: next(ticks),
        )


def value(outcome: Outcome) -> float:
    found = outcome.figures["hr@1"].value
    assert found is not None
    return found


def test_a_snapshot_of_this_moment_knows_the_newest() -> None:
    found = replayed(1, 1)  # from a second after the hour on, of what happened up to the hour before it
    assert [snapshot.start // HOUR for snapshot in found.snapshots] == list(range(9, 20))
    assert value(found) == 0  # what happens at the hour itself is not before it
    quick = replayed(0.25, 1)
    assert value(quick) == 10 / 20  # the half hours


def test_a_slow_training_is_late_and_misses() -> None:
    assert value(replayed(0.25, 1)) == 0.5
    slow = replayed(0.25, 3000)  # ready 50 minutes after its data's end
    assert value(slow) == 0
    starts = [snapshot.start for snapshot in slow.snapshots]
    assert min(np.diff(starts)) == 3_000_000  # the next training waits for the one before


def test_events_before_a_snapshot_is_ready_are_asked_of_the_one_before() -> None:
    found = replayed(2, 1800)
    for one, other in zip(found.snapshots, found.snapshots[1:], strict=False):
        assert one.ready == max(one.start + 1_800_000, 10 * HOUR)
        assert one.until == other.ready
    assert sum(snapshot.users for snapshot in found.snapshots) == found.users == 20


def test_the_delay_is_measured_where_none_is_given() -> None:
    ticks = np.repeat(np.arange(5_000) * 600.0, 1).tolist()  # each look at the clock is ten minutes later
    found = replayed(1, None, ticks)
    assert {snapshot.ready - snapshot.start for snapshot in found.snapshots[1:]} == {600_000}
    assert any("measured" in sentence for sentence in found.stated)


def test_nothing_before_the_first_snapshot_is_told() -> None:
    with pytest.raises(PalateError, match="before the first snapshot"):
        replayed(1000, 1)
