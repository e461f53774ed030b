"""What the catalog and the clock know beside who met what, from events to a feed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import sqlalchemy as sa

from palate import events, feed, ingest, lessons, snapshots
from palate.cycle import run_cycle
from palate.database import writing
from palate.domain import Event, Item, to_milliseconds
from palate.examples import Params, TrainParams
from palate.feed_params import FeedParams
from palate.live import Live
from palate.models.factorization_machine import FactorizationMachineParams
from palate.models.fields import Name
from palate.ranking.taste import TasteParams

NOW = datetime(2026, 3, 2, 21, tzinfo=UTC)
MORNING = NOW + timedelta(hours=11)
AUTHORS = ("Ann", "Bob")


def params(*fields: Name) -> Params:
    machine = FactorizationMachineParams(fields=fields, epochs=60)
    return Params(train=TrainParams(min_held_out=10_000), factorization_machine=machine)


def add_items(engine: sa.Engine, count: int = 20) -> None:
    """Ann's and Bob's, without a word."""
    rows = [
        Item(id=f"{author}-{number}", author=author, labels=("a label",), published=NOW)
        for number in range(count)
        for author in AUTHORS
    ]
    ingest.store_items(engine, rows, NOW)


def vote(engine: sa.Engine, user: str, kind: str, *items: str, time: datetime = NOW) -> None:
    made = [Event(user=user, item=item, type=kind, time=to_milliseconds(time)) for item in items]
    with writing(engine) as connection:
        events.append(connection, made, max(time, NOW))


def learned(engine: sa.Engine, data: Path, *fields: Name) -> None:
    """40 people of whom half like what Ann writes, and half what Bob does."""
    add_items(engine)
    rng = np.random.default_rng(1)
    for person in range(40):
        for place, author in enumerate(AUTHORS):
            kind = "like" if person % 2 == place else "dislike"
            vote(engine, f"u{person}", kind, *(f"{author}-{number}" for number in rng.permutation(20)[:6]))
    run_cycle(engine, data, params(*fields), NOW)


def scores(engine: sa.Engine, data: Path, user: str, *items: str, now: datetime = NOW) -> list[float]:
    live = Live(engine, data)
    live.refresh(now)
    plain = FeedParams(taste=TasteParams(l2_source=1e6, l2_label=1e6, l2_bias=1e6, l2_vector=1e6))
    found = dict(feed.rank(live, user, list(items), now, plain)[0])
    return [found[item] for item in items]


def test_a_new_item_is_known_by_its_author(engine: sa.Engine, data: Path) -> None:
    learned(engine, data, "author", "label")
    new = [Item(id=f"{author}-new", author=author, published=NOW) for author in AUTHORS]
    ingest.store_items(engine, new, NOW + timedelta(minutes=1))
    for user, own in (("u0", 0), ("u1", 1)):
        both = scores(engine, data, user, *(item.id for item in new))
        assert both[own] > both[1 - own] + 0.1


def test_what_no_field_knows_stands_at_the_prior(engine: sa.Engine, data: Path) -> None:
    learned(engine, data, "author", "source", "label")
    new = [
        Item(id="plain", published=NOW),
        Item(id="odd", author="Cid", source="elsewhere", labels=("never seen",), published=NOW),
    ]
    ingest.store_items(engine, new, NOW + timedelta(minutes=1))
    plain, odd, own, other = scores(engine, data, "u0", "plain", "odd", "Ann-0", "Bob-0")
    assert abs(plain - odd) < 1e-3
    assert other < plain < own


def test_fields_are_kept_with_the_model_and_learned_further(engine: sa.Engine, data: Path) -> None:
    learned(engine, data, "author")
    snapshot = snapshots.load_newest_good(data / "snapshots")
    assert snapshot is not None
    header = snapshot.header["models"]["fm"]
    assert header["fields"] == [{"name": "author", "side": "item", "labels": 2}]
    ingest.store_items(engine, [Item(id=f"Cid-{n}", author="Cid", published=NOW) for n in range(8)], NOW)
    for person in range(20):
        vote(engine, f"u{person}", "like", *(f"Cid-{n}" for n in range(6)))
    cycle = run_cycle(engine, data, params("author"), NOW, kind="incremental")
    assert not cycle.full
    newer = snapshots.load_newest_good(data / "snapshots")
    assert newer is not None
    assert newer.header["models"]["fm"]["fields"][0]["labels"] == 3
    assert len(newer.arrays["field_labels"]) == 3
    assert np.asarray(newer.arrays["field_examples"]).min() > 0


def test_a_field_that_is_no_longer_wanted_makes_the_model_anew(engine: sa.Engine, data: Path) -> None:
    learned(engine, data, "author")
    snapshot = snapshots.load_newest_good(data / "snapshots")
    assert snapshot is not None
    header = snapshot.header["models"]["fm"]
    assert lessons.goes_on("fm", header, params("author", "source"))
    assert not lessons.goes_on("fm", header, params("source"))
    assert lessons.goes_on("fm", {name: header[name] for name in ("loss", "factors")}, params())


def test_the_hour_moves_what_is_served_and_is_no_reason(engine: sa.Engine, data: Path) -> None:
    """Everybody likes Ann's in the morning and Bob's in the evening."""
    add_items(engine)
    rng = np.random.default_rng(2)
    for person in range(40):
        time = (NOW, MORNING)[person % 2] - timedelta(days=1)
        for place, author in enumerate(AUTHORS):
            kind = "dislike" if person % 2 == place else "like"
            chosen = (f"{author}-{number}" for number in rng.permutation(20)[:12])
            vote(engine, f"u{person}", kind, *chosen, time=time)
    run_cycle(engine, data, msgspec.structs.replace(params("author", "hour")), NOW)
    items = ("Ann-3", "Bob-3")
    for user in ("u0", "nobody"):
        if user == "nobody":
            vote(engine, user, "like", "Ann-1", "Bob-1")  # no longer new
        ann, bob = scores(engine, data, user, *items, now=NOW)
        assert ann < bob
    at_noon = scores(engine, data, "nobody", *items, now=NOW + timedelta(hours=15))
    ann, bob = scores(engine, data, "nobody", *items, now=MORNING)
    assert ann > bob
    assert abs(at_noon[0] - at_noon[1]) < 0.1  # an hour that nobody has met
