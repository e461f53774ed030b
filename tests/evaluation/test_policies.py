from __future__ import annotations

from datetime import UTC, datetime
from html import escape

import numpy as np
import pytest

from palate.domain import to_milliseconds
from palate.evaluation import policies, simulation_report
from palate.evaluation.closed_loop import Policy, Record
from palate.evaluation.policies import Outcome
from palate.evaluation.world import HOUR, WorldParams

START = to_milliseconds(datetime(2026, 3, 2, tzinfo=UTC))


def record(value: list[float], hours: int = 48, shown: list[tuple[int, int]] | None = None) -> Record:
    """Two readers, each with a page in each 24 hours: the first holds less each time. `shown`: item and hour."""
    rows = shown or [(0, 1)]
    return Record(
        policy="p",
        seed=1,
        hours=hours,
        readers=2,
        hour=np.array([1, 2, 25, 26]),
        reader=np.array([0, 1, 0, 1]),
        first=np.array([True, True, True, False]),
        looks=np.full(4, 4.0),
        value=np.array(value),
        best=np.full(4, 4.0),
        views=np.array([2, 1, 1, 0]),
        likes=np.array([1, 1, 0, 0]),
        shown=np.array([item for item, _ in rows]),
        shown_at=np.array([START + hour * HOUR for _, hour in rows]),
        published=np.array([START - HOUR, START + HOUR, START + 2 * HOUR, START + 40 * HOUR]),
        start=START,
        cycles=3,
    )


def outcome(value: list[float], name: str = "p", **more: object) -> Outcome:
    return Outcome(Policy(name), (record(value, **more),))  # type: ignore[arg-type]


def test_figures_are_ratios_of_sums() -> None:
    found = policies.figures(outcome([4.0, 2.0, 1.0, 1.0]))
    assert found["liked"].value == pytest.approx(8 / 16)
    assert found["regret"].value == pytest.approx(1 - 8 / 16)
    assert found["likes per view"].value == pytest.approx(2 / 4)
    assert found["views per visit"].value == pytest.approx(4 / 3)
    assert found["pages per visit"].value == pytest.approx(4 / 3)


def test_intervals_are_over_readers() -> None:
    found = policies.figures(outcome([4.0, 2.0, 1.0, 1.0]))["liked"]
    assert found.low == pytest.approx(3 / 8)
    assert found.high == pytest.approx(5 / 8)


def test_differences_are_of_the_same_readers() -> None:
    better, worse = outcome([4.0, 3.0, 2.0, 1.0]), outcome([3.0, 2.0, 1.0, 0.0])
    found = policies.differences(better, worse)
    assert found["liked"].value == pytest.approx(0.25)
    assert found["liked"].low == pytest.approx(0.25)
    assert found["liked"].high == pytest.approx(0.25)
    assert found["regret"].value == pytest.approx(-0.25)


def test_worlds_are_told_one_by_one_and_how_their_differences_vary() -> None:
    ours = Outcome(
        Policy("a"), (record([4.0, 4.0, 4.0, 4.0]), record([3.0, 3.0, 3.0, 3.0]), record([2.0, 2.0, 2.0, 2.0]))
    )
    theirs = Outcome(Policy("b"), tuple(record([1.0, 1.0, 1.0, 1.0]) for _ in range(3)))
    assert policies.by_world(ours)["liked"] == pytest.approx([1.0, 0.75, 0.5])
    found = policies.differences_of_worlds(ours, theirs)["liked"]
    assert found.value == pytest.approx(0.5)
    assert found.high == pytest.approx(0.5 + 4.3027 * 0.25 / np.sqrt(3))


def test_a_change_compares_stretches_of_one_policy() -> None:
    found = policies.change(outcome([4.0, 4.0, 3.0, 3.0]), range(24), range(24, 48))
    assert found["liked"].value == pytest.approx(-0.25)
    assert found["liked"].high == pytest.approx(-0.25)


def test_time_is_cut_into_whole_stretches() -> None:
    found = policies.over_time(outcome([4.0, 4.0, 3.0, 3.0], hours=60), 24)
    assert [one["liked"].value for one in found] == [pytest.approx(1.0), pytest.approx(0.75)]


def test_coverage_and_a_fair_start_count_items() -> None:
    often = (
        [(1, 2)] * 9 + [(2, 3)] + [(2, 30)] * 5 + [(0, 1)]
    )  # the second is shown once on its first day, then too late
    found = policies.figures(outcome([1.0] * 4, shown=often))
    assert found["coverage"].value == pytest.approx(3 / 4)
    assert found["fair start"].value == pytest.approx(1 / 2)


def test_the_page_draws_every_policy_and_says_what_holds() -> None:
    both = [outcome([4.0, 2.0, 1.0, 1.0], "one"), outcome([1.0, 1.0, 1.0, 1.0], "<two>")]
    answer = policies.to_json(both, WorldParams(readers=2), {"one": 1.0, "<two>": 2.0})
    page = simulation_report.page(answer)
    assert page.count("<svg") == len(policies.OVER_TIME)
    assert "&lt;two&gt;" in page
    assert "<two>" not in page
    assert all(escape(sentence) in page for sentence in answer["stated"])
    assert answer["policies"]["one"]["change"]["liked"]["value"] == pytest.approx(-0.5)
    assert answer["policies"]["<two>"]["difference"]["liked"]["value"] == pytest.approx(-0.25)
