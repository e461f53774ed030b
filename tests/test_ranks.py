from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from feed_world import NOW, PLAIN, World, of_kinds

from palate import feed, identities, people
from palate.database import writing
from palate.domain import Item
from palate.errors import InvalidInput
from palate.ranking import scoring
from palate.ranks import Ranks

USERS = ("ann", "bob", "nobody yet")
IDS = [f"{kind}-{n}" for kind in ("tea", "rum") for n in range(6)]


@pytest.fixture
def world(engine: sa.Engine, data: Path) -> World:
    world = World(engine, data)
    world.add(*of_kinds(6, "tea", "rum"))
    return world


@pytest.fixture
def ranks(world: World) -> Iterator[Ranks]:
    ranks = Ranks(world.live)
    yield ranks
    ranks.close()


def agrees(world: World, ranks: Ranks, user: str, ids: list[str]) -> bool:
    """Whether both say the same; where only items are new to the short way, once they were looked up."""
    expected, version = feed.rank(world.live, user, ids, NOW, PLAIN)
    found = ranks.find(user, ids, NOW, PLAIN)
    if world.engine.dialect.name != "sqlite":
        return found is None
    assert found is not None
    return (list(zip(found.ids, found.scores, strict=True)), found.model) == (expected, version)


def happens(world: World, rng: np.random.Generator, number: int) -> None:
    """Something that may change somebody's order."""
    user, id = USERS[rng.integers(2)], IDS[rng.integers(len(IDS))]
    what = int(rng.integers(8))
    if what < 4:
        world.act(user, ("like", "dislike", "shown", "retract:like")[what], id)
    elif what == 4:
        with writing(world.engine) as connection:
            key = identities.user_keys(connection, [user], NOW)[user]
            people.set_choices(connection, key, people.Choices(topics=tuple(rng.choice(["tea", "rum"], 1).tolist())))
    elif what == 5:
        with writing(world.engine) as connection:
            key = identities.user_keys(connection, [user], NOW)[user]
            people.merge(connection, f"device {number}", key)
    elif what == 6:
        world.add(Item(id=f"new {number}", source="tea", labels=("tea",)))
    else:
        vectors = {id: rng.normal(size=3).tolist() for id in IDS}
        told = {"ann": (rng.normal(size=3).tolist(), 0.1, {"tea-0": 1.0})}
        world.publish(vectors, users=told, popularity={id: (float(rng.random()), 5.0) for id in IDS})


def test_whatever_happens_the_short_way_says_what_the_long_one_says(world: World, ranks: Ranks) -> None:
    rng = np.random.default_rng(5)
    for number in range(60):
        happens(world, rng, number)
        for user in USERS:
            asked = rng.permutation(IDS)[: rng.integers(1, len(IDS))].tolist()
            assert agrees(world, ranks, user, asked)


def test_a_taste_is_solved_again_only_when_something_about_the_person_changed(
    world: World, ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    if world.engine.dialect.name != "sqlite":
        pytest.skip("what is kept there is nothing")
    solved, judge = list[str](), scoring.judge

    def counted(*given: object) -> scoring.Judgement:
        solved.append("once more")
        return judge(*given)  # type: ignore[arg-type]

    world.act("ann", "like", "tea-0")
    feed.rank(world.live, "ann", IDS, NOW, PLAIN)
    monkeypatch.setattr(scoring, "judge", counted)
    for _ in range(3):
        assert ranks.find("ann", IDS, NOW, PLAIN) is not None
    world.act("bob", "like", "rum-1")
    world.live.refresh(NOW)
    ranks.find("ann", IDS, NOW, PLAIN)
    assert len(solved) == 1
    world.act("ann", "dislike", "rum-0")
    ranks.find("ann", IDS, NOW, PLAIN)
    assert len(solved) == 2


def test_what_needs_more_than_a_look_at_the_person_is_left_to_the_long_way(world: World, ranks: Ranks) -> None:
    world.add(Item(id="a", url="https://a.example"))
    assert ranks.find("ann", ["tea-0"], NOW, PLAIN) is None  # nobody has asked for it
    feed.rank(world.live, "ann", [*IDS, "never heard of"], NOW, PLAIN)
    world.act("ann", "like", "named by an event alone")
    feed.rank(world.live, "ann", ["named by an event alone"], NOW, PLAIN)
    for ids in ([], ["tea-0", "tea-0"], ["tea-0", "never heard of"], ["tea-0", "named by an event alone"]):
        assert ranks.find("ann", ids, NOW, PLAIN) is None


def test_a_user_id_that_cannot_be_one_is_refused(world: World, ranks: Ranks) -> None:
    if world.engine.dialect.name != "sqlite":
        pytest.skip("it is left to the long way")
    feed.rank(world.live, "ann", IDS, NOW, PLAIN)
    with pytest.raises(InvalidInput):
        ranks.find("x" * 300, IDS, NOW, PLAIN)
