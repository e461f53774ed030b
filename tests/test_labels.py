"""What people say of items counts at once, and goes on to count; who isn't reliable isn't heard."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import sqlalchemy as sa

from palate import catalog, database, identities, ingest, labels, people, story_window
from palate.database import reading, writing
from palate.domain import Item
from palate.errors import InvalidInput, NotFound
from palate.labels import Answer, LabelParams, Question
from palate.story_window import StoryParams
from palate.text.category import CLASSES

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PARAMS = LabelParams()
BANK = "The central bank raised interest rates again because inflation remains far above its target this year"
MATCH = "The national football team won the world cup final after penalties against the defending champions"
STORM = "A hurricane destroyed hundreds of houses on the coast, thousands fled from the flooded villages"


@dataclass
class Desk:
    """An installation with people who label."""

    engine: sa.Engine

    def store(self, *texts: str, prefix: str = "", now: datetime = NOW) -> list[int]:
        items = [
            Item(id=f"{prefix}{n}", title=text[:60], text=f"{text}, {n} say.", source=f"s{prefix}{n}", published=now)
            for n, text in enumerate(texts)
        ]
        return [one.key for one in ingest.store_items(self.engine, items, now)]

    def person(self, id: str) -> int:
        with writing(self.engine) as connection:
            return people.upsert_user(connection, id, {}, NOW).key

    def say(
        self,
        who: str,
        asked: Question,
        value: str,
        *,
        gold: bool = False,
        now: datetime = NOW,
        params: LabelParams = PARAMS,
    ) -> None:
        person = self.person(who)
        with writing(self.engine) as connection:
            labels.put(connection, [Answer(person, asked, value, gold)], params, now)

    def rows(self) -> dict[int, sa.Row[tuple[object, ...]]]:
        with reading(self.engine) as connection:
            return {row.key: row for row in connection.execute(sa.select(database.items))}

    def category(self, key: int) -> object:
        return self.rows()[key].category

    def stories(self) -> set[frozenset[int]]:
        told: dict[int, set[int]] = {}
        for key, row in self.rows().items():
            told.setdefault(key if row.story is None else row.story, set()).add(key)
        return {frozenset(members) for members in told.values()}


@pytest.fixture
def desk(engine: sa.Engine) -> Desk:
    return Desk(engine)


def asked(item: int, task: labels.Task = "category") -> Question:
    return labels.question(task, item)


def test_a_correction_counts_at_once_and_stays_when_the_text_is_understood_anew(desk: Desk) -> None:
    bank, _ = desk.store(BANK, MATCH)
    assert desk.category(bank) == "economy"
    later = NOW + timedelta(minutes=1)
    desk.say("ann", asked(bank), "society", now=later)
    assert desk.category(bank) == "society"
    with reading(desk.engine) as connection:
        assert [row.key for row in catalog.changed_since(connection, int(later.timestamp() * 1000))] == [bank]
    again = Item(id="0", title="The central bank raised its rates", text=BANK, source="s0")
    ingest.store_items(desk.engine, [again], later)
    assert desk.category(bank) == "society"


def test_an_answer_replaces_the_same_persons_and_a_skipped_one_takes_it_back(desk: Desk) -> None:
    [bank] = desk.store(BANK)
    for value, category in (("sports", "sports"), ("science", "science"), ("not_news", None), ("", "economy")):
        desk.say("ann", asked(bank), value)
        assert desk.category(bank) == category
    with reading(desk.engine) as connection:
        assert [one.value for one in labels.answers(connection, "category")] == [""]


def test_what_is_news_gets_the_likeliest_category_and_what_is_not_gets_none(desk: Desk) -> None:
    bank, match = desk.store(BANK, MATCH)
    desk.say("ann", asked(bank, "news"), "no")
    assert desk.category(bank) is None
    desk.say("ann", asked(bank, "news"), "yes")
    assert desk.category(bank) == "economy"
    desk.say("ann", asked(match), "science")
    desk.say("ann", asked(match, "news"), "no")
    assert desk.category(match) == "science"  # who names a category says more


def test_more_than_half_must_agree_unless_an_owner_is_certain(desk: Desk) -> None:
    [bank] = desk.store(BANK)
    for who, value, category in (
        ("ann", "society", "society"),
        ("ben", "sports", "economy"),
        ("cid", "sports", "sports"),
        ("dee", "society", "economy"),
    ):
        desk.say(who, asked(bank), value)
        assert desk.category(bank) == category
    desk.say("own", asked(bank), "technology", gold=True)
    assert desk.category(bank) == "technology"
    desk.say("eve", asked(bank), "sports")
    assert desk.category(bank) == "technology"


def test_answers_of_who_fails_questions_with_known_answers_do_not_count() -> None:
    params = LabelParams(least_known=4, least_accuracy=0.7)
    known = [Answer(1, asked(n), "economy", gold=True) for n in range(1, 5)]
    wrong = [Answer(2, asked(n), "sports" if n < 3 else "economy") for n in range(1, 5)]
    own = [Answer(2, asked(9), "sports")]
    assert labels.tested(known + wrong + own, params) == {1: (0, 0), 2: (2, 4)}
    assert asked(9) not in labels.agreed_of(known + wrong + own, params)
    assert labels.agreed_of(known + wrong[:3] + own, params)[asked(9)] == "sports"  # too early to judge


def test_what_all_others_say_is_known_too() -> None:
    said = [Answer(who, asked(7), value) for who, value in ((1, "economy"), (2, "economy"), (3, "sports"))]
    assert labels.tested(said, PARAMS) == {1: (0, 0), 2: (0, 0), 3: (0, 1)}


def test_two_ids_of_one_person_have_one_answer(desk: Desk) -> None:
    [bank] = desk.store(BANK)
    desk.say("anonymous-1", asked(bank), "sports")
    desk.say("ann", asked(bank), "society", now=NOW + timedelta(seconds=1))
    with writing(desk.engine) as connection:
        keys = identities.user_keys(connection, ["anonymous-1", "ann"], None)
        identities.join(connection, keys["anonymous-1"], keys["ann"])
        assert [one.value for one in labels.answers(connection, "category")] == ["society"]
    desk.say("ann", asked(bank), "science", now=NOW + timedelta(seconds=2))
    with reading(desk.engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(database.label_answers)) == 1


def test_the_text_of_a_label_outlives_its_item_but_not_its_deletion(desk: Desk) -> None:
    bank, match = desk.store(BANK, MATCH)
    desk.say("ann", asked(bank), "society")
    desk.say("ann", asked(match), "society")
    with writing(desk.engine) as connection:
        catalog.withdraw(connection, ["0"], NOW)
        catalog.delete(connection, "1", NOW)
        kept = labels.texts(connection, [bank, match])
        assert labels.agreed(connection, "category") == {asked(bank): "society"}
    assert list(kept) == [bank]
    assert kept[bank] == labels.Text(BANK[:60], f"{BANK}, 0 say.", "en")


def test_pairs_are_joined_and_parted_at_once_and_remain_so(desk: Desk) -> None:
    one, two, bank, match = desk.store(STORM, STORM, BANK, MATCH)
    window = story_window.opened(desk.engine, StoryParams(), NOW)
    assert desk.stories() == {frozenset({one, two}), frozenset({bank}), frozenset({match})}
    desk.say("ann", labels.question("story", two, one), "different", now=NOW + timedelta(seconds=1))
    assert desk.stories() == {frozenset({one}), frozenset({two}), frozenset({bank}), frozenset({match})}
    desk.say("ann", labels.question("story", match, bank), "same", now=NOW + timedelta(seconds=2))
    parted = {frozenset({one}), frozenset({two}), frozenset({bank, match})}
    assert desk.stories() == parted
    window = story_window.followed(desk.engine, window, NOW + timedelta(seconds=5))
    assert desk.stories() == parted
    assert sum(row.leads or 0 for row in desk.rows().values()) == 1
    story_window.opened(desk.engine, StoryParams(), NOW + timedelta(seconds=9))
    assert desk.stories() == parted
    desk.say("ann", labels.question("story", match, bank), "", now=NOW + timedelta(seconds=10))
    story_window.followed(desk.engine, window, NOW + timedelta(seconds=12))
    assert frozenset({bank, match}) not in desk.stories()


def test_the_first_of_a_story_can_be_parted_from_the_others(desk: Desk) -> None:
    keys = desk.store(STORM, STORM, STORM)
    story_window.opened(desk.engine, StoryParams(), NOW)
    [leads] = [key for key, row in desk.rows().items() if row.leads]
    other = min(set(keys) - {leads})
    desk.say("ann", labels.question("story", leads, other), "different")
    assert desk.stories() == {frozenset({other}), frozenset(set(keys) - {other})}


def test_importance_is_kept_as_a_mark(desk: Desk) -> None:
    bank, match = desk.store(BANK, MATCH)
    desk.say("ann", asked(bank, "importance"), "2")
    desk.say("ann", asked(match, "importance"), "0.5")
    with reading(desk.engine) as connection:
        assert labels.marks(connection) == {bank: 2.0, match: 0.5}
        assert labels.marks(connection, [bank]) == {bank: 2.0}
    desk.say("ann", asked(bank, "importance"), "1")
    with reading(desk.engine) as connection:
        assert labels.marks(connection) == {match: 0.5}


def test_what_is_no_answer_is_refused(desk: Desk) -> None:
    [bank] = desk.store(BANK)
    with pytest.raises(InvalidInput, match="only society, economy"):
        desk.say("ann", asked(bank), "gossip")
    with pytest.raises(NotFound, match="no longer there"):
        desk.say("ann", asked(bank + 1000), "sports")
    for task, pair in (("story", (bank, 0)), ("story", (bank, bank)), ("category", (bank, bank + 1))):
        with pytest.raises(InvalidInput, match="two items"):
            labels.question(task, *pair)  # type: ignore[arg-type]
    with reading(desk.engine) as connection:
        assert labels.answers(connection, "category") == []


def test_a_forgotten_person_leaves_no_answers(desk: Desk) -> None:
    [bank] = desk.store(BANK)
    desk.say("ann", asked(bank), "society")
    with writing(desk.engine) as connection:
        people.delete(connection, "ann")
        assert connection.scalar(sa.select(sa.func.count()).select_from(database.label_answers)) == 0


def test_an_annotator_is_never_merged_into_somebody_else(desk: Desk) -> None:
    ann = desk.person("ann")
    with writing(desk.engine) as connection:
        helper = people.upsert_user(connection, "anonymous-9", {}, NOW)
        people.set_choices(connection, helper.key, people.Choices(annotator=True))
        assert people.merge(connection, "anonymous-9", ann) == ann
        assert not people.choices(connection, ann).annotator


def test_classes_without_a_model_take_what_is_said_and_nothing_else() -> None:
    assert labels._category(None, ("sports",)) == "sports"
    assert labels._category(None, CLASSES) is None
    likely = np.array([0.1, 0.2, 0, 0, 0, 0, 0, 0.7], np.float32)
    assert labels._category(likely, CLASSES[:-1]) == "economy"
