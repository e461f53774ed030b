"""Every model of the table from events to a feed: learned, published, served, continued, forgotten."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest
from feed_world import NOW, World, item

from palate import database, feed, snapshots
from palate.database import reading
from palate.delivery import forgetting
from palate.examples import SECTIONS, Kind
from palate.feed_params import FeedParams
from palate.live import Live
from palate.models import stored
from palate.models.blend import BlendParams
from palate.models.implicit_als import ImplicitALSParams
from palate.models.registry import MODELS, Name
from palate.models.svd import SvdParams
from palate.ranking import by_model
from palate.ranks import Ranks
from palate.train import Cycle, Params, TrainParams, find_due, run_cycle

PLAIN = FeedParams(exploration=0, questions=0, source_spread=0, label_spread=0, freshness=0)
"""The model's order, untouched."""
PERSONAL = [name for name in get_args(Name) if name != "popularity"]
ALS = ImplicitALSParams(factors=2, epochs=8, threads=1)
KINDS = ("tea", "rum")
LATER = NOW + timedelta(minutes=5)


def params(*models: Name) -> Params:
    """To learn these and serve the last."""
    return Params(
        train=TrainParams(models=models),
        served=models[-1],
        implicit_als=ALS,
        svd=SvdParams(factors=2),
        blend=BlendParams(members=("itemknn", "ials"), settings={"ials": msgspec.to_builtins(ALS)}),
    )


class Tavern(World):
    """Two tastes that nothing but the events tells apart: even people like tea, odd ones rum, and each says so of some."""

    def __init__(self, data: Path, model: Name) -> None:
        engine = database.connect(None, data)
        database.migrate(engine)
        super().__init__(engine, data, Live(engine, data, model=model))
        self.model = model
        self.add(*(item(f"{kind}-{n}", f"s{n % 3}") for n in range(16) for kind in KINDS))
        for person in range(24):
            own, other = KINDS[person % 2], KINDS[1 - person % 2]
            chosen = self.rng.permutation(16)[:9]
            self.act(f"u{person}", "like", *(f"{own}-{n}" for n in chosen))
            self.act(f"u{person}", "dislike", *(f"{other}-{n}" for n in chosen[:5]))

    def train(self, kind: Kind = "full") -> Cycle:
        cycle = run_cycle(self.engine, self.data, params(self.model), NOW, kind=kind)
        self.live.refresh(NOW)
        return cycle

    def kinds(self, user: str, limit: int = 4, **asked: object) -> list[str]:
        return [id.split("-")[0] for id in self.ids(user, limit, params=PLAIN, log=False, **asked)]

    def scores(self, user: str, *ids: str) -> dict[str, float]:
        return dict(feed.rank(self.live, user, ids, NOW, PLAIN)[0])


@pytest.fixture(scope="module", params=PERSONAL)
def tavern(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tavern:
    tavern = Tavern(tmp_path_factory.mktemp("tavern") / "data", request.param)
    tavern.train()
    return tavern


@pytest.fixture
def fresh(tavern: Tavern, tmp_path: Path) -> Tavern:
    return Tavern(tmp_path / "data", tavern.model)


def test_the_table_has_an_entry_for_every_name() -> None:
    assert set(MODELS) == set(get_args(Name)) == set(SECTIONS)


def test_people_get_their_taste_by_the_model_of_the_settings(tavern: Tavern) -> None:
    assert tavern.live.pool.model.name == tavern.model
    assert tavern.kinds("u0") == ["tea"] * 4
    assert tavern.kinds("u1") == ["rum"] * 4
    best = tavern.ids("u1", 1, params=PLAIN, log=False)[0]
    ranked, version = feed.rank(tavern.live, "u1", ["tea-0", "nobody knows", best], NOW, PLAIN)
    assert ranked[0][0] == best
    assert all(0 < score < 1 for _, score in ranked)
    assert version == tavern.live.pool.model.version


def test_the_short_way_to_rank_says_what_the_long_one_says(tavern: Tavern) -> None:
    ids, ranks = [f"{kind}-{n}" for kind in ("tea", "rum") for n in range(3)], Ranks(tavern.live)
    for user in ("u0", "u1", "nobody"):
        expected, version = feed.rank(tavern.live, user, ids, NOW, PLAIN)
        found = ranks.find(user, ids, NOW, PLAIN)
        assert found is None or list(zip(found.ids, found.scores, strict=True)) == expected
        assert (found is not None) == (tavern.engine.dialect.name == "sqlite")
        assert found is None or found.model == version
    ranks.close()


def test_scores_are_those_that_evaluation_measures(tavern: Tavern) -> None:
    """Beside what the person's own votes say of sources, which is the same for all items of this one."""
    snapshot, ranker = tavern.live.snapshot, tavern.live.pool.model.ranker
    if ranker is None:
        return
    assert snapshot is not None
    with reading(tavern.engine) as connection:
        person = tavern.live.person(connection, "u1", snapshot)
    answer = by_model.ask(tavern.live.pool, person)
    assert answer is not None
    assert answer.items is not None
    measured = MODELS[tavern.model].score_all(stored.load(snapshot, tavern.model), answer.known)[0]
    assert np.argsort(measured, kind="stable").tolist() == np.argsort(answer.items, kind="stable").tolist()
    shown = by_model.likely(answer, tavern.live.pool)
    said = 1 / (1 + np.exp(-answer.items[tavern.live.pool.row]))
    assert np.abs(shown - said).max() <= by_model.TIES  # what popularity adds between equals
    low, high = answer.items.min(), answer.items.max()
    assert low < answer.others[0] < high  # where an item stands of which nothing is known


def test_reasons_name_an_item_that_was_liked_and_is_alike(tavern: Tavern) -> None:
    for user, kind in (("u0", "tea"), ("u1", "rum")):
        served = tavern.serve(user, 3, params=PLAIN, log=False).items
        named = [reason.subject for place in served for reason in place.reasons if reason.kind == "liked"]
        assert named
        assert {subject.split("-")[0] for subject in named if subject} == {kind}


def test_somebody_nobody_knows_gets_what_is_popular(tavern: Tavern) -> None:
    pool = tavern.live.pool
    ids = {key: id for id, key in zip(names(tavern), tavern.keys(*names(tavern)), strict=True)}
    scores = tavern.scores("stranger", *names(tavern))
    assert [scores[ids[key]] for key in pool.keys.tolist()] == pytest.approx(pool.popularity.tolist(), abs=1e-6)
    assert scores[tavern.ids("stranger", 1, params=PLAIN, log=False)[0]] == max(scores.values())


def test_an_item_that_came_after_the_training_is_served(fresh: Tavern) -> None:
    fresh.train()
    fresh.add(item("tea-new", "s1"), now=LATER)
    assert "tea-new" in fresh.ids("u0", 50, params=PLAIN, log=False)
    assert 0 < fresh.scores("u0", "tea-new")["tea-new"] < 1


def test_a_like_moves_the_very_next_call(fresh: Tavern) -> None:
    fresh.train()
    fresh.act("ann", "like", "rum-0", "rum-1")
    fresh.act("ann", "dislike", "tea-0")
    assert fresh.kinds("ann").count("rum") >= 3
    fresh.act("bob", "like", "tea-0", "tea-1")
    fresh.act("bob", "dislike", "rum-0")
    assert fresh.kinds("bob").count("tea") >= 3


def test_an_incremental_cycle_takes_up_new_people_and_new_items(fresh: Tavern) -> None:
    fresh.train()
    fresh.add(item("rum-new", "s1"), now=LATER)
    for person in range(30, 40):
        own = KINDS[person % 2]
        fresh.act(f"u{person}", "like", *(f"{own}-{n}" for n in range(8)), now=LATER)
        fresh.act(f"u{person}", "like" if own == "rum" else "dislike", "rum-new", now=LATER)
    for person in range(24):
        fresh.act(f"u{person}", "like", f"{KINDS[person % 2]}-{person % 16}", now=LATER)
    cycle = fresh.train("incremental")
    assert not cycle.full
    assert cycle.examples == 90 + 24
    snapshot = fresh.live.snapshot
    assert snapshot is not None
    assert fresh.keys("rum-new")[0] in snapshot.arrays["items"]
    mine, theirs = (fresh.scores(user, "rum-new")["rum-new"] for user in ("u1", "u0"))
    assert mine > theirs
    assert fresh.kinds("u31") == ["rum"] * 4


def test_between_cycles_new_items_get_vectors_while_people_stay(fresh: Tavern) -> None:
    first = fresh.train()
    fresh.add(item("rum-new", "s1"), now=LATER)
    for person in range(12):
        fresh.act(f"u{person}", "like" if person % 2 else "dislike", "rum-new", now=LATER)
    few = msgspec.structs.replace(params(fresh.model), train=TrainParams(models=(fresh.model,), new_item_events=12))
    due = find_due(fresh.engine, fresh.data, few, LATER)
    assert (None if due is None else due.kind) == ("items" if fresh.model in ("fm", "ials") else None)
    before = fresh.live.snapshot
    cycle = fresh.train("items")
    after = fresh.live.snapshot
    assert before is not None
    assert after is not None
    assert (cycle.kind, cycle.seq, after.header["learned"]) == ("items", first.seq + 12, first.seq)
    assert after.header["quality"][fresh.model].keys() == before.header["quality"][fresh.model].keys()
    for name in ("user_vectors", "user_bias", "ials_user_vectors"):
        if name in after.arrays:
            assert after.arrays[name].tolist() == before.arrays[name].tolist()
    liked, disliked = (fresh.scores(user, "rum-new")["rum-new"] for user in ("u21", "u20"))
    assert liked > disliked + 0.05
    assert find_due(fresh.engine, fresh.data, few, LATER) is None
    assert fresh.train("incremental").examples == 12


def test_events_about_an_item_that_waited_in_the_catalog_start_a_cycle_of_items_too(fresh: Tavern) -> None:
    fresh.add(item("rum-waiting", "s1"))
    fresh.train()
    for person in range(12):
        fresh.act(f"u{person}", "like", "rum-waiting", now=LATER)
    few = msgspec.structs.replace(params(fresh.model), train=TrainParams(models=(fresh.model,), new_item_events=12))
    due = find_due(fresh.engine, fresh.data, few, LATER)
    assert (None if due is None else due.kind) == ("items" if fresh.model in ("fm", "ials") else None)


def test_who_is_forgotten_is_in_no_part_of_any_model(fresh: Tavern) -> None:
    fresh.train()
    before = fresh.live.snapshot
    assert before is not None
    forgetting.delete_person(fresh.engine, fresh.data, "u0")
    fresh.live.refresh(NOW)
    after = fresh.live.snapshot
    assert after is not None
    shorter = {name for name in after.arrays if len(after.arrays[name]) == len(before.arrays[name]) - 1}
    assert {name for name in after.arrays if "user" in name} <= shorter
    assert len(after.arrays["history_weights"]) == len(before.arrays["history_weights"]) - 14
    with reading(fresh.engine) as connection:
        assert len(fresh.live.person(connection, "u0", after).history) == 0
    assert not fresh.train("incremental").full


def test_until_the_model_of_the_settings_is_learned_another_stands_in(fresh: Tavern) -> None:
    run_cycle(fresh.engine, fresh.data, params("popularity"), NOW)
    fresh.live.refresh(NOW)
    assert fresh.live.pool.model.name == "popularity"
    assert len(fresh.kinds("u0")) == 4
    run_cycle(fresh.engine, fresh.data, params("fm"), NOW)
    fresh.live.refresh(NOW)
    assert fresh.live.pool.model.name == "fm"
    assert fresh.kinds("u0") == ["tea"] * 4
    cycle = run_cycle(fresh.engine, fresh.data, params("fm", fresh.model), NOW, kind="incremental")
    fresh.live.refresh(NOW)
    assert not cycle.full
    assert fresh.live.pool.model.name == fresh.model
    assert fresh.kinds("u1") == ["rum"] * 4


def test_a_model_that_is_worse_than_popularity_or_broken_is_not_served(fresh: Tavern) -> None:
    fresh.train()
    good = fresh.live.snapshot
    assert good is not None
    quality = {fresh.model: good.header["quality"][fresh.model] | {"worse": True}}
    snapshots.publish(fresh.data / "snapshots", good.header | {"quality": quality}, good.arrays)
    fresh.live.refresh(NOW)
    assert fresh.live.pool.model.name == "popularity"
    assert len(fresh.kinds("u0")) == 4
    models = {name: {} if name == fresh.model else header for name, header in good.header["models"].items()}
    snapshots.publish(fresh.data / "snapshots", good.header | {"models": models}, good.arrays)
    fresh.live.refresh(NOW)
    assert fresh.live.pool.model.name == "popularity"


def test_the_same_log_and_seed_give_the_same_bytes(fresh: Tavern) -> None:
    made = []
    for _ in range(2):
        fresh.train()
        assert fresh.live.snapshot is not None
        made.append({name: array.tobytes() for name, array in fresh.live.snapshot.arrays.items()})
    assert made[0] == made[1]


@pytest.mark.parametrize("model", [name for name in get_args(Name) if name != "fm"])
def test_where_nobody_votes_people_are_served_by_what_they_opened(model: Name, tmp_path: Path) -> None:
    world = World(database.connect(None, tmp_path), tmp_path, None)
    database.migrate(world.engine)
    world.live = Live(world.engine, tmp_path, model=model)
    world.add(*(item(f"{kind}-{n}", "s1") for n in range(16) for kind in KINDS))
    for person in range(24):
        own = KINDS[person % 2]
        world.act(f"u{person}", "opened", *(f"{own}-{n}" for n in world.rng.permutation(15)[:9]), f"{KINDS[0]}-15")
    assert run_cycle(world.engine, tmp_path, params("fm", model), NOW).version is not None
    world.live.refresh(NOW)
    assert world.live.pool.model.name == model
    assert world.ids("stranger", 1, params=PLAIN, log=False) == ["tea-15"]
    if model != "popularity":
        served = world.serve("u1", 4, params=PLAIN, log=False).items
        assert [place.item.id.split("-")[0] for place in served] == ["rum"] * 4
        assert any(reason.text.startswith("Because «") for reason in served[0].reasons)


def names(tavern: Tavern) -> list[str]:
    return [f"{kind}-{n}" for n in range(16) for kind in KINDS]


def test_a_model_of_an_experiment_is_served_beside_that_of_the_settings(tmp_path: Path) -> None:
    tavern = Tavern(tmp_path / "data", "fm")
    run_cycle(tavern.engine, tavern.data, params("itemknn", "fm"), NOW)
    tavern.live.serve_also(["itemknn"])
    tavern.live.refresh(NOW)
    assert tavern.live.state.by("itemknn").pool.model.name == "itemknn"
    tried = FeedParams(exploration=0, model="itemknn")
    ids = ["tea-0", "rum-0", "tea-1"]
    by_both = [dict(feed.rank(tavern.live, "u0", ids, NOW, one)[0]) for one in (PLAIN, tried)]
    assert by_both[0] != by_both[1]
    [first] = tavern.serve("u0", 1, params=tried, log=False).items
    assert first.score == pytest.approx(
        dict(feed.rank(tavern.live, "u0", [first.item.id], NOW, tried)[0])[first.item.id]
    )
    state = tavern.live.state
    tavern.live.refresh(NOW)
    assert tavern.live.state.others is state.others  # what stays as it was is shared
    tavern.live.serve_also([])
    tavern.live.refresh(NOW)
    assert tavern.live.state.by("itemknn").pool.model.name == "fm"
