"""Candidates by text, and items like one, where there are too many to look at all; kept here as if 300 were very many."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from feed_world import NOW, PLAIN, World, item

from palate import catalog, database, events, identities, ingest, live, snapshots, stock
from palate.candidates import similar
from palate.candidates.candidate_params import CandidateParams
from palate.candidates.wanted import Wanted
from palate.cycle import run_cycle
from palate.database import reading, writing
from palate.domain import Event, Item, RankedItem, to_milliseconds
from palate.examples import Params, TrainParams
from palate.live import Person
from palate.models import indexing, nearest, text_values
from palate.models.nearest import IndexParams
from palate.text import embedding

ITEMS, TOPICS = 300, 10
PUBLISH = snapshots.publish
RNG = np.random.default_rng(3)
MIDDLES = RNG.normal(0, 1, (TOPICS, embedding.LENGTH))
NAMES = [f"i{n}" for n in range(ITEMS)]
ONLY_TEXT = CandidateParams(**dict.fromkeys(set(CandidateParams.__struct_fields__) - {"probes"}, 0) | {"text": 12})
NEAR = msgspec.structs.replace(PLAIN, find=ONLY_TEXT, candidates=20, window_days=30.0, questions=0)
LATER = NOW + timedelta(minutes=2)
"""Longer after all else than serving looks back."""


def text_about(topic: int) -> np.ndarray:
    vector = MIDDLES[topic] + RNG.normal(0, 0.7, embedding.LENGTH)
    return np.asarray(vector / np.linalg.norm(vector), np.float16)


TEXTS = np.array([text_about(n % TOPICS) for n in range(ITEMS)])
TASTES = RNG.normal(0, 1, (ITEMS, 4))


def write_texts(world: World, texts: dict[str, np.ndarray], now: datetime | None = None) -> None:
    """As understanding writes them: the items change by it; None: so long ago that nobody looks."""
    with writing(world.engine) as connection:
        keys = identities.item_keys(connection, texts, None)
        rows = [
            {"item": keys[id], "version": embedding.VERSION, "vector": text.tobytes()} for id, text in texts.items()
        ]
        connection.execute(sa.insert(database.item_vectors), rows)
        if now is not None:
            changed = sa.update(database.items).where(database.items.c.id.in_(texts))
            connection.execute(changed.values(updated=to_milliseconds(now)))
    world.live.refresh(now or NOW)


@pytest.fixture(params=["ivf", "flat"])
def world(
    sqlite_engine: sa.Engine, data: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> World:
    """Items of ten topics, whose readers don't go by topics."""
    monkeypatch.setattr(stock, "SPLIT", 1)
    monkeypatch.setattr(live, "prepare", lambda items: stock.prepare(items, 1))
    monkeypatch.setattr(live, "changed", partial(stock.changed, split=1))
    params = IndexParams(kind=request.param, least=1, flat_below=1, lists=12)

    def with_indexes(folder: Path, header: dict[str, object], arrays: dict[str, np.ndarray]) -> str:
        texts = TEXTS[[int(id[1:]) for id in _ids(sqlite_engine, arrays["items"])]]
        arrays |= text_values.to_arrays(texts)
        return PUBLISH(folder, header, arrays | indexing.arrays({"fm": None}, arrays, params, texts))

    monkeypatch.setattr(snapshots, "publish", with_indexes)
    made = World(sqlite_engine, data)
    made.add(*(item(id, f"s{n % 7}", hours=1 + n / 10) for n, id in enumerate(NAMES)))
    write_texts(made, dict(zip(NAMES, TEXTS, strict=True)))
    popularity = {id: (0.5, float(n % 11)) for n, id in enumerate(NAMES)}
    made.publish({id: TASTES[n].tolist() for n, id in enumerate(NAMES)}, popularity=popularity)
    return made


def ids(places: Sequence[RankedItem]) -> list[str]:
    return [place.item.id for place in places]


def found_by_text(world: World, user: str, now: datetime = NOW) -> set[str]:
    served = world.serve(user, 100, NEAR, now=now, log=False).items
    return {place.item.id for place in served if "text" in place.found}


def topic_of(id: str) -> int:
    return int(id[1:]) % TOPICS


def test_what_is_near_in_text_to_what_was_liked_lately_is_found(world: World) -> None:
    assert found_by_text(world, "ann") == set()
    world.act("ann", "like", "i3", "i13", "i23")
    world.act("ann", "dislike", "i5")
    near = found_by_text(world, "ann")
    assert 4 <= len(near) <= 12  # the middle and the last two find some together
    assert {topic_of(id) for id in near} == {3}
    assert not near & {"i3", "i13", "i23"}  # what was met is no candidate
    world.act("ann", "like", "i8", now=LATER)
    assert {topic_of(id) for id in found_by_text(world, "ann", LATER)} == {3, 8}


def test_of_a_burst_of_new_items_those_that_fit_by_text_are_found(world: World) -> None:
    world.act("ann", "like", "i4", "i14")
    burst = [f"n{n}" for n in range(40)]
    world.add(*(item(id, "s1", hours=0.1) for id in burst), now=LATER)
    write_texts(world, {id: text_about(n % TOPICS) for n, id in enumerate(burst)}, LATER + timedelta(seconds=1))
    assert len(world.live.state.stock.side) == 40
    near = found_by_text(world, "ann", LATER + timedelta(seconds=2))
    assert {"n4", "n14", "n24", "n34"} <= near
    assert len([id for id in near if id.startswith("i")]) >= 4  # beside those that were there
    with writing(world.engine) as connection:
        catalog.delete(connection, "n14", LATER + timedelta(seconds=3))
    world.live.refresh(LATER + timedelta(seconds=3))
    assert found_by_text(world, "ann", LATER + timedelta(seconds=4)) & {"n4", "n14"} == {"n4"}


def test_without_an_index_of_texts_what_came_since_is_found_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "TEXT", "nothing")
    spaces = world.live.state.stock.spaces
    assert spaces is not None
    arrays = {name: np.array(array) for name, array in spaces.snapshot.arrays.items() if "index" not in name}
    header = {
        name: value for name, value in spaces.snapshot.header.items() if name not in ("arrays", "version", "format")
    }
    PUBLISH(world.data / "snapshots", header, arrays)
    world.add(item("news", "s1", hours=0.1), now=LATER)
    write_texts(world, {"news": text_about(6)}, LATER + timedelta(seconds=1))
    world.act("ann", "like", "i6")
    assert found_by_text(world, "ann", LATER + timedelta(seconds=2)) == {"news"}


def test_a_text_that_comes_late_is_taken_up_and_one_of_another_snapshot_dropped(world: World) -> None:
    world.add(item("late", "s1", hours=0.1), now=LATER)
    (late,) = world.keys("late")
    spaces = world.live.state.stock.spaces
    assert spaces is not None
    assert not spaces.texts(np.array([late])).any()  # type: ignore[union-attr]
    text = text_about(2)
    write_texts(world, {"late": text}, LATER + timedelta(seconds=1))
    spaces = world.live.state.stock.spaces
    assert spaces is not None
    own = spaces.texts(np.array([late, world.keys("i2")[0]]))
    assert own is not None
    assert own[0] @ own[1] > 0.6
    assert np.allclose(np.linalg.norm(own, axis=1), 1, atol=1e-3)
    assert spaces.young_texts.shape == (1, text_values.INDEXED)
    world.publish({id: TASTES[n].tolist() for n, id in enumerate(NAMES)})
    after = world.live.state.stock.spaces
    assert after is not None
    assert after.snapshot is not spaces.snapshot
    assert after.new.keys.tolist() == [late]  # this one doesn't know it either


def like(world: World, id: str, few: int, monkeypatch: pytest.MonkeyPatch, **wanted: object) -> list[tuple[str, float]]:
    monkeypatch.setattr(similar, "FEW", few)
    asked = Wanted(Person(), LATER, timedelta(days=99), **wanted)  # type: ignore[arg-type]
    with reading(world.engine) as connection:
        near = similar.find(connection, world.live, world.keys(id)[0], asked, 8)
        names = identities.item_ids(connection, near.keys.tolist())
    return [(names[key], round(float(score), 4)) for key, score in zip(near.keys.tolist(), near.scores, strict=True)]


def test_of_many_items_those_like_one_are_found_as_if_all_were_compared(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "NEAR", 40)
    monkeypatch.setattr(similar, "PROBES", 6)
    monkeypatch.setattr(similar, "TEXT_PROBES", 6)
    monkeypatch.setattr(similar, "COMPARED", 25)
    world.add(item("young", "s1", hours=0.1), now=LATER)
    write_texts(world, {"young": text_about(7)}, LATER + timedelta(seconds=1))
    shared = 0
    for id in [*NAMES[:20], "young"]:
        every, near = (like(world, id, few, monkeypatch) for few in (10**6, 1))
        assert near[0] == every[0]
        shared += len(set(every) & set(near))
    assert shared >= 21 * 8 * 0.95
    assert {topic_of(id) for id, _ in like(world, "young", 1, monkeypatch)} == {7}
    assert "young" in {id for n in range(7, 77, TOPICS) for id, _ in like(world, f"i{n}", 1, monkeypatch)}


def test_what_isnt_wanted_takes_no_place_among_the_items_like_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "NEAR", 3)
    of_topic = [n for n in range(ITEMS) if n % TOPICS == 0][1:]
    nearest = sorted(of_topic, key=lambda n: -float(TEXTS[n] @ TEXTS[0]))[:20]
    out = np.array(world.keys(*(f"i{n}" for n in nearest)))
    near = [id for id, _ in like(world, "i0", 1, monkeypatch, excluded=out)]
    assert near
    assert not set(near) & {f"i{n}" for n in nearest}
    assert any(topic_of(id) == 0 for id in near)  # those after them


def about(name: str, words: str, count: int) -> list[Item]:
    return [Item(id=f"{name}-{n}", title=f"{words} {n}", text=words, published=NOW) for n in range(count)]


def test_a_snapshot_holds_where_its_texts_stand_and_full_cycles_find_directions_anew(
    sqlite_engine: sa.Engine, data: Path
) -> None:
    params = Params(index=IndexParams(least=1), train=TrainParams(min_held_out=10_000))
    ingest.store_items(sqlite_engine, about("cat", "kitten purrs", 15) + about("car", "engine roars", 15), NOW)
    votes = [Event(user=f"u{n}", item=f"{kind}-{n}", type="like") for n in range(15) for kind in ("cat", "car")]
    with writing(sqlite_engine) as connection:
        events.append(connection, votes, NOW)
    run_cycle(sqlite_engine, data, params, NOW)
    first = snapshots.load(data / "snapshots").arrays
    names = [id.startswith("cat") for id in _ids(sqlite_engine, first["items"])]
    likeness = first["text_values"].astype(float) @ first["text_values"].T
    of_one_kind = np.equal.outer(names, names)
    assert likeness[of_one_kind].min() > likeness[~of_one_kind].max()
    assert len(nearest.read(first["index_text"], first["turn_text"])) == 30
    ingest.store_items(sqlite_engine, about("sea", "waves foam", 15), NOW)
    with writing(sqlite_engine) as connection:
        events.append(connection, [Event(user="u1", item="sea-1", type="like")], NOW)
    directions = []
    for kind in ("incremental", "full"):
        run_cycle(sqlite_engine, data, params, LATER, kind=kind)
        directions.append(np.array(snapshots.load(data / "snapshots").arrays["text_directions"]))
    assert np.array_equal(directions[0], first["text_directions"])
    assert not np.array_equal(directions[1], first["text_directions"])


def _ids(engine: sa.Engine, keys: np.ndarray) -> list[str]:
    with reading(engine) as connection:
        names = identities.item_ids(connection, keys.tolist())
    return [names[key] for key in keys.tolist()]
