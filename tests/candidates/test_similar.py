"""Items like one, on lopsided data whose answer is known."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from feed_world import NOW, World, item

from palate import database, identities
from palate.candidates import similar
from palate.candidates.wanted import Wanted
from palate.database import reading, writing
from palate.live import Person
from palate.text import embedding


@pytest.fixture
def world(sqlite_engine: sa.Engine, data: Path) -> World:
    return World(sqlite_engine, data)


def write_texts(world: World, directions: dict[str, list[float]]) -> None:
    """A text's vector for each item, in these first directions."""
    with writing(world.engine) as connection:
        keys = identities.item_keys(connection, directions, None)
        for id, first in directions.items():
            vector = np.zeros(embedding.LENGTH, np.float16)
            vector[: len(first)] = first
            row = {"item": keys[id], "version": embedding.VERSION, "vector": vector.tobytes()}
            connection.execute(sa.insert(database.item_vectors).values(row))


def found(world: World, id: str, limit: int = 10, without: str | None = None) -> list[tuple[str, float, float, float]]:
    excluded = np.array([] if without is None else world.keys(without), np.int64)
    wanted = Wanted(Person(), NOW, timedelta(days=99), excluded=excluded)
    with reading(world.engine) as connection:
        near = similar.find(connection, world.live, world.keys(id)[0], wanted, limit)
        ids = identities.item_ids(connection, near.keys.tolist())
    rows = zip(near.keys.tolist(), near.scores, near.behaviour, near.support, strict=True)
    return [(ids[key], round(float(score), 3), round(float(b), 3), float(s)) for key, score, b, s in rows]


def test_what_many_saw_is_judged_by_behaviour_and_what_few_saw_by_text(world: World) -> None:
    world.add(item("asked"), item("same taste"), item("same words"), item("nobody saw"), item("opposite"), item("rare"))
    write_texts(
        world,
        {"asked": [1, 0], "same words": [0.6, 0.8], "nobody saw": [0.8, 0.6], "same taste": [0, 1], "rare": [1, 0]},
    )
    world.publish(
        {"asked": [2, 0], "same taste": [5, 0], "same words": [0, 3], "opposite": [-1, 0], "rare": [0, 1]},
        popularity={
            "asked": (0.5, 20),
            "same taste": (0.5, 45),
            "same words": (0.5, 95),
            "opposite": (0.5, 30),
            "rare": (0.5, 1),
        },
    )
    assert found(world, "asked") == [
        ("rare", 0.833, 0.0, 1.0),  # w = 1/6: five sixths by text (1), one sixth by behaviour (0)
        ("same taste", 0.8, 1.0, 20.0),  # w = 20/25, by behaviour alone; the other's 45 examples don't count
        ("nobody saw", 0.8, pytest.approx(np.nan, nan_ok=True), 0.0),  # by text alone
        ("same words", 0.12, 0.0, 20.0),  # a fifth of the text's 0.6
    ]
    assert [id for id, *_ in found(world, "asked", limit=1)] == ["rare"]
    assert "rare" not in [id for id, *_ in found(world, "asked", without="rare")]
    assert [id for id, *_ in found(world, "nobody saw", limit=2)] == ["same words", "rare"]


def test_before_the_first_model_text_alone_decides_and_of_nothing_known_nothing_is_said(world: World) -> None:
    world.add(item("a"), item("b"), item("c"), item("silent"))
    write_texts(world, {"a": [1, 0], "b": [1, 1], "c": [0, 1]})
    assert [id for id, *_ in found(world, "a")] == ["b"]
    assert found(world, "silent") == []


def test_of_many_items_those_that_share_story_or_label_are_compared(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "FEW", 3)
    world.add(item("asked", None, "x", hours=90), item("labelled", None, "x", hours=80), item("told", hours=85))
    world.add(*(item(f"new {n}", hours=n + 1) for n in range(6)))
    world.tell("asked told")
    ids = ["asked", "labelled", "told", *(f"new {n}" for n in range(6))]
    write_texts(world, {id: [1.0, n / 10] for n, id in enumerate(ids)})
    assert {id for id, *_ in found(world, "asked")} == {"told", "labelled", "new 0"}


def test_people_of_one_taste_are_near(world: World) -> None:
    world.add(item("a"), item("b"))
    people: dict[str, tuple[list[float], float, dict[str, float]]] = {
        "ann": ([3, 0], 0.0, {}),
        "bob": ([1, 0.5], 0.0, {}),
        "eve": ([-1, 0], 0.0, {}),
        "joe": ([0.1, 0.0], 0.0, {}),
    }
    world.publish({"a": [1, 0], "b": [0, 1]}, users=people)
    with reading(world.engine) as connection:
        near = similar.users(connection, world.live, "ann", 5)
        assert similar.users(connection, world.live, "stranger", 5) == []
    assert [(id, round(score, 3)) for id, score in near] == [("joe", 1.0), ("bob", 0.894)]
