"""`palate evaluate --ranker heavy` on a log in which people open what is near to their taste, whatever the plain score says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import palate

from palate import database, events, feature_log
from palate.database import writing
from palate.domain import Event, from_milliseconds
from palate.feature_log import NAMES

pytest.importorskip("catboost")
LISTS, SIZE, START = 150, 8, 1_700_000_000_000
SMALL = ("min_impressions=500", "min_positives=50", 'trees={"trees":12,"depth":3,"learning_rate":0.3}')


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of what is shown is near to what the person likes, and that half is opened; the plain score knows nothing of it."""
    folder, random = tmp_path_factory.mktemp("shown"), np.random.default_rng(1)
    engine = database.connect(None, folder)
    database.migrate(engine)
    happened = []
    for number in range(LISTS):
        near, table = random.permutation(SIZE) % 2, np.full((SIZE, len(NAMES)), np.nan, np.float32)
        table[:, NAMES.index("text_near_liked")] = near
        table[:, feature_log.SCORE] = random.standard_normal(SIZE)
        user, time = f"u{number % 25}", START + 7_200_000 * number
        for place, features in enumerate(feature_log.written(table)):
            words = {"user": user, "item": f"i{place}", "time": time}
            happened.append(
                Event(**words, type="shown", features=features, request=f"r{number}", position=place)  # type: ignore[arg-type]
            )
            if near[place] and random.random() < 0.8:
                happened.append(Event(user=user, item=f"i{place}", type="opened", time=time + 1000))
    with writing(engine) as connection:
        events.append(connection, happened, from_milliseconds(START + 7_200_000 * LISTS))
    engine.dispose()
    return folder


def evaluated(folder: Path, *more: str) -> dict[str, Any]:
    result = palate("evaluate", "--ranker", "heavy", "--data", str(folder), *SMALL, *more, "--json")
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_what_the_order_goes_by_is_missed_when_it_is_switched_off(folder: Path) -> None:
    found = evaluated(folder)
    figures, without = found["metrics"], found["without"]
    assert set(without) == {"model", "item", "text", "counters", "history", "found"}
    for metric, better in (("ndcg@10", 1), ("log-loss", -1)):
        assert figures[metric]["low"] < figures[metric]["value"] < figures[metric]["high"]
        for less in (found["plain"], without["text"]):
            difference = less["difference"][metric]
            assert max(better * difference["low"], better * difference["high"]) < 0
    assert without["counters"]["difference"]["ndcg@10"]["value"] == 0
    assert found["served"] is True
    tested = found["tested"]
    assert (tested["impressions"], tested["lists"], tested["people"]) == (LISTS * SIZE // 5, LISTS // 5, 25)


def test_a_table_says_what_holds_of_it(folder: Path) -> None:
    result = palate(
        "evaluate", "--ranker", "heavy", "--data", str(folder), *SMALL, 'without=["item","found","history"]'
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["ndcg@10", "log-loss", "calibration"]
    assert [line.split("  ")[0] for line in lines if line.startswith(("heavy", "plain", "without"))] == [
        "heavy",
        "plain score",
        "without model",
        "without text",
        "without counters",
    ]
    assert "With these figures the ranker is served." in lines


def test_too_few_impressions_are_told_in_a_sentence(folder: Path) -> None:
    result = palate("evaluate", "--ranker", "heavy", "--data", str(folder))
    assert result.returncode == 1
    assert "1200 impressions with" in result.stderr
    assert "heavy.min_impressions" in result.stderr
    assert result.stderr.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--ranker", "light"), "There is no ranker light"),
        (("--ranker", "heavy", "--model", "fm"), "leave out --model"),
        ((), "Name what is to be measured"),
    ],
)
def test_what_cannot_be_measured_is_refused(given: tuple[str, ...], said: str) -> None:
    result = palate("evaluate", *given)
    assert result.returncode == 1
    assert said in result.stderr
