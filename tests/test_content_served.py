"""New items are served by what they are about, before anybody has seen them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from palate import events, feed, identities, ingest, snapshots, understandings
from palate.cycle import run_cycle
from palate.database import reading, writing
from palate.domain import Event, Item
from palate.examples import Params, TrainParams
from palate.feed_params import FeedParams
from palate.live import Live
from palate.models.blend import BlendParams
from palate.models.implicit_als import ImplicitALSParams
from palate.models.registry import Name

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CATS = (
    "kitten purrs on the sofa",
    "cat food and whiskers",
    "tomcat climbs a tree",
    "the cat naps",
    "whiskers of a kitten",
)
CARS = (
    "engine of a fast car",
    "brakes and tyres",
    "electric car charging",
    "the motor roars",
    "tyres for winter roads",
)
PARAMS = Params(train=TrainParams(min_held_out=10_000))
ALS = ImplicitALSParams(factors=4, threads=1)
MODELS: tuple[Name, ...] = ("fm", "ials", "itemknn", "ease", "svd", "blend")


def about(kind: tuple[str, ...], number: int, name: str) -> Item:
    """Two sentences of the kind, which share no source and no label with others."""
    text = f"{kind[number % 5]}. {kind[(number // 5 + 1) % 5]}."
    return Item(id=f"{name}-{number}", title=kind[(number + 2) % 5], text=text, published=NOW)


def learned(engine: sa.Engine, data: Path, params: Params = PARAMS) -> None:
    """40 people of whom half like cats and half cars, and a snapshot of it."""
    items = [about(kind, number, name) for name, kind in (("cat", CATS), ("car", CARS)) for number in range(20)]
    ingest.store_items(engine, items, NOW)
    rng = np.random.default_rng(1)
    votes = [
        Event(
            user=f"u{person}", item=one.id, type="like" if one.id.startswith(("cat", "car")[person % 2]) else "dislike"
        )
        for person in range(40)
        for one in rng.choice(np.array(items, object), 12, replace=False)
    ]
    with writing(engine) as connection:
        events.append(connection, votes, NOW)
    run_cycle(engine, data, params, NOW)


def scores(engine: sa.Engine, data: Path, user: str, *items: str, model: Name = "fm") -> list[float]:
    live = Live(engine, data, model=model)
    live.refresh(NOW)
    found, _ = feed.rank(live, user, list(items), NOW, FeedParams())
    by_id = dict(found)
    return [by_id[id] for id in items]


def test_an_item_that_came_after_the_training_finds_its_readers_by_its_text(engine: sa.Engine, data: Path) -> None:
    learned(engine, data)
    ingest.store_items(engine, [about(CATS, 23, "new-cat"), about(CARS, 23, "new-car")], NOW + timedelta(minutes=1))
    cat, car = scores(engine, data, "u0", "new-cat-23", "new-car-23")
    assert cat > car + 0.1
    cat, car = scores(engine, data, "u1", "new-cat-23", "new-car-23")
    assert car > cat + 0.1


def params_of(model: Name) -> Params:
    members = BlendParams(members=("itemknn", "ials"), settings={"ials": msgspec.to_builtins(ALS)})
    train = msgspec.structs.replace(PARAMS.train, models=(model,))
    return msgspec.structs.replace(PARAMS, train=train, served=model, implicit_als=ALS, blend=members)


def without_texts(engine: sa.Engine) -> None:
    """Forget what the texts say."""
    with writing(engine) as connection:
        understandings.drop(connection, range(1, 1_000), NOW)


@pytest.mark.parametrize("model", MODELS)
def test_whatever_model_serves_a_new_item_is_high_for_whom_it_is_and_low_for_others(
    engine: sa.Engine, data: Path, model: Name
) -> None:
    ingest.store_items(engine, [about(CATS, 24, "waiting-cat"), about(CARS, 24, "waiting-car")], NOW)
    learned(engine, data, params_of(model))
    ingest.store_items(engine, [about(CATS, 23, "new-cat"), about(CARS, 23, "new-car")], NOW + timedelta(minutes=1))
    names = ("new-cat-23", "new-car-23", "waiting-cat-24", "waiting-car-24")
    for user, order in (("u0", 1), ("u1", -1)):
        known = scores(
            engine, data, user, *(f"{kind}-{number}" for kind in ("cat", "car") for number in range(20)), model=model
        )
        cat, car, waiting_cat, waiting_car = scores(engine, data, user, *names, model=model)
        assert order * (cat - car) > 0.02
        assert order * (waiting_cat - waiting_car) > 0.02
        assert np.quantile(known, 0.2) < max(cat, car)  # among the others, not behind them all


@pytest.mark.parametrize("model", MODELS)
def test_what_the_text_says_is_what_tells_them_apart(engine: sa.Engine, data: Path, model: Name) -> None:
    learned(engine, data, params_of(model))
    ingest.store_items(engine, [about(CATS, 23, "new-cat"), about(CARS, 23, "new-car")], NOW + timedelta(minutes=1))
    without_texts(engine)
    for user in ("u0", "u1"):
        cat, car = scores(engine, data, user, "new-cat-23", "new-car-23", model=model)
        assert cat == pytest.approx(car, abs=1e-3)


@pytest.mark.parametrize("model", ["ials", "itemknn", "ease", "svd"])
def test_the_reason_for_a_new_item_is_what_was_liked_and_is_alike(engine: sa.Engine, data: Path, model: Name) -> None:
    learned(engine, data, params_of(model))
    ingest.store_items(engine, [about(CATS, 23, "new-cat"), about(CARS, 23, "new-car")], NOW + timedelta(minutes=1))
    live = Live(engine, data, model=model)
    live.refresh(NOW)
    with reading(engine) as connection:
        keys = identities.item_keys(connection, ["new-cat-23", "new-car-23"], None)
    for user, kind in (("u0", "cat"), ("u1", "car")):
        key = keys[f"new-{kind}-23"]
        found = feed.explained(live, user, [key], NOW, FeedParams())[key].reasons
        named = [reason.subject for reason in found if reason.kind == "liked" and reason.subject]
        assert named
        assert named[0].startswith(kind)


def test_items_without_events_have_their_place_in_the_snapshot(engine: sa.Engine, data: Path) -> None:
    learned(engine, data)
    ingest.store_items(engine, [about(CATS, 24, "new-cat"), about(CARS, 24, "new-car")], NOW)
    cat_fan, car_fan = (scores(engine, data, user, "new-cat-24") for user in ("u0", "u1"))
    with writing(engine) as connection:
        events.append(connection, [Event(user="u9", item="cat-3", type="dislike")], NOW)
    run_cycle(engine, data, PARAMS, NOW, kind="incremental")
    snapshot = snapshots.load_newest_good(data / "snapshots")
    assert snapshot is not None
    assert len(snapshot.arrays["items"]) == 42
    assert scores(engine, data, "u0", "new-cat-24")[0] > scores(engine, data, "u1", "new-cat-24")[0] + 0.2
    assert cat_fan[0] > car_fan[0] + 0.2


def test_als_places_items_without_events_by_their_text_too(engine: sa.Engine, data: Path) -> None:
    params = msgspec.structs.replace(
        PARAMS,
        train=TrainParams(min_held_out=10_000, models=("ials",)),
        served="ials",
        implicit_als=ImplicitALSParams(factors=4, threads=1),
    )
    ingest.store_items(engine, [about(CATS, 24, "new-cat"), about(CARS, 24, "new-car")], NOW)
    learned(engine, data, params)
    for kind in ("full", "incremental", "items"):
        for user, order in (("u0", 1), ("u1", -1)):
            cat, car = scores(engine, data, user, "new-cat-24", "new-car-24", model="ials")
            assert order * (cat - car) > 0.02, kind
        with writing(engine) as connection:
            events.append(connection, [Event(user="u9", item="car-3", type="save")], NOW)
        run_cycle(engine, data, params, NOW, kind="items" if kind == "items" else "incremental")


def test_an_item_whose_text_says_nothing_is_nobodys_favourite(engine: sa.Engine, data: Path) -> None:
    learned(engine, data)
    ingest.store_items(engine, [Item(id="picture", published=NOW), about(CATS, 23, "new-cat")], NOW)
    picture, cat = scores(engine, data, "u0", "picture", "new-cat-23")
    assert cat > picture
    assert abs(picture - scores(engine, data, "u1", "picture")[0]) < 0.15
