"""What came of what was shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from palate import database, events, feature_log, identities, impressions, retention
from palate.database import reading, writing
from palate.domain import Event, to_milliseconds
from palate.feature_log import NAMES
from palate.impressions import Impressions

NOW = datetime(2024, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
GAINS = {"opened": 1.0, "like": 2.0, "dislike": -3.0, "watch": 1.0}


def features(number: float) -> str:
    row = np.full((1, len(NAMES)), np.nan, np.float32)
    row[0, feature_log.SCORE] = number
    return feature_log.written(row)[0]


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    engine = database.connect(None, tmp_path)
    database.migrate(engine)
    return engine


class Log:
    def __init__(self, engine: sa.Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder

    def add(self, user: str, item: str, type: str, ago: timedelta, value: float | None = None, **more: Any) -> None:
        time = NOW - ago
        event = Event(user=user, item=item, type=type, time=to_milliseconds(time), value=value, **more)
        with writing(self.engine) as connection:
            events.append(connection, [event], time)

    def show(self, user: str, item: str, ago: timedelta, number: float = 0.0, request: str = "r", **more: Any) -> None:
        self.add(user, item, "shown", ago, features=features(number), request=request, **more)

    def read(self, limit: int = 1000) -> Impressions:
        return impressions.read(self.engine, self.folder, GAINS, HOUR, NOW, limit)


@pytest.fixture
def log(engine: sa.Engine, tmp_path: Path) -> Log:
    return Log(engine, tmp_path / "events")


def test_an_action_counts_for_the_last_impression_before_it(log: Log) -> None:
    log.show("ann", "a", 5 * HOUR, 1)
    log.show("ann", "a", 4 * HOUR, 2)
    log.add("ann", "a", "like", 4 * HOUR - timedelta(minutes=5))
    log.show("ann", "a", 3 * HOUR, 3)
    assert log.read().gain.tolist() == [0, 2, 0]


def test_gains_of_unlike_actions_add_up_and_of_like_ones_dont(log: Log) -> None:
    log.show("ann", "a", 4 * HOUR)
    for type in ("opened", "opened", "like"):
        log.add("ann", "a", type, 4 * HOUR - timedelta(minutes=5))
    log.show("ann", "b", 4 * HOUR)
    log.add("ann", "b", "dislike", 4 * HOUR - timedelta(minutes=5))
    log.show("ann", "c", 4 * HOUR)
    log.add("ann", "c", "watch", 4 * HOUR - timedelta(minutes=5), value=0.25)
    assert log.read().gain.tolist() == [3, -3, 0.25]


def test_what_comes_too_late_or_of_others_doesnt_count(log: Log) -> None:
    log.show("ann", "a", 4 * HOUR)
    log.add("ann", "a", "like", 2 * HOUR)
    log.add("bob", "a", "like", 4 * HOUR)
    log.add("ann", "b", "like", 4 * HOUR)
    assert log.read().gain.tolist() == [0]


def test_what_was_taken_back_doesnt_count(log: Log) -> None:
    log.show("ann", "a", 4 * HOUR)
    log.add("ann", "a", "like", 4 * HOUR)
    log.add("ann", "a", "retract:like", 3 * HOUR)
    log.show("ann", "b", 4 * HOUR)
    log.add("ann", "b", "like", 4 * HOUR)
    assert log.read().gain.tolist() == [0, 2]


def test_only_impressions_of_which_the_answer_is_known_are_read(log: Log) -> None:
    log.show("ann", "a", 2 * HOUR)
    log.show("ann", "b", HOUR / 2)
    log.add("ann", "c", "shown", 2 * HOUR)
    assert len(log.read()) == 1


def test_columns_are_those_that_were_logged(log: Log) -> None:
    log.show("ann", "a", 2 * HOUR, 0.5, "one", position=3, probability=0.25)
    log.show("bob", "a", 2 * HOUR, 0.25, "two", position=4)
    log.show("ann", "b", 2 * HOUR, 0.75, "one", position=5)
    found = log.read()
    assert found.features[:, feature_log.SCORE].tolist() == [0.5, 0.25, 0.75]
    assert found.position.tolist() == [3, 4, 5]
    assert found.probability.tolist() == [0.25, 1, 1]
    assert found.request[0] == found.request[2] != found.request[1]


def test_sealed_and_unsealed_days_are_one_log(log: Log) -> None:
    for day in (4, 3, 2):
        log.show("ann", f"i{day}", timedelta(days=day), day)
        log.add("ann", f"i{day}", "like", timedelta(days=day) - HOUR / 2)
    before = log.read()
    retention.seal(log.engine, log.folder, NOW - timedelta(days=1), 10**9)
    log.show("ann", "new", 2 * HOUR, 9)
    found = log.read()
    assert before.gain.tolist() == [2, 2, 2]
    assert found.gain.tolist() == [2, 2, 2, 0]
    assert found.features[:, feature_log.SCORE].tolist() == [4, 3, 2, 9]
    assert log.read(limit=2).features[:, feature_log.SCORE].tolist() == [2, 9]


def test_ids_of_one_person_are_one_person(log: Log) -> None:
    log.show("visitor", "a", 2 * HOUR)
    log.add("ann", "a", "like", 2 * HOUR - timedelta(minutes=1))
    with writing(log.engine) as connection:
        keys = identities.user_keys(connection, ["visitor", "ann"], NOW)
        identities.join(connection, keys["visitor"], keys["ann"])
    found = log.read()
    assert found.gain.tolist() == [2]
    with reading(log.engine) as connection:
        assert identities.user_keys(connection, ["ann"], None)["ann"] == found.user[0]


def test_an_empty_log_has_no_impressions(log: Log) -> None:
    assert not len(log.read())
