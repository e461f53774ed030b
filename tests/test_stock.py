from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.candidates import openness, wanted
from palate.candidates.wanted import Wanted
from palate.domain import to_milliseconds
from palate.live import History, Person
from palate.pool import _COLUMNS as COLUMNS
from palate.pool import Pool, empty_pool, take, with_changes
from palate.rules import Viewer
from palate.stock import Stock, changed, stock
from palate.surface_params import SurfaceParams

NOW = datetime(2024, 11, 22, 12, 0, 30, tzinfo=UTC)


class Row:
    """A row of the catalog."""

    def __init__(self, key: int, rng: np.random.Generator, state: str = "live") -> None:
        self.key, self.state, self.kind, self.leads = key, state, ("post", "video")[key % 2], None
        self.source = int(rng.integers(5)) or None
        self.published = None if key % 11 == 0 else to_milliseconds(NOW - timedelta(hours=float(rng.integers(-3, 80))))
        self.received = to_milliseconds(NOW)
        self.language = (None, "en", "ru")[int(rng.integers(3))]
        self.labels = [f"l{n}" for n in rng.integers(4, size=2)] + (["age:18"] if key % 7 == 0 else [])
        self.category = (None, "sports", "science")[int(rng.integers(3))]
        self.story = int(rng.integers(1, 9)) if key % 3 == 0 else None


def both(changes: list[tuple[int, bool]], seed: int) -> tuple[Stock, Pool]:
    """40 items and then these changes, kept beside one another and all in one pool."""
    rng = np.random.default_rng(seed)
    pool = with_changes(empty_pool(), [Row(key, rng) for key in range(1, 41)], None)
    kept, whole = stock(pool), pool
    for key, live in changes:
        row = [Row(key, rng, "live" if live else "deleted")]
        kept = changed(kept, row, None, lambda _: None, split=1)
        whole = with_changes(whole, row, None)
    return kept, whole


CHANGES = st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=12)


@settings(max_examples=40, deadline=None)
@given(CHANGES, st.integers(0, 5))
def test_what_is_kept_beside_the_others_is_as_good_as_among_them(changes: list[tuple[int, bool]], seed: int) -> None:
    kept, whole = both(changes, seed)
    assert len(kept) == len(whole)
    for name in ("keys", "published", "source", "language", "story", "rule", "labels", "label_offsets"):
        assert np.array_equal(getattr(kept.whole, name), getattr(whole, name))
    wanted_keys = np.arange(0, 62)
    rows = kept.rows(wanted_keys)
    assert np.array_equal(rows >= 0, whole.rows(wanted_keys) >= 0)
    assert np.array_equal(kept.keys(rows[rows >= 0]), wanted_keys[rows >= 0])
    assert np.array_equal(kept.take(rows[rows >= 0]).source, whole.source)
    told = np.arange(1, 9)
    assert np.array_equal(np.sort(kept.keys(kept.of_stories(told))), whole.keys[np.isin(whole.story, told)])


@settings(max_examples=60, deadline=None)
@given(CHANGES, st.integers(0, 5), st.data())
def test_bits_say_what_the_filters_do(changes: list[tuple[int, bool]], seed: int, data: Any) -> None:
    kept, whole = both(changes, seed)
    keys = st.lists(st.integers(1, 60), max_size=6, unique=True).map(lambda keys: np.array(keys, np.int64))
    met = data.draw(keys)
    labels = np.where(met % 3 == 0, 0.0, np.nan).astype(np.float32)
    person = Person(
        history=History(met, labels, np.zeros(len(met), np.float32)),
        hidden=data.draw(st.sampled_from([(), (1,), (2, 3)])),
        languages=data.draw(st.sampled_from([(), ("en",)])),
        viewer=data.draw(st.sampled_from([Viewer(), Viewer(age=12)])),
    )
    asked = Wanted(
        person,
        NOW,
        timedelta(hours=data.draw(st.sampled_from([10, 60]))),
        surface=data.draw(st.sampled_from([wanted.ANYWHERE, SurfaceParams(kinds=("video",), labels=("l1", "l2"))])),
        language=data.draw(st.sampled_from([None, "ru"])),
        category=data.draw(st.sampled_from([None, "sports"])),
        labels=data.draw(st.sampled_from([(), ("l0",)])),
        given=data.draw(keys),
        excluded=data.draw(keys),
        among=data.draw(st.one_of(st.none(), keys)),
    )
    for unseen in (True, False):
        mask = wanted.allowed(whole, asked)
        if unseen:
            mask = wanted.unseen(whole, mask, person)
        found = openness.find(kept, asked, unseen=unseen)
        rows = found.rows(len(kept.base))
        assert found.count() == len(rows)
        pool = kept.take(rows)
        open_keys = pool.keys[wanted.allowed(pool, asked)]  # the bits may be a minute wider
        assert np.array_equal(open_keys, whole.keys[mask])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.sets(st.sampled_from(sorted(COLUMNS))), st.data())
def test_a_few_of_many_items_are_the_same_by_pieces_and_by_columns(seed: int, before: set[str], data: Any) -> None:
    plain, in_pieces = (both([], seed)[1] for _ in range(2))
    in_pieces.pieces  # noqa: B018 - kept once it is asked for
    rows = np.array(data.draw(st.lists(st.integers(0, 39), unique=True, max_size=30)), np.int64)
    few = np.sort(rows)[:: data.draw(st.sampled_from((1, 2)))]
    found, inside = take(plain, np.sort(rows)), take(in_pieces, np.sort(rows))
    for name in before:
        assert np.array_equal(getattr(inside, name), getattr(found, name))
    again = np.searchsorted(np.sort(rows), few)
    for name in COLUMNS:
        assert np.array_equal(getattr(take(inside, again), name), getattr(take(plain, few), name))


def test_many_changes_are_joined_to_the_others() -> None:
    kept, _ = both([(key, True) for key in range(1, 31)], 1)
    assert len(kept.gone) == 30
    rng = np.random.default_rng(2)
    rows = [Row(key, rng) for key in range(100, 4_100)]
    joined = changed(kept, rows, None, lambda _: None, split=1)
    assert not len(joined.gone)
    assert not len(joined.side)
    assert len(joined) == 4_040
