from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from palate.rules import NEVER, OPEN, Rulebook, RuleParams, rule_of, viewer

NOW = datetime(2024, 11, 22, 12, tzinfo=UTC)


def sees(item: list[str], person: dict[str, object], now: datetime = NOW, **params: object) -> bool:
    book = Rulebook()
    number = book.number(item)
    return bool(book.allows(viewer(person, RuleParams(**params)), now)[number])  # type: ignore[arg-type]


def test_other_labels_are_no_rules() -> None:
    assert rule_of(["drama", "aged", "regional:de", "rights"]) is OPEN
    assert sees(["drama"], {})


@pytest.mark.parametrize(
    ("label", "hours", "open_"),
    [
        ("rights-from:2024-11-22", -12, True),
        ("rights-from:2024-11-22", -13, False),
        ("rights-until:2024-11-22", 11, True),
        ("rights-until:2024-11-22", 12, False),
        ("rights-until:2024-11-22T15:00:00+02:00", 0, True),
        ("rights-until:2024-11-22T15:00:00+02:00", 1, False),
        ("rights:none", 0, False),
        ("rights-until:Christmas", 0, False),
        ("rights-from:soon", 0, False),
    ],
)
def test_rights_hold_between_their_dates(label: str, hours: int, open_: bool) -> None:
    assert sees(["drama", label], {}, NOW + timedelta(hours=hours)) is open_


@pytest.mark.parametrize(
    ("age", "open_"), [(15, False), (16, True), ("16", True), (15.9, False), (True, False), ("x", False)]
)
def test_an_age_must_be_reached(age: object, open_: bool) -> None:
    assert sees(["age:16"], {"age": age}) is open_


def test_who_tells_no_age_has_the_assumed_one() -> None:
    assert not sees(["age:6"], {})
    assert sees(["age:6"], {}, assumed_age=18)
    assert not sees(["age:grown-up"], {"age": 99})


def test_one_of_the_regions_must_be_the_persons() -> None:
    item = ["region:de", "region:AT"]
    assert sees(item, {"region": "at"})
    assert sees(item, {"region": ["fr", "DE"]})
    assert not sees(item, {"region": "fr"})
    assert not sees(item, {})
    assert sees(item, {}, assumed_region="de")


def test_what_isnt_obeyed_shuts_nobody_out() -> None:
    assert sees(["age:18", "rights:none", "region:de"], {}, obey=())
    assert not sees(["age:18", "region:de"], {"age": 3}, obey=("age",))


def test_of_rules_that_differ_the_stricter_holds() -> None:
    found = rule_of(["age:12", "age:16", "rights-until:2024-01-01", "rights-until:2025-01-01"])
    assert found.age == 16
    assert found.closes == rule_of(["rights-until:2024-01-01"]).closes < NEVER


def test_old_numbers_stay_true_while_the_book_grows() -> None:
    book = Rulebook()
    first = book.number(["age:16"])
    young = viewer({"age": 10}, RuleParams())
    assert book.allows(young, NOW).tolist() == [True, False]
    assert book.number(["age:6"]) == 2
    assert book.number(["age:16", "drama"]) == first
    assert np.flatnonzero(book.allows(young, NOW)).tolist() == [0, 2]
