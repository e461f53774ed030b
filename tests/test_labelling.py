"""What is asked next, of whom, and how far annotators agree."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import sqlalchemy as sa

from palate import database, identities, ingest, labelling, labels, people
from palate.database import reading, writing
from palate.domain import Item
from palate.labels import Answer, LabelParams, Question, Task
from palate.text.category import CLASSES

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PARAMS = LabelParams(honeypots=0)
EVENTS = (
    "A hurricane destroyed hundreds of houses on the coast, thousands fled from the flooded villages",
    "The central bank raised interest rates again because inflation remains far above its target this year",
    "The national football team won the world cup final after penalties against the defending champions",
    "A new telescope found water in the atmosphere of a planet that circles a distant red dwarf",
)


class Room:
    """An installation with texts, and people who answer."""

    def __init__(self, engine: sa.Engine, texts: list[tuple[str, str]]) -> None:
        self.engine = engine
        items = [
            Item(id=str(n), title=text[:60], text=text, source=source, published=NOW - timedelta(minutes=n))
            for n, (text, source) in enumerate(texts)
        ]
        self.keys = [one.key for one in ingest.store_items(engine, items, NOW)]

    def person(self, id: str) -> int:
        with writing(self.engine) as connection:
            return people.upsert_user(connection, id, {}, NOW).key

    def next(self, who: str, task: Task = "category", params: LabelParams = PARAMS, seed: int = 0) -> Question | None:
        person = self.person(who)
        with reading(self.engine) as connection:
            generator = np.random.default_rng(seed)
            return labelling.next_question(connection, person, task, params, 0.32, generator)

    def say(self, who: str, asked: Question, value: str, gold: bool = False) -> None:
        person = self.person(who)
        with writing(self.engine) as connection:
            labels.put(connection, [Answer(person, asked, value, gold)], PARAMS, NOW)

    def probable(self, key: int, **classes: float) -> None:
        """Let the model say just this of a text."""
        likely = np.array([classes.get(name, 0.0) for name in CLASSES], "<f4")
        table = database.understandings
        with writing(self.engine) as connection:
            connection.execute(sa.update(table).where(table.c.item == key).values(probabilities=likely.tobytes()))


@pytest.fixture
def room(engine: sa.Engine) -> Room:
    return Room(engine, [(text, f"s{n % 2}") for n, text in enumerate(EVENTS)])


def test_the_least_certain_is_asked_first_and_nothing_twice(room: Room) -> None:
    first, second, third, fourth = room.keys
    room.probable(first, society=0.9, economy=0.1)
    room.probable(second, society=0.3, economy=0.29, not_news=0.41)
    room.probable(third, sports=0.51, society=0.49)
    room.probable(fourth, science=0.7, technology=0.3)
    order = []
    while (asked := room.next("ann")) is not None:
        order.append(asked.item)
        room.say("ann", asked, "" if len(order) == 2 else "society")
    assert sorted(order) == sorted(room.keys)
    assert order[0] == third
    assert room.next("ann", "news") == Question("news", second)  # 0.41 is closest to a half


def test_sources_and_languages_with_few_answers_come_before_little_less_certainty(engine: sa.Engine) -> None:
    room = Room(engine, [(text, "often" if n < 3 else "seldom") for n, text in enumerate(EVENTS)])
    for key, share in zip(room.keys, (0.52, 0.53, 0.54, 0.6), strict=True):
        room.probable(key, society=share, economy=1 - share)
    assert room.next("ann") == Question("category", room.keys[0])
    room.say("ann", Question("category", room.keys[0]), "society")
    assert room.next("ann") == Question("category", room.keys[3])


def test_what_others_disagree_on_comes_first_then_what_too_few_have_answered(room: Room) -> None:
    first, second, third, _ = (Question("category", key) for key in room.keys)
    room.say("ben", first, "society")
    room.say("ben", second, "economy")
    room.say("cid", second, "sports")
    room.say("own", third, "sports", gold=True)
    assert room.next("ann") == second
    room.say("ann", second, "economy")
    assert room.next("ann") == first
    room.say("ann", first, "society")
    assert room.next("ann") not in (first, second)
    assert room.next("dee") != first  # two have answered it


def test_questions_with_known_answers_are_mixed_in_at_the_set_rate(room: Room) -> None:
    known = Question("category", room.keys[0])
    room.say("own", known, "society", gold=True)
    often = LabelParams(honeypots=0.25)
    asked = [room.next("ann", params=often, seed=seed) for seed in range(60)]
    assert 5 <= asked.count(known) <= 26
    assert room.next("ann", params=LabelParams(honeypots=1)) == known
    assert room.next("own", params=LabelParams(honeypots=1)) != known
    room.say("ann", known, "society")
    assert known not in [room.next("ann", params=LabelParams(honeypots=1), seed=seed) for seed in range(5)]


def test_pairs_near_the_threshold_are_asked_about(engine: sa.Engine) -> None:
    storm = EVENTS[0]
    room = Room(engine, [(storm, "a"), (storm, "b"), (EVENTS[1], "c"), (f"{storm[:40]} {EVENTS[1][:48]}", "d")])
    seen = []
    while (asked := room.next("ann", "story")) is not None:
        assert asked.item < asked.other
        with reading(engine) as connection:
            found = labelling.guessed(connection, asked)
        assert found is not None
        seen.append(abs(found[1] - 0.32))
        room.say("ann", asked, "different")
    assert len(seen) == 6
    assert seen[0] == min(seen)
    assert seen[-1] == max(seen)


def test_two_texts_of_one_source_are_no_pair(engine: sa.Engine) -> None:
    assert Room(engine, [(text, "one") for text in EVENTS]).next("ann", "story") is None


def test_importance_is_asked_of_the_first_of_each_story(room: Room) -> None:
    _, second, third, _ = room.keys
    with writing(room.engine) as connection:
        table = database.items
        connection.execute(sa.update(table).where(table.c.key.in_((second, third))).values(story=second))
        connection.execute(sa.update(table).values(category="society"))
    assert room.next("ann", "importance") == Question("importance", second)
    room.say("ann", Question("importance", second), "2")
    asked = room.next("ann", "importance")
    assert asked is not None
    assert asked.item not in (second, third)


def test_deleted_items_are_not_asked_about(room: Room) -> None:
    from palate import catalog

    room.say("ben", Question("category", room.keys[0]), "society")
    with writing(room.engine) as connection:
        catalog.withdraw(connection, ["0"], NOW)
    asked = room.next("ann")
    assert asked is not None
    assert asked.item != room.keys[0]


def test_the_standing_of_a_task(room: Room) -> None:
    questions = [Question("category", key) for key in room.keys]
    for asked, ann, ben in zip(
        questions, ("society", "economy", "sports", "society"), ("society", "economy", "society", ""), strict=True
    ):
        room.say("ann", asked, ann)
        room.say("ben", asked, ben)
    with reading(room.engine) as connection:
        found = labelling.standing(connection, "category", LabelParams(least_known=1, least_accuracy=1))
    assert (found.answers, found.questions, found.shared) == (7, 4, 3)
    assert found.agreed == {"society": 2, "economy": 1}
    assert found.table[CLASSES.index("sports"), CLASSES.index("society")] == 1
    # two of three equal; by chance (2·1 + 1·1)/9 = 1/3 for kappa: (2/3 − 1/3) / (1 − 1/3)
    assert found.kappa == pytest.approx(0.5)
    assert found.alpha == pytest.approx(1 - 5 * 2 / (2 * (3 * 2 + 3 * 1 + 2 * 1)))
    assert [(one.name, one.answers, one.known, one.counts) for one in found.annotators] == [
        ("ann", 4, 0, True),
        ("ben", 3, 0, True),
    ]
    room.say("own", questions[2], "sports", gold=True)
    with reading(room.engine) as connection:
        found = labelling.standing(connection, "category", LabelParams(least_known=1, least_accuracy=1))
    assert found.kappa is None
    assert {one.name: (one.right, one.known, one.counts) for one in found.annotators} == {
        "ann": (1, 1, True),
        "ben": (0, 1, False),
        "own": (0, 0, True),
    }


def test_the_nearest_of_the_language_in_the_window(engine: sa.Engine) -> None:
    room = Room(engine, [(EVENTS[0], "a"), (EVENTS[1], "b"), (EVENTS[0] + " today", "c")])
    with reading(engine) as connection:
        assert labelling.nearest(connection, room.keys[0], 5, 3_600_000) == [room.keys[2], room.keys[1]]
        assert labelling.nearest(connection, room.keys[0], 5, 90_000) == [room.keys[1]]
        assert labelling.nearest(connection, room.keys[0] + 99, 5, 90_000) == []
        assert identities.item_keys(connection, ["0"], None) == {"0": room.keys[0]}
